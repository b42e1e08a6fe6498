//! Builds an environment with uv: `uv venv`, then `uv pip sync`, or `uv sync --frozen` for a project's lock.
//!
//! `uv pip sync` installs the given list and nothing it depends on, which is all there is to do for a compiled list. A
//! list that is not complete would give an environment that does not work where pip gives one that does, so it is
//! completed by `uv pip install` when `uv pip check` misses something. What uv links from its cache it never writes
//! through. A project is installed with its default groups except `dev`.

use super::interpreter::Interpreter;
use super::record::Record;
use super::{Kind, Order, PATIENCE, PythonError, Result, Sink, bytecode, lockfile, name_of, pip, say, seal};
use crate::directory::{Dir, PathError, kind};
use crate::layout::STATE;
use crate::removal;
use crate::tools::{Program, ToolError};
use crate::walk::{Visit, walk};
use nix::sys::stat::SFlag;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// The cache of a build from a wheelhouse, in the release's state directory.
const CACHE: &str = "uv-cache";

/// Where distributions keep the certificates the host trusts; where there are any, uv is told to use them instead of its
/// own list, which knows nothing of a company's proxy. Older versions of uv know the variable by its second name.
const TRUST: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Makes the environment and installs what `order` asks for. Nothing is compiled.
pub(super) fn install(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    drop_own_cache(order)?;
    distrust_cache(order, sink)?;
    packages(order, interpreter, at, sink)?;
    drop_own_cache(order)
}

fn packages(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let venv = uv(order).args(["venv", "--quiet", "--no-project", "--no-config", "--python"]);
    venv.args([interpreter.file.as_os_str(), at.as_os_str()]).run(sink)?;
    let plan = order.plan;
    match (plan.kind, &plan.wheelhouse) {
        (Kind::Requirements, _) => requirements(order, at, &plan.files, sink),
        (Kind::UvLock, None) => project(order, interpreter, at, sink),
        (Kind::UvLock, Some(_)) => exported(order, interpreter, at, sink),
        (Kind::Pylock, None) => sync(order, at, &plan.files, false, sink),
        (Kind::Pylock, Some(_)) => {
            let lock = &plan.files[0];
            let list = lockfile::as_requirements(order.release, lock)?;
            let list = list.map_err(|why| PythonError::NotInWheelhouse { path: lock.clone(), why })?;
            pip::with_list(order, &list, |file| sync(order, at, &[file], true, sink))
        }
    }
}

/// Installs requirements files, whether they are complete or not.
fn requirements(order: &Order<'_>, at: &Path, files: &[impl AsRef<Path>], sink: &mut Sink<'_>) -> Result<()> {
    sync(order, at, files, order.plan.hashed, sink)?;
    let check = in_environment(uv(order).args(["pip", "check", "--quiet"]), at);
    match check.run(sink) {
        Ok(()) => return Ok(()),
        Err(ToolError::Failed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let mut more = in_environment(uv(order).args(["pip", "install"]), at);
    for file in files {
        more = more.args(["--requirements".as_ref(), file.as_ref().as_os_str()]);
    }
    limited(order, more, order.plan.hashed).run(sink)?;
    Ok(())
}

/// Installs exactly what the files list.
fn sync(order: &Order<'_>, at: &Path, files: &[impl AsRef<Path>], hashed: bool, sink: &mut Sink<'_>) -> Result<()> {
    let sync = in_environment(uv(order).args(["pip", "sync", "--allow-empty-requirements"]), at);
    let sync = sync.args(files.iter().map(|file| file.as_ref().as_os_str()));
    limited(order, sync, hashed).run(sink)?;
    Ok(())
}

/// Installs a uv project by its lock.
fn project(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let sync = of_project(order, uv(order).args(["sync", "--frozen", "--no-dev"]), interpreter);
    sync.env("UV_PROJECT_ENVIRONMENT", at).run(sink)?;
    Ok(())
}

/// Installs a uv project from a wheelhouse. `uv sync` would insist on the addresses in the lock, so the lock is written
/// out as requirements with hashes first.
fn exported(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let export = uv(order).args(["export", "--quiet", "--frozen", "--no-dev", "--offline", "--no-header"]);
    let export = export.args(["--no-annotate", "--format", "requirements.txt"]);
    let list = of_project(order, export, interpreter).capture()?;
    let list = String::from_utf8_lossy(&list).into_owned();
    // Hashes that are there are verified; to require them would refuse the project itself and locks of local indexes.
    pip::with_list(order, &list, |file| sync(order, at, &[file], false, sink))
}

/// uv, run in the release, with its cache in the tree and no Python but the system's. uv keeps the wheels of a directory
/// by that directory's path, so that those of a release's wheelhouse would never be of use again and pile up: they get a
/// cache of their own, which goes when they are installed.
fn uv(order: &Order<'_>) -> Program {
    let program = order.tools.program("uv").dir(order.release.path()).limit(PATIENCE);
    let cache = match order.plan.wheelhouse {
        None => order.cache.join("uv"),
        Some(_) => order.release.path().join(STATE).join(CACHE),
    };
    let program = if TRUST.iter().any(|store| Path::new(store).exists()) {
        program.env("UV_SYSTEM_CERTS", "1").env("UV_NATIVE_TLS", "1")
    } else {
        program
    };
    program
        .env("UV_CACHE_DIR", cache)
        .env("UV_PYTHON_DOWNLOADS", "never")
        .env("UV_LINK_MODE", "hardlink")
        .env("UV_NO_PROGRESS", "1")
}

/// Empties the cache if a file that it shares with an earlier environment was written to: whoever edits one in place edits
/// the cache's, and would find that again in every environment that is built from there.
fn distrust_cache(order: &Order<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if order.plan.wheelhouse.is_some() {
        // It has a cache of its own.
        return Ok(());
    }
    let distrusted = |release: &&Dir| match was_written(release) {
        // What is gone shares nothing; what cannot be looked through is not trusted.
        Err(PythonError::Path(error)) if error.cause.kind() == io::ErrorKind::NotFound => false,
        written => written.unwrap_or(true),
    };
    let written = order.previous.iter().find(distrusted);
    let Some(release) = written else { return Ok(()) };
    let why = "has been changed, or cannot be looked through";
    say(sink, &format!("uv's cache is emptied: what {} shares with it {why}\n", name_of(release)))?;
    Ok(uv(order).args(["cache", "clean", "--quiet"]).run(sink)?)
}

/// Whether a file of the release's environment that has other names too was written to after it was made. Bytecode is
/// left out: uv's cache has none.
fn was_written(release: &Dir) -> Result<bool> {
    let Some((record, made)) = Record::read(release)?.zip(Record::written_at(release)?) else { return Ok(false) };
    let environment = release.open_below(&record.environment.directory)?;
    let visited = walk(|path, above| {
        let dir = seal::open(&environment, path, above)?;
        let (mut below, mut written) = (Vec::new(), false);
        for name in dir.names()? {
            let Some(of) = dir.stat(&name)? else { continue };
            match kind(&of) {
                SFlag::S_IFDIR if name != bytecode::CACHE => below.push(name),
                SFlag::S_IFREG => written |= of.st_nlink > 1 && (of.st_mtime, of.st_mtime_nsec) > made,
                _ => {}
            }
        }
        Ok::<_, PathError>(Visit { handle: dir, below, found: written })
    })?;
    Ok(visited.into_iter().any(|(_, written)| written))
}

/// Removes the cache of a build from a wheelhouse; an interrupted one may have left it.
fn drop_own_cache(order: &Order<'_>) -> Result<()> {
    let state = order.release.ensure_dir(STATE, 0o700)?;
    Ok(removal::delete_any(&state, CACHE.as_ref(), &|_| {}).whole()?)
}

fn in_environment(program: Program, at: &Path) -> Program {
    program.args(["--python".into(), at.join("bin/python").into_os_string()])
}

/// Adds what hashes and a wheelhouse demand: with one nothing else is looked at, not even the host's configuration.
fn limited(order: &Order<'_>, program: Program, hashed: bool) -> Program {
    let hashes: &[&str] = if hashed { &["--require-hashes"] } else { &[] };
    let program = program.args(hashes);
    match &order.plan.wheelhouse {
        None => program,
        Some(house) => program
            .args(["--offline", "--no-index", "--no-config", "--find-links"])
            .args([order.release.path().join(house)]),
    }
}

/// Lets uv find the project beside its lock.
fn of_project(order: &Order<'_>, program: Program, interpreter: &Interpreter) -> Program {
    let above = order.plan.files[0].parent().unwrap_or(Path::new(""));
    let directory: OsString = order.release.path().join(above).into_os_string();
    let options: [OsString; 4] =
        ["--project".into(), directory, "--python".into(), interpreter.file.clone().into_os_string()];
    program.args(options)
}

//! Builds an environment with uv: `uv venv`, then `uv pip sync`, or `uv sync --frozen` for a project's lock.
//!
//! `uv pip sync` installs the given list and nothing it depends on, which is all there is to do for a compiled list. A
//! list that is not complete would give an environment that does not work where pip gives one that does, so it is
//! completed by `uv pip install` when `uv pip check` misses something. What uv links from its cache it never writes
//! through. A project is installed with its default groups except `dev`.

use super::interpreter::Interpreter;
use super::{Kind, Order, PATIENCE, PythonError, Result, Sink, lockfile, pip};
use crate::tools::{Program, ToolError};
use std::ffi::OsString;
use std::path::Path;

/// Makes the environment and installs what `order` asks for. Nothing is compiled.
pub(super) fn install(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
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
    let hashed = !list.lines().any(|line| line.starts_with("-e ") || line.starts_with('.'));
    pip::with_list(order, &list, |file| sync(order, at, &[file], hashed, sink))
}

/// uv, run in the release, with its cache in the tree and no Python but the system's.
fn uv(order: &Order<'_>) -> Program {
    let program = order.tools.program("uv").dir(order.release.path()).limit(PATIENCE);
    program
        .env("UV_CACHE_DIR", order.cache.join("uv"))
        .env("UV_PYTHON_DOWNLOADS", "never")
        .env("UV_LINK_MODE", "hardlink")
        .env("UV_NO_PROGRESS", "1")
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

//! Builds an environment with the standard library's venv and the pip it brings.
//!
//! What pip knows of locks: nothing of `uv.lock`; of `pylock.toml` as an experiment since 26.1. Such a lock is therefore
//! given to pip as requirements with hashes, which every pip understands and which mean the same.

use super::interpreter::Interpreter;
use super::{Kind, Order, PATIENCE, PythonError, Result, Sink, lockfile};
use crate::directory::PathError;
use crate::layout::STATE;
use crate::tools::{Program, ToolError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A list of requirements that was made here, in the release's state directory.
const LIST: &str = "python-requirements.txt";

/// Makes the environment and installs what `order` asks for. Nothing but pip itself is compiled.
pub(super) fn install(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let lock = &order.plan.files[0];
    let needs_uv = |why: String| PythonError::NeedsUv { path: lock.clone(), why };
    match order.plan.kind {
        Kind::UvLock => Err(needs_uv("only uv reads this format".to_owned())),
        Kind::Pylock => {
            let list = lockfile::as_requirements(order.release, lock)?.map_err(needs_uv)?;
            make(order, interpreter, at, sink)?;
            with_list(order, &list, |file| {
                let pip = pip(order, at).args(["--no-deps", "--require-hashes"]);
                Ok(pip.args(["--requirement".as_ref(), file.as_os_str()]).run(sink)?)
            })
        }
        Kind::Requirements => {
            make(order, interpreter, at, sink)?;
            let hashes: &[&str] = if order.plan.hashed { &["--require-hashes"] } else { &[] };
            let files = order.plan.files.iter();
            let pip = files
                .fold(pip(order, at).args(hashes), |pip, file| pip.args(["--requirement".as_ref(), file.as_os_str()]));
            Ok(pip.run(sink)?)
        }
    }
}

/// Lets `use_it` have `list` as a file, which is removed again.
pub(super) fn with_list(order: &Order<'_>, list: &str, use_it: impl FnOnce(PathBuf) -> Result<()>) -> Result<()> {
    let state = order.release.ensure_dir(STATE, 0o700)?;
    state.unlink(LIST)?;
    let path = state.path().join(LIST);
    let mut file = state.create_file(LIST, 0o600)?;
    let written = file.write_all(list.as_bytes()).map_err(|cause| PathError::new("write", &path, cause));
    let used = written.map_err(PythonError::from).and_then(|()| use_it(path));
    state.unlink(LIST)?;
    used
}

/// `python -m venv`. What ensurepip says when it fails venv keeps to itself: so ensurepip is asked once more.
fn make(order: &Order<'_>, interpreter: &Interpreter, at: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let run = |file: &Path| order.tools.program(file).args(["-I", "-m"]).limit(PATIENCE);
    // The distribution may have them in a package of its own, and Debian's venv says so.
    let lacks = |tail: &str| {
        tail.contains("No module named venv") || tail.contains("ensurepip is not") || tail.contains("named ensurepip")
    };
    let made = match run(&interpreter.file).args(["venv"]).args([at]).run(sink) {
        Err(ToolError::Failed { tail, .. }) if tail.contains("ensurepip") && !lacks(&tail) => {
            run(&at.join("bin/python")).args(["ensurepip", "--default-pip"]).run(sink)
        }
        other => other,
    };
    match made {
        Err(ToolError::Failed { tail, .. }) if lacks(&tail) => {
            Err(PythonError::NoVenv { interpreter: interpreter.file.clone(), version: interpreter.version.clone() })
        }
        other => Ok(other?),
    }
}

/// The environment's pip, about to install, run in the release, with its cache in the tree. The host's configuration counts,
/// but not where it has pip install elsewhere or nothing; with a wheelhouse nothing else is looked at, not even that.
fn pip(order: &Order<'_>, at: &Path) -> Program {
    let program = order.tools.program(at.join("bin/python")).dir(order.release.path()).limit(PATIENCE);
    let program = program
        .args([
            // The code is where it runs, and may have a secrets.py.
            "-I",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--no-compile",
            "--progress-bar=off",
            "--target=",
        ])
        .env("PIP_CACHE_DIR", order.cache.join("pip"))
        .env("PIP_USER", "0")
        .env("PIP_DRY_RUN", "0");
    match &order.plan.wheelhouse {
        None => program,
        Some(house) => program
            .env("PIP_CONFIG_FILE", "/dev/null")
            .args(["--no-index", "--find-links"])
            .args([order.release.path().join(house)]),
    }
}

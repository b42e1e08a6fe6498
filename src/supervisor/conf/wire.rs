//! The edits of supervisord's own files on disk: the include of a tree, or copies of a release's files. Each file is
//! replaced atomically and keeps its mode and owner; whoever reads it sees all of the old or all of the new.

use super::edit::{self, EditError, Wired};
use super::{ConfError, locate, read};
use crate::directory::{Dir, PathError};
use crate::lock::{Lease, Wait};
use nix::errno::Errno;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another environment's edit is waited for.
const MOMENT: Wait = Wait::For(Duration::from_secs(30));

/// How the configuration file `config` relates to the environment `owner` with its tree at `root`.
pub fn status(config: &Path, root: &Path, owner: &str) -> Result<Wired, ConfError> {
    let pattern = edit::pattern(root).map_err(at(config))?;
    edit::status(&read(config)?, &pattern, owner).map_err(at(config))
}

/// Includes the live release of `root` in `config`; whether that changed the file. Durable on return.
pub fn wire(config: &Path, root: &Path, owner: &str) -> Result<bool, ConfError> {
    let pattern = edit::pattern(root).map_err(at(config))?;
    rewrite(config, &|text| edit::wire(text, &pattern, owner))
}

/// Takes that back; whether that changed the file. Durable on return.
pub fn unwire(config: &Path, owner: &str) -> Result<bool, ConfError> {
    rewrite(config, &|text| edit::unwire(text, owner))
}

/// Environments share the file: one at a time, or the later would undo what the earlier wrote.
fn rewrite(config: &Path, edited: &dyn Fn(&str) -> Result<String, EditError>) -> Result<bool, ConfError> {
    let (dir, name) = locate(config)?;
    let held = || PathError::new("lock", dir.path(), std::io::Error::other("another process keeps it locked"));
    let _alone = Lease::wait_exclusive(&dir, MOMENT)?.ok_or_else(held)?;
    let old = read(config)?;
    let new = edited(&old).map_err(at(config))?;
    if new == old {
        // What an earlier edit that was cut off left is only untidy.
        let _ = dir.unstage(&name);
        return Ok(false);
    }
    // A rename needs no right to write the file itself: whoever made it read-only is asked first.
    let written = dir.open_or_create(&name, 0).and_then(|_| dir.rewrite_file(&name, new.as_bytes()));
    written.map(|()| true).map_err(|error| read_only(config, error))
}

/// Where the copies of an environment's files go: beside supervisord's configuration, into the directory the stock file
/// includes.
pub fn directory_of_copies(config: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("/")).join("conf.d")
}

/// The name of a copy. `@` is in no environment's name, so that one is never taken for another's.
pub fn name_of_copy(owner: &str, file: &str) -> String {
    format!("releasectl-{owner}@{file}")
}

/// The copies of `files` (name, text) of `owner`, each of their programs with `user` if one is given.
pub fn as_copies(
    owner: &str,
    user: Option<&str>,
    files: &[(String, String)],
) -> Result<Vec<(String, String)>, ConfError> {
    let copy = |(name, text): &(String, String)| {
        let broken = |cause| ConfError::Broken { file: name.clone(), cause };
        let text = user.map_or_else(|| Ok(text.clone()), |user| edit::set_user(text, user)).map_err(broken)?;
        Ok((name_of_copy(owner, name), text))
    };
    files.iter().map(copy).collect()
}

/// Makes `directory` hold exactly the copies of `files` and no other of `owner`; what other environments have there is
/// not touched. Whether anything changed. Durable on return; repeated after a crash it completes.
pub fn install(
    directory: &Path,
    owner: &str,
    user: Option<&str>,
    files: &[(String, String)],
) -> Result<bool, ConfError> {
    super::declared(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
    let dir = Dir::open(directory).map_err(|error| match error.is(Errno::ENOENT) {
        true => ConfError::Missing { path: directory.to_owned() },
        false => read_only(directory, error),
    })?;
    let mut changed = false;
    let wanted = as_copies(owner, user, files)?;
    for (copy, text) in &wanted {
        if dir.read_file(copy, super::LONGEST)?.as_deref() != Some(text.as_bytes()) {
            dir.put_file(copy, text.as_bytes(), 0o644).map_err(|error| read_only(directory, error))?;
            changed = true;
        }
    }
    let own = name_of_copy(owner, "");
    for name in dir.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
        let cut_off = name.strip_prefix('.').is_some_and(|name| name.starts_with(&own) && name.ends_with(".tmp"));
        if cut_off {
            dir.unlink(&name).map_err(|error| read_only(directory, error))?;
        } else if name.starts_with(&own) && !wanted.iter().any(|(copy, _)| *copy == name) {
            changed |= dir.unlink(&name).map_err(|error| read_only(directory, error))?;
        }
    }
    dir.sync()?;
    Ok(changed)
}

fn at(config: &Path) -> impl Fn(EditError) -> ConfError {
    let file = config.display().to_string();
    move |error| match error {
        EditError::Broken(cause) => ConfError::Broken { file: file.clone(), cause },
        EditError::Unsafe(message) => ConfError::Unusable { file: file.clone(), message },
    }
}

fn read_only(path: &Path, error: PathError) -> ConfError {
    let refusals = [Errno::EROFS, Errno::EACCES, Errno::EPERM];
    if refusals.into_iter().any(|errno| error.is(errno)) {
        return ConfError::ReadOnly { path: path.to_owned(), cause: error.cause };
    }
    error.into()
}

//! What a release shares with others: links to `shared/`, and what is carried over from the live release.

use crate::directory::{Dir, PathError, kind};
use crate::layout::SHARED;
use crate::recipe::SharedTable;
use crate::removal;
use crate::transfer::copy_entry;
use nix::sys::stat::SFlag;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What is not in the live release, or behind something that is no directory of it, is not carried.
const NOTHING_THERE: [ErrorKind; 2] = [ErrorKind::NotFound, ErrorKind::NotADirectory];
/// What something may be in the way of.
const LINK: &str = "the link to shared/";
const COPY: &str = "what is carried over from the live release";

/// Why something could not be shared.
#[derive(Debug, thiserror::Error)]
pub enum SharingError {
    /// A file that releases share is not there.
    #[error("{} is required by [shared] files and is not there", .0.display())]
    Missing(PathBuf),
    /// Something else is in the place of what is to be made, or on the way there.
    #[error("{} is in the way of {of}", path.display())]
    InTheWay {
        /// It.
        path: PathBuf,
        /// What is to be made.
        of: &'static str,
    },
    /// The system refused.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Links every shared directory and file of `table` into `release`. Directories are made in `shared/` where they are
/// absent; files are required. An empty directory that the code brings gives way; anything else is an error. Done twice
/// it changes nothing. Returns the links' paths in the release.
pub fn link<'t>(table: &'t SharedTable, root: &Dir, release: &Dir) -> Result<Vec<&'t Path>, SharingError> {
    if table.dirs.is_empty() && table.files.is_empty() {
        return Ok(Vec::new());
    }
    // Whose tree it is may have put any part of it elsewhere, behind a link.
    let place = root.path().join(SHARED);
    for path in &table.dirs {
        if !place.join(path).is_dir() {
            root.ensure_below(&Path::new(SHARED).join(path), 0o755)?;
        }
        link_one(path, release)?;
    }
    for path in &table.files {
        let file = place.join(path);
        match std::fs::metadata(&file) {
            Ok(_) => link_one(path, release)?,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Err(SharingError::Missing(file)),
            Err(cause) => return Err(PathError::new("look at", file, cause).into()),
        }
    }
    Ok(table.dirs.iter().chain(&table.files).map(PathBuf::as_path).collect())
}

/// What `table` names and is not in `shared/`, or leads nowhere.
pub fn missing<'t>(table: &'t SharedTable, root: &Dir) -> Vec<&'t Path> {
    let place = root.path().join(SHARED);
    let all = table.dirs.iter().chain(&table.files).map(PathBuf::as_path);
    all.filter(|path| !place.join(path).exists()).collect()
}

/// Makes `release/<path>` a relative link to `shared/<path>`.
fn link_one(path: &Path, release: &Dir) -> Result<(), SharingError> {
    let (above, name) = split(path);
    let parent = above_of(release, above, LINK)?;
    // Up to the release, out of it and of releases/, and down again.
    let mut target = OsString::from("../".repeat(above.components().count() + 2));
    target.push(SHARED);
    target.push("/");
    target.push(path);
    let in_the_way = |parent: &Dir| SharingError::InTheWay { path: parent.path().join(name), of: LINK };
    match parent.stat(name)? {
        Some(stat) if kind(&stat) == SFlag::S_IFLNK && parent.read_link(name)?.as_ref() == Some(&target) => {
            return Ok(());
        }
        Some(stat) if kind(&stat) == SFlag::S_IFDIR => {
            parent.remove_dir(name).map_err(|_| in_the_way(&parent))?;
        }
        Some(_) => return Err(in_the_way(&parent)),
        None => {}
    }
    Ok(parent.symlink(name, &target)?)
}

/// Copies every `carry` of `table` from `live` into `release`, unless the live release has none or it is one of those
/// that the code `brings`. Nothing is copied through a link, and links are copied as links. What an earlier attempt left
/// is replaced.
pub fn carry(
    table: &SharedTable,
    brings: &[PathBuf],
    live: &Dir,
    release: &Dir,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<(), SharingError> {
    for path in table.carry.iter().filter(|path| !brings.contains(path)) {
        let (above, name) = split(path);
        let from = match live.open_below(above) {
            Err(error) if NOTHING_THERE.contains(&error.cause.kind()) => continue,
            from => from?,
        };
        if from.stat(name)?.is_none() {
            continue;
        }
        let into = above_of(release, above, COPY)?;
        match into.stat(name)? {
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => {
                removal::delete(&into, name, &|_| {});
            }
            Some(_) => drop(into.unlink(name)?),
            None => {}
        }
        copy_entry(&from, name, &into, tell)?;
    }
    Ok(())
}

/// The directory `above` of the release, made where it is absent.
fn above_of(release: &Dir, above: &Path, of: &'static str) -> Result<Dir, SharingError> {
    release.ensure_below(above, 0o755).map_err(|error| match error.cause.kind() {
        ErrorKind::NotADirectory => SharingError::InTheWay { path: error.path, of },
        _ => error.into(),
    })
}

fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

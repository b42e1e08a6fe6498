//! The contents of a release against the commit they came from, as `git archive` gives it.

use super::git::Commit;
use super::mirror::Mirror;
use super::{Result, SourceError};
use crate::directory::{Dir, PathError};
use crate::stage::Stages;
use crate::tools::{ToolError, Tools};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl Commit {
    /// The files of this commit, submodules left out, whose contents in `release` are others. What is missing there is
    /// not named: the inventory knows it.
    pub fn compare(&self, release: &Dir, mirrors: &Dir, tools: &Tools, stages: &dyn Stages) -> Result<Vec<String>> {
        let mirror = Mirror::open(mirrors, &self.location, tools, stages)?;
        let mut archive = mirror.archive(&self.hash).stream()?;
        let compared = compare_all(&mut archive.output, release);
        let read = match &compared {
            Ok(_) => io::copy(&mut archive.output, &mut io::sink()).map(drop),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        match archive.finish(read) {
            Ok(()) | Err(ToolError::Output { .. }) => Ok(compared?),
            Err(error) => Err(error.into()),
        }
    }
}

fn compare_all(from: &mut dyn Read, release: &Dir) -> Result<Vec<String>, SourceError> {
    let unreadable = |cause| PathError::new("read the archive for", release.path(), cause);
    let mut changed = Vec::new();
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        if entry.header().entry_type() == tar::EntryType::Regular && !is_same(&mut entry, release, &path)? {
            changed.push(path.display().to_string());
        }
    }
    Ok(changed)
}

/// Whether the file at `path` holds what `wanted` gives. One that is not there, or no file, is left to the inventory.
fn is_same(wanted: &mut dyn Read, release: &Dir, path: &Path) -> Result<bool, PathError> {
    let parent = release.open_below(path.parent().unwrap_or(Path::new("")));
    let opened = parent.and_then(|dir| dir.open_file(path.file_name().unwrap_or_default()));
    let Ok(Some(mut file)) = opened else { return Ok(true) };
    let (mut ours, mut theirs) = ([0; 8192], [0; 8192]);
    let fail = |cause| PathError::new("read", release.path().join(path), cause);
    loop {
        let read = wanted.read(&mut theirs).map_err(fail)?;
        if read == 0 {
            return Ok(file.read(&mut ours).map_err(fail)? == 0);
        }
        if file.read_exact(&mut ours[..read]).is_err() || ours[..read] != theirs[..read] {
            return Ok(false);
        }
    }
}

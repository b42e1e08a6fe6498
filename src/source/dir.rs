//! A directory as a source.

use super::{Result, Site, SourceError, refuse_own};
use crate::directory::{Dir, Identity};
use crate::layout::STATE;
use crate::transfer::copy_tree;
use std::path::Path;

/// Opens the directory `path`, which must be none of `ours`.
pub fn open_dir(path: &Path, ours: &[Identity]) -> Result<Dir> {
    let from = Dir::open(path)?;
    if ours.contains(&from.identity()?) {
        let location = path.display().to_string();
        return Err(SourceError::Refused { location, why: "it is the release tree itself" });
    }
    Ok(from)
}

/// Copies the directory `path` into the release. A tree of ours that lies in it, and another release's records, are left
/// out.
pub(super) fn copy(path: &Path, site: &Site<'_>) -> Result<()> {
    let mut leave_out = vec![site.tree, site.release.identity()?];
    let from = open_dir(path, &leave_out)?;
    leave_out.extend(from.stat(STATE)?.as_ref().map(Identity::from));
    from.names()?.iter().filter(|name| *name != STATE).try_for_each(|name| refuse_own(name))?;
    let tell = |done| site.stages.advance(done);
    Ok(site.stages.during("copy", || copy_tree(&from, site.release, &leave_out, &tell))?)
}

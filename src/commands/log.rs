//! `log`: what a build printed.

use super::{Context, Outcome, Target};
use crate::directory::{Dir, PathError};
use crate::error::{Error, Result};
use crate::layout::{BUILD_LOG, STATE};
use crate::release::ReleaseId;
use serde::Serialize;
use std::io::{Read, Seek, SeekFrom};

/// The most of a log that is shown; the end of it.
const MOST: u64 = 64 << 20;

/// A build's log.
#[derive(Debug, Serialize)]
pub struct Log {
    /// Whose it is.
    pub release: ReleaseId,
    /// What it says.
    pub log: String,
}

/// Reads the log of `target`, or of the newest release, finished or not.
pub fn run(context: &Context, target: Option<&Target>) -> Result<Outcome> {
    let tree = context.tree()?;
    let id = match target {
        Some(target) => target.resolve(&tree)?,
        None => {
            let entries = tree.entries()?;
            let newest = entries.iter().rev().find_map(|entry| entry.id());
            newest
                .cloned()
                .ok_or_else(|| Error::refused("there is no release").hint("`releasectl create` builds one"))?
        }
    };
    let release = tree.open_release(&id)?;
    // What another tool has made has no log of ours.
    let state = release.stat(STATE)?.map(|_| release.open_dir(STATE)).transpose()?;
    let bytes = state.as_ref().map_or(Ok(Vec::new()), end_of)?;
    if state.is_none() {
        context.stages.warn(&format!("release {id} was not built by releasectl, and has no log"));
    }
    Ok(Outcome::Log(Log { release: id, log: String::from_utf8_lossy(&bytes).into_owned() }))
}

/// The end of the log in `state`; nothing if there is none.
fn end_of(state: &Dir) -> Result<Vec<u8>, PathError> {
    let Some((mut file, stat)) = state.open_seen(BUILD_LOG)? else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let read =
        file.seek(SeekFrom::Start(size.saturating_sub(MOST))).and_then(|_| file.take(MOST).read_to_end(&mut bytes));
    read.map_err(|cause| PathError::new("read", state.path().join(BUILD_LOG), cause))?;
    Ok(bytes)
}

//! `log`: what a build printed.

use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::layout::{BUILD_LOG, STATE};
use crate::release::ReleaseId;
use serde::Serialize;

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
    let state = tree.open_release(&id)?.open_dir(STATE);
    let bytes = state.and_then(|state| state.read_file(BUILD_LOG, MOST)).unwrap_or_default().unwrap_or_default();
    Ok(Outcome::Log(Log { release: id, log: String::from_utf8_lossy(&bytes).into_owned() }))
}

//! `ps`: which processes run from which release.

use super::{Context, Outcome};
use crate::error::Result;
use crate::identity::as_root;
use crate::release::ReleaseId;
use crate::usage;
use serde::Serialize;

/// The processes, by release.
#[derive(Debug, Serialize)]
pub struct Processes {
    /// All of them.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Where it runs from.
    pub release: ReleaseId,
    /// Whether that release is live.
    pub current: bool,
    /// Its command line.
    pub command: String,
}

/// Looks at every process this user may see.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let live = tree.live()?;
    let used = as_root(|| usage::scan(&tree.layout().releases()));
    let mut processes = Vec::new();
    for (release, found) in used.iter() {
        let current = live.id() == Some(release);
        processes.extend(found.iter().map(|process| {
            let (pid, command) = (process.pid, process.command.clone());
            Process { pid, release: release.clone(), current, command }
        }));
    }
    Ok(Outcome::Ps(Processes { processes }))
}

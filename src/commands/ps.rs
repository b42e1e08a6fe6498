//! `ps`: which processes run from which release.

use super::programs::{configured, connect, ours};
use super::{Context, Outcome, in_use};
use crate::error::Result;
use crate::identity::as_root;
use crate::release::ReleaseId;
use crate::tree::Tree;
use crate::usage;
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// The supervisor program it belongs to, as `group:name`; it, or one of its parents, is that program's process.
    pub program: Option<String>,
    /// Its command line.
    pub command: String,
}

/// Looks at every process this user may see.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let live = tree.live()?;
    let used = in_use(&tree);
    let programs = programs(context, &tree);
    let mut processes = Vec::new();
    for (release, found) in used.iter() {
        let current = live.id() == Some(release);
        processes.extend(found.iter().map(|process| {
            let (pid, command) = (process.pid, process.command.clone());
            let program = usage::ancestors(pid).find_map(|pid| programs.get(&pid).cloned());
            Process { pid, release: release.clone(), current, program, command }
        }));
    }
    Ok(Outcome::Ps(Processes { processes }))
}

/// supervisord's processes by number, where they are known.
fn programs(context: &Context, tree: &Tree) -> BTreeMap<u32, String> {
    let Some(config) = configured(context) else { return BTreeMap::new() };
    let found = tree.standing().map(|standing| ours(context, tree, &standing)).map(|owned| {
        if owned.groups.is_empty() {
            return Ok(Vec::new());
        }
        connect(config).and_then(|supervisor| as_root(|| supervisor.owned(&owned)))
    });
    match found {
        Ok(Ok(processes)) => {
            let known = processes.iter().filter_map(|process| Some((process.pid?.cast_unsigned(), process.id())));
            known.collect()
        }
        Ok(Err(error)) => {
            context.stages.warn(&error.to_string());
            BTreeMap::new()
        }
        Err(_) => BTreeMap::new(),
    }
}

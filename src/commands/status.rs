//! `status`: what is live, what is under way, what room there is.

use super::programs::{configured, connect, ours};
use super::{Context, Outcome};
use crate::error::Result;
use crate::identity::as_root;
use crate::journal::Tail;
use crate::lock::{self, Holder};
use crate::release::ReleaseId;
use crate::standing::{self, Standing};
use crate::supervisor::rpc::methods::Process;
use crate::tree::Tree;
use serde::Serialize;

/// The state of the tree in short.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is live.
    pub current: Option<ReleaseId>,
    /// What a rollback would go to.
    pub previous: Option<ReleaseId>,
    /// Operations without an outcome, newest last.
    pub unfinished: Vec<Unfinished>,
    /// Who holds the tree lock.
    pub lock: Option<Holder>,
    /// This environment's supervisor programs.
    pub programs: Vec<Program>,
    /// Bytes free for us.
    pub free_bytes: u64,
    /// Inodes free for us.
    pub free_inodes: u64,
}

/// An operation that is under way, or was cut off and is settled by the next change.
#[derive(Debug, Serialize)]
pub struct Unfinished {
    /// What is done.
    pub operation: crate::operation::Operation,
    /// What it is about.
    pub to: Option<ReleaseId>,
    /// Who does it.
    pub by: String,
}

/// A supervisor program.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its state, in supervisor's words.
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Seconds since it was started.
    pub uptime: Option<u64>,
}

/// Looks around.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let tail = Tail::read(tree.state(), &standing::is_enough)?;
    let live = tree.live()?;
    let standing = Standing::new(&tail.records, live.id());
    let unfinished = standing::unfinished(&tail.records).into_iter().map(|(_, begin)| {
        let (to, by) = (begin.to.clone(), begin.by.clone());
        Unfinished { operation: begin.operation, to, by }
    });
    if let crate::tree::Live::Elsewhere(target) = &live {
        context.stages.warn(&format!("current leads to {}, which is no release here", target.display()));
    }
    let programs = programs(context, &tree, &standing);
    let space = tree.root().space()?;
    Ok(Outcome::Status(Status {
        previous: tree.rollback_target(&standing),
        unfinished: unfinished.collect(),
        lock: lock::tree_lock_holder(tree.state()),
        programs,
        free_bytes: space.blocks_available() * space.fragment_size(),
        free_inodes: space.files_available(),
        current: standing.live,
    }))
}

/// This environment's programs. That supervisord does not answer is told; the rest is worth knowing all the same.
fn programs(context: &Context, tree: &Tree, standing: &Standing) -> Vec<Program> {
    let Some(config) = configured(context) else { return Vec::new() };
    let owned = ours(context, tree, standing);
    if owned.groups.is_empty() {
        return Vec::new();
    }
    let at_work = lock::tree_lock_holder(tree.state()).is_some();
    if let (Some(_), Some(live), false) = (standing.owed.since, &standing.live, at_work) {
        let hint = "`releasectl restart` brings them over";
        context.stages.warn(&format!("not all programs are known to run from {live}: {hint}"));
    }
    match connect(config).and_then(|supervisor| as_root(|| supervisor.owned(&owned))) {
        Ok(processes) => processes.into_iter().map(Program::from).collect(),
        Err(error) => {
            context.stages.warn(&error.to_string());
            Vec::new()
        }
    }
}

impl From<Process> for Program {
    fn from(process: Process) -> Self {
        let pid = process.pid.and_then(|pid| u32::try_from(pid).ok());
        let uptime = process.uptime.and_then(|seconds| u64::try_from(seconds).ok());
        let (name, group, state) = (process.name, process.group, process.state.name().to_owned());
        Self { name, group, state, pid, uptime }
    }
}

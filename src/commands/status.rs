//! `status`: what is live, what is under way, what room there is.

use super::{Context, Outcome};
use crate::error::Result;
use crate::journal::Tail;
use crate::lock::{self, Holder};
use crate::release::ReleaseId;
use crate::standing::{self, Standing};
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
    let space = tree.root().space()?;
    Ok(Outcome::Status(Status {
        previous: tree.rollback_target(&standing),
        unfinished: unfinished.collect(),
        lock: lock::tree_lock_holder(tree.state()),
        programs: Vec::new(),
        free_bytes: space.blocks_available() * space.fragment_size(),
        free_inodes: space.files_available(),
        current: standing.live,
    }))
}

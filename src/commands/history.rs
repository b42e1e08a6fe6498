//! `history`: what was done to the tree, by whom, and how it ended.

use super::{Context, Outcome};
use crate::error::{Error, Kind, Result};
use crate::journal::Tail;
use crate::operation::{Entries, Entry};
use serde::Serialize;

/// Operations, oldest first.
#[derive(Debug, Serialize)]
pub struct History {
    /// The newest of them.
    pub entries: Vec<Entry>,
}

/// Shows the last `count` operations.
pub fn run(context: &Context, count: usize) -> Result<Outcome> {
    let tree = context.tree()?;
    let tail = Tail::gather(tree.state(), &|entries: &Entries| entries.count() >= count)?;
    if tail.damaged {
        let message = format!("the journal {} is damaged", tree.layout().journal().display());
        let hint =
            "the next command that changes the tree sets it aside and keeps its good lines; `releasectl init` does";
        return Err(Error::new(Kind::Damaged, message).hint(hint));
    }
    if tail.torn > 0 {
        context.stages.warn("the last line of the journal is cut short; the next change drops it");
    }
    if !tail.exists {
        context.stages.warn("there is no journal yet");
    }
    Ok(Outcome::History(History { entries: tail.records.newest(count) }))
}

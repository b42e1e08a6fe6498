//! `history`: what was done to the tree, by whom, and how it ended.

use super::{Context, Outcome};
use crate::error::{Error, Kind, Result};
use crate::journal::Tail;
use crate::operation::{Entry, Event, entries};
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
    let begins = |records: &[crate::operation::Record]| {
        records.iter().filter(|record| matches!(record.event, Event::Begin(_))).count()
    };
    let tail = Tail::read(tree.state(), &|records| begins(records) >= count)?;
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
    let all = entries(tail.records);
    let first = all.len().saturating_sub(count);
    Ok(Outcome::History(History { entries: all.into_iter().skip(first).collect() }))
}

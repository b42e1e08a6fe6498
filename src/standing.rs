//! What is live and what was before it: the journal's flips folded with what `current` says, which decides.

use crate::operation::{Begin, Chain, Event, Operation, Outcome, Record};
use crate::release::ReleaseId;
use std::collections::HashMap;

/// What is live and what was before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The release that `current` leads to.
    pub live: Option<ReleaseId>,
    /// The live release and those before it, with what is live taken into account.
    pub chain: Chain,
    /// What the journal believes to be live; another release there means that somebody else moved the link.
    pub believed: Option<ReleaseId>,
    /// The last flip, if it has no outcome yet.
    pub unsettled: Option<Unsettled>,
}

/// A flip whose outcome is not recorded. It was made if its release is live.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsettled {
    /// The number of its begin.
    pub seq: u64,
    /// Its intent.
    pub begin: Begin,
    /// Whether it was made.
    pub made: bool,
}

impl Standing {
    /// Folds `records`, in the journal's order, with the release that is `live` now.
    pub fn new(records: &[Record], live: Option<&ReleaseId>) -> Self {
        let outcomes = outcomes(records);
        let mut standing = Self { live: live.cloned(), ..Self::default() };
        for (seq, begin) in flips(records) {
            let outcome = outcomes.get(&seq).copied();
            let made = outcome.map_or_else(|| live == begin.to.as_ref(), |outcome| outcome == Outcome::Done);
            if made {
                standing.chain = begin.chain.clone().unwrap_or_default();
                standing.believed.clone_from(&begin.to);
            }
            standing.unsettled = outcome.is_none().then(|| Unsettled { seq, begin: begin.clone(), made });
        }
        if let (Some(live), true) = (live, live != standing.believed.as_ref()) {
            standing.chain = standing.chain.activated(live);
        }
        standing
    }

    /// Whether somebody else moved `current` since the last flip.
    pub fn was_moved(&self) -> bool {
        self.live != self.believed
    }

    /// The chain that a flip by `operation` to `to` leaves.
    pub fn chain_after(&self, operation: Operation, to: Option<&ReleaseId>) -> Chain {
        match (operation, to) {
            (Operation::Rollback, Some(to)) => self.chain.went_back(to),
            (_, Some(to)) => self.chain.activated(to),
            (_, None) => self.chain.clone(),
        }
    }
}

/// Whether `records`, the end of a journal, tell enough for [`Standing::new`]: they hold a flip that was made.
pub fn is_enough(records: &[Record]) -> bool {
    let outcomes = outcomes(records);
    flips(records).any(|(seq, _)| outcomes.get(&seq) == Some(&Outcome::Done))
}

/// The operations that have no outcome yet, oldest first.
pub fn unfinished(records: &[Record]) -> Vec<(u64, &Begin)> {
    let outcomes = outcomes(records);
    begins(records).filter(|(seq, _)| !outcomes.contains_key(seq)).collect()
}

fn begins(records: &[Record]) -> impl Iterator<Item = (u64, &Begin)> {
    records.iter().filter_map(|record| match &record.event {
        Event::Begin(begin) => Some((record.seq, begin)),
        _ => None,
    })
}

fn flips(records: &[Record]) -> impl Iterator<Item = (u64, &Begin)> {
    begins(records).filter(|(_, begin)| begin.operation.is_flip())
}

fn outcomes(records: &[Record]) -> HashMap<u64, Outcome> {
    let dones = records.iter().filter_map(|record| match &record.event {
        Event::Done(done) => Some((done.of, done.outcome)),
        _ => None,
    });
    dones.collect()
}

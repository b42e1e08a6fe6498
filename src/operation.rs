//! What the journal says: the records on its lines, and what follows from them without looking at the disk.

mod line;

pub use line::{Glance, Kind};

use crate::clock::Timestamp;
use crate::release::{ReleaseId, StepRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How many releases a rollback could go back through, one after the other.
const LONGEST_CHAIN: usize = 64;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "line::Line")]
pub struct Record {
    /// Counts up from line to line; the only order there is.
    pub seq: u64,
    /// When it was written; for people.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An operation is about to have its effect.
    Begin(Begin),
    /// One of its steps is over.
    Step(Step),
    /// It is over.
    Done(Done),
    /// What a flip came to: whether the programs came up from the release that it made live.
    Confirmed(Done),
    /// Programs were stopped or started beside a flip.
    Programs(Programs),
    /// What a later version wrote and this one does not know: it is passed over, and kept.
    Later,
}

/// What beside a flip makes programs owe or be owed something: what steps stopped comes up again with the next release.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Programs {
    /// About to be stopped by ourselves, as `group:name`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub owed: BTreeSet<String>,
    /// Groups that were taken out of the live release's files, and may run yet.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<String>,
    /// Started again, or stopped because an operator wants it; groups that are brought over.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub settled: BTreeSet<String>,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The sequence number of the operation's [`Begin`].
    pub of: u64,
    /// What it did.
    #[serde(flatten)]
    pub record: StepRecord,
}

/// The intent: durable before the effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Begin {
    /// What is to be done.
    pub operation: Operation,
    /// Who wants it.
    pub by: String,
    /// What was live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ReleaseId>,
    /// What is to be live, made or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<ReleaseId>,
    /// For a flip: the live release and those a rollback would go back to, in turn, once it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// What else it is about: the releases cleaned or taken over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<ReleaseId>,
    /// The command it is a part of, or why it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What made `to` bad before; if the flip is not made it is that again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<String>,
    /// For a flip: what it means for the programs.
    #[serde(skip_serializing_if = "Following::is_nothing")]
    pub programs: Following,
}

/// What follows a flip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Following {
    /// Nothing: there is nothing to come up.
    #[default]
    Nothing,
    /// The programs are brought over, those that were up before among them, and the health check is made. An
    /// [`Event::Confirmed`] says what came of it.
    Up(BTreeSet<String>),
    /// The programs stay as they are.
    Left,
}

impl Following {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl Begin {
    /// A beginning of which nothing more is known yet.
    pub fn of(operation: Operation, by: &str) -> Self {
        let (by, releases, programs) = (by.to_owned(), Vec::new(), Following::Nothing);
        Self { operation, by, from: None, to: None, chain: None, releases, cause: None, bad: None, programs }
    }

    /// Whether programs may run from another release than the live one once this flip is made, until they are confirmed.
    pub fn leaves_programs(&self) -> bool {
        let by_hand = matches!(self.operation, Operation::External | Operation::Deactivate);
        by_hand || !self.programs.is_nothing()
    }
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// The sequence number of its [`Begin`].
    pub of: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// What went wrong, or was noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What can be done to a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The tree was laid out or taken over.
    Init,
    /// A release is built.
    Create,
    /// A release is built, made live and cleaned up after.
    Deploy,
    /// A release goes live.
    Activate,
    /// The one before goes live again.
    Rollback,
    /// Nothing is live any more.
    Deactivate,
    /// Somebody else changed `current`.
    External,
    /// Releases nobody needs are removed.
    Clean,
    /// Releases are removed by name.
    Remove,
    /// A release is pinned.
    Pin,
    /// Its pins are taken away.
    Unpin,
}

impl Operation {
    /// Whether it moves `current`.
    pub fn is_flip(self) -> bool {
        matches!(self, Self::Init | Self::Activate | Self::Rollback | Self::Deactivate | Self::External)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Init => "init",
            Self::Create => "create",
            Self::Deploy => "deploy",
            Self::Activate => "activate",
            Self::Rollback => "rollback",
            Self::Deactivate => "deactivate",
            Self::External => "external",
            Self::Clean => "clean",
            Self::Remove => "remove",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
        })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It had its effect.
    Done,
    /// It failed, and what is live did not change.
    Failed,
    /// It was cut off before it had its effect; settled by a later command.
    Interrupted,
    /// Its end is not recorded yet.
    Unfinished,
    /// It was made, and what it made live is not known to have come up.
    Unconfirmed,
    /// It was made, did not come up, and what was live before was made live again.
    Returned,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Unfinished => "unfinished",
            Self::Unconfirmed => "unconfirmed",
            Self::Returned => "returned",
        })
    }
}

/// The live release and, behind it, those that rollbacks would go back to, in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(Vec<ReleaseId>);

impl Chain {
    /// The releases that a rollback could go to while `live` is live, the best first.
    pub fn candidates(&self, live: Option<&ReleaseId>) -> impl Iterator<Item = &ReleaseId> {
        self.0.iter().filter(move |id| Some(*id) != live)
    }

    /// The chain once `to` has been activated: it comes before everything else.
    #[must_use]
    pub fn activated(&self, to: &ReleaseId) -> Self {
        let older = match self.0.split_first() {
            Some((live, before)) if live == to => before,
            _ => &self.0,
        };
        Self(std::iter::once(to).chain(older).take(LONGEST_CHAIN).cloned().collect())
    }

    /// The chain once one went back to `to`: what came after it is left out. If it was never live, it takes the place of
    /// what was rolled back from.
    #[must_use]
    pub fn went_back(&self, to: &ReleaseId) -> Self {
        match self.0.iter().position(|id| id == to) {
            Some(at) => Self(self.0[at..].to_vec()),
            None => Self(self.0.get(1..).unwrap_or_default().to_vec()).activated(to),
        }
    }
}

impl FromIterator<ReleaseId> for Chain {
    fn from_iter<I: IntoIterator<Item = ReleaseId>>(ids: I) -> Self {
        Self(ids.into_iter().take(LONGEST_CHAIN).collect())
    }
}

/// An operation as `history` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When it began.
    pub at: Timestamp,
    /// Who did it.
    pub by: String,
    /// What was done.
    pub operation: Operation,
    /// What was live.
    pub from: Option<ReleaseId>,
    /// What it was about.
    pub to: Option<ReleaseId>,
    /// What else it was about: the releases cleaned, removed or taken over.
    pub releases: Vec<ReleaseId>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took; zero while it is unfinished.
    pub seconds: f64,
    /// The command it was a part of, or why it was done.
    pub cause: Option<String>,
    /// What went wrong, or was noticed.
    pub note: Option<String>,
}

/// The operations that records, in the journal's order, tell of.
#[derive(Debug, Default)]
pub struct Entries {
    /// Each by the number of its begin.
    operations: Vec<(u64, Entry)>,
    /// Those whose programs are to come up.
    unconfirmed: BTreeSet<u64>,
}

impl Entries {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.operations.len()
    }

    /// The last `count` of them, oldest first.
    pub fn newest(self, count: usize) -> Vec<Entry> {
        let older = self.operations.len().saturating_sub(count);
        self.operations.into_iter().skip(older).map(|(_, entry)| entry).collect()
    }

    fn add(&mut self, Record { seq, at, event }: Record) {
        match event {
            Event::Begin(Begin { operation, by, from, to, releases, cause, programs, .. }) => {
                if matches!(programs, Following::Up(_)) {
                    self.unconfirmed.insert(seq);
                }
                let (outcome, seconds, note) = (Outcome::Unfinished, 0.0, None);
                let entry = Entry { at, by, operation, from, to, releases, outcome, seconds, cause, note };
                self.operations.push((seq, entry));
            }
            Event::Step(_) | Event::Programs(_) | Event::Later => {}
            // A flip whose programs are still being brought over is not over.
            Event::Done(done) if done.outcome == Outcome::Done && self.unconfirmed.contains(&done.of) => {}
            Event::Done(done) | Event::Confirmed(done) => {
                if let Ok(at) = self.operations.binary_search_by_key(&done.of, |(seq, _)| *seq) {
                    let entry = &mut self.operations[at].1;
                    (entry.outcome, entry.seconds, entry.note) = (done.outcome, done.seconds, done.note);
                }
            }
        }
    }
}

impl Extend<Record> for Entries {
    fn extend<I: IntoIterator<Item = Record>>(&mut self, records: I) {
        records.into_iter().for_each(|record| self.add(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ReleaseId {
        text.parse().unwrap()
    }

    fn best(chain: &Chain, live: &str) -> Option<String> {
        chain.candidates(Some(&id(live))).next().map(ToString::to_string)
    }

    #[test]
    fn p04_each_rollback_goes_one_further_back_and_never_to_and_fro() {
        let chain = ["A", "B", "C"].iter().fold(Chain::default(), |chain, name| chain.activated(&id(name)));
        assert_eq!(best(&chain, "C").as_deref(), Some("B"));
        let chain = chain.went_back(&id("B"));
        assert_eq!(best(&chain, "B").as_deref(), Some("A"));
        let chain = chain.went_back(&id("A"));
        assert_eq!(best(&chain, "A"), None);
        let again = chain.activated(&id("C"));
        assert_eq!(best(&again, "C").as_deref(), Some("A"));
    }

    #[test]
    fn p04_the_same_release_twice_is_one_activation() {
        let chain = Chain::default().activated(&id("A")).activated(&id("B")).activated(&id("B"));
        assert_eq!(best(&chain, "B").as_deref(), Some("A"));
        assert_eq!(best(&chain.activated(&id("A")), "A").as_deref(), Some("B"));
    }

    #[test]
    fn p04_going_back_to_what_was_never_live_leaves_out_what_was_left() {
        let chain = Chain::default().activated(&id("A")).activated(&id("B")).went_back(&id("X"));
        assert_eq!(best(&chain, "X").as_deref(), Some("A"));
    }
}

//! The flip of `current`, in the order that survives a kill and a power cut at any point.

use super::ledger::Moved;
use super::locked::with_room;
use super::{LockedTree, Result};
use crate::clock::{Timestamp, seconds_since};
use crate::durable::Durability;
use crate::layout::{CURRENT, RELEASES};
use crate::operation::{Begin, Done, Event, Following, Operation, Outcome, Programs};
use crate::release::ReleaseId;
use crate::standing::{Marks, Owed};
use nix::sys::signal::SigSet;
use std::ffi::OsString;
use std::time::Instant;

/// A flip that is wanted.
#[derive(Clone, Debug)]
pub struct Flip {
    /// Activate, rollback or deactivate.
    pub operation: Operation,
    /// What is to be live; `None` for nothing. It must be ready.
    pub to: Option<ReleaseId>,
    /// The command it is a part of.
    pub cause: String,
    /// What follows it.
    pub programs: Following,
    /// Why what it goes back from is bad, if it is not enough that it was rolled back from.
    pub bad: Option<String>,
}

impl Flip {
    /// A flip that nothing follows.
    pub fn of(operation: Operation, to: Option<ReleaseId>, cause: &str) -> Self {
        Self { operation, to, cause: cause.to_owned(), programs: Following::Nothing, bad: None }
    }
}

/// A flip that was made.
#[derive(Debug)]
pub struct Flipped {
    /// Its number.
    pub seq: u64,
    /// What was live before.
    pub from: Option<ReleaseId>,
    /// What is live now.
    pub to: Option<ReleaseId>,
}

/// What makes a release bad that was rolled back from.
pub(super) fn rolled_back(now: Timestamp) -> String {
    format!("rolled back from at {now}")
}

impl LockedTree<'_> {
    /// Makes `flip`. After `Ok` it is what every reader sees, and durable unless a notice says otherwise; after `Err`
    /// nothing live has changed.
    pub fn flip(&mut self, flip: Flip) -> Result<Flipped> {
        let started = Instant::now();
        let tree = self.tree;
        tree.live()?;
        let bad = match &flip.to {
            Some(to) => {
                self.flush(to)?;
                tree.release(to)?.bad
            }
            None => None,
        };
        let from = self.standing.live.clone();
        let chain = self.standing.chain_after(flip.operation, flip.to.as_ref());
        let Flip { operation, to, cause, programs, bad: why } = flip;
        let (from_now, chain_now, cause) = (from.clone(), Some(chain.clone()), Some(cause));
        let begin = Begin::of(operation, &self.actor.by);
        let begin =
            Begin { from: from_now, to: to.clone(), chain: chain_now, cause, programs, bad: bad.clone(), ..begin };
        let seq = self.begin(&begin)?;
        // What goes live is no longer bad, and must not be while it is live.
        if let (Some(to), Some(_)) = (&to, &bad) {
            self.mark(to, None);
        }
        match self.swap(to.as_ref()) {
            Ok(Durability::Durable) => {}
            Ok(Durability::Unknown(error)) => {
                self.notice(format!(
                    "current was flipped, but whether that would survive a power cut is unknown: {error}"
                ));
            }
            Err(error) => {
                self.done(seq, Outcome::Failed, started, Some(error.to_string()));
                if let (Some(to), Some(_)) = (&to, &bad) {
                    self.mark(to, bad.clone());
                }
                return Err(error);
            }
        }
        // Before the outcome: with it on record, nobody would come back for the mark.
        if let (Operation::Rollback, Some(from)) = (operation, &from) {
            self.mark(from, Some(why.unwrap_or_else(|| rolled_back(self.actor.clock.now()))));
        }
        self.done(seq, Outcome::Done, started, None);
        (self.standing.live, self.standing.believed, self.standing.chain) = (to.clone(), to.clone(), chain);
        self.standing.owed.after(seq, &begin);
        self.keep_ledger();
        Ok(Flipped { seq, from, to })
    }

    /// Records that somebody else moved `current`, by what the list of the older tooling says of it if there is one.
    pub(super) fn record_move(&mut self) -> Result<()> {
        let (from, to) = (self.standing.believed.clone(), self.standing.live.clone());
        // What is live before there is any history was not moved behind our back.
        let found = self.is_new();
        let moved = self.tree.moved(&self.standing).filter(|_| !found);
        let cause = match &moved {
            _ if found => "it was live before the history began",
            Some(moved) if moved.rolled_back => "the older tooling rolled back",
            _ => "current was changed by another hand",
        };
        if let Some(moved) = &moved {
            self.standing.chain = moved.chain.clone();
        }
        let (chain, cause) = (Some(self.standing.chain.clone()), Some(cause.to_owned()));
        let bad = to.as_ref().and_then(|to| self.tree.release(to).ok()?.bad);
        let begin = Begin { from, to: to.clone(), chain, cause, bad, ..Begin::of(Operation::External, &self.actor.by) };
        let seq = self.begin(&begin)?;
        let listed = moved.as_ref().map_or(to.iter().cloned().collect(), |moved| moved.listed.clone());
        for id in &listed {
            self.adopt_good(id, seq)?;
        }
        if let (Some(Moved { rolled_back: true, .. }), Some(from)) = (&moved, &begin.from) {
            self.mark(from, Some(rolled_back(self.actor.clock.now())));
        }
        self.done(seq, Outcome::Done, Instant::now(), None);
        self.standing.owed.after(seq, &begin);
        self.standing.marks = Marks::of(seq, &begin);
        if !found {
            let shown = to.as_ref().map_or("nothing", |id| id.as_str());
            self.notice(format!("current was changed by another hand and leads to {shown} now; that is recorded"));
        }
        self.standing.believed = to;
        Ok(())
    }

    /// Makes `id` bad, which a rollback went to in vain. That it could not be done is only noticed.
    pub fn condemn(&mut self, id: &ReleaseId, why: String) {
        self.mark(id, Some(why));
        self.keep_ledger();
    }

    /// Writes what the flip `of` came to. With [`Outcome::Done`] the programs are up from the live release.
    pub fn confirmed(&mut self, of: u64, outcome: Outcome, started: Instant, note: Option<String>) {
        self.tell(Event::Confirmed(Done { of, outcome, seconds: seconds_since(started), note }));
        if outcome == Outcome::Done {
            self.standing.owed = Owed::default();
        }
    }

    /// Writes that programs are about to be stopped, or were started.
    pub fn programs_changed(&mut self, programs: Programs) {
        self.standing.owed.changed_by(&programs);
        self.tell(Event::Programs(programs));
    }

    /// Makes the release durable: whoever wrote it may not have.
    fn flush(&self, to: &ReleaseId) -> Result<()> {
        let release = self.tree.open_release(to)?;
        release.sync_file_system()?;
        let releases = self.tree.releases();
        if release.identity()?.device != self.tree.root().identity()?.device {
            releases.sync()?;
        }
        Ok(())
    }

    /// Stages the new link and commits it, or removes the link, with signals held back from the commit on.
    fn swap(&self, to: Option<&ReleaseId>) -> Result<Durability> {
        let root = self.tree.root();
        if let Some(to) = to {
            let target = OsString::from(format!("{RELEASES}/{to}"));
            with_room(self.tree, || Ok(root.stage_link(CURRENT, &target)?))?;
        }
        let held = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK);
        // A copy-on-write file system may need room for the rename too; one that failed has changed nothing.
        let outcome = with_room(self.tree, || match to {
            Some(_) => Ok(root.commit_link(CURRENT)?),
            None => {
                root.unlink(CURRENT)?;
                Ok(root.sync().map_or_else(Durability::Unknown, |()| Durability::Durable))
            }
        });
        if let Ok(before) = held {
            let _ = before.thread_set_mask();
        }
        outcome
    }
}

//! The guard: a tree whose lock is held, with its history settled.

use super::build::alone;
use super::{Result, Tree, TreeError};
use crate::clock::{Clock, Timestamp, seconds_since};
use crate::directory::PathError;
use crate::journal::{Journal, Tail};
use crate::layout::{ADOPTED, BALLAST, CURRENT, MANIFEST, STATE};
use crate::lock::{Holder, TreeLock, Wait};
use crate::operation::{Begin, Done, Event, Operation, Outcome, Step};
use crate::release::{Manifest, ReleaseId, StepRecord};
use crate::sealed::seal;
use crate::standing::{self, Marks, Standing};
use std::time::{Duration, Instant};

/// How much is held back for a full disk.
const BALLAST_BYTES: usize = 1 << 20;

/// Pauses after which what did not fit is tried again, in milliseconds.
const FREED_WITHIN: [u64; 5] = [0, 10, 20, 40, 80];

/// Who acts: for the journal, the lock's note and the manifests.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The user who typed the command.
    pub by: String,
    /// The command as it was typed.
    pub command: String,
    /// This host's name.
    pub host: String,
    /// Where `now` comes from.
    pub clock: Clock,
}

/// A tree that only we may change, until this is dropped. What an earlier run left undecided has been settled.
#[derive(Debug)]
pub struct LockedTree<'t> {
    pub(super) tree: &'t Tree,
    pub(super) actor: &'t Actor,
    pub(super) journal: Journal,
    pub(super) standing: Standing,
    unfinished: Vec<(u64, Begin)>,
    unconfirmed: Vec<u64>,
    newest_entry: Option<Timestamp>,
    notices: Vec<String>,
    /// Last, so that it is given back when all else is done.
    _lock: TreeLock,
}

impl Tree {
    /// Takes the tree lock, waiting for it as `wait` says, and settles what an earlier run left.
    pub fn lock<'t>(&'t self, actor: &'t Actor, wait: Wait) -> Result<LockedTree<'t>> {
        let mut locked = self.lock_unsettled(actor, wait)?;
        locked.settle()?;
        locked.keep_ledger();
        Ok(locked)
    }

    /// The same with nothing settled yet: taking over a tree records first what was there.
    pub(super) fn lock_unsettled<'t>(&'t self, actor: &'t Actor, wait: Wait) -> Result<LockedTree<'t>> {
        let now = actor.clock.now();
        let (by, command, host) = (actor.by.clone(), actor.command.clone(), actor.host.clone());
        let holder = Holder { pid: std::process::id(), user: by, command, host, since: now };
        let lock = TreeLock::acquire(self.state(), &holder, wait)?;
        let tail = Tail::read(self.state(), &standing::is_enough)?;
        let least = if tail.records.is_empty() { self.newest_sequence()?.saturating_add(1) } else { 1 };
        let (journal, mut notices) = with_room(self, || Ok(Journal::open(self.state(), &tail, least, now)?))?;
        if !tail.exists && least > 1 {
            notices.push("the journal was missing; a new one has been begun, what was live before is not known".into());
        }
        let standing = Standing::new(&tail.records, self.live()?.id());
        let newest_entry = tail.records.last().map(|record| record.at);
        let unfinished =
            standing::unfinished(&tail.records).into_iter().map(|(seq, begin)| (seq, begin.clone())).collect();
        let unconfirmed = standing::unconfirmed(&tail.records);
        let locked = LockedTree {
            tree: self,
            actor,
            journal,
            standing,
            unfinished,
            unconfirmed,
            newest_entry,
            notices,
            _lock: lock,
        };
        Ok(locked)
    }

    /// The same as [`LockedTree::trusted_now`], as a look shows it.
    pub fn trusted_now(&self, clock: Clock) -> Result<Option<Timestamp>> {
        let tail = Tail::read(self.state(), &standing::is_enough)?;
        Ok(trusted(clock.now(), tail.records.last().map(|record| record.at)))
    }

    fn newest_sequence(&self) -> Result<u64> {
        Ok(self
            .entries()?
            .iter()
            .filter_map(|entry| entry.manifest())
            .map(|manifest| manifest.sequence)
            .max()
            .unwrap_or(0))
    }
}

impl<'t> LockedTree<'t> {
    /// The tree, for looking.
    pub fn tree(&self) -> &'t Tree {
        self.tree
    }
}

impl LockedTree<'_> {
    /// What is live and what was before it.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether nothing was ever done to the tree.
    pub(super) fn is_new(&self) -> bool {
        self.newest_entry.is_none()
    }

    /// What a person should hear of what was found and mended, each once.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Adds to them.
    pub(super) fn notice(&mut self, notice: impl Into<String>) {
        self.notices.push(notice.into());
    }

    /// The present moment if the clock can be trusted with deciding what is old; `None` if it lies before the newest
    /// entry of the journal.
    pub fn trusted_now(&self) -> Option<Timestamp> {
        trusted(self.actor.clock.now(), self.newest_entry)
    }

    /// Writes an intent, durable on return. On a full disk the ballast is given up for it.
    pub(super) fn begin(&mut self, begin: &Begin) -> Result<u64> {
        let now = self.actor.clock.now();
        let (tree, journal) = (self.tree, &mut self.journal);
        with_room(tree, || Ok(journal.begin(begin.clone(), now)?))
    }

    /// Writes an outcome. That it could not be written is only noticed: the disk says it too.
    pub(super) fn done(&mut self, of: u64, outcome: Outcome, started: Instant, note: Option<String>) {
        let done = Done { of, outcome, seconds: seconds_since(started), note };
        if let Err(error) = self.journal.done(done, self.actor.clock.now()) {
            self.notice(format!("the outcome is not in the history yet: {error}"));
        }
    }

    /// Writes what needs no intent. That it could not be written is only noticed.
    pub(super) fn tell(&mut self, event: Event) {
        if let Err(error) = self.journal.tell(event, self.actor.clock.now()) {
            self.notice(format!("the history is not complete: {error}"));
        }
    }

    /// Replaces a release's manifest: its own, or the one kept for it if it was there before us. Durable on return.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let line = seal(manifest).map_err(|e| PathError::new("write", MANIFEST, std::io::Error::other(e)))? + "\n";
        let dir = self.tree.open_release(&manifest.id)?;
        let own = dir.stat(STATE)?.is_some() && dir.open_dir(STATE)?.stat(MANIFEST)?.is_some();
        with_room(self.tree, || {
            if own {
                return Ok(dir.open_dir(STATE)?.write_file(MANIFEST, line.as_bytes(), 0o600)?);
            }
            let state = self.tree.state();
            let adopted = state.ensure_dir(ADOPTED, 0o700)?;
            adopted.write_file(&format!("{}.json", manifest.id), line.as_bytes(), 0o600)?;
            Ok(state.sync()?)
        })
    }

    /// Sets or clears what makes a release bad. That it could not be done is only noticed.
    pub(super) fn mark(&mut self, id: &ReleaseId, bad: Option<String>) {
        let marked = self.tree.open_release(id).and_then(|dir| {
            // One that was there before us may have no records of its own.
            let _alone = dir.stat(STATE)?.map(|_| alone(&dir.open_dir(STATE)?)).transpose()?;
            let manifest = Manifest { bad, ..self.tree.release(id)? };
            self.write_manifest(&manifest)
        });
        if let Err(error) = marked {
            self.notice(format!("release {id} could not be marked: {error}"));
        }
    }

    /// Decides every intent without an outcome by looking at the disk, clears a stale temporary link, and records that
    /// somebody else moved `current`.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.tree.root().unstage(CURRENT)?;
        for (seq, begin) in std::mem::take(&mut self.unfinished) {
            let untold = self.standing.untold.contains(&seq);
            let made = if begin.operation.is_flip() { Some(untold) } else { self.had_effect(&begin) };
            let Some(made) = made else {
                self.unfinished.push((seq, begin));
                continue;
            };
            if !made {
                self.unconfirmed.retain(|unconfirmed| *unconfirmed != seq);
            }
            let outcome = if made { Outcome::Done } else { Outcome::Interrupted };
            if let (false, Some(to), Some(bad)) = (made, &begin.to, &begin.bad) {
                self.mark(to, Some(bad.clone()));
            }
            if let (Operation::Rollback, true, Some(from)) = (begin.operation, made, &begin.from) {
                self.mark(from, Some(super::flip::rolled_back(self.actor.clock.now())));
            }
            self.done(seq, outcome, Instant::now(), Some("settled by a later command".to_owned()));
        }
        self.settle_unconfirmed();
        if self.standing.was_moved() {
            self.record_move()?;
        }
        self.mark_again();
        Ok(())
    }

    /// Writes the marks of the last flip that are not there: the disk was full then, or another hand made it.
    fn mark_again(&mut self) {
        let Marks { since, good, bad } = self.standing.marks.clone();
        let there = |id: &ReleaseId| self.tree.release(id).ok().filter(|manifest| manifest.sequence < since);
        if let Some(id) = good.filter(|id| there(id).is_some_and(|manifest| manifest.bad.is_some())) {
            self.mark(&id, None);
        }
        if let Some(id) = bad.filter(|id| there(id).is_some_and(|manifest| manifest.bad.is_none())) {
            self.mark(&id, Some(super::flip::rolled_back(self.actor.clock.now())));
        }
    }

    /// Records that nobody knows whether what an earlier run made live came up. What its programs are owed stays owed.
    fn settle_unconfirmed(&mut self) {
        for seq in std::mem::take(&mut self.unconfirmed) {
            let note = "cut off before its programs were confirmed; settled by a later command";
            let note = Some(note.to_owned());
            self.tell(Event::Confirmed(Done { of: seq, outcome: Outcome::Unconfirmed, seconds: 0.0, note }));
        }
    }

    /// Whether an operation that is no flip had its effect; `None` while it may still be running.
    fn had_effect(&self, begin: &Begin) -> Option<bool> {
        match (begin.operation, &begin.to) {
            (Operation::Create, Some(id)) if self.tree.open_release(id).is_ok() && self.tree.is_leased(id.as_str()) => {
                None
            }
            (Operation::Create, Some(id)) => {
                Some(self.tree.release(id).is_ok_and(|manifest| manifest.ready_at.is_some()))
            }
            // Its turn is a lease on the state directory, which only its holder ever takes.
            (Operation::Deploy, _) if self.tree.is_deploying() => None,
            (Operation::Clean | Operation::Remove, _) => {
                Some(begin.releases.iter().all(|id| self.tree.open_release(id).is_err()))
            }
            (Operation::Pin, Some(id)) => Some(self.pin_of(id).is_some()),
            (Operation::Unpin, Some(id)) => Some(self.pin_of(id).is_none()),
            _ => Some(false),
        }
    }

    fn pin_of(&self, id: &ReleaseId) -> Option<crate::pin::Pin> {
        self.tree.entry(id.as_str().as_ref()).ok().flatten()?.pin
    }

    /// Records that a deploy of `id` begins; whoever calls it has the turn, so any other that has not ended is dead.
    /// Durable on return; returns its number.
    pub fn deploy_begins(&mut self, id: &ReleaseId) -> Result<u64> {
        for (seq, _) in
            std::mem::take(&mut self.unfinished).into_iter().filter(|(_, b)| b.operation == Operation::Deploy)
        {
            self.done(seq, Outcome::Interrupted, Instant::now(), Some("settled by a later deploy".to_owned()));
        }
        let (from, to) = (self.standing.live.clone(), Some(id.clone()));
        self.begin(&Begin { from, to, ..Begin::of(Operation::Deploy, &self.actor.by) })
    }

    /// Records one of its steps.
    pub fn deploy_step(&mut self, of: u64, record: StepRecord) {
        if let Err(error) = self.journal.step(Step { of, record }, self.actor.clock.now()) {
            self.notice(format!("a step is not in the history: {error}"));
        }
    }

    /// Records how it ended; `failure` is why it failed.
    pub fn deploy_ended(&mut self, of: u64, started: Instant, failure: Option<String>) {
        let outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Done };
        self.done(of, outcome, started, failure);
    }

    /// Makes the ballast again if it was given up and there is room.
    pub fn restore_ballast(&self) -> Result<()> {
        if self.tree.state().stat(BALLAST)?.is_none() {
            // Only then is what was deleted room for it on every file system.
            let _ = self.tree.state().sync_file_system();
            write_ballast(self.tree)?;
        }
        Ok(())
    }
}

/// `now`, unless an entry was written after it.
fn trusted(now: Timestamp, newest: Option<Timestamp>) -> Option<Timestamp> {
    Some(now).filter(|now| newest.is_none_or(|newest| newest <= *now))
}

/// Makes the ballast, whole at every moment. If there is no room for it there is none, and no error.
pub(super) fn write_ballast(tree: &Tree) -> Result<()> {
    match tree.state().write_file(BALLAST, &vec![b'-'; BALLAST_BYTES], 0o600) {
        Err(error) if error.is_full() => Ok(()),
        written => Ok(written?),
    }
}

/// Does `act`; if the file system is full, gives up the ballast and does it again, a few times over: XFS and btrfs free in
/// the background what was unlinked. A failed sync is never retried.
pub(super) fn with_room<T>(tree: &Tree, mut act: impl FnMut() -> Result<T>) -> Result<T> {
    let no_room = |done: &Result<T>| matches!(done, Err(TreeError::Path(e)) if e.is_full() && e.action != "sync");
    let mut done = act();
    if no_room(&done) {
        tree.state().unlink(BALLAST)?;
        // What was deleted, now or before, is room for others only then on btrfs.
        let _ = tree.state().sync_file_system();
    }
    for pause in FREED_WITHIN {
        if !no_room(&done) {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
        done = act();
    }
    done
}

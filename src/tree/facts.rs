//! The facts that retention decides by, gathered from disk, locks and processes.

use super::{Entry, Found, LockedTree, Result, Tree};
use crate::journal::{self, Tail};
use crate::lock::all_holders;
use crate::operation::{Begin, Event, Operation};
use crate::release::{ReleaseId, State};
use crate::retention::Facts;
use crate::standing::{self, Standing};
use crate::usage::Usage;
use std::ffi::OsString;

impl Tree {
    /// The entry of `releases/` that `current` leads to or somewhere into: without it the link would lead nowhere.
    fn holding_current(&self) -> Option<OsString> {
        let real = |path| std::fs::canonicalize(path).ok();
        let (live, releases) = (real(self.layout().current())?, real(self.layout().releases())?);
        Some(live.strip_prefix(releases).ok()?.iter().next()?.to_owned())
    }

    /// Whether the history tells all that was live: it has its first line, or begins with what another tool's tells.
    fn is_history_whole(&self) -> Result<bool> {
        let first = journal::first(self.state())?;
        Ok(first.is_some_and(|record| {
            record.seq == 1 || matches!(record.event, Event::Begin(Begin { operation: Operation::Init, .. }))
        }))
    }

    /// The facts as a look shows them, without any lock; what is leased is what the kernel tells.
    pub fn facts(&self, standing: &Standing, usage: &Usage) -> Result<Vec<Facts>> {
        let held: Vec<u64> = all_holders().into_iter().map(|(_, inode)| inode).collect();
        self.gather(standing, usage, &|entry| held.contains(&entry.identity.inode))
    }

    fn gather(&self, standing: &Standing, usage: &Usage, leased: &dyn Fn(&Entry) -> bool) -> Result<Vec<Facts>> {
        let (entries, holding) = (self.entries()?, self.holding_current());
        // By what is judged here: one that cannot be looked into is protected by itself.
        let ready = |id: &ReleaseId| {
            let mut manifests = entries.iter().filter_map(Entry::manifest);
            manifests.any(|m| m.id == *id && m.ready_at.is_some() && m.bad.is_none())
        };
        let good = |id: &&ReleaseId| ready(id) || self.is_awaited(standing, id);
        let target = standing.chain.candidates(standing.live.as_ref()).find(good).cloned();
        // It may then be any of the good ones.
        let unknown = target.is_none() && !self.is_history_whole()?;
        let tail = Tail::read(self.state(), &standing::is_enough)?;
        let unfinished = standing::unfinished(&tail.records);
        let facts = |entry: &Entry| {
            let leased = leased(entry);
            let manifest = entry.manifest();
            // What will be taken over is judged as if it were: the newest of all.
            let awaited =
                standing.recorded.iter().find(|id| entry.name == id.as_str() && self.is_awaited(standing, id));
            let id = entry.id().or(awaited);
            let release = match &entry.found {
                Found::Release(manifest) => Some((manifest.id.clone(), manifest.state(leased))),
                Found::Reserved(id) => Some((id.clone(), if leased { State::Building } else { State::Incomplete })),
                Found::Foreign => awaited.map(|id| (id.clone(), State::Ready)),
                Found::Damaged(..) => None,
            };
            let is = |other: Option<&ReleaseId>| id.is_some() && id == other;
            let current = is(standing.live.as_ref()) || holding.as_ref() == Some(&entry.name);
            let might = unknown && !current && matches!(release, Some((_, State::Ready)));
            Facts {
                name: entry.name.to_string_lossy().into_owned(),
                release,
                sequence: manifest.map_or(if awaited.is_some() { u64::MAX } else { 0 }, |manifest| manifest.sequence),
                created_at: manifest.map(|manifest| manifest.created_at).or_else(|| self.modified(awaited?)),
                bytes: manifest.map_or(0, |manifest| manifest.bytes),
                current,
                rollback_target: is(target.as_ref()) || might,
                pin: entry.pin,
                leased,
                in_use: !usage.known || id.is_some_and(|id| !usage.of(id).is_empty()),
                unfinished: unfinished.iter().any(|(_, begin)| is_pending(begin, entry, leased)),
            }
        };
        Ok(entries.iter().map(facts).collect())
    }
}

/// Whether an operation without an outcome still needs this release. A build that nobody holds the lease of is dead.
fn is_pending(begin: &Begin, entry: &Entry, leased: bool) -> bool {
    let Some(id) = entry.id() else { return false };
    match begin.operation {
        Operation::Create => leased && begin.to.as_ref() == Some(id),
        _ if begin.operation.is_flip() => begin.to.as_ref() == Some(id) || begin.from.as_ref() == Some(id),
        _ => false,
    }
}

impl LockedTree<'_> {
    /// The facts as they are while the lock is held: every lease is tried.
    pub fn facts(&self, usage: &Usage) -> Result<Vec<Facts>> {
        self.tree.gather(&self.standing, usage, &|entry| entry.id().is_some() && self.tree.is_leased(&entry.name))
    }
}

//! Taking over releases that were there before us: nothing is moved or renamed, and what is known of them is kept in our
//! own directory.

use super::{Found, LockedTree, Result, Tree, remains};
use crate::clock::Timestamp;
use crate::directory::{Dir, kind};
use crate::layout::ADOPTED;
use crate::operation::{Begin, Operation, Outcome};
use crate::predecessor::{self, Account, Condition, Told};
use crate::release::{Manifest, Origin, ReleaseId, SourceKind};
use nix::sys::stat::SFlag;
use std::time::Instant;

impl LockedTree<'_> {
    /// Takes over every directory in `releases/` that is a release of the tool that was here and has no manifest yet. Where
    /// there is no history of our own, the tool's becomes it.
    pub(super) fn adopt(&mut self) -> Result<Account> {
        let started = Instant::now();
        // Where an earlier run was cut off, those it came to are looked at again: a mark in one tells of the others.
        let (mut all, mut foreign) = (Vec::new(), Vec::new());
        for name in self.tree.releases().names()? {
            let Some(id) = name.to_str().and_then(|name| name.parse::<ReleaseId>().ok()) else { continue };
            if self.is_foreign(&id)? {
                foreign.push(id.clone());
                all.push(id);
            } else if self.tree.release(&id).is_ok_and(|manifest| manifest.origin.kind == SourceKind::Adopted) {
                all.push(id);
            }
        }
        let mut account = predecessor::account(&remains::gather(self.tree, &all)?);
        account.releases.retain(|told| foreign.contains(&told.id));
        if account.releases.is_empty() {
            return Ok(account);
        }
        let live = self.standing.live.clone();
        if self.standing.believed.is_none() {
            self.standing.chain = account.chain.clone();
        }
        self.standing.believed.clone_from(&live);
        let chain = Some(self.standing.chain.clone());
        let releases = account.releases.iter().map(|told| told.id.clone()).collect();
        let cause = account.tool.map_or("taken over".to_owned(), |tool| format!("taken over from {tool}"));
        let (from, to, cause) = (live.clone(), live, Some(cause));
        let begin = Begin { from, to, chain, releases, cause, ..Begin::of(Operation::Init, &self.actor.by) };
        // Each has a number of its own, below that of the operation: they have an order.
        let numbers = self.journal.leave_out(account.releases.len());
        let seq = self.begin(&begin)?;
        for (told, number) in account.releases.iter().zip(numbers) {
            self.adopt_one(told, number)?;
        }
        self.done(seq, Outcome::Done, started, None);
        Ok(account)
    }

    /// Takes over `id`, which another hand made live or has recorded as good, if it is a release and not ours yet.
    pub(super) fn adopt_good(&mut self, id: &ReleaseId, seq: u64) -> Result<()> {
        if self.is_foreign(id)? {
            self.adopt_one(&Told { id: id.clone(), condition: Condition::Ready, created_at: None }, seq)?;
            self.notice(format!("release {id} was made by another tool and is looked after from now on"));
        }
        Ok(())
    }

    /// Whether it is a directory in `releases/` that is none of ours. An empty one could be a name that we reserved, but
    /// not before we did anything.
    fn is_foreign(&self, id: &ReleaseId) -> Result<bool> {
        let directory = self.tree.releases().stat(id.as_str())?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR);
        let found = self.tree.entry(id.as_str().as_ref())?.map(|entry| entry.found);
        let foreign = match found {
            Some(Found::Foreign) => true,
            Some(Found::Reserved(_)) => self.is_new(),
            _ => false,
        };
        Ok(directory && foreign)
    }

    fn adopt_one(&self, told: &Told, number: u64) -> Result<()> {
        let (id, now) = (&told.id, self.actor.clock.now());
        let dir = self.tree.open_release(id)?;
        let created = told.created_at.or_else(|| self.tree.modified(id)).unwrap_or(now);
        let location = dir.path().display().to_string();
        let origin = Origin { kind: SourceKind::Adopted, location, r#ref: None, revision: revision(&dir) };
        let mut manifest = Manifest::begin(id.clone(), number, created, self.actor.by.clone(), origin);
        match told.condition {
            Condition::Ready => manifest.ready_at = Some(now),
            Condition::Incomplete(why) => manifest.failure = Some(why.to_owned()),
            Condition::Bad(why) => (manifest.ready_at, manifest.bad) = (Some(now), Some(why.to_owned())),
        }
        self.write_manifest(&manifest)
    }
}

impl Tree {
    /// Forgets what is known of a release that was there before us and is gone: what comes under its name is another one.
    /// Durable on return.
    pub(super) fn forget(&self, id: &ReleaseId) -> Result<()> {
        if self.state().stat(ADOPTED)?.is_none() {
            return Ok(());
        }
        let adopted = self.state().open_dir(ADOPTED)?;
        if adopted.unlink(format!("{id}.json"))? {
            adopted.sync()?;
        }
        Ok(())
    }

    /// When the directory of a release was last changed, which is when it was made as far as anybody knows.
    pub(super) fn modified(&self, id: &ReleaseId) -> Option<Timestamp> {
        Timestamp::from_unix(self.open_release(id).ok()?.own_stat().ok()?.st_mtime)
    }
}

/// The commit that Capistrano and Deployer leave in `REVISION`, and Mina in `.mina_git_revision`.
fn revision(dir: &Dir) -> Option<String> {
    let read = |name: &str| {
        let bytes = dir.read_file(name, 4096).unwrap_or_default()?;
        let text = String::from_utf8(bytes).ok()?.trim().to_owned();
        Some(text).filter(|text| text.len() >= 7 && text.chars().all(|c| c.is_ascii_hexdigit()))
    };
    ["REVISION", ".mina_git_revision"].into_iter().find_map(read)
}

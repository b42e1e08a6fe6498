//! A release as the documents show it.

use crate::clock::Timestamp;
use crate::error::Result;
use crate::journal;
use crate::lock::all_holders;
use crate::pin::Pin;
use crate::release::{ReleaseId, State};
use crate::standing::Standing;
use crate::tree::{Entry, Found, Tree};
use crate::usage::Usage;
use serde::Serialize;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One release.
#[derive(Clone, Debug, Serialize)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// Where it is.
    pub path: PathBuf,
    /// What it is good for.
    pub state: State,
    /// Whether it is live.
    pub current: bool,
    /// Whether a rollback would go to it.
    pub previous: bool,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it last went live.
    pub activated_at: Option<Timestamp>,
    /// Who made it.
    pub by: Option<String>,
    /// Where its code came from.
    pub source: Option<String>,
    /// The ref that was asked for.
    pub r#ref: Option<String>,
    /// The commit.
    pub revision: Option<String>,
    /// How long it is kept.
    pub keep_until: Option<Pin>,
    /// Processes that run from it.
    pub pids: Vec<u32>,
    /// Bytes of disk when it became ready; zero before that.
    pub bytes: u64,
}

/// What describing releases needs to know of the whole tree, read once.
pub struct Surroundings<'a> {
    tree: &'a Tree,
    usage: &'a Usage,
    live: Option<ReleaseId>,
    /// What a rollback would go to.
    pub(super) previous: Option<ReleaseId>,
    activated: BTreeMap<ReleaseId, Timestamp>,
    /// Asked for only if a release is not ready: the kernel takes its time to answer.
    held: OnceCell<Vec<u64>>,
}

impl<'a> Surroundings<'a> {
    /// Looks around in `tree`.
    pub fn new(tree: &'a Tree, standing: &Standing, usage: &'a Usage) -> Result<Self> {
        // A look shows what can be shown: an entry that could not be looked into says so itself.
        let previous = tree.rollback_target(standing).unwrap_or_default();
        let activated = journal::activations(tree.state())?;
        Ok(Self { tree, usage, live: standing.live.clone(), previous, activated, held: OnceCell::new() })
    }

    fn is_held(&self, entry: &Entry) -> bool {
        let held = || all_holders().into_iter().map(|(_, inode)| inode).collect();
        self.held.get_or_init(held).contains(&entry.identity.inode)
    }

    /// Describes one entry; `None` if it is no release.
    pub fn describe(&self, entry: &Entry) -> Option<Release> {
        let id = entry.id()?.clone();
        let manifest = entry.manifest();
        let leased = manifest.is_none_or(|manifest| manifest.ready_at.is_none()) && self.is_held(entry);
        let state = match &entry.found {
            Found::Release(manifest) => manifest.state(leased),
            _ if leased => State::Building,
            _ => State::Incomplete,
        };
        let origin = manifest.map(|manifest| manifest.origin.clone());
        Some(Release {
            path: self.tree.layout().release(&id),
            state,
            current: self.live.as_ref() == Some(&id),
            previous: self.previous.as_ref() == Some(&id),
            created_at: manifest.map(|manifest| manifest.created_at),
            activated_at: self.activated.get(&id).copied(),
            by: manifest.map(|manifest| manifest.by.clone()),
            source: origin.as_ref().map(|origin| origin.location.clone()),
            r#ref: origin.as_ref().and_then(|origin| origin.r#ref.clone()),
            revision: origin.and_then(|origin| origin.revision),
            keep_until: entry.pin,
            pids: self.usage.of(&id).iter().map(|process| process.pid).collect(),
            bytes: manifest.map_or(0, |manifest| manifest.bytes),
            id,
        })
    }
}

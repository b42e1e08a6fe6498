//! The tree: [`Tree`] looks, [`LockedTree`] changes. Whoever changes anything must hold the guard, so the guard is the
//! permission.

mod adopt;
mod build;
mod choices;
mod discard;
mod error;
mod facts;
mod flip;
mod ground;
mod init;
mod inventory;
mod ledger;
mod locked;
mod pins;
mod remains;

pub use build::{Build, Reservation};
pub use discard::{Discarded, empty_trash};
pub use error::TreeError;
pub use flip::{Flip, Flipped};
pub use ground::refuse_unsafe;
pub use init::{Laid, is_vacant, lay_out};
pub use inventory::{
    Blob, Difference, Inventory, Item, Line, Lines, Listing, Seen, compare, parse_blob, recorded, write_blob,
};
pub use locked::{Actor, LockedTree};
pub use remains::SharedPaths;

use crate::directory::{Dir, Identity, PathError, kind};
use crate::journal::Tail;
use crate::layout::{ADOPTED, BUILD_LOG, CURRENT, Layout, MANIFEST, OWN_MANIFEST, RELEASES, STATE};
use crate::lock::{Lease, Wait};
use crate::operation::Record;
use crate::pin::{PREFIX, Pin};
use crate::release::{self, Manifest, ReleaseId};
use crate::sealed::unseal;
use crate::standing::{self, Standing};
use crate::walk::share_out;
use nix::sys::stat::{FileStat, SFlag};
use serde::de::IgnoredAny;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The largest manifest that is read.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// Shorthand of this module.
pub type Result<T, E = TreeError> = std::result::Result<T, E>;

/// Where `current` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// There is no such link.
    Nothing,
    /// To this release.
    Release(ReleaseId),
    /// To something that is no release here, or to nothing; as the link says it.
    Elsewhere(OsString),
}

impl Live {
    /// The release that is live.
    pub fn id(&self) -> Option<&ReleaseId> {
        match self {
            Self::Release(id) => Some(id),
            _ => None,
        }
    }
}

/// One entry of `releases/`.
#[derive(Debug)]
pub struct Entry {
    /// Its name on disk.
    pub name: OsString,
    /// What it is.
    pub found: Found,
    /// Its device and inode.
    pub identity: Identity,
    /// The strongest of its pins.
    pub pin: Option<Pin>,
}

/// What an entry of `releases/` turned out to be.
#[derive(Debug)]
pub enum Found {
    /// A release with a manifest.
    Release(Box<Manifest>),
    /// A name that was reserved for a build that never came to write its manifest.
    Reserved(ReleaseId),
    /// A release whose manifest cannot be read.
    Damaged(ReleaseId, String),
    /// Nothing of ours.
    Foreign,
}

impl Entry {
    /// The release's id, if it is one.
    pub fn id(&self) -> Option<&ReleaseId> {
        match &self.found {
            Found::Release(manifest) => Some(&manifest.id),
            Found::Reserved(id) | Found::Damaged(id, _) => Some(id),
            Found::Foreign => None,
        }
    }

    /// Its manifest, if it has one that can be read.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.found {
            Found::Release(manifest) => Some(manifest),
            _ => None,
        }
    }
}

/// A tree, open for looking. Its directories are opened once.
#[derive(Debug)]
pub struct Tree {
    layout: Layout,
    root: Dir,
    releases: Dir,
    state: Dir,
    turn: Option<Lease>,
}

impl Tree {
    /// Opens the tree whose root is open as `root`.
    pub fn open(root: Dir) -> Result<Self> {
        let layout = Layout::new(root.path());
        let absent = |error: PathError| match error.cause.kind() {
            std::io::ErrorKind::NotFound => TreeError::NoTree(root.path().to_owned()),
            _ => TreeError::Path(error),
        };
        let state = root.open_dir(STATE).map_err(absent)?;
        let releases = root.open_dir(RELEASES).map_err(absent)?;
        Ok(Self { layout, root, releases, state, turn: None })
    }

    /// Its paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its root directory.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// The directory of releases.
    pub fn releases(&self) -> &Dir {
        &self.releases
    }

    /// Our own directory.
    pub fn state(&self) -> &Dir {
        &self.state
    }

    /// Where `current` leads, found by identity: however the link is spelled, the release is the one it resolves to.
    pub fn live(&self) -> Result<Live> {
        let Some(stat) = self.root.stat(CURRENT)? else { return Ok(Live::Nothing) };
        if kind(&stat) != SFlag::S_IFLNK {
            let what = if kind(&stat) == SFlag::S_IFDIR { "a directory" } else { "a file" };
            return Err(TreeError::CurrentIsNoLink { path: self.layout.current(), what });
        }
        let Some(target) = self.root.read_link(CURRENT)? else { return Ok(Live::Nothing) };
        let Some(identity) = self.root.resolve(CURRENT)? else { return Ok(Live::Elsewhere(target)) };
        let name = match Path::new(&target).file_name() {
            Some(name) if self.is(name, identity)? => Some(name.to_owned()),
            _ => self.named(identity)?,
        };
        let id = name.and_then(|name| name.to_str()?.parse().ok());
        Ok(id.map_or(Live::Elsewhere(target), Live::Release))
    }

    fn is(&self, name: &OsStr, identity: Identity) -> Result<bool> {
        Ok(self.releases.stat(name)?.is_some_and(|stat| Identity::from(&stat) == identity))
    }

    fn named(&self, identity: Identity) -> Result<Option<OsString>> {
        for name in self.releases.names()? {
            if self.is(&name, identity)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Opens one release's directory.
    pub fn open_release(&self, id: &ReleaseId) -> Result<Dir> {
        match self.releases.stat(id.as_str())? {
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => Ok(self.releases.open_dir(id.as_str())?),
            _ => Err(TreeError::NoRelease(id.to_string())),
        }
    }

    /// One entry of `releases/` by its name; `None` if there is none. One that cannot be looked into is damaged: it must
    /// not hide the others.
    pub fn entry(&self, name: &OsStr) -> Result<Option<Entry>> {
        Ok(self.examine(name)?.map(|(entry, _)| entry))
    }

    /// The same, and why it could not be looked into.
    fn examine(&self, name: &OsStr) -> Result<Option<(Entry, Option<TreeError>)>> {
        let Some(stat) = self.releases.stat(name)? else { return Ok(None) };
        let identity = Identity::from(&stat);
        let id = name.to_str().and_then(|name| name.parse::<ReleaseId>().ok());
        let (Some(id), true) = (id, kind(&stat) == SFlag::S_IFDIR) else {
            return Ok(Some((Entry { name: name.to_owned(), found: Found::Foreign, identity, pin: None }, None)));
        };
        let (found, pin, error) = match self.look_into(name, &id) {
            Ok((found, pin)) => (found, pin, None),
            // Somebody removed it meanwhile.
            Err(TreeError::Path(error)) if error.cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Somebody else's is none of ours, unless it was and has been given away.
            Err(_) if stat.st_uid != self.releases.own_stat()?.st_uid && !self.has_state(name) => {
                (Found::Foreign, None, None)
            }
            Err(error) => (Found::Damaged(id, error.to_string()), None, Some(error)),
        };
        Ok(Some((Entry { name: name.to_owned(), found, identity, pin }, error)))
    }

    fn look_into(&self, name: &OsStr, id: &ReleaseId) -> Result<(Found, Option<Pin>)> {
        let (names, bytes) = self.releases.look_into(name, OWN_MANIFEST, LARGEST_MANIFEST)?;
        let pin = Pin::strongest(names.iter().filter_map(|name| Pin::of_name(&name.to_string_lossy())));
        let found = match bytes {
            Some(bytes) => judge(id, &bytes),
            None => self.identify(&self.releases.open_dir(name)?, id, &names)?,
        };
        Ok((found, pin))
    }

    fn has_state(&self, name: &OsStr) -> bool {
        self.releases.open_dir(name).and_then(|dir| dir.stat(STATE)).is_ok_and(|state| state.is_some())
    }

    /// What a directory of `releases/` is, by its manifest; for one that was there before us, by the one we keep for it.
    fn identify(&self, dir: &Dir, id: &ReleaseId, names: &[OsString]) -> Result<Found> {
        let (own, mut bytes) = match dir.open_dir(STATE) {
            Ok(state) => (state.names()?, state.read_file(MANIFEST, LARGEST_MANIFEST)?),
            Err(error) if error.cause.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => return Err(error.into()),
        };
        if bytes.is_none() {
            bytes = self.adopted(id)?;
        }
        let Some(bytes) = bytes else {
            // What a kill between the name's reservation and the first manifest leaves, and nothing more.
            let pin = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
            let reserved = names.iter().all(|name| name == STATE || pin(name))
                && own.iter().all(|name| name == BUILD_LOG || is_temporary(name));
            return Ok(if reserved { Found::Reserved(id.clone()) } else { Found::Foreign });
        };
        Ok(judge(id, &bytes))
    }

    fn adopted(&self, id: &ReleaseId) -> Result<Option<Vec<u8>>> {
        if self.state.stat(ADOPTED)?.is_none() {
            return Ok(None);
        }
        Ok(self.state.open_dir(ADOPTED)?.read_file(format!("{id}.json"), LARGEST_MANIFEST)?)
    }

    /// Every entry of `releases/`, oldest first by the journal's order; foreign ones at the end by name.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let names = self.releases.names()?;
        let looked: Result<Vec<_>> = share_out(&names, |name| self.entry(name)).into_iter().collect();
        let mut entries: Vec<Entry> = looked?.into_iter().flatten().collect();
        entries.sort_unstable_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name)));
        Ok(entries)
    }

    /// The release `id` with its manifest.
    pub fn release(&self, id: &ReleaseId) -> Result<Manifest> {
        let examined = self.examine(OsStr::new(id.as_str()))?;
        if let Some((_, Some(error))) = examined {
            return Err(error);
        }
        match examined.map(|(entry, _)| entry.found) {
            Some(Found::Release(manifest)) => Ok(*manifest),
            Some(Found::Damaged(id, why)) => Err(TreeError::Damaged { id: id.to_string(), why }),
            Some(Found::Reserved(id)) => {
                let why = Some("only its name is there yet".to_owned());
                Err(TreeError::NotReady { id, state: "incomplete", why })
            }
            Some(Found::Foreign) => Err(TreeError::Foreign(id.clone())),
            None => Err(TreeError::NoRelease(id.to_string())),
        }
    }

    /// The release `id`, which must be ready, or bad: a release that can go live. For a rollback only ready will do.
    pub fn activatable(&self, id: &ReleaseId) -> Result<Manifest> {
        let manifest = self.release(id)?;
        if manifest.ready_at.is_none() {
            let state = if self.is_building(id) { "still being built" } else { "incomplete" };
            return Err(TreeError::NotReady { id: id.clone(), state, why: manifest.failure });
        }
        Ok(manifest)
    }

    /// Whether a live process holds the release's lease, by what the kernel shows; nothing is locked for it.
    pub fn is_building(&self, id: &ReleaseId) -> bool {
        let stat: Option<FileStat> = self.releases.stat(id.as_str()).ok().flatten();
        stat.is_some_and(|stat| !crate::lock::holders(stat.st_ino).is_empty())
    }

    /// Whether anybody holds a lease on it, by trying, which only a holder of the tree lock may; what cannot be tried
    /// counts as held.
    fn is_leased(&self, name: impl AsRef<OsStr>) -> bool {
        let tried = self.releases.open_dir(name).and_then(|dir| Lease::try_exclusive(&dir));
        !matches!(tried, Ok(Some(_)))
    }

    /// Takes the turn to deploy, one at a time, for as long as this lives. Whether it could be had; another deploy may have
    /// it, as long as `wait` says.
    pub fn take_deploy_turn(&mut self, wait: Wait) -> Result<bool> {
        self.turn = Lease::wait_exclusive(&self.state, wait)?;
        Ok(self.turn.is_some())
    }

    /// Whether a deploy is under way: our own, or one that the kernel shows, which takes its time to answer.
    pub fn is_deploying(&self) -> bool {
        self.turn.is_some() || self.state.identity().is_ok_and(|state| !crate::lock::holders(state.inode).is_empty())
    }

    /// The same for one of somebody else.
    pub fn others_deploy(&self) -> bool {
        self.turn.is_none() && self.is_deploying()
    }

    /// What the journal says of the flips so far, and where `current` leads now.
    pub fn standing(&self) -> Result<Standing> {
        self.standing_after(&Tail::read(&self.state, &standing::is_enough)?.records)
    }

    /// The same by the end of the journal that has been read.
    pub fn standing_after(&self, records: &[Record]) -> Result<Standing> {
        let mut standing = Standing::new(records, self.live()?.id());
        if let Some(moved) = self.moved(&standing) {
            (standing.chain, standing.recorded) = (moved.chain, moved.listed);
        }
        Ok(standing)
    }
}

/// What the manifest `bytes` says of the release `id`.
fn judge(id: &ReleaseId, bytes: &[u8]) -> Found {
    let why = match unseal::<Manifest>(bytes).filter(|manifest| manifest.schema == release::SCHEMA) {
        Some(manifest) if manifest.id == *id => return Found::Release(Box::new(manifest)),
        Some(manifest) => format!("it is that of {}", manifest.id),
        None if unseal::<IgnoredAny>(bytes).is_some() => "a later version of releasectl wrote it".to_owned(),
        None => "it was changed or cut short".to_owned(),
    };
    Found::Damaged(id.clone(), why)
}

fn order(entry: &Entry) -> (bool, u64) {
    (entry.id().is_none(), entry.manifest().map_or(u64::MAX, |manifest| manifest.sequence))
}

fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
}

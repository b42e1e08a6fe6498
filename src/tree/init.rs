//! Laying out a tree, and taking over one that is there.

use super::locked::write_ballast;
use super::{Actor, Found, LockedTree, Result, Tree, TreeError};
use crate::directory::{Dir, PathError, kind};
use crate::layout::{BALLAST, CACHE, CURRENT, LOG, MIRROR, RELEASES, SHARED, STATE, TRASH};
use crate::lock::Wait;
use crate::operation::{Begin, Operation, Outcome};
use crate::release::{Manifest, Origin, ReleaseId, SourceKind};
use nix::sys::stat::SFlag;
use std::time::Instant;

/// What laying out did.
#[derive(Debug)]
pub struct Laid {
    /// The tree.
    pub tree: Tree,
    /// Releases that were there and are ours to look after now, oldest first.
    pub adopted: Vec<ReleaseId>,
    /// Whether anything was made.
    pub changed: bool,
    /// What a person should hear.
    pub notices: Vec<String>,
}

/// Makes what is missing of the tree at `root`, and takes over the releases in it: nothing is moved or renamed, and what
/// is known of them is kept in our own directory. Done twice it changes nothing.
pub fn lay_out(root: Dir, actor: &Actor, wait: Wait) -> Result<Laid> {
    refuse_odd_current(&root)?;
    let mut changed = false;
    for (name, mode) in [(RELEASES, 0o755), (SHARED, 0o755), (LOG, 0o755), (STATE, 0o700)] {
        if root.stat(name)?.is_none() {
            root.ensure_dir(name, mode)?;
            changed = true;
        }
    }
    let state = root.open_dir(STATE)?;
    for name in [MIRROR, CACHE, TRASH] {
        state.ensure_dir(name, 0o700)?;
    }
    state.sync()?;
    root.sync()?;
    let tree = Tree::open(root)?;
    let mut locked = tree.lock_unsettled(actor, wait)?;
    let adopted = locked.adopt()?;
    locked.settle()?;
    if tree.state().stat(BALLAST)?.is_none() {
        write_ballast(&tree)?;
    }
    let notices = locked.take_notices();
    drop(locked);
    changed |= !adopted.is_empty();
    Ok(Laid { tree, adopted, changed, notices })
}

/// Whether a directory is empty but for what laying out makes, so that a first build may lay it out by itself.
pub fn is_vacant(root: &Dir) -> Result<bool> {
    Ok(root.names()?.is_empty())
}

fn refuse_odd_current(root: &Dir) -> Result<()> {
    let Some(stat) = root.stat(CURRENT)? else { return Ok(()) };
    let what = match kind(&stat) {
        SFlag::S_IFLNK => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        _ => "a file",
    };
    Err(TreeError::CurrentIsNoLink { path: root.path().join(CURRENT), what })
}

impl LockedTree<'_> {
    /// Takes over every directory in `releases/` that could be a release and has no manifest yet, in the order of names.
    fn adopt(&mut self) -> Result<Vec<ReleaseId>> {
        let started = Instant::now();
        let mut found = Vec::new();
        for name in self.tree.releases().names()? {
            let Some(id) = name.to_str().and_then(|name| name.parse::<ReleaseId>().ok()) else { continue };
            let foreign = matches!(self.tree.entry(&name)?, Some(entry) if matches!(entry.found, Found::Foreign));
            let directory = self.tree.releases().stat(&name)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR);
            if foreign && directory {
                found.push(id);
            }
        }
        found.sort_unstable();
        if found.is_empty() {
            return Ok(found);
        }
        let live = self.standing.live.clone();
        self.standing.believed.clone_from(&live);
        let chain = self.standing.chain.clone();
        let (releases, cause) = (found.clone(), Some("taken over".to_owned()));
        let (from, to) = (live.clone(), live);
        let begin =
            Begin { from, to, chain: Some(chain), releases, cause, ..Begin::of(Operation::Init, &self.actor.by) };
        let seq = self.begin(&begin)?;
        for id in &found {
            self.adopt_one(id, seq)?;
        }
        self.done(seq, Outcome::Done, started, None);
        Ok(found)
    }

    fn adopt_one(&self, id: &ReleaseId, seq: u64) -> Result<()> {
        let dir = self.tree.open_release(id)?;
        let stat = dir.own_stat()?;
        let made = crate::clock::Timestamp::from_unix(stat.st_mtime).unwrap_or_else(|| self.actor.clock.now());
        let created = id.as_str().get(..16).and_then(crate::clock::Timestamp::parse).unwrap_or(made);
        let location = dir.path().display().to_string();
        let origin = Origin { kind: SourceKind::Adopted, location, r#ref: None, revision: revision(&dir)? };
        let mut manifest = Manifest::begin(id.clone(), seq, created, self.actor.by.clone(), origin);
        manifest.ready_at = Some(self.actor.clock.now());
        self.write_manifest(&manifest)
    }
}

/// The commit that Capistrano and others leave in a file `REVISION`.
fn revision(dir: &Dir) -> std::result::Result<Option<String>, PathError> {
    let text = dir.read_file("REVISION", 4096).unwrap_or_default().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.map(|text| text.trim().to_owned());
    Ok(text.filter(|text| text.len() >= 7 && text.chars().all(|c| c.is_ascii_hexdigit())))
}

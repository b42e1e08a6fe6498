//! Getting rid of releases: renamed into the trash under the lock, deleted from there without it.

use super::{LockedTree, Result, Tree, TreeError};
use crate::directory::{Dir, Identity, PathError};
use crate::layout::{CURRENT, STATE, TRASH};
use crate::lock::Lease;
use crate::operation::{Begin, Operation, Outcome};
use crate::release::ReleaseId;
use crate::removal::{self, Removed};
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Instant;

/// Releases that are out of sight, or that must be deleted where they are.
#[derive(Debug, Default)]
pub struct Discarded {
    /// Those that no longer are releases.
    pub gone: Vec<ReleaseId>,
    /// What stays, and why; it names a path.
    pub warnings: Vec<String>,
    /// Those that could not be renamed (EXDEV, the lower layer of an overlay): no manifest says any more that they are
    /// ready, and the lease keeps everyone out until they are deleted.
    in_place: Vec<(ReleaseId, Lease)>,
}

impl LockedTree<'_> {
    /// Takes `victims` out of `releases/`, durably and before any of their files is touched. None of them may be
    /// protected; that it is live or leased is checked once more, by device and inode.
    pub fn discard(&mut self, operation: Operation, victims: &[ReleaseId]) -> Result<Discarded> {
        let mut discarded = Discarded::default();
        if victims.is_empty() {
            return Ok(discarded);
        }
        let started = Instant::now();
        let (from, releases) = (self.standing.live.clone(), victims.to_vec());
        let begin = Begin { from, releases, ..Begin::of(operation, &self.actor.by) };
        let seq = self.begin(&begin)?;
        let trash = self.tree.state().ensure_dir(TRASH, 0o700)?;
        for id in victims {
            match self.discard_one(id, &trash, seq) {
                Ok(None) => discarded.gone.push(id.clone()),
                Ok(Some(lease)) => discarded.in_place.push((id.clone(), lease)),
                Err(error) => discarded.warnings.push(format!("release {id} stays: {error}")),
            }
        }
        self.tree.releases().sync()?;
        trash.sync()?;
        let kept = discarded.warnings.len();
        let note = (kept > 0).then(|| format!("{kept} of {} could not be removed", victims.len()));
        self.done(seq, Outcome::Done, started, note);
        self.keep_ledger();
        Ok(discarded)
    }

    /// Renames one release away; `Some` if it must be deleted where it is.
    fn discard_one(&self, id: &ReleaseId, trash: &Dir, seq: u64) -> Result<Option<Lease>> {
        let releases = self.tree.releases();
        let refuse =
            |why: &str| PathError::new("remove", releases.path().join(id.as_str()), io::Error::other(why.to_owned()));
        let dir = releases.open_dir_here(id.as_str());
        let dir =
            dir.map_err(|error| if error.is(Errno::EXDEV) { refuse("something is mounted on it") } else { error })?;
        let identity = dir.identity()?;
        if self.tree.root().resolve(CURRENT)? == Some(identity) {
            return Err(refuse("it is live").into());
        }
        let Some(lease) = Lease::try_exclusive(&dir)? else { return Err(refuse("its lease was taken").into()) };
        let name = format!("{id}.{seq}");
        // A directory that its owner may not write to cannot be moved elsewhere: its `..` would change.
        match mended(&dir, || releases.move_to(id.as_str(), trash, &name)) {
            Ok(()) => match trash.stat(&name)? {
                Some(stat) if Identity::from(&stat) != identity => {
                    trash.move_to(&name, releases, id.as_str())?;
                    Err(refuse("something else was put in its place meanwhile").into())
                }
                // Where there is nothing, somebody else has just emptied the trash.
                _ => self.tree.forget(id).map(|()| None),
            },
            Err(error) if error.is(Errno::EXDEV) => {
                self.disown(id, &dir)?;
                Ok(Some(lease))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away what makes a release look like one, durably.
    fn disown(&self, id: &ReleaseId, dir: &Dir) -> Result<()> {
        let mut manifest = self.tree.release(id)?;
        manifest.ready_at = None;
        manifest.failure = Some("it is being removed".to_owned());
        self.write_manifest(&manifest)?;
        Ok(dir.sync()?)
    }
}

impl Discarded {
    /// Deletes what had to stay where it was: the code first, our record of it last. Needs no lock but the leases.
    pub fn finish(&mut self, tree: &Tree, tell: &(dyn Fn(u64) + Sync)) -> Vec<Removed> {
        let mut all = Vec::new();
        for (id, lease) in std::mem::take(&mut self.in_place) {
            if let Ok(dir) = tree.open_release(&id) {
                let code = dir.names().unwrap_or_default().into_iter().filter(|name| name != STATE);
                all.extend(code.map(|name| removal::delete_any(&dir, &name, tell)));
            }
            let last = removal::delete(tree.releases(), OsStr::new(id.as_str()), tell);
            if last.left.is_empty() {
                // What is not forgotten now says that it is not ready, and is forgotten with the next of that name.
                let _ = tree.forget(&id);
                self.gone.push(id);
            }
            all.push(last);
            drop(lease);
        }
        all
    }
}

/// Does `act` in or to `dir`; if the directory's own mode forbids it, once more with that mended.
fn mended<T>(dir: &Dir, act: impl Fn() -> Result<T, PathError>) -> Result<T, PathError> {
    match act() {
        Err(error) if error.is(Errno::EACCES) => {
            if dir.set_mode(0o700).is_err() {
                return Err(error);
            }
            act()
        }
        done => done,
    }
}

/// Deletes everything in the trash, whoever put it there. `tell` hears of progress, from several threads.
pub fn empty_trash(tree: &Tree, tell: &(dyn Fn(u64) + Sync)) -> Result<Vec<Removed>> {
    if tree.state().stat(TRASH)?.is_none() {
        return Ok(Vec::new());
    }
    let trash = tree.state().open_dir(TRASH).map_err(TreeError::from)?;
    let names: Vec<OsString> = trash.names()?;
    Ok(names.iter().map(|name| removal::delete_any(&trash, name, tell)).collect())
}

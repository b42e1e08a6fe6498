//! A release being built: its name reserved, its lease held, its manifest telling how far it is.

use super::locked::with_room;
use super::{LARGEST_MANIFEST, Listing, LockedTree, Result, Tree, TreeError, inventory};
use crate::clock::Timestamp;
use crate::directory::{Dir, Identity, PathError};
use crate::layout::{BUILD_LOG, MANIFEST, STATE, is_code};
use crate::lock::{Lease, LockError, Wait};
use crate::operation::{Begin, Operation, Outcome};
use crate::pin::Pin;
use crate::release::{Manifest, Origin, ReleaseId, StepRecord};
use crate::removal;
use crate::sealed::{seal, unseal};
use crate::transfer::{copy_tree, masked};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long somebody else who changes a release's records is waited for.
const MOMENT: Wait = Wait::For(Duration::from_secs(5));

/// What a new release is to be.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Its id; made from the time if not given.
    pub id: Option<ReleaseId>,
    /// Where its code will come from.
    pub origin: Origin,
    /// How long it is kept.
    pub pin: Option<Pin>,
    /// The command it is a part of.
    pub cause: Option<String>,
}

/// A release being built. While this lives, nobody cleans or resumes it.
#[derive(Debug)]
pub struct Build {
    dir: Dir,
    state: Dir,
    /// What its manifest says; written by [`Build::record`] and [`Build::ready`].
    pub manifest: Manifest,
    log: File,
    /// The number of its begin in the journal; none for one that was built before.
    begun: Option<u64>,
    /// Whether it is empty yet, and its manifest says all there is to say.
    fresh: bool,
    /// What is over and not durable yet.
    pending: Vec<StepRecord>,
    /// Records of what is not durable yet, by name.
    papers: Vec<(&'static str, Vec<u8>)>,
    started: Instant,
    lease: Lease,
}

impl LockedTree<'_> {
    /// Reserves a name by mkdir and takes its lease. The name and its manifest are durable on return. A failure leaves
    /// nothing behind; a name that is taken is refused before anything is touched.
    pub fn reserve(&mut self, wanted: Reservation) -> Result<Build> {
        let now = self.actor.clock.now();
        let another = wanted.id.is_none().then(|| wanted.clone());
        let id = self.choose_id(wanted.id, now)?;
        self.tree.forget(&id)?;
        let begin = self.create_begin(&id, wanted.cause);
        let seq = self.begin(&begin)?;
        let started = Instant::now();
        let manifest = Manifest::begin(id, seq, now, self.actor.by.clone(), wanted.origin);
        let made = with_room(self.tree, || self.occupy(&manifest, wanted.pin, seq, started));
        if let Err(error) = &made {
            self.done(seq, Outcome::Failed, started, Some(error.to_string()));
        }
        match (made, another) {
            (Err(TreeError::Exists(_)), Some(wanted)) => self.reserve(wanted),
            (made, _) => made,
        }
    }

    fn choose_id(&self, wanted: Option<ReleaseId>, now: Timestamp) -> Result<ReleaseId> {
        let taken = |id: &ReleaseId| !matches!(self.tree.releases().stat(id.as_str()), Ok(None));
        if let Some(id) = wanted {
            let there = self.tree.releases().stat(id.as_str())?.is_some();
            return if there { Err(TreeError::Exists(id)) } else { Ok(id) };
        }
        let names = self.tree.releases().names()?;
        let ids = names.iter().filter_map(|name| name.to_str()?.parse::<ReleaseId>().ok());
        let newest = ids.filter(ReleaseId::is_dated).max();
        Ok(ReleaseId::next(now, newest.as_ref(), &taken))
    }

    fn create_begin(&self, id: &ReleaseId, cause: Option<String>) -> Begin {
        let (from, to) = (self.standing.live.clone(), Some(id.clone()));
        Begin { from, to, cause, ..Begin::of(Operation::Create, &self.actor.by) }
    }

    /// Makes the directory. One that somebody else makes first is his, whatever was looked at before.
    fn occupy(&self, manifest: &Manifest, pin: Option<Pin>, begun: u64, started: Instant) -> Result<Build> {
        let (releases, id) = (self.tree.releases(), &manifest.id);
        match releases.add_dir(id.as_str(), 0o755) {
            Err(error) if error.is(Errno::EEXIST) => return Err(TreeError::Exists(id.clone())),
            made => made?,
        }
        let furnished = self.furnish(manifest, pin);
        if furnished.is_err() {
            removal::delete(releases, OsStr::new(id.as_str()), &|_| {});
        }
        Ok(Build { begun: Some(begun), fresh: true, started, ..furnished? })
    }

    fn furnish(&self, manifest: &Manifest, pin: Option<Pin>) -> Result<Build> {
        let releases = self.tree.releases();
        let dir = releases.open_dir(manifest.id.as_str())?;
        let lease = take_lease(&dir)?;
        let state = dir.make_dir(STATE, 0o700)?;
        if let Some(name) = pin.and_then(Pin::name) {
            dir.create_file(&name, 0o644)?;
        }
        let log = state.create_file(BUILD_LOG, 0o600)?;
        write_manifest(&state, manifest)?;
        open_like_its_content(&dir)?;
        dir.sync()?;
        releases.sync()?;
        Ok(Build::of(dir, state, log, manifest.clone(), lease))
    }

    /// Takes up a release that was not finished. Its record says what was done; its lease is taken.
    pub fn resume(&mut self, id: &ReleaseId, cause: Option<String>) -> Result<Build> {
        let manifest = self.tree.release(id)?;
        if manifest.ready_at.is_some() {
            return Err(TreeError::NotReady {
                id: id.clone(),
                state: "complete; there is nothing to resume",
                why: None,
            });
        }
        let dir = self.tree.open_release(id)?;
        let lease = take_lease(&dir)?;
        if !manifest.has_done("source") {
            open_like_its_content(&dir)?;
        }
        let state = dir.open_dir(STATE)?;
        let log = open_log(&state)?;
        let begin = self.create_begin(id, cause);
        let begun = Some(self.begin(&begin)?);
        let manifest = Manifest { failure: None, ..manifest };
        Ok(Build { begun, ..Build::of(dir, state, log, manifest, lease) })
    }

    /// Takes up a release that was built before, to run steps on it. Others may use it meanwhile; nobody cleans it.
    pub fn take_up(&mut self, id: &ReleaseId) -> Result<Build> {
        let manifest = self.tree.activatable(id)?;
        let dir = self.tree.open_release(id)?;
        let lease = Lease::try_shared(&dir)?;
        let lease = lease.ok_or_else(|| LockError::held(&dir))?;
        // One that was there before us has no records of its own until now.
        let state = dir.ensure_dir(STATE, 0o700)?;
        let log = open_log(&state)?;
        Ok(Build::of(dir, state, log, manifest, lease))
    }

    /// Writes the outcome of a build into the history. What is ready may be used by others from now on.
    pub fn build_ended(&mut self, build: &Build) {
        let Some(begun) = build.begun else { return };
        if build.manifest.ready_at.is_some() && !matches!(build.lease.share(), Ok(true)) {
            self.notice(format!("the lease of release {} was lost: another program locks its directory", build.id()));
        }
        let outcome = if build.manifest.ready_at.is_some() { Outcome::Done } else { Outcome::Failed };
        self.done(begun, outcome, build.started, build.manifest.failure.clone());
    }
}

impl Build {
    /// One that is in no history yet, of a release that holds something already.
    fn of(dir: Dir, state: Dir, log: File, manifest: Manifest, lease: Lease) -> Self {
        let (pending, papers) = (Vec::new(), Vec::new());
        let (begun, fresh, started) = (None, false, Instant::now());
        Self { dir, state, manifest, log, begun, fresh, pending, papers, started, lease }
    }

    /// The release's directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its name.
    pub fn id(&self) -> &ReleaseId {
        &self.manifest.id
    }

    /// What the build prints goes here.
    pub fn log(&self) -> &File {
        &self.log
    }

    /// Records that a step is over, in place of what was recorded of it before. Durable on return, what the step made
    /// included: a step that is on record must still be true after a power cut.
    pub fn record(&mut self, step: StepRecord) -> Result<()> {
        self.dir.sync_file_system()?;
        self.record_durable(step)
    }

    /// The same of a step that has made durable what it made.
    pub fn record_durable(&mut self, step: StepRecord) -> Result<()> {
        self.manifest.steps.retain(|other| other.name != step.name);
        self.manifest.steps.push(step);
        self.write()
    }

    /// Records that a step is over once [`Build::ready`] has made durable what it made, and not if that fails: what could
    /// not be written may look as if it were there.
    pub fn record_with_commit(&mut self, step: StepRecord) {
        self.pending.push(step);
    }

    /// Writes a record into the release's state directory once [`Build::ready`] has made durable what it tells of, and not
    /// if that fails.
    pub fn write_with_commit(&mut self, name: &'static str, content: Vec<u8>) {
        self.papers.push((name, content));
    }

    /// Forgets steps, so that they are run again. Durable on return.
    pub fn forget(&mut self, forgotten: impl Fn(&StepRecord) -> bool) -> Result<()> {
        self.manifest.steps.retain(|step| !forgotten(step));
        self.write()
    }

    /// Writes down what is in the release now, for [`super::compare`].
    pub fn take_inventory(&mut self) -> Result<()> {
        let total = inventory::write(&self.dir, &self.state)?;
        (self.manifest.entries, self.manifest.bytes) = (total.entries, total.bytes);
        Ok(())
    }

    /// Writes down what has just been made, as it was seen then: nothing else is in the release but these `links`.
    pub fn take_listing(&mut self, mut made: Listing, links: &[&Path]) -> Result<()> {
        inventory::add(&mut made, &self.dir, links)?;
        let total = inventory::write_listing(&self.state, made)?;
        (self.manifest.entries, self.manifest.bytes) = (total.entries, total.bytes);
        Ok(())
    }

    /// The same of what has been made at `at` since the inventory was taken. Whether that could be done.
    pub fn add_listing(&mut self, made: Listing, at: &Path) -> Result<bool> {
        let Some(total) = inventory::extend(&self.dir, &self.state, at, made)? else { return Ok(false) };
        self.manifest.entries += total.entries;
        self.manifest.bytes += total.bytes;
        Ok(true)
    }

    /// Records what is in the release now, for one that was built before. Durable on return.
    pub fn record_anew(&mut self) -> Result<()> {
        self.take_inventory()?;
        self.dir.sync_file_system()?;
        self.write()
    }

    /// Takes what has been done to the code for granted: a resumed build does not take it for damage.
    pub fn accept_changes(&self) -> Result<()> {
        Ok(inventory::renew(&self.dir, &self.state)?)
    }

    /// Copies everything of another release but its records, its pins and its directory `without`.
    pub fn copy_from(&self, other: &Dir, without: Option<&Path>, tell: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let mut leave_out: Vec<Identity> = other.stat(STATE)?.as_ref().map(Identity::from).into_iter().collect();
        leave_out.extend(without.and_then(|path| other.open_below(path).ok()?.identity().ok()));
        copy_tree(other, &self.dir, &leave_out, tell)?;
        for name in self.dir.names()?.iter().filter(|name| !is_code(name) && *name != STATE) {
            self.dir.unlink(name)?;
        }
        Ok(())
    }

    /// Forgets every step and removes everything a former attempt left, but for our own records and pins. What is
    /// forgotten is durable on return.
    pub fn begin_anew(&mut self) -> Result<()> {
        if std::mem::take(&mut self.fresh) {
            return Ok(());
        }
        self.forget(|_| true)?;
        for name in self.dir.names()? {
            if is_code(&name) {
                removal::delete_any(&self.dir, &name, &|_| {}).whole()?;
            }
        }
        Ok(())
    }

    /// Commits the build: what is there now is recorded and on the disk, and the release is ready. The release is not
    /// ready after an error. Nothing has been done to it since its inventory was taken if it is `recorded`.
    pub fn ready(&mut self, now: Timestamp, recorded: bool) -> Result<()> {
        if !recorded {
            self.take_inventory()?;
        }
        self.dir.sync_file_system()?;
        for (name, content) in std::mem::take(&mut self.papers) {
            self.state.put_file(name, &content, 0o600)?;
        }
        self.manifest.steps.append(&mut self.pending);
        self.manifest.ready_at = Some(now);
        write_manifest(&self.state, &self.manifest).inspect_err(|_| self.manifest.ready_at = None)?;
        Ok(())
    }

    /// Writes the manifest. Of a release that is ready others say whether it is good, meanwhile too: that stays.
    fn write(&mut self) -> Result<()> {
        let _alone = self.manifest.ready_at.map(|_| alone(&self.state)).transpose()?;
        if self.manifest.ready_at.is_some()
            && let Some(there) = self.state.read_file(MANIFEST, LARGEST_MANIFEST)?
            && let Some(Manifest { bad, .. }) = unseal(&there)
        {
            self.manifest.bad = bad;
        }
        Ok(write_manifest(&self.state, &self.manifest)?)
    }

    /// Records why the build failed. The release stays incomplete.
    pub fn failed(&mut self, why: &str) -> Result<()> {
        self.manifest.failure = Some(why.to_owned());
        Ok(write_manifest(&self.state, &self.manifest)?)
    }
}

impl Tree {
    /// How much room a new release will probably want: what the newest ready one took, as (bytes, entries).
    pub fn last_size(&self) -> Result<Option<(u64, u64)>> {
        let Some(live) = self.live()?.id().cloned() else { return Ok(None) };
        Ok(self.release(&live).ok().filter(|m| m.entries > 0).map(|manifest| (manifest.bytes, manifest.entries)))
    }
}

/// Opens a build's log to write on at its end.
fn open_log(state: &Dir) -> Result<File> {
    let log = state.open_own(BUILD_LOG, 0o600)?;
    let end = std::io::Seek::seek(&mut &log, std::io::SeekFrom::End(0));
    end.map_err(|cause| PathError::new("open", state.path().join(BUILD_LOG), cause))?;
    Ok(log)
}

/// Lets whoever may enter the directories in a release enter the release itself, whatever umask it was made with.
fn open_like_its_content(dir: &Dir) -> Result<()> {
    Ok(dir.set_mode(0o755 & !masked())?)
}

/// Keeps everybody else who changes the records of a release that is ready from it, for as long as one is changed.
pub(super) fn alone(state: &Dir) -> Result<Lease> {
    Ok(Lease::wait_exclusive(state, MOMENT)?.ok_or_else(|| LockError::held(state))?)
}

/// Whoever looks takes no lease, so one that cannot be had is really held.
fn take_lease(dir: &Dir) -> Result<Lease> {
    Lease::try_exclusive(dir)?.ok_or_else(|| LockError::held(dir).into())
}

#[cfg_attr(debug_assertions, track_caller)]
fn write_manifest(state: &Dir, manifest: &Manifest) -> std::result::Result<(), PathError> {
    let line =
        seal(manifest).map_err(|e| PathError::new("write", state.path().join(MANIFEST), std::io::Error::other(e)))?;
    state.write_file(MANIFEST, (line + "\n").as_bytes(), 0o600)
}

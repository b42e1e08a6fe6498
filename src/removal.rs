//! Deletes a tree: by descriptor, no link followed, nothing mounted entered, bounded in descriptors and memory at any
//! depth or width. What may not be deleted is remembered and the rest goes on.

use crate::directory::{Dir, Identity, Names, PathError, Result, kind};
use crate::walk::visitors;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::statfs::{FsType, fstatfs};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Levels of one worker that stay open; above them a directory is opened again through its child's `..`.
const OPEN_LEVELS: usize = 12;
/// Directories at most this deep are given to another worker.
const SHARED_DEPTH: usize = 8;
/// No more than this many may be left for the end, so that width costs no memory.
const UNFINISHED_MOST: usize = 4096;
/// What statfs says of XFS; not every C library has a name for it.
const XFS: FsType = FsType(0x5846_5342);
/// Failures told by path; the others are only counted.
const TOLD_MOST: usize = 1000;

/// What a deletion did.
#[derive(Debug, Default)]
pub struct Removed {
    /// Files, links and directories that are gone.
    pub entries: u64,
    /// Bytes of disk they held, hard links elsewhere not counted. Each file is looked at for that before it is unlinked,
    /// which takes about a twentieth of the time, and nothing cheaper is true: what a release's record says leaves out
    /// what came into it later and what others share, and the room on the file system is everybody's.
    pub bytes: u64,
    /// What could not be removed, at most a thousand of them.
    pub left: Vec<PathError>,
    /// How many more there were.
    pub left_untold: u64,
}

impl Removed {
    /// The first thing that could not be removed, as the error of whoever wanted all of it gone.
    pub fn whole(self) -> Result<()> {
        self.left.into_iter().next().map_or(Ok(()), Err)
    }

    fn keep(&mut self, error: PathError) {
        if self.left.len() < TOLD_MOST {
            self.left.push(error);
        } else {
            self.left_untold += 1;
        }
    }
}

/// Deletes the directory `name` of `parent` and all below it, on its own file system and mount only. `tell` hears, from
/// several threads, how many entries have gone so far. Not durable on return: what was deleted may come back whole.
pub fn delete(parent: &Dir, name: &OsStr, tell: &(dyn Fn(u64) + Sync)) -> Removed {
    let first = match parent.duplicate() {
        Ok(parent) => Branch { parent, name: name.to_owned(), depth: 0 },
        Err(error) => return Removed { left: vec![error], ..Removed::default() },
    };
    let sweep = Sweep::new(first, tell);
    std::thread::scope(|scope| {
        for _ in 1..workers(parent) {
            // One that cannot be had is done without.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || sweep.work());
        }
        sweep.work();
    });
    sweep.finish(parent)
}

/// Deletes `name` of `parent`, whatever it is; a directory as [`delete`] does.
pub fn delete_any(parent: &Dir, name: &OsStr, tell: &(dyn Fn(u64) + Sync)) -> Removed {
    let mut removed = Removed::default();
    match parent.stat(name) {
        Ok(None) => return removed,
        Ok(Some(stat)) if kind(&stat) == SFlag::S_IFDIR => return delete(parent, name, tell),
        Ok(Some(stat)) => match parent.unlink(name) {
            Ok(_) => (removed.entries, removed.bytes) = (1, given_back(&stat)),
            Err(error) => removed.keep(error),
        },
        Err(error) => removed.keep(error),
    }
    removed
}

/// Several workers, where the file system gains by it: XFS serialises unlinking and loses.
fn workers(dir: &Dir) -> usize {
    if fstatfs(dir).is_ok_and(|fs| fs.filesystem_type() == XFS) { 1 } else { visitors() }
}

/// One deletion, shared by its workers.
struct Sweep<'a> {
    state: Mutex<State>,
    changed: Condvar,
    entries: AtomicU64,
    bytes: AtomicU64,
    removed: Mutex<Removed>,
    tell: &'a (dyn Fn(u64) + Sync),
}

/// Who has what to do.
struct State {
    waiting: Vec<Branch>,
    busy: usize,
    idle: usize,
    /// Directories that another worker was still emptying a part of when all else in them was gone, and their bytes.
    unfinished: BTreeMap<PathBuf, u64>,
}

/// A directory to be emptied and removed, so many levels below the first.
struct Branch {
    parent: Dir,
    name: OsString,
    depth: usize,
}

impl<'a> Sweep<'a> {
    fn new(first: Branch, tell: &'a (dyn Fn(u64) + Sync)) -> Self {
        let state = State { waiting: vec![first], busy: 0, idle: 0, unfinished: BTreeMap::new() };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            removed: Mutex::default(),
            tell,
        }
    }

    fn lock<'m, T>(&self, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, error: PathError) {
        self.lock(&self.removed).keep(error);
    }

    /// Removes waiting branches until none is left and no other worker can add one.
    fn work(&self) {
        let mut state = self.lock(&self.state);
        loop {
            if let Some(branch) = state.waiting.pop() {
                state.busy += 1;
                drop(state);
                Descent::remove(branch, self);
                state = self.lock(&self.state);
                state.busy -= 1;
            } else if state.busy == 0 {
                return self.changed.notify_all();
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Gives the directory `name` of `parent` to a worker that has nothing to do; `false` if there is none.
    fn share(&self, parent: &Dir, name: &OsStr, depth: usize) -> bool {
        let mut state = self.lock(&self.state);
        let wanted = state.idle > state.waiting.len() && state.unfinished.len() < UNFINISHED_MOST;
        if !wanted || depth > SHARED_DEPTH {
            return false;
        }
        let Ok(parent) = parent.duplicate() else { return false };
        state.waiting.push(Branch { parent, name: name.to_owned(), depth });
        self.changed.notify_one();
        true
    }

    /// Removes the directories that could not be removed while others were at work in them, the deepest first.
    fn finish(self, parent: &Dir) -> Removed {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut removed = self.removed.into_inner().unwrap_or_else(PoisonError::into_inner);
        (removed.entries, removed.bytes) = (self.entries.into_inner(), self.bytes.into_inner());
        for (path, bytes) in state.unfinished.into_iter().rev() {
            let below = path.strip_prefix(parent.path()).unwrap_or(&path);
            let (Some(above), Some(last)) = (below.parent(), below.file_name()) else { continue };
            match parent.open_below(above).and_then(|dir| dir.remove_dir(last)) {
                Ok(false) => {}
                Ok(true) => {
                    removed.entries += 1;
                    removed.bytes += bytes;
                }
                // It holds what was told of.
                Err(error) if error.is(Errno::ENOTEMPTY) && !removed.left.is_empty() => {}
                Err(error) => removed.keep(error),
            }
        }
        removed
    }

    fn put_off(&self, directory: &Path, bytes: u64) {
        self.lock(&self.state).unfinished.insert(directory.to_owned(), bytes);
    }

    fn gone(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        (self.tell)(self.entries.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

/// A walk down one branch, depth first, with a stack of its own instead of the thread's.
struct Descent {
    branch: Branch,
    levels: Vec<Level>,
}

struct Level {
    name: OsString,
    identity: Identity,
    bytes: u64,
    /// Closed while the walk is far below.
    open: Option<Names>,
    /// What stays: it failed, or another worker has it.
    kept: HashSet<OsString>,
    /// Whether another worker was given a part of it, however deep.
    shared: bool,
}

impl Level {
    /// Opens a directory for emptying: never through a link or a mount, and with full access, given first if need be.
    fn open(parent: &Dir, name: &OsStr) -> Result<Self> {
        let dir = open_unlocked(parent, name)?;
        let stat = dir.own_stat()?;
        if !Mode::from_bits_truncate(stat.st_mode).contains(Mode::S_IRWXU) {
            // Of a directory of somebody else's it cannot be; what is in it may be removed all the same.
            let _ = dir.set_mode(0o700);
        }
        Ok(Self {
            name: name.to_owned(),
            identity: Identity::from(&stat),
            bytes: bytes(&stat),
            open: Some(dir.into_names()),
            kept: HashSet::new(),
            shared: false,
        })
    }

    /// Opens it again through `below`, a directory in it.
    fn reopen(&mut self, below: &Dir) -> Result<()> {
        if self.open.is_none() {
            // Kept for each level, the paths of a deep tree would fill the memory.
            let path = below.path().parent().unwrap_or(Path::new("")).to_owned();
            self.open = Some(below.open_parent(self.identity, path)?.into_names());
        }
        Ok(())
    }

    /// Leaves an entry where it is. One that is not there has been deleted by somebody else.
    fn leave(&mut self, name: OsString, error: PathError, sweep: &Sweep<'_>) {
        if !error.is(Errno::ENOENT) {
            self.kept.insert(name);
            sweep.keep(error);
        }
    }
}

impl Descent {
    /// Removes a whole branch.
    fn remove(branch: Branch, sweep: &Sweep<'_>) {
        let mut descent = match Level::open(&branch.parent, &branch.name) {
            Ok(level) => Self { branch, levels: vec![level] },
            Err(error) if error.is(Errno::ENOENT) => return,
            Err(error) => return sweep.keep(error),
        };
        while !descent.levels.is_empty() {
            if let Err(error) = descent.step(sweep) {
                return sweep.keep(error);
            }
        }
    }

    /// Removes the next entry of the deepest level, goes down into it, or leaves the level.
    fn step(&mut self, sweep: &Sweep<'_>) -> Result<()> {
        let depth = self.branch.depth + self.levels.len();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(names) = &mut level.open else { return Ok(()) };
        let (name, kind) = match names.next() {
            Some(Ok((name, _))) if level.kept.contains(&name) => return Ok(()),
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                sweep.keep(error);
                return self.ascend(sweep);
            }
            None => return self.ascend(sweep),
        };
        let dir = names.dir();
        let is_directory = match kind {
            Some(SFlag::S_IFDIR) => Ok(true),
            _ => unlink(dir, &name, sweep),
        };
        match is_directory {
            Ok(false) => {}
            Ok(true) if sweep.share(dir, &name, depth) => {
                level.shared = true;
                level.kept.insert(name);
            }
            Ok(true) => match Level::open(dir, &name) {
                Ok(child) => self.descend(child),
                Err(error) => level.leave(name, error, sweep),
            },
            Err(error) => level.leave(name, error, sweep),
        }
        Ok(())
    }

    fn descend(&mut self, child: Level) {
        self.levels.push(child);
        if let Some(far) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            self.levels[far].open = None;
        }
    }

    /// Leaves the deepest level and removes it from the one above.
    fn ascend(&mut self, sweep: &Sweep<'_>) -> Result<()> {
        let Some(done) = self.levels.pop() else { return Ok(()) };
        let Some(dir) = done.open.as_ref().map(Names::dir) else { return Ok(()) };
        let mut above = self.levels.last_mut();
        above.as_mut().map_or(Ok(()), |level| level.reopen(dir))?;
        let parent = above.as_ref().and_then(|level| Some(level.open.as_ref()?.dir())).unwrap_or(&self.branch.parent);
        match parent.remove_dir(&done.name) {
            Ok(true) => sweep.gone(done.bytes),
            Ok(false) => {}
            Err(error) => {
                match error.is(Errno::ENOTEMPTY) {
                    true if done.shared => sweep.put_off(dir.path(), done.bytes),
                    true if !done.kept.is_empty() => {}
                    _ => sweep.keep(error),
                }
                if let Some(above) = above {
                    above.shared |= done.shared;
                    above.kept.insert(done.name);
                }
            }
        }
        Ok(())
    }
}

/// Removes what is no directory; `true` if it is one.
fn unlink(dir: &Dir, name: &OsStr, sweep: &Sweep<'_>) -> Result<bool> {
    match dir.stat(name)? {
        Some(stat) if kind(&stat) == SFlag::S_IFDIR => return Ok(true),
        Some(stat) if dir.unlink(name)? => sweep.gone(given_back(&stat)),
        _ => {}
    }
    Ok(false)
}

/// What the disk gets back when one of a file's names goes.
fn given_back(stat: &FileStat) -> u64 {
    if stat.st_nlink > 1 { 0 } else { bytes(stat) }
}

fn bytes(stat: &FileStat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

/// Opens a directory, given access first if it has none.
fn open_unlocked(parent: &Dir, name: &OsStr) -> Result<Dir> {
    let opened = match parent.open_dir_here(name) {
        Err(error) if error.is(Errno::EACCES) => {
            parent.unlock_dir(name)?;
            parent.open_dir_here(name)
        }
        opened => opened,
    };
    opened.map_err(|error| {
        let mounted = error.is(Errno::EXDEV);
        let cause = || io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted there");
        if mounted { PathError { action: "delete", cause: cause(), ..error } } else { error }
    })
}

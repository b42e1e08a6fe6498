//! Deletes a tree: by descriptor, no link followed, nothing mounted entered, bounded in descriptors and memory at any
//! depth or width. What may not be deleted is remembered and the rest goes on.

use crate::directory::{Dir, Identity, Names, PathError, Result, kind};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::sys::statfs::{FsType, fstatfs};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Levels of one worker that stay open; above them a directory is opened again through its child's `..`.
const OPEN_LEVELS: usize = 6;
/// Directories at most this deep are shared among the workers.
const SHARED_DEPTH: usize = 8;
/// No more than this many are shared in all, so that width costs no memory.
const SHARED_MOST: usize = 4096;
/// What statfs says of XFS; not every C library has a name for it.
const XFS: FsType = FsType(0x5846_5342);
/// Failures told by path; the others are only counted.
const TOLD_MOST: usize = 1000;

/// What a deletion did.
#[derive(Debug, Default)]
pub struct Removed {
    /// Files, links and directories that are gone.
    pub entries: u64,
    /// Bytes of disk they held, hard links elsewhere not counted.
    pub bytes: u64,
    /// What could not be removed, at most a thousand of them.
    pub left: Vec<PathError>,
    /// How many more there were.
    pub left_untold: u64,
}

impl Removed {
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
    let root = match open_mended(parent, name) {
        Ok(root) => root,
        Err(error) if is(&error, Errno::ENOENT) => return Removed::default(),
        Err(error) => {
            let mut removed = Removed::default();
            removed.keep(error);
            return removed;
        }
    };
    let sweep = Sweep::new(&root, tell);
    std::thread::scope(|scope| {
        for _ in 1..workers(&root) {
            // One that cannot be had is done without.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || sweep.work());
        }
        sweep.work();
    });
    sweep.finish(parent, name)
}

/// Deletes `name` of `parent`, whatever it is; a directory as [`delete`] does.
pub fn delete_any(parent: &Dir, name: &OsStr, tell: &(dyn Fn(u64) + Sync)) -> Removed {
    let unlinked = match parent.stat(name) {
        Ok(None) => return Removed::default(),
        Ok(Some(stat)) if kind(&stat) == SFlag::S_IFDIR => return delete(parent, name, tell),
        Ok(Some(_)) => parent.unlink(name).map(drop),
        Err(error) => Err(error),
    };
    let mut removed = Removed { entries: u64::from(unlinked.is_ok()), ..Removed::default() };
    unlinked.unwrap_or_else(|error| removed.keep(error));
    removed
}

/// Two workers, where the file system gains by it: XFS serialises unlinking and loses.
fn workers(root: &Dir) -> usize {
    let serial = fstatfs(root).is_ok_and(|fs| fs.filesystem_type() == XFS);
    if serial { 1 } else { std::thread::available_parallelism().map_or(1, |n| n.get().min(2)) }
}

/// One deletion, shared by its workers.
struct Sweep<'a> {
    root: &'a Dir,
    state: Mutex<State>,
    changed: Condvar,
    entries: AtomicU64,
    bytes: AtomicU64,
    removed: Mutex<Removed>,
    tell: &'a (dyn Fn(u64) + Sync),
}

/// Directories waiting for a worker, and those that were shared and are to be removed in the end.
struct State {
    waiting: Vec<PathBuf>,
    busy: usize,
    shared: Vec<PathBuf>,
}

impl<'a> Sweep<'a> {
    fn new(root: &'a Dir, tell: &'a (dyn Fn(u64) + Sync)) -> Self {
        let state = State { waiting: vec![PathBuf::new()], busy: 0, shared: Vec::new() };
        Self {
            root,
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

    /// Empties waiting directories until none is left and no other worker can add one.
    fn work(&self) {
        let mut state = self.lock(&self.state);
        loop {
            if let Some(branch) = state.waiting.pop() {
                state.busy += 1;
                drop(state);
                self.empty_shared(&branch);
                state = self.lock(&self.state);
                state.busy -= 1;
                self.changed.notify_all();
            } else if state.busy == 0 {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Hands a directory to whichever worker is free; `false` if it is too deep or too many are.
    fn share(&self, branch: PathBuf, depth: usize) -> bool {
        let mut state = self.lock(&self.state);
        if depth >= SHARED_DEPTH || state.shared.len() >= SHARED_MOST {
            return false;
        }
        state.shared.push(branch.clone());
        state.waiting.push(branch);
        self.changed.notify_one();
        true
    }

    /// Removes the files of a shared directory; its own directories are shared in turn, or emptied here.
    fn empty_shared(&self, branch: &Path) {
        let depth = branch.components().count();
        let opened = branch
            .iter()
            .try_fold(None, |at: Option<Dir>, name| open_mended(at.as_ref().unwrap_or(self.root), name).map(Some));
        let dir = match opened.and_then(|dir| dir.map_or_else(|| self.root.duplicate(), Ok)) {
            Ok(dir) => dir,
            Err(error) => return self.lock(&self.removed).keep(error),
        };
        let mut share = |name: &OsStr| self.share(branch.join(name), depth);
        if let Err(error) = Descent::new(dir).and_then(|descent| descent.run(self, &mut share)) {
            self.lock(&self.removed).keep(error);
        }
    }

    /// Removes the shared directories, deepest first, and the root.
    fn finish(self, parent: &Dir, name: &OsStr) -> Removed {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut removed = self.removed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut gone = self.entries.into_inner();
        // Each was shared while its parent was emptied, so the later ones are never above the earlier.
        for path in state.shared.into_iter().rev() {
            let (Some(above), Some(last)) = (path.parent(), path.file_name()) else { continue };
            let result = self.root.open_below(above).and_then(|dir| mended(&dir, || dir.remove_dir(last)));
            gone += count(result, &mut removed);
        }
        gone += count(parent.remove_dir(name), &mut removed);
        removed.entries = gone;
        removed.bytes = self.bytes.into_inner();
        removed
    }

    fn gone(&self, stat: &FileStat) {
        if stat.st_nlink <= 1 || kind(stat) == SFlag::S_IFDIR {
            self.bytes.fetch_add(stat.st_blocks.unsigned_abs() * 512, Ordering::Relaxed);
        }
        (self.tell)(self.entries.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

/// A directory that is not empty holds what was already told of, and one that could not be opened was told of itself:
/// its own failure would say it twice.
fn count(result: Result<bool>, removed: &mut Removed) -> u64 {
    match result {
        Ok(gone) => u64::from(gone),
        Err(error) if is(&error, Errno::ENOTEMPTY) && !removed.left.is_empty() => 0,
        Err(error) if removed.left.iter().any(|told| told.path == error.path) => 0,
        Err(error) => {
            removed.keep(error);
            0
        }
    }
}

/// A walk down one branch, depth first, with a stack of its own instead of the thread's.
struct Descent {
    levels: Vec<Level>,
}

struct Level {
    name: OsString,
    identity: Identity,
    /// Closed while the walk is far below.
    open: Option<(Dir, Names)>,
    /// What stays: it failed, or somebody else removes it.
    kept: HashSet<OsString>,
}

impl Level {
    fn new(name: OsString, dir: Dir) -> Result<Self> {
        let (identity, names) = (dir.identity()?, mended(&dir, || dir.stream())?);
        Ok(Self { name, identity, open: Some((dir, names)), kept: HashSet::new() })
    }
}

impl Descent {
    fn new(dir: Dir) -> Result<Self> {
        Ok(Self { levels: vec![Level::new(OsString::new(), dir)?] })
    }

    /// Empties the directory it began with. `share` may take a directory of that first level off its hands.
    fn run(mut self, sweep: &Sweep<'_>, share: &mut dyn FnMut(&OsStr) -> bool) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            let Some((dir, names)) = &mut level.open else { return Ok(()) };
            match names.next() {
                Some(Ok(name)) if level.kept.contains(&name) => {}
                Some(Ok(name)) => {
                    let top = self.levels.len() == 1;
                    self.remove(name, sweep, &mut |name| top && share(name));
                }
                Some(Err(errno)) => {
                    sweep.lock(&sweep.removed).keep(PathError::new("list", dir.path(), errno));
                    self.ascend(sweep)?;
                }
                None => self.ascend(sweep)?,
            }
        }
        Ok(())
    }

    /// Removes one entry of the deepest level, or goes down into it.
    fn remove(&mut self, name: OsString, sweep: &Sweep<'_>, share: &mut dyn FnMut(&OsStr) -> bool) {
        let Some(level) = self.levels.last_mut() else { return };
        let Some((dir, _)) = &level.open else { return };
        let outcome = mended(dir, || dir.stat(&name)).and_then(|stat| match stat {
            None => Ok(None),
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => {
                if share(&name) {
                    level.kept.insert(name.clone());
                    return Ok(None);
                }
                open_mended(dir, &name).and_then(|child| Level::new(name.clone(), child)).map(Some)
            }
            Some(stat) => {
                mended(dir, || dir.unlink(&name))?;
                sweep.gone(&stat);
                Ok(None)
            }
        });
        match outcome {
            Ok(None) => {}
            Ok(Some(child)) => self.descend(child),
            // Somebody else deletes here too.
            Err(error) if is(&error, Errno::ENOENT) => {}
            Err(error) => {
                level.kept.insert(name);
                sweep.lock(&sweep.removed).keep(error);
            }
        }
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
        let Some(above) = self.levels.last_mut() else { return Ok(()) };
        if above.open.is_none() {
            let Some((below, _)) = &done.open else { return Ok(()) };
            // Kept for each level, the paths of a deep tree would fill the memory.
            let path = below.path().parent().unwrap_or(Path::new("")).to_owned();
            let dir = below.open_parent(above.identity, path)?;
            let names = dir.stream()?;
            above.open = Some((dir, names));
        }
        let Some((dir, _)) = &above.open else { return Ok(()) };
        let stat = dir.stat(&done.name).ok().flatten();
        match mended(dir, || dir.remove_dir(&done.name)) {
            Ok(_) => stat.iter().for_each(|stat| sweep.gone(stat)),
            Err(error) => {
                if !is(&error, Errno::ENOTEMPTY) || done.kept.is_empty() {
                    sweep.lock(&sweep.removed).keep(error);
                }
                above.kept.insert(done.name);
            }
        }
        Ok(())
    }
}

/// Opens a directory for emptying: never through a link or a mount, given access first if it has none.
fn open_mended(parent: &Dir, name: &OsStr) -> Result<Dir> {
    let opened = match parent.open_dir_here(name) {
        Err(error) if is(&error, Errno::EACCES) => {
            parent.unlock_dir(name)?;
            parent.open_dir_here(name)
        }
        opened => opened,
    };
    opened.map_err(|error| {
        let mounted = is(&error, Errno::EXDEV);
        let cause = || io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted there");
        if mounted { PathError { action: "delete", cause: cause(), ..error } } else { error }
    })
}

/// Does `act` in or to `dir`; if the directory's own mode forbids it, once more with that mended.
pub fn mended<T>(dir: &Dir, act: impl Fn() -> Result<T>) -> Result<T> {
    match act() {
        Err(error) if is(&error, Errno::EACCES) => {
            if dir.set_mode(0o700).is_err() {
                return Err(error);
            }
            act()
        }
        done => done,
    }
}

fn is(error: &PathError, errno: Errno) -> bool {
    error.cause.raw_os_error() == Some(errno as i32)
}

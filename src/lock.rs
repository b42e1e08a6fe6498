//! The lock protocol.
//!
//! Two kinds of lock, both flock: they belong to the kernel and die with their holder, so nobody ever has to unlock.
//!
//! * The **tree lock** is short and exclusive. Whoever changes `current`, the journal or the set of releases holds it; no
//!   build does while it works. It is a file that is never deleted or replaced. After flock the descriptor is compared
//!   with the name once more: two holders of two files of the same name would be none.
//! * A **lease** is long and belongs to one release: exclusive for its build, shared for what runs in it, and for whoever
//!   built it once it is ready. It is a flock on the release's own directory, so it follows the release wherever it is
//!   renamed.
//!
//! A third is held for moments and is the last in order: a flock on the `.releasectl` of a release that is ready, by
//! whoever changes its manifest. It is not held for anything else, so that it may be waited for.
//!
//! Order: lease before tree lock. While holding the tree lock a lease may only be tried, never waited for.
//!
//! All descriptors are close-on-exec, so no child inherits the tree lock; only `exec` lets its lease live on, on purpose.
//! The note in the lock file says who holds it. It is for messages only: nothing is ever decided by it.

use crate::clock::Timestamp;
use crate::directory::{Dir, Identity, PathError};
use crate::layout::LOCK;
use crate::process;
use crate::release::without_password;
use fs2::FileExt as Flock;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::fstat;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that is waited for is tried.
const POLL: Duration = Duration::from_millis(20);
/// The most a note can hold.
const LARGEST_NOTE: u64 = 4096;
/// What /proc counts in, on every architecture.
const TICKS_PER_SECOND: i64 = 100;

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The user who started it.
    pub user: String,
    /// The command as it was typed.
    pub command: String,
    /// The host it runs on.
    pub host: String,
    /// Since when.
    pub since: Timestamp,
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    For(Duration),
    /// As long as it takes.
    Forever,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{} is locked{}", path.display(), by(holder.as_deref()))]
    Busy {
        /// The tree, or the release.
        path: PathBuf,
        /// Who, if they left a note.
        holder: Option<Box<Holder>>,
    },
    /// It could not be tried.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl LockError {
    /// Somebody else has the lock on the directory `dir`: who, /proc tells.
    pub fn held(dir: &Dir) -> Self {
        let holder = dir.own_stat().ok().and_then(|own| holder_of(own.st_ino)).map(Box::new);
        Self::Busy { path: dir.path().to_owned(), holder }
    }
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        let Holder { pid, user, command, since, .. } = holder;
        format!(" by {user} (pid {pid}, `{command}`, since {since})")
    })
}

/// The tree lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct TreeLock {
    file: File,
    /// Whether the note is in it. A file with a second name elsewhere is locked and not written.
    noted: bool,
}

impl TreeLock {
    /// Takes the lock of the tree whose state directory is `state`, and leaves `holder` as the note.
    pub fn acquire(state: &Dir, holder: &Holder, wait: Wait) -> Result<Self, LockError> {
        let path = state.path().join(LOCK);
        let started = Instant::now();
        loop {
            let file = state.open_or_create(LOCK, 0o600)?;
            if !try_flock(&file, &path, true)? {
                if !again(wait, started) {
                    let tree = state.path().parent().unwrap_or(state.path()).to_owned();
                    return Err(LockError::Busy { path: tree, holder: holder_by_note(&file).map(Box::new) });
                }
                continue;
            }
            let own = fstat(&file).map_err(|e| PathError::new("look at", &path, e))?;
            let named = state.stat(LOCK)?;
            if named.is_some_and(|named| Identity::from(&named) == Identity::from(&own)) {
                let noted = own.st_nlink == 1;
                if noted {
                    leave_note(&file, holder);
                }
                return Ok(Self { file, noted });
            }
        }
    }
}

impl Drop for TreeLock {
    fn drop(&mut self) {
        // A note without a holder would only puzzle; failing to clear it harms nobody.
        if self.noted {
            let _ = self.file.set_len(0);
        }
    }
}

/// Who holds the tree lock, without trying it: a look must not make a change busy.
pub fn tree_lock_holder(state: &Dir) -> Option<Holder> {
    let file = state.open_file(LOCK).ok().flatten()?;
    let holder = note(&file)?;
    let inode = fstat(&file).ok()?.st_ino;
    holders(inode).contains(&holder.pid).then_some(holder)
}

/// Who holds the tree lock open as `file`: who left the note, unless the kernel shows that somebody else does. A holder
/// that was killed could not clear its note.
fn holder_by_note(file: &File) -> Option<Holder> {
    let inode = fstat(file).ok()?.st_ino;
    let pids = holders(inode);
    let note = note(file).filter(|note| pids.is_empty() || pids.contains(&note.pid));
    note.or_else(|| holder_of(inode))
}

fn leave_note(file: &File, holder: &Holder) {
    let note = serde_json::to_vec(holder).unwrap_or_default();
    let _ = file.set_len(0).and_then(|()| file.write_all_at(&note, 0));
}

fn note(file: &File) -> Option<Holder> {
    let mut bytes = vec![0; usize::try_from(LARGEST_NOTE).ok()?];
    let read = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes[..read]).ok()
}

/// A lease on one release.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

impl Lease {
    /// Tries to take the exclusive lease of the release open as `release`; `None` if anybody holds one.
    pub fn try_exclusive(release: &Dir) -> Result<Option<Self>, PathError> {
        Self::of(release, true)
    }

    /// Tries to take a shared lease; `None` if somebody holds the exclusive one.
    pub fn try_shared(release: &Dir) -> Result<Option<Self>, PathError> {
        Self::of(release, false)
    }

    /// Waits for the exclusive lock on `dir`, a directory that is no release: for whoever reads a file there, changes it
    /// and puts it back. `None` if somebody else holds it all that time.
    pub fn wait_exclusive(dir: &Dir, wait: Wait) -> Result<Option<Self>, PathError> {
        let started = Instant::now();
        loop {
            let had = Self::try_exclusive(dir)?;
            if had.is_some() || !again(wait, started) {
                return Ok(had);
            }
        }
    }

    /// A duplicated descriptor would share its lock with the original, so the directory is opened anew.
    fn of(release: &Dir, exclusive: bool) -> Result<Option<Self>, PathError> {
        let again = release.open_dir(".")?;
        let fd = again.as_fd().try_clone_to_owned().map_err(|e| PathError::new("open", release.path(), e))?;
        let file = File::from(fd);
        Ok(try_flock(&file, release.path(), exclusive)?.then_some(Self { file }))
    }

    /// Shares what was held alone. Only for who holds the tree lock: for a moment the kernel has nobody hold it, and nobody
    /// else tries for it alone meanwhile. Whether it is held still.
    pub fn share(&self) -> Result<bool, PathError> {
        try_flock(&self.file, Path::new("the release"), false)
    }

    /// Lets the program that this process becomes, and its children, inherit the lease.
    pub fn hand_down(&self) -> Result<(), PathError> {
        let kept = fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()));
        kept.map(drop).map_err(|errno| PathError::new("hand down the lease of", "the release", errno))
    }
}

/// The processes that hold a flock on the file with this inode number, from /proc/locks. For showing, not for deciding:
/// the kernel names the device in a way that cannot be compared everywhere, and hides holders in other namespaces.
pub fn holders(inode: u64) -> Vec<u32> {
    all_holders().into_iter().filter(|(_, at)| *at == inode).map(|(pid, _)| pid).collect()
}

/// Who holds a flock on the file with this inode number, as /proc tells; for messages.
pub fn holder_of(inode: u64) -> Option<Holder> {
    let pid = holders(inode).into_iter().next()?;
    let command = Some(process::command(pid)).filter(|command| !command.is_empty())?;
    let command = String::from_utf8_lossy(&command);
    let words: Vec<_> = command.split_terminator('\0').map(without_password).collect();
    let owner = std::fs::metadata(process::place(pid)).ok()?;
    let uid = nix::unistd::Uid::from_raw(std::os::unix::fs::MetadataExt::uid(&owner));
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    Some(Holder { pid, user, command: words.join(" "), host: String::new(), since: started(pid)? })
}

/// When a process was started. The times of its directory in /proc say when somebody first looked at it.
fn started(pid: u32) -> Option<Timestamp> {
    let ticks: i64 = process::field(pid, 19)?.parse().ok()?;
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let booted: i64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_unix(booted.checked_add(ticks / TICKS_PER_SECOND)?)
}

/// Every flock on this host: who holds it, and the inode number it is on.
pub fn all_holders() -> Vec<(u32, u64)> {
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    table.lines().filter_map(flock_line).collect()
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; lines of waiters have an arrow and are no holders.
fn flock_line(line: &str) -> Option<(u32, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next() != Some("FLOCK") {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    Some((pid, fields.next()?.rsplit(':').next()?.parse().ok()?))
}

fn try_flock(file: &File, path: &Path, exclusive: bool) -> Result<bool, PathError> {
    let answer = if exclusive { Flock::try_lock_exclusive(file) } else { Flock::try_lock_shared(file) };
    match answer {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(cause) => Err(PathError::new("lock", path, cause)),
    }
}

/// Sleeps a little if there is time left.
fn again(wait: Wait, started: Instant) -> bool {
    let left = match wait {
        Wait::No => return false,
        Wait::For(limit) => limit.saturating_sub(started.elapsed()),
        Wait::Forever => POLL,
    };
    std::thread::sleep(left.min(POLL));
    !left.is_zero()
}

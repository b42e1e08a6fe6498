//! Copies a tree or a file, several directories at a time: content is shared where the file system can (reflinks), copied
//! in the kernel elsewhere. Links are copied as links and never followed; modes and times come along, ownership, setuid
//! bits and sockets do not.

mod file;

pub use file::{Copier, Look, finish};

use crate::directory::{Dir, Identity, PathError, Result, kind};
use crate::walk::{Visit, walk_making};
use nix::sys::stat::{FileStat, Mode, SFlag, umask};
use nix::unistd::geteuid;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Permission bits that are carried over.
const PERMISSIONS: u32 = 0o777;

/// Copies everything in `from` into the directory `into`, which must hold none of it yet. Directories that are one of
/// `leave_out` are passed over. `tell` hears, from several threads, how many entries there are so far. Not durable on
/// return.
pub fn copy_tree(from: &Dir, into: &Dir, leave_out: &[Identity], tell: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let copy = Copy { leave_out, copier: Copier::default(), made: AtomicU64::new(0), tell };
    copy.tree(from, into, false)
}

/// Copies the one entry `name`, a file, a link or a whole directory, which must not exist in `into`.
pub fn copy_entry(from: &Dir, name: &OsStr, into: &Dir, tell: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let copy = Copy { leave_out: &[], copier: Copier::default(), made: AtomicU64::new(0), tell };
    if copy.entry(from, into, name)? {
        copy.tree(&from.open_dir(name)?, &into.open_dir(name)?, true)?;
    }
    Ok(())
}

/// A copy under way.
struct Copy<'a> {
    leave_out: &'a [Identity],
    copier: Copier,
    made: AtomicU64,
    tell: &'a (dyn Fn(u64) + Sync),
}

/// A directory and its copy.
type Pair = (Dir, Dir);

impl Copy<'_> {
    /// Copies what is below `from`; the copy of `from` itself gets its mode and time if it is `whole`.
    fn tree(&self, from: &Dir, into: &Dir, whole: bool) -> Result<()> {
        let directory = |path: &Path, above: Option<&Pair>| {
            let (source, target) = match (above, path.file_name()) {
                (Some((source, target)), Some(name)) => (source.open_dir(name)?, target.open_dir(name)?),
                _ => (from.open_below(path)?, into.open_below(path)?),
            };
            let below = self.directory(&source, &target)?;
            if whole || !path.as_os_str().is_empty() {
                finish_dir(&source, &target)?;
            }
            Ok(Visit { handle: (source, target), below, found: () })
        };
        walk_making(directory).map(drop)
    }

    /// Copies what is in one directory; those in it are made empty, and named.
    fn directory(&self, source: &Dir, target: &Dir) -> Result<Vec<OsString>> {
        let mut below = Vec::new();
        for seen in source.stream()? {
            let (name, kind) = seen?;
            if kind == Some(SFlag::S_IFREG) {
                self.file(source, target, &name)?;
            } else if self.entry(source, target, &name)? {
                below.push(name);
            }
        }
        Ok(below)
    }

    /// Copies one entry. Whether it is a directory, which is empty then.
    fn entry(&self, source: &Dir, target: &Dir, name: &OsStr) -> Result<bool> {
        let Some(stat) = source.stat(name)? else { return Ok(false) };
        match kind(&stat) {
            SFlag::S_IFDIR if self.leave_out.contains(&Identity::from(&stat)) => return Ok(false),
            SFlag::S_IFDIR => {
                target.add_dir(name, 0o700)?;
                self.count();
                return Ok(true);
            }
            SFlag::S_IFLNK => {
                let Some(to) = source.read_link(name)? else { return Ok(false) };
                target.symlink(name, &to)?;
                target.set_mtime(name, stat.st_mtime, stat.st_mtime_nsec)?;
            }
            SFlag::S_IFREG => return self.file(source, target, name).map(|()| false),
            // Where processes meet: nobody would answer at a copy.
            SFlag::S_IFSOCK | SFlag::S_IFIFO => return Ok(false),
            _ => {
                let cause = io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file, a directory nor a link");
                return Err(PathError::new("copy", source.path().join(name), cause));
            }
        }
        self.count();
        Ok(false)
    }

    fn file(&self, source: &Dir, target: &Dir, name: &OsStr) -> Result<()> {
        let Some((mut from, stat)) = source.open_seen(name)? else { return Ok(()) };
        self.copier.copy(&mut from, &stat, target, name, look(&stat))?;
        self.count();
        Ok(())
    }

    fn count(&self) {
        (self.tell)(self.made.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

fn look(stat: &FileStat) -> Look {
    Look { mode: stat.st_mode & PERMISSIONS, time: (stat.st_mtime, stat.st_mtime_nsec) }
}

fn finish_dir(source: &Dir, target: &Dir) -> Result<()> {
    let stat = source.own_stat()?;
    target.set_mode(stat.st_mode & PERMISSIONS)?;
    target.set_mtime(".", stat.st_mtime, stat.st_mtime_nsec)
}

/// Permission bits that nothing gets, as `tar x` would have it: none for root, and the umask for others. It can only be
/// read by setting it.
pub fn masked() -> u32 {
    if geteuid().is_root() {
        return 0;
    }
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

//! What makes a change survive a crash: whole files replaced, links flipped, lines appended, directories synced.

#[cfg(debug_assertions)]
mod mutant;

use crate::directory::{Dir, PathError, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, fsync, syncfs};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Whether a change that was made is also known to be on the disk.
#[derive(Debug)]
#[must_use]
pub enum Durability {
    /// It survives a power cut.
    Durable,
    /// It was made, but flushing it failed. Never retried: a second fsync may lie.
    Unknown(PathError),
}

impl Dir {
    /// Replaces the file `name` with `bytes`: on return the new content is durable, before that the old one is whole.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn write_file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.put_file(name, bytes, mode)?;
        self.sync()
    }

    /// The same for one of many: that it is the new one is durable with the next sync of the directory.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn put_file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let temporary = format!(".{name}.tmp");
        self.unlink(&temporary)?;
        let mut file = self.create_file(&temporary, mode)?;
        let written = write_through(&mut file, bytes).map_err(self.fail_io("write", name));
        if let Err(error) = written.and_then(|()| self.rename(&temporary, name)) {
            let _ = self.unlink(&temporary);
            return Err(error);
        }
        Ok(())
    }

    /// Opens the regular file `name` for reading and writing, made with `mode` if there is none. One that has a second name
    /// elsewhere is copied first: nothing but what has this name is ever changed.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn open_own(&self, name: &str, mode: u32) -> Result<File> {
        let mut file = self.open_or_create(name, mode)?;
        if fstat(&file).map_err(self.fail("look at", name))?.st_nlink > 1 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(self.fail_io("read", name))?;
            self.write_file(name, &bytes, mode)?;
            file = self.open_or_create(name, mode)?;
        }
        Ok(file)
    }

    /// Replaces the content of the existing file `name`, which keeps its mode and owner. Durable as after
    /// [`Dir::write_file`]. Whoever calls it sees to it that nobody else does so at once.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn rewrite_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let old = self.stat(name)?.ok_or_else(|| self.fail("look at", name)(Errno::ENOENT))?;
        let temporary = staged(name);
        self.unlink(&temporary)?;
        let mut file = self.create_file(&temporary, 0o600)?;
        let written = file.write_all(bytes).map_err(self.fail_io("write", name)).and_then(|()| {
            let (owner, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            fchown(&file, Some(owner), Some(group)).map_err(self.fail("keep the owner of", name))?;
            let mode = Mode::from_bits_truncate(old.st_mode);
            fchmod(&file, mode).map_err(self.fail("keep the mode of", name))
        });
        let synced = match written {
            Ok(()) => sync_file(&file, &self.path().join(name)),
            failed => failed,
        };
        if let Err(error) = synced.and_then(|()| self.rename(&temporary, name)) {
            let _ = self.unlink(&temporary);
            return Err(error);
        }
        self.sync()
    }

    /// Prepares the link that [`Dir::commit_link`] puts in place: a stale temporary one is cleared, the new one is durable.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn stage_link(&self, name: &str, target: &OsStr) -> Result<()> {
        let temporary = staged(name);
        self.unlink(&temporary)?;
        self.symlink(&temporary, target)?;
        self.sync()
    }

    /// The commit point of a flip: renames the staged link over `name`. After `Ok` the new link is what everyone reads;
    /// after `Err` nothing has changed.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn commit_link(&self, name: &str) -> Result<Durability> {
        self.rename(staged(name), name)?;
        Ok(match self.sync() {
            Ok(()) => Durability::Durable,
            Err(error) => Durability::Unknown(error),
        })
    }

    /// Clears what an interrupted [`Dir::stage_link`] or [`Dir::rewrite_file`] left.
    pub fn unstage(&self, name: &str) -> Result<bool> {
        self.unlink(staged(name))
    }

    /// Makes the entries of this directory durable (fsync).
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn sync(&self) -> Result<()> {
        flush(fsync, self.as_fd()).map_err(|e| PathError::new("sync", self.path(), e))
    }

    /// Makes everything on this directory's file system durable (syncfs), whoever wrote it.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn sync_file_system(&self) -> Result<()> {
        flush(syncfs, self.as_fd()).map_err(|e| PathError::new("sync the file system of", self.path(), e))
    }
}

/// Appends `line` in one write. Where only a part of it fits the rest is tried once more, for the system then says why;
/// what was written is taken back, so that the file ends where it ended before.
pub fn append_line(file: &mut File, path: &Path, end: u64, line: &[u8]) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let outcome = match file.write_at(line, end) {
        Ok(written) if written == line.len() => return Ok(()),
        Ok(written) => file.write_all_at(&line[written..], end + written as u64),
        Err(cause) => Err(cause),
    };
    outcome.map_err(|cause| {
        let _ = file.set_len(end);
        PathError::new("append to", path, cause)
    })
}

/// Cuts `file` back to its first `end` bytes. Durable with the next sync of it.
pub fn cut(file: &File, path: &Path, end: u64) -> Result<()> {
    file.set_len(end).map_err(|e| PathError::new("cut", path, e))
}

/// Makes the content of `file` durable (fsync).
#[cfg_attr(debug_assertions, track_caller)]
pub fn sync_file(file: &File, path: &Path) -> Result<()> {
    flush(fsync, file.as_fd()).map_err(|e| PathError::new("sync", path, e))
}

/// Writes `bytes` to the new `file` and makes them durable.
#[cfg_attr(debug_assertions, track_caller)]
fn write_through(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    Ok(flush(fsync, file.as_fd())?)
}

/// Every sync there is, so that one can be left out where the tests run it.
#[cfg_attr(debug_assertions, track_caller)]
fn flush<'f>(sync: fn(BorrowedFd<'f>) -> nix::Result<()>, of: BorrowedFd<'f>) -> nix::Result<()> {
    #[cfg(debug_assertions)]
    if mutant::leaves_out(of, std::panic::Location::caller()) {
        return Ok(());
    }
    sync(of)
}

fn staged(name: &str) -> String {
    format!(".{name}.releasectl")
}

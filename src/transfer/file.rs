//! One file: made, filled and finished with the fewest calls, and what it looks like then.

use crate::directory::{Dir, Result};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, ftruncate, lseek};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Files at most this long are copied through memory, in two calls.
const SHORT: usize = 16 * 1024;
/// What a file's status counts its room in.
const BLOCK: i64 = 512;
/// Holes of shorter files are filled: they save little, and where all is compressed every file seems to have some.
const LONG: i64 = 1 << 20;

/// Permission bits and modification time (seconds, nanoseconds) of a file to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub time: (i64, i64),
}

/// Gives the file that was made as `name` of `dir` and filled its time, and its mode if it was not made with it. Returns
/// its status.
pub fn finish(dir: &Dir, name: &OsStr, file: &File, look: Look) -> Result<FileStat> {
    let time = TimeSpec::new(look.time.0, look.time.1);
    futimens(file, &time, &time).map_err(dir.fail("set the time of", name))?;
    let stat = fstat(file).map_err(dir.fail("look at", name))?;
    if stat.st_mode & 0o7777 == look.mode {
        return Ok(stat);
    }
    fchmod(file, Mode::from_bits_truncate(look.mode)).map_err(dir.fail("change the mode of", name))?;
    fstat(file).map_err(dir.fail("look at", name))
}

/// Fills files with what others hold: shared where the file system can do that, copied in the kernel elsewhere.
#[derive(Debug)]
pub struct Copier {
    clones: AtomicBool,
}

impl Default for Copier {
    fn default() -> Self {
        Self { clones: AtomicBool::new(true) }
    }
}

impl Copier {
    /// Makes `name` in `into` with the content of `from`, whose status is `stat`. Not durable on return.
    pub fn copy(&self, from: &mut File, stat: &FileStat, into: &Dir, name: &OsStr, look: Look) -> Result<FileStat> {
        let mut file = into.create_file(name, look.mode)?;
        if stat.st_size > 0 && !self.clone(from, &file) {
            let filled = if stat.st_size >= LONG && stat.st_blocks * BLOCK < stat.st_size {
                fill_around_holes(from, &mut file, stat.st_size)
            } else {
                fill(from, &mut file, stat.st_size.cast_unsigned())
            };
            filled.map_err(into.fail_io("copy to", name))?;
        }
        finish(into, name, &file, look)
    }

    /// Whether `into` now shares the content of `from`. Once a file system has said that it cannot, it is not asked again.
    fn clone(&self, from: &File, into: &File) -> bool {
        if !self.clones.load(Ordering::Relaxed) {
            return false;
        }
        match clone_content(from, into) {
            Ok(()) => true,
            Err(errno) => {
                let never = [Errno::EOPNOTSUPP, Errno::EXDEV, Errno::ENOTTY, Errno::ENOSYS, Errno::EPERM];
                if never.contains(&errno) {
                    self.clones.store(false, Ordering::Relaxed);
                }
                false
            }
        }
    }
}

/// Copies a file of `size` bytes that takes less room than it is long: a database may be mapped far beyond what is in it.
fn fill_around_holes(from: &mut File, into: &mut File, size: i64) -> io::Result<()> {
    let mut end = 0;
    while end < size {
        let data = match lseek(&*from, end, Whence::SeekData) {
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => break,
            data => data?,
        };
        end = lseek(&*from, data, Whence::SeekHole)?;
        for file in [&*from, &*into] {
            lseek(file, data, Whence::SeekSet)?;
        }
        fill(from, into, (end - data).cast_unsigned())?;
    }
    Ok(ftruncate(&*into, size)?)
}

/// Copies at most `size` bytes; fewer if the file has become shorter.
fn fill(from: &mut File, into: &mut File, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > SHORT as u64 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(&*from, None, &*into, None, length) {
            Ok(0) | Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => break,
            Ok(copied) => left -= (copied as u64).min(left),
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut buffer = [0; SHORT];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(SHORT).min(SHORT);
        match from.read(&mut buffer[..length]) {
            Ok(0) => break,
            Ok(read) => {
                into.write_all(&buffer[..read])?;
                left -= read as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

/// FICLONE: `into`, which is empty, shares the blocks of `from`, until one of them is written to.
#[expect(unsafe_code, reason = "an ioctl on two open descriptors; no memory is passed")]
fn clone_content(from: &File, into: &File) -> nix::Result<()> {
    use nix::libc::{FICLONE, ioctl};
    // SAFETY: both descriptors are open for the length of the call, and its argument is a number.
    Errno::result(unsafe { ioctl(into.as_raw_fd(), FICLONE as _, from.as_raw_fd()) }).map(drop)
}

//! Copies a tree or a file: data shared where the file system can (copy_file_range reflinks there), copied in the kernel
//! elsewhere. Links are copied as links and never followed; modes and times come along, ownership and setuid bits do not.

use crate::directory::{Dir, Identity, PathError, Result, kind};
use nix::sys::stat::{FileStat, SFlag};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Permission bits that are carried over.
const PERMISSIONS: u32 = 0o777;

/// What a copy made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, links and directories.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Copies everything in `from` into the directory `into`, which must hold none of it yet. Directories that are one of
/// `leave_out` are passed over. `tell` hears what has been copied so far. Not durable on return.
pub fn copy_tree(from: &Dir, into: &Dir, leave_out: &[Identity], tell: &mut dyn FnMut(Copied)) -> Result<Copied> {
    let mut copy = Copy { from, into, leave_out, copied: Copied::default(), waiting: vec![PathBuf::new()], tell };
    while let Some(directory) = copy.waiting.pop() {
        copy.directory(&directory)?;
    }
    Ok(copy.copied)
}

/// Copies the one entry `name`, a file, a link or a whole directory, which must not exist in `into`.
pub fn copy_entry(from: &Dir, name: &OsStr, into: &Dir, tell: &mut dyn FnMut(Copied)) -> Result<Copied> {
    let mut copy = Copy { from, into, leave_out: &[], copied: Copied::default(), waiting: Vec::new(), tell };
    copy.entry(from, into, Path::new(""), name)?;
    while let Some(directory) = copy.waiting.pop() {
        copy.directory(&directory)?;
    }
    Ok(copy.copied)
}

/// A copy under way. Directories wait as paths relative to the two roots, so that depth costs no descriptors.
struct Copy<'a> {
    from: &'a Dir,
    into: &'a Dir,
    leave_out: &'a [Identity],
    copied: Copied,
    waiting: Vec<PathBuf>,
    tell: &'a mut dyn FnMut(Copied),
}

impl Copy<'_> {
    /// Copies what is in one directory, then gives the copy its mode and time.
    fn directory(&mut self, relative: &Path) -> Result<()> {
        let (source, target) = (self.from.open_below(relative)?, self.into.open_below(relative)?);
        for name in source.stream()? {
            let name = name.map_err(|e| PathError::new("list", source.path(), e))?;
            self.entry(&source, &target, relative, &name)?;
        }
        if relative.as_os_str().is_empty() {
            return Ok(());
        }
        let stat = source.own_stat()?;
        target.set_mode(stat.st_mode & PERMISSIONS)?;
        target.set_mtime(".", stat.st_mtime, stat.st_mtime_nsec)
    }

    fn entry(&mut self, source: &Dir, target: &Dir, relative: &Path, name: &OsStr) -> Result<()> {
        let Some(stat) = source.stat(name)? else { return Ok(()) };
        match kind(&stat) {
            SFlag::S_IFDIR if self.leave_out.contains(&Identity::from(&stat)) => return Ok(()),
            SFlag::S_IFDIR => {
                target.make_dir(name, 0o700)?;
                self.waiting.push(relative.join(name));
            }
            SFlag::S_IFLNK => {
                let Some(to) = source.read_link(name)? else { return Ok(()) };
                target.symlink(name, &to)?;
                target.set_mtime(name, stat.st_mtime, stat.st_mtime_nsec)?;
            }
            SFlag::S_IFREG => self.copied.bytes += copy_file(source, name, target, &stat)?,
            _ => {
                let cause = io::Error::other("it is neither a file, a directory nor a link");
                return Err(PathError::new("copy", source.path().join(name), cause));
            }
        }
        self.copied.entries += 1;
        (self.tell)(self.copied);
        Ok(())
    }
}

fn copy_file(source: &Dir, name: &OsStr, target: &Dir, stat: &FileStat) -> Result<u64> {
    let Some(mut reader) = source.open_file(name)? else { return Ok(0) };
    let mut writer = target.create_file(name, 0o600)?;
    let fail = |cause| PathError::new("copy to", target.path().join(name), cause);
    let bytes = io::copy(&mut reader, &mut writer).map_err(fail)?;
    let mode = nix::sys::stat::Mode::from_bits_truncate(stat.st_mode & PERMISSIONS);
    nix::sys::stat::fchmod(&writer, mode).map_err(|errno| fail(errno.into()))?;
    target.set_mtime(name, stat.st_mtime, stat.st_mtime_nsec)?;
    Ok(bytes)
}

//! The names in a directory, and what each of them is. They are asked of the kernel itself: the C library's own stream
//! costs some calls and pages more for each directory, and there may be thousands.

use super::{DIRECTORY, Dir, PathError, Result, SAFE, kind, read_all};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

/// A name and what it is, if the file system says so with the name.
pub type Named = (OsString, Option<SFlag>);

/// How much the kernel may tell at once: some two hundred names.
const AT_ONCE: usize = 8192;
/// Where the length of an entry, its kind and its name are in what the kernel tells.
const LENGTH: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

impl Dir {
    /// The names in this directory, in its own order, read as they are asked for through a descriptor of their own.
    pub fn stream(&self) -> Result<Names> {
        let fd = openat(self, ".", DIRECTORY, Mode::empty()).map_err(|e| PathError::new("list", &self.path, e))?;
        Ok(Self { fd, path: self.path.clone() }.into_names())
    }

    /// The same through its own descriptor. It must not have been read before.
    pub fn into_names(self) -> Names {
        Names { dir: self, told: IntoIter::default() }
    }

    /// The names in the directory `name` of this one, and the regular file at `below` in it if it can be had at once, no
    /// component of it a link: one descriptor for both, for whoever looks into thousands. `None` says nothing of why.
    pub fn look_into(&self, name: &OsStr, below: &str, limit: u64) -> Result<(Vec<OsString>, Option<Vec<u8>>)> {
        let mut listed = self.open_dir(name)?.into_names();
        let names = listed.by_ref().map(|seen| seen.map(|(name, _)| name)).collect::<Result<_>>()?;
        let how = OpenHow::new().flags(OFlag::O_RDONLY | SAFE).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let Ok(fd) = openat2(listed.dir(), below, how) else { return Ok((names, None)) };
        let size = match fstat(&fd) {
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            _ => return Ok((names, None)),
        };
        let bytes = read_all(&File::from(fd), size, limit).ok();
        Ok((names, bytes))
    }

    /// All of them at once.
    pub fn names(&self) -> Result<Vec<OsString>> {
        self.stream()?.map(|seen| seen.map(|(name, _)| name)).collect()
    }
}

/// The names in a directory, without `.` and `..`.
pub struct Names {
    dir: Dir,
    told: IntoIter<Named>,
}

impl Names {
    /// The directory they are in.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Iterator for Names {
    type Item = Result<Named>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(named) = self.told.find(|(name, _)| name != "." && name != "..") {
                return Some(Ok(named));
            }
            match ask(&self.dir) {
                // A directory that has been removed meanwhile has no names.
                Err(Errno::ENOENT) => return None,
                Err(errno) => return Some(Err(PathError::new("list", self.dir.path(), errno))),
                Ok(told) if told.is_empty() => return None,
                Ok(told) => self.told = told.into_iter(),
            }
        }
    }
}

/// The next names of a directory; none at its end.
#[expect(
    unsafe_code,
    reason = "the C library has no wrapper everywhere; the buffer outlives the call, its size is told"
)]
fn ask(dir: &Dir) -> nix::Result<Vec<Named>> {
    use nix::libc::{SYS_getdents64, syscall};
    use std::os::fd::AsRawFd;
    let mut buffer = Aligned([0; AT_ONCE]);
    let length = unsafe { syscall(SYS_getdents64, dir.fd.as_raw_fd(), buffer.0.as_mut_ptr(), AT_ONCE) };
    let length = Errno::result(length).map(|length| usize::try_from(length).unwrap_or_default())?;
    let mut rest = &buffer.0[..length];
    let entries = std::iter::from_fn(|| {
        let (entry, next) = parse(rest)?;
        rest = next;
        Some(entry)
    });
    Ok(entries.collect())
}

#[repr(align(8))]
struct Aligned([u8; AT_ONCE]);

/// The first of the entries in `bytes`, and what comes after it.
fn parse(bytes: &[u8]) -> Option<(Named, &[u8])> {
    let length = u16::from_ne_bytes([*bytes.get(LENGTH)?, *bytes.get(LENGTH + 1)?]);
    let name = CStr::from_bytes_until_nul(bytes.get(NAME..)?).ok()?;
    let kind = Some(u32::from(*bytes.get(KIND)?)).filter(|kind| *kind != 0);
    // The type bits of a mode, as they stand in it.
    let kind = kind.map(|kind| SFlag::from_bits_truncate(kind << 12));
    Some(((OsStr::from_bytes(name.to_bytes()).to_owned(), kind), bytes.get(usize::from(length)..)?))
}

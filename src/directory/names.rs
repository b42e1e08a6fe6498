//! The names in a directory, and what each of them is.

use super::{DIRECTORY, Dir, PathError, Result, SAFE, kind, read_all};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

impl Dir {
    /// The names in this directory, in its own order, read as they are asked for through a descriptor of their own.
    pub fn stream(&self) -> Result<Names> {
        let stream = nix::dir::Dir::openat(self, ".", DIRECTORY, Mode::empty());
        stream.map(|dir| Names(Kinds(dir.into_iter()))).map_err(|e| PathError::new("list", &self.path, e))
    }

    /// The same with what each of them is, where the file system says so with the name.
    pub fn stream_kinds(&self) -> Result<Kinds> {
        self.stream().map(|names| names.0)
    }

    /// The names in the directory `name` of this one, and the regular file at `below` in it if it can be had at once, no
    /// component of it a link: one descriptor for both, for whoever looks into thousands. `None` says nothing of why.
    pub fn look_into(&self, name: &OsStr, below: &str, limit: u64) -> Result<(Vec<OsString>, Option<Vec<u8>>)> {
        let mut dir = nix::dir::Dir::openat(self, name, DIRECTORY, Mode::empty()).map_err(self.fail("open", name))?;
        let names = dir.iter().filter_map(named).map(|seen| seen.map(|(name, _)| name));
        let names = names.collect::<nix::Result<_>>().map_err(self.fail("list", name))?;
        let how = OpenHow::new().flags(OFlag::O_RDONLY | SAFE).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let Ok(fd) = openat2(&dir, below, how) else { return Ok((names, None)) };
        let size = match fstat(&fd) {
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            _ => return Ok((names, None)),
        };
        let bytes = read_all(&File::from(fd), size, limit).ok();
        Ok((names, bytes))
    }

    /// All of them at once.
    pub fn names(&self) -> Result<Vec<OsString>> {
        self.stream()?.collect::<nix::Result<_>>().map_err(|e| PathError::new("list", &self.path, e))
    }
}

/// The names in a directory, without `.` and `..`.
pub struct Names(Kinds);

impl Iterator for Names {
    type Item = nix::Result<OsString>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|seen| seen.map(|(name, _)| name))
    }
}

/// The names in a directory, each with what it is if the file system says so.
pub struct Kinds(nix::dir::OwningIter);

impl Iterator for Kinds {
    type Item = nix::Result<(OsString, Option<nix::dir::Type>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.by_ref().find_map(named)
    }
}

/// The name of an entry and what it is; nothing for `.` and `..`.
fn named(entry: nix::Result<nix::dir::Entry>) -> Option<nix::Result<(OsString, Option<nix::dir::Type>)>> {
    let seen = entry.map(|e| (OsStr::from_bytes(e.file_name().to_bytes()).to_owned(), e.file_type()));
    Some(seen).filter(|seen| !matches!(seen, Ok((name, _)) if name == "." || name == ".."))
}

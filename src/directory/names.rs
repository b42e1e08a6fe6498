//! The names in a directory, and what each of them is.

use super::{DIRECTORY, Dir, PathError, Result};
use nix::sys::stat::Mode;
use std::ffi::{OsStr, OsString};
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
        let seen = |e: nix::dir::Entry| (OsStr::from_bytes(e.file_name().to_bytes()).to_owned(), e.file_type());
        self.0.by_ref().map(|entry| entry.map(seen)).find(|seen| !matches!(seen, Ok((n, _)) if n == "." || n == ".."))
    }
}

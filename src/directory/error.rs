//! What could not be done to which path.

use nix::errno::Errno;
use std::io;
use std::path::PathBuf;

/// What could not be done, to which path, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {cause}", path.display())]
pub struct PathError {
    /// The verb: "open", "rename", …
    pub action: &'static str,
    /// The path it was done to.
    pub path: PathBuf,
    /// The system's answer.
    pub cause: io::Error,
}

impl PathError {
    /// An error about `path`.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Self {
        Self { action, path: path.into(), cause: cause.into() }
    }

    /// Whether something else stands where a file should.
    pub fn is_no_file(&self) -> bool {
        self.cause.get_ref().is_some_and(|cause| cause.is::<NotAFile>())
    }

    /// Whether this is what the system answered.
    pub fn is(&self, errno: Errno) -> bool {
        self.cause.raw_os_error() == Some(errno as i32)
    }

    /// Whether the file system has no room left: blocks, inodes or quota.
    pub fn is_full(&self) -> bool {
        self.is(Errno::ENOSPC) || self.is(Errno::EDQUOT)
    }
}

/// What stands where a file should: a directory, a link, a FIFO, a device.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is not a regular file")]
pub struct NotAFile;

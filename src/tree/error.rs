//! Why a tree could not be looked at or changed.

use crate::directory::PathError;
use crate::lock::LockError;
use crate::release::ReleaseId;
use std::path::PathBuf;

/// What went wrong with a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing is there, or nothing of ours.
    #[error("there is no release tree at {}", .0.display())]
    NoTree(PathBuf),
    /// Something is there that is not ours.
    #[error("{} is not empty and not a release tree", .0.display())]
    NotOurs(PathBuf),
    /// `current` is a file or a directory of its own.
    #[error("{} is {what}, not a link", path.display())]
    CurrentIsNoLink {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It lies where nothing that is promised can be kept.
    #[error("{} lies on NFS, where neither locks nor flips are safe", .0.display())]
    OnNfs(PathBuf),
    /// No such release.
    #[error("there is no release {0}")]
    NoRelease(String),
    /// It is in `releases/`, and was not made here.
    #[error("{0} lies in releases/, but nothing is known of it")]
    Foreign(ReleaseId),
    /// The release is there and cannot be used.
    #[error("release {id} is {state}{}", why.as_ref().map_or(String::new(), |w| format!(": {w}")))]
    NotReady {
        /// The release.
        id: ReleaseId,
        /// What it is instead of ready.
        state: &'static str,
        /// What its record says of that.
        why: Option<String>,
    },
    /// A name that a new release cannot have.
    #[error("release {0} exists already")]
    Exists(ReleaseId),
    /// A record cannot be read.
    #[error("the manifest of release {id} cannot be used: {why}")]
    Damaged {
        /// The release.
        id: String,
        /// In what way.
        why: String,
    },
    /// The flip was prepared and not made.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The system refused.
    #[error(transparent)]
    Path(#[from] PathError),
}

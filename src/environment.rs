//! A release's virtual environment, as its manifest tells of it.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How an environment came to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// Installed from packages.
    Built,
    /// Linked from an earlier release.
    Linked,
    /// Brought from another host with its release.
    Imported,
}

/// What installed the packages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Installer {
    /// uv.
    Uv,
    /// pip.
    Pip,
}

/// A finished environment, as the release's manifest tells of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Environment {
    /// Its directory, relative to the release.
    pub directory: PathBuf,
    /// Python's version, `3.11.2`.
    pub python: String,
    /// The interpreter it was made with, links resolved.
    pub interpreter: PathBuf,
    /// The digest of what was asked for, `sha256:…`.
    pub digest: String,
    /// How it came to be.
    pub made: Made,
    /// What installed its packages, here or in the release it was linked from.
    pub installer: Installer,
    /// The release it was linked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why no earlier environment served again, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// How many distributions it holds.
    pub packages: usize,
}

//! `path`: where a release is.

use super::{Context, Outcome, Target};
use crate::error::Result;
use crate::release::ReleaseId;
use serde::Serialize;
use std::path::PathBuf;

/// A release's place.
#[derive(Debug, Serialize)]
pub struct Located {
    /// Which it is.
    pub release: ReleaseId,
    /// Its directory.
    pub path: PathBuf,
}

/// Finds `target`.
pub fn run(context: &Context, target: &Target) -> Result<Outcome> {
    let tree = context.tree()?;
    let release = target.resolve(&tree)?;
    let path = tree.open_release(&release)?.path().to_owned();
    Ok(Outcome::Path(Located { release, path }))
}

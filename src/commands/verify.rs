//! `verify`: whether a release is what it was when it became ready.

use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::layout::MIRROR;
use crate::release::{ReleaseId, SourceKind};
use crate::source::Commit;
use crate::tree::{Difference, compare};
use serde::Serialize;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Which release.
    pub release: ReleaseId,
    /// How it differs.
    #[serde(flatten)]
    pub difference: Difference,
    /// Whether contents were compared too.
    pub contents: bool,
}

/// Compares `target` with its inventory, and the contents of its files with the commit they came from.
pub fn run(context: &Context, target: &Target) -> Result<Outcome> {
    let tree = context.tree()?;
    let id = target.resolve(&tree)?;
    let manifest = tree.activatable(&id)?;
    let dir = tree.open_release(&id)?;
    let Some(mut difference) = compare(&dir)? else {
        let why = if manifest.origin.kind == SourceKind::Adopted {
            "it was there before releasectl"
        } else {
            "it is gone or damaged"
        };
        let hint = "build it anew: `releasectl create`";
        return Err(Error::refused(format!("release {id} has no inventory to compare with: {why}")).hint(hint));
    };
    let mut contents = false;
    if let (SourceKind::Git, Some(hash)) = (manifest.origin.kind, manifest.origin.revision) {
        let commit = Commit { location: manifest.origin.location, hash, submodules: false };
        let stages = &*context.stages;
        let compared =
            stages.during("compare", || commit.compare(&dir, &tree.state().open_dir(MIRROR)?, &context.tools, stages));
        match compared {
            Ok(changed) => {
                difference.changed.extend(changed);
                contents = true;
            }
            Err(error) => stages.warn(&format!("contents were not compared: {error}")),
        }
    }
    difference.changed.sort_unstable();
    difference.changed.dedup();
    difference.changed.retain(|path| !difference.missing.contains(path));
    Ok(Outcome::Verify(Verified { release: id, difference, contents }))
}

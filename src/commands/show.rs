//! `show`: one release.

use super::describe::{Release, Surroundings};
use super::{Context, Outcome, Target, in_use};
use crate::error::Result;
use crate::release::StepRecord;
use crate::tree::{Found, TreeError};
use serde::Serialize;

/// One release and what its build did.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The release.
    pub release: Release,
    /// What its build did.
    pub steps: Vec<StepRecord>,
    /// Why its build failed.
    pub failure: Option<String>,
    /// Why it is bad.
    pub bad: Option<String>,
}

/// Looks at `target`.
pub fn run(context: &Context, target: &Target) -> Result<Outcome> {
    let tree = context.tree()?;
    let id = target.resolve(&tree)?;
    let none = || TreeError::NoRelease(id.to_string());
    let entry = tree.entry(id.as_str().as_ref())?.ok_or_else(none)?;
    if let Found::Damaged(id, why) = &entry.found {
        return Err(TreeError::Damaged { id: id.to_string(), why: why.clone() }.into());
    }
    let standing = tree.standing()?;
    let used = in_use(&tree);
    let release = Surroundings::new(&tree, &standing, &used)?.describe(&entry).ok_or_else(none)?;
    let manifest = entry.manifest();
    let steps = manifest.map(|manifest| manifest.steps.clone()).unwrap_or_default();
    let failure = manifest.and_then(|manifest| manifest.failure.clone());
    let bad = manifest.and_then(|manifest| manifest.bad.clone());
    Ok(Outcome::Show(Shown { release, steps, failure, bad }))
}

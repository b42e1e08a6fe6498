//! `list`: every release.

use super::describe::{Release, Surroundings};
use super::{Context, Outcome, in_use};
use crate::error::Result;
use crate::release::ReleaseId;
use crate::tree::Found;
use serde::Serialize;

/// The releases, oldest first.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// What is live.
    pub current: Option<ReleaseId>,
    /// What a rollback would go to.
    pub previous: Option<ReleaseId>,
    /// All of them.
    pub releases: Vec<Release>,
    /// What lies in `releases/` and is none.
    pub foreign: Vec<String>,
}

/// Looks at all of them.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let standing = tree.standing()?;
    let used = in_use(&tree);
    let around = Surroundings::new(&tree, &standing, &used)?;
    let (mut releases, mut foreign) = (Vec::new(), Vec::new());
    for entry in tree.entries()? {
        match &entry.found {
            Found::Damaged(id, why) => {
                context.stages.warn(&format!("the manifest of release {id} cannot be used: {why}"))
            }
            Found::Foreign => foreign.push(entry.name.to_string_lossy().into_owned()),
            _ => {}
        }
        releases.extend(around.describe(&entry));
    }
    Ok(Outcome::List(Listing { current: standing.live.clone(), previous: around.previous, releases, foreign }))
}

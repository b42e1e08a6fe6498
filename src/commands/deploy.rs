//! `deploy`: create, activate, clean.

use super::activate::{Activation, flip};
use super::clean::{self, Clean};
use super::create::{self, Create, Resume};
use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::lock::{Lease, LockError, holder_of};
use crate::operation::Operation;
use crate::release::{ReleaseId, StepRecord, StepStatus};
use crate::tree::Tree;
use serde::Serialize;
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Deploy {
    /// The release to be built.
    pub create: Create,
    /// One that was built before.
    pub release: Option<Target>,
    /// Go on with a deploy that did not come to its end.
    pub resume: bool,
}

/// A deploy that came to its end.
#[derive(Debug, Serialize)]
pub struct Deployed {
    /// What it changed.
    #[serde(flatten)]
    pub activation: Activation,
    /// Releases that were removed afterwards.
    pub removed: Vec<String>,
}

/// Builds a release, makes it live and removes what nobody needs any more. One deploy at a time.
pub fn run(context: &Context, wanted: &Deploy) -> Result<Outcome> {
    let tree = context.tree_or_new()?;
    let _turn = Lease::try_exclusive(tree.state())?.ok_or_else(|| another(&tree))?;
    let (id, mut steps, _lease) = release(context, &tree, wanted)?;
    let started = Instant::now();
    let mut locked = context.lock_briefly(&tree)?;
    let activation = flip(context, &mut locked, Operation::Activate, &id, "deploy")?;
    drop(locked);
    steps.push(step("activate", started));
    let started = Instant::now();
    let removed = match clean::run(context, &Clean::default()) {
        Ok(Outcome::Clean(cleaned)) => {
            cleaned.warnings.iter().for_each(|warning| context.stages.warn(warning));
            cleaned.removed.into_iter().map(|judged| judged.id).collect()
        }
        Ok(_) => Vec::new(),
        Err(error) => {
            context.stages.warn(&format!("the release is live, but cleaning failed: {}", error.message));
            Vec::new()
        }
    };
    steps.push(step("clean", started));
    Ok(Outcome::Deploy(Deployed { activation: Activation { steps, ..activation }, removed }))
}

/// The release to go live: built now, gone on with, or built before. A lease that was taken for it is handed on.
fn release(
    context: &Context,
    tree: &Tree,
    wanted: &Deploy,
) -> Result<(ReleaseId, Vec<StepRecord>, Option<crate::tree::Build>)> {
    if let Some(target) = &wanted.release {
        let id = target.resolve(tree)?;
        tree.activatable(&id)?;
        return Ok((id, Vec::new(), None));
    }
    let mut create = wanted.create.clone();
    if wanted.resume {
        let entries = tree.entries()?;
        let newest = entries.iter().rev().find_map(|entry| entry.manifest());
        let newest =
            newest.ok_or_else(|| Error::refused("there is no deploy to go on with").hint("leave out --resume"))?;
        if newest.ready_at.is_some() {
            return Ok((newest.id.clone(), Vec::new(), None));
        }
        create.resume = Some(Resume::Release(newest.id.clone()));
    }
    let build = create::build(context, tree, &create, "deploy")?;
    Ok((build.id().clone(), build.manifest.steps.clone(), Some(build)))
}

fn another(tree: &Tree) -> Error {
    let path = tree.layout().root().to_owned();
    LockError::Busy { path, holder: tree.state().identity().ok().and_then(|it| holder_of(it.inode)).map(Box::new) }
        .into()
}

fn step(name: &str, started: Instant) -> StepRecord {
    let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    StepRecord { name: name.to_owned(), status: StepStatus::Done, seconds }
}

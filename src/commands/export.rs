//! `export`: a release as a tar for another host.

use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::export::{Export, Luggage, SCHEMA};
use crate::layout::SHARED;
use crate::lock::{Lease, LockError};
use crate::recipe::{Phase, Settings};
use crate::release::{Manifest, ReleaseId, StepStatus};
use crate::source::{self, Packed, Shared};
use crate::steps;
use crate::tree::Tree;
use serde::Serialize;
use std::io::Write;

/// What was written.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// Which release.
    pub release: ReleaseId,
    /// How much of it.
    pub packed: Packed,
}

/// Writes `target`, which must be ready or bad, to `out`, which must be no terminal. It is not cleaned meanwhile.
pub fn run(context: &Context, target: &Target, out: &mut dyn Write, terminal: bool) -> Result<Outcome> {
    if terminal {
        let hint = "redirect it, or pipe it: `releasectl export | ssh host releasectl create -`";
        return Err(Error::refused("a tar is not written to a terminal").hint(hint));
    }
    let tree = context.tree()?;
    let id = target.resolve(&tree)?;
    let manifest = tree.activatable(&id)?;
    let release = tree.open_release(&id)?;
    let _lease = Lease::try_shared(&release)?.ok_or_else(|| LockError::held(&release))?;
    let settings = context.config.with_recipe(&release)?;
    let export = papers(&tree, &settings, manifest)?;
    let (place, table) = (&tree.layout().root().join(SHARED), &settings.shared);
    let shared = Shared { place, table };
    let stages = &*context.stages;
    let packed = stages.during("export", || source::pack(&release, &export, shared, out, stages));
    let packed = packed.map_err(|error| {
        let error = Error::from(error);
        Error { message: format!("what was written is not whole, and no host takes it: {}", error.message), ..error }
    })?;
    Ok(Outcome::Export(Exported { release: id, packed }))
}

/// What travels with it. Of the steps, those that were done to build it: what was skipped here may be called for there.
fn papers(tree: &Tree, settings: &Settings, manifest: Manifest) -> Result<Export> {
    let release = tree.open_release(&manifest.id)?;
    let building = |name: &str| steps::of_phase(settings, Phase::Create).any(|step| step.name == name);
    let steps = manifest.steps.into_iter().filter(|step| step.status == StepStatus::Done && building(&step.name));
    let python = match manifest.python {
        Some(environment) => Some(Luggage {
            links: source::links_out(&release, &environment.directory)?,
            release: release.path().to_owned(),
            resolved: std::fs::canonicalize(release.path())
                .map_err(|cause| crate::directory::PathError::new("resolve", release.path(), cause))?,
            environment,
        }),
        None => None,
    };
    let (id, created_at, origin, steps) = (manifest.id, manifest.created_at, manifest.origin, steps.collect());
    Ok(Export { schema: SCHEMA, id, created_at, origin, steps, python })
}

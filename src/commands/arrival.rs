//! A release that came from another host, made at home here before its code is called complete.

use super::Context;
use super::assemble::{Manner, earlier};
use super::tee::{Tee, note};
use crate::error::Result;
use crate::export::Export;
use crate::layout::CACHE;
use crate::python::{self, Order};
use crate::recipe::Phase;
use crate::release::StepRecord;
use crate::removal;
use crate::steps;
use crate::tree::{Build, Tree};
use std::path::Path;

/// Makes its virtual environment right at its new path, or removes it where it is not wanted or does not fit, so that it
/// is built. Returns the steps that were done there and need not be done here.
pub(super) fn settle(
    context: &Context,
    tree: &Tree,
    build: &Build,
    export: &Export,
    manner: Manner,
) -> Result<Vec<StepRecord>> {
    let settings = context.config.with_recipe(build.dir())?;
    note(build, &format!("export of {}, built on {}", export.id, export.created_at));
    if let Some(luggage) = &export.python {
        let plan = python::plan(build.dir(), &settings.python)?.filter(|_| !manner.no_python);
        let wanted = plan.filter(|plan| plan.directory == luggage.environment.directory);
        if let Some(plan) = wanted {
            let cache = tree.state().ensure_dir(CACHE, 0o700)?;
            let previous = earlier(tree, build)?;
            let (release, tools, cache) = (build.dir(), &context.tools, cache.path());
            let order = Order { plan: &plan, release, previous: &previous, cache, tools };
            let mut tee = Tee::new(context, build);
            let unfit = python::take_over(&order, luggage, &mut |bytes| tee.write(bytes))?;
            if let Some(why) = unfit {
                let directory = plan.directory.display();
                context.stages.warn(&format!("the {directory} that came with it does not fit here: {why}"));
                note(build, &format!("python {directory} is built afresh: {why}"));
            }
        } else {
            leave_out(build, &luggage.environment.directory)?;
        }
    }
    let known = |step: &&StepRecord| steps::of_phase(&settings, Phase::Create).any(|own| own.name == step.name);
    Ok(export.steps.iter().filter(known).cloned().collect())
}

/// Removes the environment that nobody wants here.
fn leave_out(build: &Build, directory: &Path) -> Result<()> {
    let Ok(parent) = build.dir().open_below(directory.parent().unwrap_or(Path::new(""))) else { return Ok(()) };
    Ok(removal::delete_any(&parent, directory.file_name().unwrap_or_default(), &|_| {}).whole()?)
}

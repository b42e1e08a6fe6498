//! What a build does, in order: source, shared links, what is carried over, python_env, the recipe's steps of phase
//! "create". Each is recorded when it is over and skipped on resume while that is still true.

use super::arrival;
use super::inside::workplace;
use super::tee::{Tee, note};
use super::{Context, programs};
use crate::directory::Dir;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::layout::{CACHE, MIRROR};
use crate::python::{self, Built, Order};
use crate::recipe::{Phase, Settings};
use crate::release::{ReleaseId, StepRecord, StepStatus};
use crate::sharing;
use crate::source::{self, Earlier, Ready, Site};
use crate::steps::{self, record};
use crate::supervisor::conf::declared_in;
use crate::supervisor::render::{self, Host};
use crate::tree::{Build, Inventory, Tree, compare, recorded};
use crate::workplace::OPERATION;
use std::path::Path;
use std::time::Instant;

/// How a release is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Without a virtual environment.
    pub no_python: bool,
    /// On resume: even though the recipe has changed since.
    pub anyway: bool,
}

/// Does everything that is not on record, and commits the build.
pub(super) fn run(context: &Context, tree: &Tree, build: &mut Build, ready: &Ready, manner: Manner) -> Result<()> {
    let still = is_there(build)?;
    let mut whole = !still && bring_source(context, tree, build, ready, manner)?;
    let settings = context.config.with_recipe(build.dir())?;
    check_recipe(context, build, manner.anyway)?;
    check_templates(context, build.dir(), &settings)?;
    // What was brought just now has its links already.
    if still && !sharing::link(&settings.shared, tree.root(), build.dir())?.is_empty() {
        build.accept_changes()?;
    }
    carry(context, tree, build, &settings)?;
    if let Some(python) = if manner.no_python { None } else { make_python(context, tree, build, &settings)? } {
        if steps::of_phase(&settings, Phase::Create).next().is_some() || settings.supervisor.templates.is_some() {
            record_python(build, python)?;
        } else {
            let alone = !still && settings.shared.carry.is_empty();
            whole = record_python_with_commit(build, python, alone)?;
        }
    }
    run_steps(context, tree, build, &settings)?;
    render(context, tree, build, &settings)?;
    commit(context, build, whole)
}

/// Renders the files for supervisord, where the recipe has templates. What the code ships instead must be fit to be read.
pub(super) fn render(context: &Context, tree: &Tree, build: &mut Build, settings: &Settings) -> Result<()> {
    let started = Instant::now();
    let Some(templates) = &settings.supervisor.templates else {
        if programs::configured(context).is_some() {
            declared_in(build.dir())?;
        }
        return Ok(());
    };
    check_templates(context, build.dir(), settings)?;
    let files = rendered(context, tree, build.dir(), templates, settings)?;
    render::write(build.dir(), &files)?;
    note(build, &format!("supervisor {} files rendered", files.len()));
    Ok(build.record(record("supervisor", StepStatus::Done, started))?)
}

/// What this host gets of the templates of `release`.
pub(super) fn rendered(
    context: &Context,
    tree: &Tree,
    release: &Dir,
    templates: &Path,
    settings: &Settings,
) -> Result<Vec<(String, String)>> {
    let host = Host {
        environment: programs::owner(context).to_owned(),
        root: tree.layout().root().to_owned(),
        python: settings.python.place().to_owned(),
        name: context.actor.host.clone(),
        roles: settings.roles.clone(),
        user: settings.user.clone(),
    };
    Ok(render::render(&render::templates(release, templates)?, &settings.supervisor, &host)?)
}

/// Commits a build: what is there is on the disk, and the release is ready. Its inventory is right already if it is
/// `recorded`.
pub(super) fn commit(context: &Context, build: &mut Build, recorded: bool) -> Result<()> {
    Ok(context.stages.during("sync", || build.ready(context.actor.clock.now(), recorded))?)
}

/// Whether the code is there, file by file as it was brought.
fn is_there(build: &Build) -> Result<bool> {
    Ok(build.manifest.has_done("source") && compare(build.dir())?.is_some_and(|found| found.keeps_what_was()))
}

/// Brings the code in, and the links to what releases share. Whether that is all there is to do, and the inventory has
/// been taken.
fn bring_source(context: &Context, tree: &Tree, build: &mut Build, ready: &Ready, manner: Manner) -> Result<bool> {
    let origin = &build.manifest.origin;
    note(build, &format!("source {} {}", origin.location, origin.revision.as_deref().unwrap_or_default()));
    build.begin_anew()?;
    let started = Instant::now();
    let mirrors = tree.state().ensure_dir(MIRROR, 0o700)?;
    let (release, tools, stages) = (build.dir(), &context.tools, &*context.stages);
    // Only files of a commit are known by what they hold; an open release would be one in use.
    let earlier = if let Ready::Commit(_) = ready { earlier_source(tree, build.id())? } else { None };
    let link = context.config.settings.source.link;
    let (own, earlier) = (tree.root().identity()?, earlier.as_ref());
    let made = source::bring(ready, &Site { release, mirrors: &mirrors, tree: own, earlier, link, tools, stages })?;
    let brought = match ready.export()? {
        Some(export) => arrival::settle(context, tree, build, &export, manner)?,
        None => Vec::new(),
    };
    let done = record("source", StepStatus::Done, started);
    let settings = context.config.with_recipe(build.dir())?;
    let linked = sharing::link(&settings.shared, tree.root(), build.dir());
    let (all, listed) = (linked.is_ok() && is_all(&settings, build.dir())?, made.is_some());
    match made {
        Some(made) => build.take_listing(made, linked.as_deref().unwrap_or_default())?,
        None if all => {}
        None => build.take_inventory()?,
    }
    if all {
        // Nothing else is to be done: the commit of the whole build makes this durable, and records it then.
        build.record_with_commit(done);
        return Ok(listed);
    }
    build.manifest.steps.extend(brought);
    build.record(done)?;
    // What was brought is on record whether it could be linked or not.
    linked?;
    Ok(false)
}

/// The release whose files may serve again: the live one, or else the newest that is ready.
pub(super) fn earlier_source(tree: &Tree, own: &ReleaseId) -> Result<Option<Earlier>> {
    let live = tree.live()?.id().cloned();
    let newest = || {
        let entries = tree.entries()?;
        let ready = entries.iter().rev().filter_map(|entry| entry.manifest()).find(|other| other.ready_at.is_some());
        Ok::<_, Error>(ready.map(|manifest| manifest.id.clone()))
    };
    let id = live.map_or_else(newest, |live| Ok(Some(live)))?;
    let Some(dir) = id.filter(|id| id != own).and_then(|id| tree.open_release(&id).ok()) else { return Ok(None) };
    // One that cannot be read is no help, and no hindrance either.
    Ok(Inventory::read(&dir).ok().flatten().map(|inventory| Earlier { dir, inventory }))
}

/// Whether a build is over once its code and its links are there.
fn is_all(settings: &Settings, release: &Dir) -> Result<bool> {
    let alone = settings.supervisor.templates.is_none() && settings.shared.carry.is_empty() && settings.step.is_empty();
    Ok(alone && python::plan(release, &settings.python)?.is_none())
}

/// A build that is resumed must go on by the recipe it began with.
fn check_recipe(context: &Context, build: &mut Build, anyway: bool) -> Result<()> {
    let sum = context.config.sum(build.dir())?;
    let before = build.manifest.recipe.replace(sum.clone());
    match before {
        Some(before) if before != sum && !anyway => {
            build.manifest.recipe = Some(before);
            let hint = "`--resume=anyway` goes on by the new one; steps that are done stay done";
            Err(Error::refused("the recipe or the host's file has changed since this release was begun").hint(hint))
        }
        _ => Ok(()),
    }
}

/// Every template that the recipe or the host's file names must be there: told before anything is built on it.
pub(super) fn check_templates(context: &Context, release: &Dir, settings: &Settings) -> Result<()> {
    match render::absent(release, &settings.supervisor)? {
        None => Ok(()),
        Some(absent) => Err(context.config.fault_naming(release, &absent.name, absent.message)?.into()),
    }
}

/// Carries over from the live release what the recipe says.
fn carry(context: &Context, tree: &Tree, build: &mut Build, settings: &Settings) -> Result<()> {
    let table = &settings.shared;
    if table.carry.is_empty() || build.manifest.has_done("carry") {
        return Ok(());
    }
    let Some(live) = tree.live()?.id().map(|id| tree.open_release(id)).transpose()? else { return Ok(()) };
    let started = Instant::now();
    let brings = recorded(build.dir(), &table.carry)?;
    for path in &brings {
        note(build, &format!("the code brings {}: it is not carried over", path.display()));
    }
    let tell = |done| context.stages.advance(done);
    context.stages.during("carry", || sharing::carry(table, &brings, &live, build.dir(), &tell))?;
    Ok(build.record(record("carry", StepStatus::Done, started))?)
}

/// A virtual environment that is there and not on record yet, and since when it was made.
pub(super) type Fresh = (Built, Instant);

/// Makes python_env, if one is wanted. What is on record is checked again: the environment itself knows whether it is whole.
pub(super) fn make_python(context: &Context, tree: &Tree, build: &Build, settings: &Settings) -> Result<Option<Fresh>> {
    let Some(plan) = python::plan(build.dir(), &settings.python)? else { return Ok(None) };
    let started = Instant::now();
    let cache = tree.state().ensure_dir(CACHE, 0o700)?;
    let previous = earlier(tree, build)?;
    let mut tee = Tee::new(context, build);
    // By these variables what they leave running is found again.
    let tools =
        context.tools.clone().telling("RELEASECTL_RELEASE_PATH", build.dir().path()).telling(OPERATION, "create");
    let (release, tools, cache) = (build.dir(), &tools, cache.path());
    let order = Order { plan: &plan, release, previous: &previous, cache, tools };
    let made = context.stages.during("python", || python::build(&order, &mut |bytes| tee.write(bytes)));
    tee.end();
    let made = made?;
    let Environment { python, made: how, installer, packages, .. } = made.environment();
    note(build, &format!("python {python} {how:?} by {installer:?}, {packages} packages"));
    Ok(Some((made, started)))
}

/// Puts python_env on record. Durable on return.
pub(super) fn record_python(build: &mut Build, (made, started): Fresh) -> Result<()> {
    build.manifest.python = Some(made.finish(build.dir())?);
    Ok(build.record_durable(record("python", StepStatus::Done, started))?)
}

/// The same where nothing else is to be done: the commit of the whole build makes it durable, and records it then. Whether
/// the inventory has it, too; it has everything else if it is `alone`.
fn record_python_with_commit(build: &mut Build, (mut made, started): Fresh, alone: bool) -> Result<bool> {
    let environment = made.environment().clone();
    if let Some((name, content)) = made.paper()? {
        build.write_with_commit(name, content);
    }
    build.record_with_commit(record("python", StepStatus::Done, started));
    let listing = made.take_listing().filter(|_| alone);
    let listed = listing.map(|listing| build.add_listing(listing, &environment.directory)).transpose()?;
    build.manifest.python = Some(environment);
    Ok(listed == Some(true))
}

/// Releases whose environment may serve again: the live one, then the newest others.
pub(super) fn earlier(tree: &Tree, build: &Build) -> Result<Vec<Dir>> {
    let live = tree.live()?;
    let entries = tree.entries()?;
    let others = entries.iter().rev().filter_map(|entry| entry.manifest()).filter(|manifest| manifest.python.is_some());
    let ids = live.id().into_iter().chain(others.map(|manifest| &manifest.id).filter(|id| Some(*id) != live.id()));
    let ids = ids.filter(|id| *id != build.id()).take(3);
    Ok(ids.filter_map(|id| tree.open_release(id).ok()).collect())
}

fn run_steps(context: &Context, tree: &Tree, build: &mut Build, settings: &Settings) -> Result<()> {
    let wanted: Vec<_> = steps::of_phase(settings, Phase::Create).cloned().collect();
    for step in wanted.iter().filter(|step| !build.manifest.has_done(&step.name)).cloned().collect::<Vec<_>>() {
        run_step(context, tree, build, settings, &step, "create")?;
    }
    Ok(())
}

/// Runs one step of the recipe on the release being built or deployed, and records it. A failed one is on record too.
pub(super) fn run_step(
    context: &Context,
    tree: &Tree,
    build: &mut Build,
    settings: &Settings,
    step: &crate::recipe::Step,
    operation: &str,
) -> Result<StepRecord> {
    let started = Instant::now();
    let place = workplace(context, tree, &build.manifest, settings, operation)?;
    let named = format!("step {}", step.name);
    note(build, &named);
    let mut programs = programs::of(context, tree, settings);
    let mut tee = Tee::new(context, build);
    let outcome =
        context.stages.during(&named, || steps::run(step, &place, &mut programs, &mut |bytes| tee.write(bytes)));
    tee.end();
    let accepted = if build.manifest.ready_at.is_none() { build.accept_changes() } else { Ok(()) };
    match outcome {
        Ok(done) => {
            accepted?;
            build.record(done.clone())?;
            Ok(done)
        }
        Err(error) => {
            build.record(record(&step.name, StepStatus::Failed, started))?;
            Err(error.into())
        }
    }
}

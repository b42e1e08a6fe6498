//! `deploy`: create, prepare steps, activate, finish steps, clean.

use super::activate::{Expected, FASTER, expect, surprise};
use super::activation::{Activation, Unconfirmed, alive};
use super::assemble::run_step;
use super::bring_up::{GoLive, go_live};
use super::clean::{self, Clean};
use super::create::{self, Create, Resume};
use super::hooks::{self, News, Turn};
use super::inside::refuse_leftovers;
use super::way::foresee;
use super::{Context, Outcome, Target, programs};
use crate::error::{Error, Kind, Result};
use crate::journal::Tail;
use crate::lock::LockError;
use crate::operation::{self, Begin, Done, Event, Operation, Record};
use crate::pin::Pin;
use crate::recipe::{Phase, Settings, Step};
use crate::release::{ReleaseId, State, StepRecord, StepStatus};
use crate::steps::{self, record};
use crate::tree::{Build, Live, LockedTree, Tree};
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
    /// What must be live for it, when it begins and when it flips.
    pub expected: Option<Expected>,
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
    let mut tree = create::ground(context, &wanted.create, !wanted.resume && wanted.release.is_none())?;
    if !tree.take_deploy_turn(context.wait)? {
        return Err(LockError::held(tree.state()).into());
    }
    let from = tree.live()?.id().cloned();
    let built = built_before(&tree, wanted)?;
    expect(from.as_ref(), wanted.expected.as_ref(), built.as_ref().map(|(id, _)| id))?;
    let news = News { operation: "deploy", from: from.as_ref(), to: None, error: None };
    hooks::run(context, &tree, Turn::Start, news)?;
    let mut to = None;
    let outcome = obtain(context, &tree, wanted, built).and_then(|build| {
        to = Some(build.id().clone());
        carry_out(context, &tree, build, wanted, from.as_ref())
    });
    let error = match &outcome {
        Ok(deployed) => deployed.activation.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.message.as_str()),
        Err(error) => Some(error.message.as_str()),
    };
    let turn = if error.is_some() { Turn::Failure } else { Turn::Success };
    hooks::tell(context, &tree, turn, News { to: to.as_ref(), error, ..news });
    outcome.map(Outcome::Deploy)
}

/// The release that is not built from the start, and whether its deploy came to its end.
fn built_before(tree: &Tree, wanted: &Deploy) -> Result<Option<(ReleaseId, bool)>> {
    match (&wanted.release, wanted.resume) {
        (Some(target), _) => Ok(Some((target.resolve(tree)?, false))),
        (None, true) => newest(tree).map(Some),
        (None, false) => Ok(None),
    }
}

/// The release to go live: built now, gone on with, or `built` before. Its lease is held.
fn obtain(context: &Context, tree: &Tree, wanted: &Deploy, built: Option<(ReleaseId, bool)>) -> Result<Build> {
    let Some((id, ended)) = built else {
        return create::build(context, tree, &wanted.create, "deploy");
    };
    let manifest = tree.release(&id)?;
    if manifest.ready_at.is_none() && wanted.resume {
        let create = Create { resume: Some(Resume::Release(id)), ..wanted.create.clone() };
        return create::build(context, tree, &create, "deploy");
    }
    if wanted.resume {
        create::refuse_other_code(&manifest, &wanted.create)?;
    }
    let why = match (manifest.state(false), ended) {
        (State::Bad, _) if wanted.resume => Some(format!("is bad: {}", manifest.bad.unwrap_or_default())),
        // To go on with it would take back what was done since.
        (_, true) if tree.live()?.id() != Some(&id) => Some("came to its end and is not live any more".to_owned()),
        _ => None,
    };
    if let Some(why) = why {
        let hint = format!("`releasectl deploy --release {id}` deploys it anew; a plain `deploy` builds another");
        return Err(Error::refused(format!("the newest deploy, {id}, {why}")).hint(hint));
    }
    if wanted.resume {
        refuse_leftovers(tree, &id, wanted.create.manner.anyway)?;
    }
    // Its Python may be gone since; steps would run by another, and stop what it cannot start again.
    alive(context, tree, &id)?;
    let mut locked = context.lock_briefly(tree)?;
    let mut build = locked.take_up(&id)?;
    if let Some(days) = wanted.create.keep_days {
        locked.set_pin(&id, Some(Pin::for_days(days, context.actor.clock.now())?))?;
    }
    drop(locked);
    if !wanted.resume {
        let settings = context.config.with_recipe(build.dir())?;
        build.forget(|step| is_of_deploy(&settings, step))?;
    }
    Ok(build)
}

/// The release of the newest deploy, whatever else was built since, and whether that deploy came to its end.
fn newest(tree: &Tree) -> Result<(ReleaseId, bool)> {
    let newest: Newest = Tail::gather(tree.state(), &|newest: &Newest| newest.id.is_some())?.records;
    let id = newest.id.ok_or_else(|| Error::refused("there is no deploy to go on with").hint("leave out --resume"))?;
    if tree.entry(id.as_str().as_ref())?.is_none_or(|entry| entry.manifest().is_none()) {
        let message = format!("the newest deploy was that of {id}, of which nothing is there to go on with");
        return Err(Error::refused(message).hint("leave out --resume"));
    }
    Ok((id, newest.ended))
}

/// The last release that lines of the journal say is deployed, or built for it.
#[derive(Default)]
struct Newest {
    id: Option<ReleaseId>,
    /// The number of its deploy; none as long as it is built.
    deploy: Option<u64>,
    ended: bool,
}

impl Extend<Record> for Newest {
    fn extend<I: IntoIterator<Item = Record>>(&mut self, records: I) {
        for Record { seq, event, .. } in records {
            match event {
                Event::Begin(Begin { operation, to: Some(id), cause, .. }) => {
                    let deploy = Some(seq).filter(|_| operation == Operation::Deploy);
                    if deploy.is_some() || operation == Operation::Create && cause.as_deref() == Some("deploy") {
                        *self = Self { id: Some(id), deploy, ended: false };
                    }
                }
                Event::Done(Done { of, outcome: operation::Outcome::Done, .. }) if self.deploy == Some(of) => {
                    self.ended = true;
                }
                _ => {}
            }
        }
    }
}

/// Whether a step belongs to deploying a release, not to building it.
fn is_of_deploy(settings: &Settings, step: &StepRecord) -> bool {
    let later = |phase| steps::of_phase(settings, phase).any(|other| other.name == step.name);
    later(Phase::Prepare) || later(Phase::Finish)
}

/// Runs the steps before, makes the release live, runs the steps after, cleans; all of it in the history.
fn carry_out(
    context: &Context,
    tree: &Tree,
    mut build: Build,
    wanted: &Deploy,
    from: Option<&ReleaseId>,
) -> Result<Deployed> {
    let started = Instant::now();
    let settings = context.config.with_recipe(build.dir())?;
    refuse_changed_recipe(context, &build, wanted)?;
    let mut locked = context.lock_briefly(tree)?;
    let seq = locked.deploy_begins(build.id())?;
    drop(locked);
    let (expected, steps) = (wanted.expected.as_ref(), build.manifest.steps.clone());
    let resume = wanted.resume;
    let mut deploying = Deploying { context, tree, settings, from, expected, resume, seq, steps };
    let mut outcome = deploying.run(&mut build);
    context.record(tree, |locked| locked.deploy_ended(seq, started, failure(&outcome)));
    // Whoever has the lock for longer may be the one who has made another release live.
    if let (Ok(activation), Some(live)) = (&mut outcome, overtaken(tree, build.id())) {
        see_overtaken(activation, build.id(), &live);
    }
    let activation = outcome.inspect_err(|_| deploying.tell_stopped())?;
    drop(build);
    if activation.unconfirmed.is_some() {
        return Ok(Deployed { activation: Activation { steps: deploying.steps, ..activation }, removed: Vec::new() });
    }
    let cleaning = Instant::now();
    let removed = tidy(context);
    deploying.steps.push(record("clean", StepStatus::Done, cleaning));
    Ok(Deployed { activation: Activation { steps: deploying.steps, ..activation }, removed })
}

/// Why a deploy did not come to its end.
fn failure(outcome: &Result<Activation>) -> Option<String> {
    match outcome {
        Ok(activation) => activation.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.message.clone()),
        Err(error) => Some(error.message.clone()),
    }
}

/// What is live instead of `id`, if it is so no more.
fn overtaken(tree: &Tree, id: &ReleaseId) -> Option<Live> {
    tree.live().ok().filter(|live| live.id() != Some(id))
}

fn named(live: &Live) -> &str {
    live.id().map_or("nothing", ReleaseId::as_str)
}

/// Whoever asked for the release to be live is told that `live` is: while its last steps ran another command could go
/// back, or make another one live.
fn see_overtaken(activation: &mut Activation, id: &ReleaseId, live: &Live) {
    if activation.unconfirmed.is_some() {
        return;
    }
    let now = named(live);
    let message =
        format!("release {id} was deployed to its end, but {now} is live: that was changed while its last steps ran");
    let hint = Some(format!("`releasectl history` tells who did so; `releasectl activate {id}` makes it live again"));
    (activation.confirmed, activation.rolled_back) = (false, live.id() == activation.from.as_ref());
    activation.unconfirmed = Some(Unconfirmed { message, hint });
}

fn refuse_changed_recipe(context: &Context, build: &Build, wanted: &Deploy) -> Result<()> {
    let sum = context.config.sum(build.dir())?;
    let changed = build.manifest.recipe.as_ref().is_some_and(|before| *before != sum);
    if !(wanted.resume && changed) || wanted.create.manner.anyway {
        return Ok(());
    }
    let hint = "`--resume=anyway` goes on by the new one; steps that are done stay done";
    Err(Error::refused("the recipe or the host's file has changed since this deploy was begun").hint(hint))
}

/// A deploy under way.
struct Deploying<'a> {
    context: &'a Context,
    tree: &'a Tree,
    settings: Settings,
    /// What was live when it began.
    from: Option<&'a ReleaseId>,
    expected: Option<&'a Expected>,
    /// Whether an attempt before has begun it.
    resume: bool,
    seq: u64,
    steps: Vec<StepRecord>,
}

impl Deploying<'_> {
    fn run(&mut self, build: &mut Build) -> Result<Activation> {
        let id = build.id().clone();
        let resume = || create::going_on(&id);
        let started = Instant::now();
        let left = self.left(build, Phase::Prepare);
        if !left.is_empty()
            && let Some(barred) = foresee(self.context, self.tree, &id, "deploy", &left)?
        {
            self.note(&mut self.context.lock_briefly(self.tree)?, &barred, started);
            return Ok(barred);
        }
        // An attempt that was killed may have recorded its last step and not come to this.
        let owed = self.resume && self.tree.live()?.id() != Some(&id);
        let owed = owed && steps::of_phase(&self.settings, Phase::Prepare).next().is_some();
        if self.phase(build, Phase::Prepare).map_err(|error| error.or_hint(resume))? || owed {
            build.take_inventory()?;
        }
        let started = Instant::now();
        alive(self.context, self.tree, &id)?;
        let mut locked = self.context.lock_briefly(self.tree)?;
        if let Some(surprise) = surprise(locked.standing().live.as_ref(), self.expected, Some(&id)) {
            return Err(Error::new(Kind::Failed, surprise).hint(FASTER));
        }
        let live = locked.standing().live.as_ref().filter(|live| ![self.from, Some(&id)].contains(&Some(live)));
        if let Some(live) = live {
            self.context.stages.warn(&format!("{live} went live while this was deployed, and gives way to {id} now"));
        }
        let wanted = GoLive { operation: Operation::Activate, to: &id, cause: "deploy", restart: true };
        let activation = go_live(self.context, &mut locked, &wanted)?;
        self.note(&mut locked, &activation, started);
        drop(locked);
        if activation.unconfirmed.is_some() {
            return Ok(activation);
        }
        self.phase(build, Phase::Finish).map_err(|error| {
            let error = Error { kind: Kind::NotConfirmed, ..error };
            let Some(live) = overtaken(self.tree, &id) else {
                let message = format!("release {id} is live, but {}", error.message);
                return Error { message, ..error }.or_hint(resume);
            };
            let message = format!("release {id} was live, {} is now, and {}", named(&live), error.message);
            Error { message, ..error }.hint(FASTER)
        })?;
        Ok(activation)
    }

    /// Puts on record what became of the activation.
    fn note(&mut self, locked: &mut LockedTree<'_>, activation: &Activation, started: Instant) {
        let status = if activation.unconfirmed.is_some() { StepStatus::Failed } else { StepStatus::Done };
        let done = record("activate", status, started);
        locked.deploy_step(self.seq, done.clone());
        self.steps.push(done);
    }

    /// Says which programs this deploy stopped and did not come to start again.
    fn tell_stopped(&self) {
        let owed = self.tree.standing().map(|standing| standing.owed.up).unwrap_or_default();
        let names = programs::stopped(self.context, owed);
        if !names.is_empty() {
            let again = "`deploy --resume` and the next activation start them, `releasectl start` does it now";
            self.context
                .stages
                .warn(&format!("stopped for this deploy and not started again: {}; {again}", names.join(", ")));
        }
    }

    /// The steps of one phase that are not on record.
    fn left(&self, build: &Build, phase: Phase) -> Vec<Step> {
        let wanted = steps::of_phase(&self.settings, phase);
        wanted.filter(|step| !build.manifest.has_done(&step.name)).cloned().collect()
    }

    /// Stops what the steps on record have stopped for those that are left: a reboot may have started it meanwhile.
    fn stop_again(&self, build: &Build, phase: Phase) -> Result<()> {
        let done =
            |step: &&Step| build.manifest.steps.iter().any(|it| it.name == step.name && it.status == StepStatus::Done);
        let mut stopped: Vec<String> = Vec::new();
        for step in steps::of_phase(&self.settings, phase).filter(done) {
            stopped.extend_from_slice(&step.stop);
            stopped.retain(|name| !step.start.contains(name));
        }
        if stopped.is_empty() {
            return Ok(());
        }
        let mut crew = programs::of(self.context, self.tree, &self.settings);
        steps::Programs::stop(&mut crew, &stopped).map_err(|why| Error::new(Kind::Failed, why))
    }

    /// Runs the steps of one phase that are not on record. Returns whether any was run.
    fn phase(&mut self, build: &mut Build, phase: Phase) -> Result<bool> {
        let left = self.left(build, phase);
        if self.resume && !left.is_empty() {
            self.stop_again(build, phase)?;
        }
        for step in &left {
            let done = run_step(self.context, self.tree, build, &self.settings, step, "deploy")?;
            if let Ok(mut locked) = self.context.lock_briefly(self.tree) {
                locked.deploy_step(self.seq, done.clone());
            }
            self.steps.retain(|before| before.name != done.name);
            self.steps.push(done);
        }
        Ok(!left.is_empty())
    }
}

/// Cleans after a deploy. The release is live: whatever goes wrong here is only told.
fn tidy(context: &Context) -> Vec<String> {
    match clean::run(context, &Clean::default()) {
        Ok(Outcome::Clean(cleaned)) => cleaned.removed.into_iter().map(|judged| judged.id).collect(),
        Ok(_) => Vec::new(),
        Err(error) => {
            context.stages.warn(&format!("the release is live, but cleaning failed: {}", error.message));
            Vec::new()
        }
    }
}

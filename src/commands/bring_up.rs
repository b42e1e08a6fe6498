//! Making a release live and seeing that it comes up: checks, the flip, its programs, the health check; the way back if it
//! does not come up. What `activate`, `rollback`, `deploy` and `hotfix` have in common, under one tree lock from the first
//! look to the last word.
//!
//! What is about to be brought over is in the journal before the flip. After a kill at any point the next command finds
//! there what the programs are owed, and the next `activate` or `restart` does it.

use super::activation::{Activation, Unconfirmed};
use super::hooks::{self, News, Turn};
use super::inside::workplace;
use super::programs::{Hooked, configured, together};
use super::way::{Side, Way, barred, refused};
use super::{Context, Outcome as Told, copies};
use crate::error::{Error, Kind, Result};
use crate::identity::as_root;
use crate::operation::{Following, Operation, Outcome, Programs};
use crate::recipe::OnFailure;
use crate::release::ReleaseId;
use crate::standing::Standing;
use crate::supervisor::conf::Declared;
use crate::supervisor::roll::Done;
use crate::supervisor::{Change, Supervisor};
use crate::tree::{Flip, LockedTree, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What is wanted.
pub(super) struct GoLive<'a> {
    /// Activate or rollback.
    pub(super) operation: Operation,
    /// The release. It must be ready.
    pub(super) to: &'a ReleaseId,
    /// The command it is a part of.
    pub(super) cause: &'static str,
    /// Whether its programs are brought up; if not, supervisord is not even asked.
    pub(super) restart: bool,
}

/// Makes a release live and brings its programs up, or finds that it is live and they are. An error means that nothing
/// was changed; what did not come up, or could not be seen to, is in [`Activation::unconfirmed`].
pub(super) fn go_live(context: &Context, locked: &mut LockedTree<'_>, wanted: &GoLive<'_>) -> Result<Activation> {
    let standing = locked.standing().clone();
    let stays = standing.live.as_ref() == Some(wanted.to);
    if !wanted.restart {
        return leave_programs(context, locked, wanted, &standing);
    }
    let way = Way::to(context, locked.tree(), &standing, wanted.to)?;
    let programs = way.has_programs();
    if !programs && way.side.health.is_none() {
        return plain(context, locked, wanted, &standing, Following::Nothing);
    }
    if stays && (standing.owed.is_nothing() || is_at_rest(locked.tree(), &standing)) {
        return Ok(Activation::of(false, standing.live.clone(), standing.live, wanted.cause));
    }
    let (supervisor, running) = match programs.then(|| way.reach(context, locked.tree(), false)).transpose() {
        Ok(reached) => reached.flatten().unzip(),
        Err(obstacle) => return barred(&obstacle, standing.live, wanted.to, wanted.cause),
    };
    let mut up = standing.owed.up.clone();
    up.extend(running.into_iter().flatten());
    let passage = Passage { context, wanted, way, supervisor, up, started: Instant::now() };
    passage.make(locked, &standing)
}

/// Whether what is owed to the programs was stopped by somebody's deploy under way, for its steps: it is that one's to start
/// again.
fn is_at_rest(tree: &Tree, standing: &Standing) -> bool {
    standing.owed.since.is_none() && tree.others_deploy()
}

/// Brings the live release's programs over if they are not yet, and restarts them in any case.
pub(super) fn again(context: &Context, locked: &mut LockedTree<'_>, live: &ReleaseId) -> Result<Told> {
    let (tree, standing) = (locked.tree(), locked.standing().clone());
    let way = Way::to(context, tree, &standing, live)?;
    let Some((supervisor, _)) = way.reach(context, tree, false).map_err(|obstacle| refused(&obstacle))? else {
        return Ok(Told::Programs(Done::default().into()));
    };
    let started = Instant::now();
    let at_rest = is_at_rest(tree, &standing);
    let wanted = if at_rest { BTreeSet::new() } else { standing.owed.up.clone() };
    let step = Step { before: &way.before, wanted, back: None, cause: "restart" };
    match bring(context, tree, Some(&supervisor), &way.side, step) {
        Ok(done) => {
            if let Some(since) = standing.owed.since {
                locked.confirmed(since, Outcome::Done, started, Some("by a later restart".to_owned()));
            } else if !at_rest {
                settle(locked, &standing);
            }
            context.tell(locked);
            Ok(Told::Programs(done.into()))
        }
        Err(setback) => Err(Error { hint: setback.hint, ..Error::new(Kind::NotConfirmed, setback.why) }),
    }
}

/// Writes that nothing is owed to the programs any more.
fn settle(locked: &mut LockedTree<'_>, standing: &Standing) {
    if !standing.owed.is_nothing() {
        let settled = standing.owed.up.union(&standing.owed.gone).cloned().collect();
        locked.programs_changed(Programs { settled, ..Programs::default() });
    }
}

/// A flip after which nothing is brought up.
fn leave_programs(
    context: &Context,
    locked: &mut LockedTree<'_>,
    wanted: &GoLive<'_>,
    standing: &Standing,
) -> Result<Activation> {
    let concerned = configured(context).is_some() || context.config.settings.health != Default::default();
    let programs = if concerned { Following::Left } else { Following::Nothing };
    let activation = plain(context, locked, wanted, standing, programs)?;
    // As an include would: what supervisord reads when it starts is what is live.
    if let Err(error) = copies::follow(context, locked.tree(), wanted.to) {
        context.stages.warn(&format!("supervisord goes on reading the files of another release: {}", error.message));
    }
    Ok(activation)
}

fn plain(
    context: &Context,
    locked: &mut LockedTree<'_>,
    wanted: &GoLive<'_>,
    standing: &Standing,
    programs: Following,
) -> Result<Activation> {
    let nothing = programs == Following::Nothing;
    if standing.live.as_ref() == Some(wanted.to) {
        let live = standing.live.clone();
        let confirmed = nothing || standing.owed.is_nothing();
        return Ok(Activation { confirmed, ..Activation::of(false, live.clone(), live, wanted.cause) });
    }
    let flip = Flip { programs, ..Flip::of(wanted.operation, Some(wanted.to.clone()), wanted.cause) };
    let flipped = locked.flip(flip);
    context.tell(locked);
    let flipped = flipped?;
    Ok(Activation { confirmed: nothing, ..Activation::of(true, flipped.from, flipped.to, wanted.cause) })
}

/// Why a release did not come up, and what is to be known for going back.
struct Setback {
    why: String,
    hint: Option<String>,
    up: BTreeSet<String>,
    untouched: Untouched,
}

impl Setback {
    fn of(error: impl Into<Error>, done: &Done) -> Self {
        let Error { message: why, hint, .. } = error.into();
        let untouched = Untouched { held: done.held_before.clone(), pids: done.pids_before.clone() };
        Self { why, hint, up: done.up_before.clone(), untouched }
    }
}

/// What is as it was before the way there, or is to be.
#[derive(Default)]
struct Untouched {
    /// Programs that an operator had stopped.
    held: BTreeSet<String>,
    /// What runs from where it ran.
    pids: BTreeMap<String, i32>,
}

/// One way across.
struct Step<'a> {
    before: &'a Declared,
    wanted: BTreeSet<String>,
    /// What was not touched on the way that is gone back now; `None` on the way there.
    back: Option<Untouched>,
    cause: &'a str,
}

/// Brings the programs onto `side`, which is live, and waits until it is well.
fn bring(
    context: &Context,
    tree: &Tree,
    supervisor: Option<&Supervisor>,
    side: &Side,
    step: Step<'_>,
) -> Result<Done, Setback> {
    let mut done = Done::default();
    if let Some(supervisor) = supervisor {
        let untouched = |error: Error| {
            let running = as_root(|| supervisor.programs()).unwrap_or_default();
            let pids = running.into_iter().filter_map(|process| Some((process.id(), process.pid?))).collect();
            Setback::of(error, &Done { pids_before: pids, ..Done::default() })
        };
        copies::follow(context, tree, &side.id).map_err(untouched)?;
        let mut around = Hooked::new(context, tree, &side.settings, &side.id, step.cause).map_err(untouched)?;
        let Step { before, wanted, back, .. } = step;
        let (restart, thorough) = (side.settings.supervisor.restart, back.is_some());
        let Untouched { held, pids: already } = back.unwrap_or_default();
        let change = Change { before, after: &side.declared, wanted, held, already, restart, thorough };
        let applied = as_root(|| supervisor.apply(&change, &mut around));
        context.stages.end();
        done = applied.map_err(|failure| {
            let done = failure.done.clone();
            Setback::of(failure, &done)
        })?;
    }
    if let Some(health) = &side.health {
        let manifest = tree.release(&side.id).map_err(|error| Setback::of(error, &done))?;
        let place = workplace(context, tree, &manifest, &side.settings, step.cause);
        let place = place.map_err(|error| Setback::of(error, &done))?;
        let well = context.stages.during("health", || health.wait(&|command| place.shell::<&str>(command, [])));
        well.map_err(|error| Setback::of(error, &done))?;
    }
    Ok(done)
}

/// Why nothing can be gone back to.
const NOTHING_BEFORE: &str = "nothing else was live before it";

/// What to go back to if `to`, which is live already, does not come up now either; or why there is nothing. Where `to` has
/// been live all along but for what was tried meanwhile, what was tried is not.
fn before(standing: &Standing, to: &ReleaseId) -> Result<ReleaseId, String> {
    let from = &standing.owed.from;
    if from.contains(to) {
        return Err("it is what was gone back to".to_owned());
    }
    from.last().cloned().ok_or_else(|| NOTHING_BEFORE.to_owned())
}

/// A change under way: everything is known and checked.
struct Passage<'a> {
    context: &'a Context,
    wanted: &'a GoLive<'a>,
    way: Way,
    supervisor: Option<Supervisor>,
    up: BTreeSet<String>,
    started: Instant,
}

impl Passage<'_> {
    fn make(&self, locked: &mut LockedTree<'_>, standing: &Standing) -> Result<Activation> {
        let (to, cause) = (self.wanted.to, self.wanted.cause);
        let stays = standing.live.as_ref() == Some(to);
        let (seq, from) = if stays {
            (standing.owed.since, before(standing, to))
        } else {
            let programs = Following::Up(self.up.clone());
            let flip = Flip { programs, ..Flip::of(self.wanted.operation, Some(to.clone()), cause) };
            let flipped = locked.flip(flip);
            self.context.tell(locked);
            let flipped = flipped?;
            (Some(flipped.seq), flipped.from.ok_or_else(|| NOTHING_BEFORE.to_owned()))
        };
        let step = Step { before: &self.way.before, wanted: self.up.clone(), back: None, cause };
        let brought = bring(self.context, locked.tree(), self.supervisor.as_ref(), &self.way.side, step);
        let activation = Activation::of(true, standing.live.clone(), Some(to.clone()), cause);
        let activation = match brought {
            Ok(_) => {
                self.conclude(locked, seq, Outcome::Done, None);
                activation
            }
            Err(mut setback) => {
                // What was not touched runs from where it ran before, which need not be what is gone back to.
                if standing.owed.since.is_some() {
                    setback.untouched.pids.clear();
                }
                self.failed(locked, seq, from, setback, activation)
            }
        };
        self.context.tell(locked);
        Ok(activation)
    }

    fn conclude(&self, locked: &mut LockedTree<'_>, seq: Option<u64>, outcome: Outcome, note: Option<String>) {
        match seq {
            Some(seq) => locked.confirmed(seq, outcome, self.started, note),
            None if outcome == Outcome::Done => settle(locked, &locked.standing().clone()),
            None => {}
        }
    }

    /// It did not come up: goes back to `from` or stays, and says which.
    fn failed(
        &self,
        locked: &mut LockedTree<'_>,
        seq: Option<u64>,
        from: Result<ReleaseId, String>,
        setback: Setback,
        activation: Activation,
    ) -> Activation {
        let to = self.wanted.to;
        let message = format!("release {to} did not come up: {}", setback.why);
        let hint = setback.hint.clone();
        let target = match (self.way.side.settings.activate.on_failure, from, seq) {
            (OnFailure::Stay, ..) => Err("as on_failure = \"stay\" says".to_owned()),
            (OnFailure::Rollback, Ok(from), Some(seq)) => match locked.tree().activatable(&from) {
                Ok(_) => Ok((from, seq)),
                Err(error) => Err(format!("{from} cannot be gone back to: {error}")),
            },
            (OnFailure::Rollback, Err(why), _) => Err(why),
            (OnFailure::Rollback, Ok(_), None) => Err(NOTHING_BEFORE.to_owned()),
        };
        let (rolled_back, ending) = match target {
            Ok((from, seq)) => self.go_back(locked, seq, &from, setback),
            Err(why) => {
                self.conclude(locked, seq, Outcome::Unconfirmed, Some(setback.why));
                (false, format!("{to} stays live: {why}"))
            }
        };
        let message = format!("{message}\n{ending}");
        let hint = hint.or_else(|| Some("`releasectl status` and `releasectl history` show what is live".to_owned()));
        let unconfirmed = Some(Unconfirmed { message, hint });
        Activation { confirmed: false, rolled_back, unconfirmed, ..activation }
    }

    /// Makes `from` live again and brings its programs up. Says what came of it.
    fn go_back(&self, locked: &mut LockedTree<'_>, seq: u64, from: &ReleaseId, setback: Setback) -> (bool, String) {
        let (context, to) = (self.context, self.wanted.to);
        context.stages.warn(&format!("release {to} did not come up; going back to {from}"));
        let mut wanted = self.up.clone();
        wanted.extend(setback.up);
        let first = setback.why.lines().next().unwrap_or_default();
        let bad = format!("it did not come up: {first}");
        // Where `from` does not come up any more either, that says nothing of what a rollback went to, which was up once.
        let undone = self.wanted.operation == Operation::Rollback;
        let operation = if undone { Operation::Activate } else { Operation::Rollback };
        let flip = Flip {
            programs: Following::Up(wanted.clone()),
            bad: (!undone).then(|| bad.clone()),
            ..Flip::of(operation, Some(from.clone()), &format!("{to} did not come up"))
        };
        let started = Instant::now();
        let flipped = match locked.flip(flip) {
            Ok(flipped) => flipped,
            Err(error) => {
                self.conclude(locked, Some(seq), Outcome::Unconfirmed, Some(setback.why));
                return (false, format!("{to} stays live: {from} could not be made live again: {error}"));
            }
        };
        self.conclude(locked, Some(seq), Outcome::Returned, Some(setback.why.clone()));
        let ending = match self.bring_back(locked.tree(), from, wanted, setback.untouched) {
            Ok(()) => {
                if undone {
                    locked.condemn(to, bad);
                }
                locked.confirmed(flipped.seq, Outcome::Done, started, None);
                format!("release {from} is live again, and came up")
            }
            Err(why) => {
                locked.confirmed(flipped.seq, Outcome::Unconfirmed, started, Some(why.clone()));
                format!("release {from} is live again, but it did not come up either: {why}")
            }
        };
        let news = News { operation: self.wanted.cause, from: Some(to), to: Some(from), error: Some(&setback.why) };
        hooks::tell(context, locked.tree(), Turn::Rollback, news);
        (true, ending)
    }

    fn bring_back(
        &self,
        tree: &Tree,
        from: &ReleaseId,
        wanted: BTreeSet<String>,
        untouched: Untouched,
    ) -> Result<(), String> {
        let side = Side::of(self.context, tree, from).map_err(|error| error.message)?;
        let mut before = self.way.before.clone();
        together(&mut before, self.way.side.declared.clone());
        let step = Step { before: &before, wanted, back: Some(untouched), cause: "rollback" };
        bring(self.context, tree, self.supervisor.as_ref(), &side, step).map(drop).map_err(|setback| setback.why)
    }
}

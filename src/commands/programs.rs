//! This environment's programs: the way to its supervisord, what its releases declare there, the hooks around a restart,
//! and stopping and starting for steps.
//!
//! supervisord's socket and its files are root's: what is asked of them is asked as root, hooks run as the tree's user.

use super::hooks;
use super::inside::workplace;
use super::{Context, Outcome, copies};
use crate::error::{Error, Kind, Result};
use crate::identity::{as_root, as_user};
use crate::lock::tree_lock_holder;
use crate::operation;
use crate::recipe::{Settings, Wiring};
use crate::release::ReleaseId;
use crate::standing::Standing;
use crate::steps;
use crate::supervisor::conf::edit::Wired;
use crate::supervisor::conf::{Declared, declared_in, wire};
use crate::supervisor::roll::{Done, is_named};
use crate::supervisor::rpc::methods::{Process, State};
use crate::supervisor::{Around, Failure, Limits, Supervisor, SupervisorError};
use crate::tree::{LockedTree, Tree};
use crate::workplace::Workplace;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// supervisord's configuration file, if this host's file names one.
pub(super) fn configured(context: &Context) -> Option<&Path> {
    context.config.settings.supervisor.config.as_deref()
}

/// The same where nothing can be done without it.
pub(super) fn required(context: &Context) -> Result<&Path> {
    let none = || {
        Error::refused("no supervisor is configured for this environment")
            .hint("write config = \"/etc/supervisor/supervisord.conf\" into [supervisor] of the host's file")
    };
    configured(context).ok_or_else(none)
}

/// Reaches the supervisord of `config`.
pub(super) fn connect(config: &Path) -> Result<Supervisor, SupervisorError> {
    as_root(|| Supervisor::connect(config, Limits::default()))
}

/// This environment's name among others on the same supervisord.
pub(super) fn owner(context: &Context) -> &str {
    context.config.environment.as_deref().unwrap_or("default")
}

/// What a release declares; nothing where no supervisor is configured.
pub(super) fn declared(context: &Context, tree: &Tree, id: &ReleaseId) -> Result<Declared> {
    if configured(context).is_none() {
        return Ok(Declared::default());
    }
    Ok(declared_in(&tree.open_release(id)?)?)
}

/// What may run now: what the live release declares, and those that the programs may still run from, be it that another
/// hand has moved `current` away from one. Where nothing is live it is what was live last. What cannot be read is left
/// out, and told: its programs are not touched.
pub(super) fn ours(context: &Context, tree: &Tree, standing: &Standing) -> Declared {
    let last = || standing.chain.candidates(None).next();
    let live = standing.live.as_ref().or_else(last);
    let mut all = Declared::default();
    all.groups.extend(standing.owed.gone.iter().map(|group| (group.clone(), BTreeSet::new())));
    let left = standing.believed.as_ref().filter(|_| standing.was_moved());
    for id in standing.owed.from.iter().chain(left).chain(live) {
        if tree.open_release(id).is_err() {
            continue;
        }
        match declared(context, tree, id) {
            Ok(declared) => together(&mut all, declared),
            Err(error) => {
                let why = error.message;
                context.stages.warn(&format!("what release {id} declares to supervisord is not known: {why}"));
            }
        }
    }
    all
}

/// What the programs are owed, and what to do about it; nothing while somebody is at it.
pub(super) fn debt(tree: &Tree, standing: &Standing) -> Option<(String, &'static str)> {
    let live = standing.live.as_ref().filter(|_| tree_lock_holder(tree.state()).is_none())?;
    if standing.owed.since.is_some() || standing.was_moved() {
        let message = format!("not all programs are known to run from {live}");
        return Some((message, "`releasectl restart` brings them over"));
    }
    if standing.owed.up.is_empty() || tree.is_deploying() {
        return None;
    }
    let names: Vec<&str> = standing.owed.up.iter().map(String::as_str).collect();
    let message =
        format!("stopped for a deploy that did not come to its end, and not started again: {}", names.join(", "));
    Some((message, "`deploy --resume` and the next activation start them, `releasectl start` does it now"))
}

/// Which of the processes that are `owed` are stopped, as far as supervisord can be asked: what a flip did not bring over may
/// run all the same.
pub(super) fn stopped(context: &Context, owed: BTreeSet<String>) -> Vec<String> {
    let asked = configured(context).filter(|_| !owed.is_empty()).map(|config| {
        let supervisor = connect(config)?;
        as_root(|| supervisor.programs())
    });
    let Some(Ok(processes)) = asked else { return owed.into_iter().collect() };
    let stopped = |id: &String| {
        let down = [State::Stopped, State::Stopping];
        processes.iter().any(|process| process.id() == *id && down.contains(&process.state))
    };
    owed.into_iter().filter(stopped).collect()
}

/// Adds what `more` declares to `all`.
pub(super) fn together(all: &mut Declared, more: Declared) {
    for (group, programs) in more.groups {
        all.groups.entry(group).or_default().extend(programs);
    }
    all.programs.extend(more.programs);
}

/// The hooks around restarts, and what is told meanwhile.
pub(super) struct Hooked<'a> {
    context: &'a Context,
    settings: &'a Settings,
    place: Workplace,
}

impl<'a> Hooked<'a> {
    /// For what is done with the programs of the release `id`.
    pub(super) fn new(
        context: &'a Context,
        tree: &Tree,
        settings: &'a Settings,
        id: &ReleaseId,
        operation: &str,
    ) -> Result<Self> {
        let place = workplace(context, tree, &tree.release(id)?, settings, operation)?;
        Ok(Self { context, settings, place })
    }

    fn run(&self, command: Option<&String>, program: &str) -> Result<(), String> {
        let Some(command) = command else { return Ok(()) };
        let limit = hooks::limit(&self.settings.hooks);
        as_user(|| hooks::around(self.context, &self.place, command, program, limit))
    }
}

impl Around for Hooked<'_> {
    fn drain(&mut self, program: &str) -> Result<(), String> {
        self.run(self.settings.hooks.drain.as_ref(), program)
    }

    fn undrain(&mut self, program: &str) -> Result<(), String> {
        self.run(self.settings.hooks.undrain.as_ref(), program)
    }

    fn note(&mut self, what: &str) {
        self.context.stages.end();
        self.context.stages.begin(what);
    }
}

/// The programs as steps stop and start them.
pub(super) struct Crew<'a> {
    context: &'a Context,
    tree: &'a Tree,
    settings: &'a Settings,
}

/// The programs that run on this host for `settings`.
pub(super) fn of<'a>(context: &'a Context, tree: &'a Tree, settings: &'a Settings) -> Crew<'a> {
    Crew { context, tree, settings }
}

impl Crew<'_> {
    /// Stops or starts what `act` chooses of the processes, with what is owed to them.
    fn act(&self, choose: impl Fn(&Process, &Standing) -> bool, stop: bool, names: &[String]) -> Result<()> {
        let Some(config) = configured(self.context) else { return Ok(()) };
        let standing = self.tree.standing()?;
        let owned = ours(self.context, self.tree, &standing);
        let Some(live) = standing.live.as_ref().filter(|_| !owned.groups.is_empty()) else { return Ok(()) };
        let supervisor = connect(config)?;
        let processes = as_root(|| supervisor.owned(&owned))?;
        if let Some(unknown) = names.iter().find(|name| !stop && !processes.iter().any(|p| is_named(p, name))) {
            let programs = processes.iter().map(Process::label).collect();
            return Err(SupervisorError::Unknown { name: unknown.clone(), programs }.into());
        }
        let named = |process: &&Process| names.iter().any(|name| is_named(process, name));
        let chosen = processes.iter().filter(named).filter(|process| choose(process, &standing));
        let ids: Vec<String> = chosen.map(Process::id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let note = |owed: bool| {
            let ids: BTreeSet<String> = ids.iter().cloned().collect();
            let (owed, settled) = if owed { (ids, BTreeSet::new()) } else { (BTreeSet::new(), ids) };
            let mut locked = self.context.lock_briefly(self.tree)?;
            locked.programs_changed(operation::Programs { owed, settled, ..operation::Programs::default() });
            self.context.tell(&mut locked);
            Ok::<(), Error>(())
        };
        let mut around = Hooked::new(self.context, self.tree, self.settings, live, "step")?;
        if stop {
            // Noted first: whoever goes on after a kill must know what to start again.
            note(true)?;
            as_root(|| supervisor.stop(&owned, &ids, &mut around))?;
        } else {
            as_root(|| supervisor.start(&owned, &ids, &mut around))?;
            note(false)?;
        }
        self.context.stages.end();
        Ok(())
    }
}

impl steps::Programs for Crew<'_> {
    fn stop(&mut self, names: &[String]) -> Result<(), String> {
        self.act(|process, _| !process.state.is_down(), true, names).map_err(|error| error.message)
    }

    /// What an operator stopped stays stopped.
    fn start(&mut self, names: &[String]) -> Result<(), String> {
        let wanted = |process: &Process, standing: &Standing| {
            let by_hand = matches!(process.state, State::Stopped | State::Stopping) && process.started > 0;
            standing.owed.up.contains(&process.id()) || !by_hand
        };
        self.act(wanted, false, names).map_err(|error| error.message)
    }
}

/// What was done to programs.
#[derive(Debug, Default, Serialize)]
pub struct Operated {
    /// Whether anything was.
    pub changed: bool,
    /// What.
    #[serde(flatten)]
    pub done: Done,
}

impl From<Done> for Operated {
    fn from(done: Done) -> Self {
        Self { changed: done.summary().is_some(), done }
    }
}

/// What may be done to programs that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Restart,
    Start,
    Stop,
}

/// Does it to this environment's programs `names`, or to all of them.
pub(super) fn operate(context: &Context, locked: &mut LockedTree<'_>, act: Act, names: &[String]) -> Result<Outcome> {
    let config = required(context)?;
    let tree = locked.tree();
    let standing = locked.standing().clone();
    let live = standing.live.as_ref().ok_or_else(|| {
        Error::refused("nothing is live, so there are no programs").hint("`releasectl activate` makes a release live")
    })?;
    let owned = ours(context, tree, &standing);
    let settings = context.config.with_recipe(&tree.open_release(live)?)?;
    let mut around = Hooked::new(context, tree, &settings, live, "programs")?;
    let supervisor = connect(config).map_err(|cause| judged(cause.is_unreachable(), cause))?;
    let done: Result<Done, Box<Failure>> = as_root(|| match act {
        Act::Restart => supervisor.restart(&owned, names, settings.supervisor.restart, &mut around),
        Act::Start => supervisor.start(&owned, names, &mut around),
        Act::Stop => supervisor.stop(&owned, names, &mut around),
    });
    context.stages.end();
    let touched = done.as_ref().unwrap_or_else(|failure| &failure.done);
    let ids = touched.restarted.iter().chain(&touched.started).chain(&touched.stopped).cloned();
    let settled: BTreeSet<String> = ids.filter(|id| standing.owed.up.contains(id)).collect();
    if !settled.is_empty() {
        // An operator has decided about them: nothing is owed to them any more.
        locked.programs_changed(operation::Programs { settled, ..operation::Programs::default() });
    }
    done.map(|done| Outcome::Programs(done.into())).map_err(|failure| {
        let cause = &failure.cause;
        judged(cause.is_unreachable() || matches!(cause, SupervisorError::NotUp { .. }), failure)
    })
}

/// The error of an operator's own call: what did not come up, or nobody could be asked for, is not confirmed.
fn judged(unconfirmed: bool, error: impl Into<Error>) -> Error {
    let error = error.into();
    if unconfirmed { Error { kind: Kind::NotConfirmed, ..error } } else { error }
}

/// How supervisord comes to read this environment's files; `None` if it does not, or not as they are.
pub(super) fn wired(context: &Context, tree: &Tree, config: &Path) -> Result<Option<&'static str>> {
    if context.config.settings.supervisor.wiring == Wiring::Copy {
        return Ok(copies::are_of(context, config, tree, tree.live()?.id())?.then_some("copy"));
    }
    let by = |root: &Path| as_root(|| wire::status(config, root, owner(context)));
    let mut found = by(tree.layout().root())?;
    // A tree that was moved is reached through a link where it was: what supervisord reads there is the same.
    let given = &context.config.root;
    if matches!(found, Wired::No | Wired::Elsewhere) && given.is_absolute() {
        found = by(given)?;
    }
    Ok(match found {
        Wired::Yes => Some("include"),
        Wired::ByHand => Some("by_hand"),
        Wired::Elsewhere | Wired::No => None,
    })
}

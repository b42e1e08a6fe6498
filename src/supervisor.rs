//! supervisord and the programs of one environment: what is rendered for it, how it comes to read it, whether it could
//! (before the flip), and bringing its programs onto the live release (after the flip).
//!
//! [`Supervisor`] is what the verbs use. The order of an activation: [`Supervisor::check`] the candidate · flip ·
//! [`Supervisor::apply`] · health. If applying fails, flip back and apply the other way round, with what the failure says was
//! up before and which processes were not touched. All of it is one environment's business: processes of groups that
//! none of its two releases declares are looked at, never acted on.
//!
//! These calls need the rights of whoever may use supervisord's socket and read its files; usually root.

pub mod conf;
mod error;
pub mod render;
pub mod roll;
pub mod rpc;
pub mod validate;

pub use error::SupervisorError;

use crate::recipe::Restart;
use crate::tools::Tools;
use conf::Declared;
use roll::act::Roll;
use roll::{Done, Plan, Situation, decide, foresee, is_named};
use rpc::methods::{Process, Settings, State};
use rpc::{Client, Fault, RpcError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use validate::{Candidate, Parser};

/// The oldest version, as it counts them, that tells how long a program may take.
const OLDEST: u32 = 4;

/// How long supervisord is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the answer to one call; none of them waits for a program.
    pub call: Duration,
    /// For its parser to read the files.
    pub check: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(10), check: Duration::from_secs(30) }
    }
}

/// What is done around a program that is stopped and started, and who is told. Programs are named `group:name`.
pub trait Around {
    /// Before it is stopped; an error keeps it running and ends the operation.
    fn drain(&mut self, _program: &str) -> Result<(), String> {
        Ok(())
    }

    /// After it came up again.
    fn undrain(&mut self, _program: &str) -> Result<(), String> {
        Ok(())
    }

    /// What is about to be done.
    fn note(&mut self, _what: &str) {}
}

/// Nothing around, nobody told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plainly;

impl Around for Plainly {}

/// A change of release, after the flip.
#[derive(Debug)]
pub struct Change<'a> {
    /// What the release that was live declares.
    pub before: &'a Declared,
    /// What the release that is live declares.
    pub after: &'a Declared,
    /// Programs that are to run although they are stopped: what we stopped ourselves, or [`Done::up_before`] of a failed
    /// attempt.
    pub wanted: BTreeSet<String>,
    /// Programs that are to stay stopped although their group is made: [`Done::held_before`] of a failed attempt.
    pub held: BTreeSet<String>,
    /// Processes that run from the live release already: [`Done::pids_before`] of a failed attempt.
    pub already: BTreeMap<String, i32>,
    /// One process at a time, or in two halves.
    pub restart: Restart,
    /// Whether a program that does not come up, or whose hook fails, keeps no other one from it: on the way back, from what
    /// is no good.
    pub thorough: bool,
}

/// An operation that did not succeed, and how far it got.
#[derive(Debug)]
pub struct Failure {
    /// Why it ended.
    pub cause: SupervisorError,
    /// What was done before.
    pub done: Done,
    /// What was to be done, if that was known.
    pub plan: Option<Plan>,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\ndone before that: {}", self.cause, self.done.summary().unwrap_or("nothing".to_owned()))?;
        let left = self.left();
        if left.is_empty() { Ok(()) } else { write!(out, "\nnot done: {}", left.join(", ")) }
    }
}

impl Failure {
    /// Groups and processes that were to be changed and were not, or only begun.
    pub fn left(&self) -> Vec<String> {
        let (Some(plan), done) = (&self.plan, &self.done) else { return Vec::new() };
        let pairs = [
            (&plan.remove, &done.removed),
            (&plan.replace, &done.replaced),
            (&plan.add, &done.added),
            (&plan.restart, &done.restarted),
            (&plan.start, &done.started),
        ];
        pairs.iter().flat_map(|(planned, done)| planned.iter().filter(|name| !done.contains(name)).cloned()).collect()
    }
}

type Outcome<T> = Result<T, Box<Failure>>;

/// A supervisord that answers.
#[derive(Debug)]
pub struct Supervisor {
    client: Client,
    config: PathBuf,
    limits: Limits,
}

impl Supervisor {
    /// Reads `config` for how to ask, and asks whether it is ready.
    pub fn connect(config: &Path, limits: Limits) -> Result<Self, SupervisorError> {
        let environment = |name: &str| std::env::var(name).ok();
        let endpoint = conf::endpoint(&conf::read(config)?, config, &environment)?;
        let client = Client::new(endpoint, limits.call);
        match client.state() {
            Ok(state) if state == "RUNNING" => Ok(Self { client, config: config.to_owned(), limits }),
            Ok(state) => Err(SupervisorError::NotReady { state }),
            Err(RpcError::Fault { fault: Fault::ShutdownState, text, .. }) => {
                Err(SupervisorError::NotReady { state: text })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// For what is not done here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its version, which is one that tells all that has to be known.
    pub fn version(&self) -> Result<String, SupervisorError> {
        let version = self.client.version()?;
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < OLDEST) { Err(SupervisorError::TooOld { version }) } else { Ok(version) }
    }

    /// All processes, of everybody.
    pub fn programs(&self) -> Result<Vec<Process>, SupervisorError> {
        Ok(self.client.processes()?)
    }

    /// The processes of what a release declares.
    pub fn owned(&self, declared: &Declared) -> Result<Vec<Process>, SupervisorError> {
        Ok(self.programs()?.into_iter().filter(|process| declared.owns(&process.group)).collect())
    }

    /// Whether the flip to `candidate` may be made: supervisord could start from its files, they are included, they take
    /// nobody else's programs, and it is not without programs while those of the live release (`before`) run. Nothing is
    /// changed.
    pub fn check(
        &self,
        tools: &Tools,
        candidate: &Candidate<'_>,
        before: &Declared,
        after: &Declared,
    ) -> Result<(), SupervisorError> {
        foresee(before, after, &self.programs()?)?;
        if after.programs.is_empty() {
            return Ok(());
        }
        self.version()?;
        let parser = Parser::find(tools, self.client.pid().ok())?;
        Ok(parser.check(tools, self.limits.check, &self.config, candidate, after)?)
    }

    /// Brings the programs onto the live release. `Ok` means that every program that was up, and every new one that starts
    /// by itself, was RUNNING at the end, from the live release.
    pub fn apply(&self, change: &Change<'_>, around: &mut dyn Around) -> Outcome<Done> {
        let early = |cause: SupervisorError| Box::new(Failure { cause, done: Done::default(), plan: None });
        let processes = self.programs().map_err(early)?;
        let mut settings = self.client.settings().map_err(|e| early(e.into()))?;
        let ours = |group: &str| change.before.owns(group) || change.after.owns(group);
        let pids = processes.iter().filter(|p| ours(&p.group)).filter_map(|p| Some((p.id(), p.pid?)));
        let (up_before, held_before) = (change.wanted.clone(), change.held.clone());
        let done = Done { pids_before: pids.collect(), up_before, held_before, ..Done::default() };
        let early = |cause: SupervisorError| Box::new(Failure { cause, done: done.clone(), plan: None });
        let mut reread = self.client.reread().map_err(|e| early(e.into()))?;
        let fresh = self.client.settings().map_err(|e| early(e.into()))?;
        reread.complete(&processes, &fresh);
        let plan = decide(&Situation {
            before: change.before,
            after: change.after,
            processes: &processes,
            reread: &reread,
            settings: &fresh,
            wanted: &change.wanted,
            held: &change.held,
            already: &change.already,
        });
        let plan = plan.map_err(|e| early(e.into()))?;
        settings.retain(|program| ours(&program.group));
        let patience = patience(settings.iter().chain(fresh.iter().filter(|program| ours(&program.group))));
        // Of a group that is made anew, only the processes it will have count.
        settings.retain(|old| fresh.iter().all(|new| new.group != old.group));
        settings.extend(fresh.into_iter().filter(|program| ours(&program.group)));
        let terms = (settings, patience);
        self.finish(terms, around, done, Some(plan.clone()), |roll| {
            roll.carry_out(&plan, change.restart, change.thorough)
        })
    }

    /// Restarts what runs of the environment's programs, or those named, whether they run or not.
    pub fn restart(
        &self,
        owned: &Declared,
        names: &[String],
        restart: Restart,
        around: &mut dyn Around,
    ) -> Outcome<Done> {
        self.operate(owned, names, around, |roll, processes| {
            let (up, down): (Vec<_>, Vec<_>) = processes.iter().partition(|p| !p.state.is_down());
            roll.restart(&ids(up), restart)?;
            let named = if names.is_empty() { Vec::new() } else { down };
            roll.start(&ids(named))
        })
    }

    /// Starts those of the environment's programs, or of those named, that do not run.
    pub fn start(&self, owned: &Declared, names: &[String], around: &mut dyn Around) -> Outcome<Done> {
        self.operate(owned, names, around, |roll, processes| {
            // Asking one that is on its way down to start does nothing.
            roll.wait_down(&ids(processes.iter().filter(|p| p.state == State::Stopping)))?;
            let idle = |p: &&Process| p.state.is_down() || matches!(p.state, State::Backoff | State::Stopping);
            roll.start(&ids(processes.iter().filter(idle)))
        })
    }

    /// Stops those of the environment's programs, or of those named, that run or have failed.
    pub fn stop(&self, owned: &Declared, names: &[String], around: &mut dyn Around) -> Outcome<Done> {
        self.operate(owned, names, around, |roll, processes| {
            roll.give_up(&ids(processes.iter().filter(|p| p.state == State::Fatal)))?;
            roll.stop(&ids(processes.iter().filter(|p| !p.state.is_down())))
        })
    }

    fn operate(
        &self,
        owned: &Declared,
        names: &[String],
        around: &mut dyn Around,
        act: impl FnOnce(&mut Roll<'_>, &[Process]) -> Result<(), SupervisorError>,
    ) -> Outcome<Done> {
        let early = |cause: SupervisorError| Box::new(Failure { cause, done: Done::default(), plan: None });
        let all = self.owned(owned).map_err(early)?;
        let chosen = chosen(&all, names).map_err(early)?;
        let mut settings = self.client.settings().map_err(|e| early(e.into()))?;
        settings.retain(|program| owned.owns(&program.group));
        let patience = patience(&settings);
        self.finish((settings, patience), around, Done::default(), None, |roll| act(roll, &chosen))
    }

    fn finish(
        &self,
        (settings, patience): (Vec<Settings>, Duration),
        around: &mut dyn Around,
        done: Done,
        plan: Option<Plan>,
        act: impl FnOnce(&mut Roll<'_>) -> Result<(), SupervisorError>,
    ) -> Outcome<Done> {
        let mut roll = Roll::new(&self.client, around, settings, patience);
        roll.done = done;
        match act(&mut roll) {
            Ok(()) => Ok(roll.done),
            Err(cause) => Err(Box::new(Failure { cause, done: roll.done, plan })),
        }
    }
}

/// The longest one of these programs may take to stop.
fn patience<'a>(settings: impl IntoIterator<Item = &'a Settings>) -> Duration {
    Duration::from_secs(settings.into_iter().map(|program| program.stopwaitsecs).max().unwrap_or_default())
}

fn ids<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Vec<String> {
    processes.into_iter().map(Process::id).collect()
}

/// Those of `all` that `names` name; all if there are no names.
fn chosen(all: &[Process], names: &[String]) -> Result<Vec<Process>, SupervisorError> {
    if let Some(name) = names.iter().find(|name| !all.iter().any(|process| is_named(process, name))) {
        let programs = all.iter().map(Process::label).collect();
        return Err(SupervisorError::Unknown { name: name.clone(), programs });
    }
    let named = |process: &&Process| names.is_empty() || names.iter().any(|name| is_named(process, name));
    Ok(all.iter().filter(named).cloned().collect())
}

//! Carrying out a plan: one call of supervisord after the other, waiting for what each was to bring about, and stopping at
//! the first thing that does not come about.

use super::pauses::pauses;
use super::{Done, Plan};
use crate::recipe::Restart;
use crate::supervisor::rpc::methods::{Process, Settings, State};
use crate::supervisor::rpc::xml::Value;
use crate::supervisor::rpc::{Client, Fault, RpcError};
use crate::supervisor::{Around, SupervisorError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What a process that was killed may take to be gone, beyond the time it has to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes and lines of a program's log that an error carries.
const TAIL: (i64, usize) = (4096, 20);

/// One plan being carried out.
pub(in crate::supervisor) struct Roll<'a> {
    client: &'a Client,
    around: &'a mut dyn Around,
    settings: BTreeMap<String, Settings>,
    patience: Duration,
    thorough: bool,
    /// The first thing that did not come about and was left behind.
    setback: Option<SupervisorError>,
    pub(in crate::supervisor) done: Done,
}

impl<'a> Roll<'a> {
    /// `settings` are those of the files as they are, and of groups that are in them no more; `patience` is how long the
    /// slowest of what there was and is may take to stop.
    pub(in crate::supervisor) fn new(
        client: &'a Client,
        around: &'a mut dyn Around,
        settings: Vec<Settings>,
        patience: Duration,
    ) -> Self {
        let settings = settings.into_iter().map(|s| (format!("{}:{}", s.group, s.name), s)).collect();
        Self {
            client,
            around,
            settings,
            patience: patience + GRACE,
            thorough: false,
            setback: None,
            done: Done::default(),
        }
    }

    /// Does everything that `plan` says; what was done so far is in `done` even after an error. If it is to be `thorough`, a
    /// program that does not stop or come up, or whose hook fails, keeps no other one from it.
    pub(in crate::supervisor) fn carry_out(
        &mut self,
        plan: &Plan,
        restart: Restart,
        thorough: bool,
    ) -> Result<(), SupervisorError> {
        self.thorough = thorough;
        self.done.at_rest.clone_from(&plan.at_rest);
        self.done.up_before.clone_from(&plan.up);
        self.done.held_before.clone_from(&plan.hold);
        for group in &plan.remove {
            let removed = self.remove(group);
            if self.bears(removed)? {
                self.done.removed.push(group.clone());
            }
        }
        for group in &plan.replace {
            let replaced = self.replace(group, plan);
            if self.bears(replaced)? {
                self.done.replaced.push(group.clone());
            }
        }
        let mut added = Vec::new();
        for group in &plan.add {
            self.around.note(&format!("adding {group}"));
            let made = self.make(group, plan).map(|up| added.extend(up));
            self.bears(made)?;
        }
        let mut came_up = self.wait_up(&added, true);
        if came_up.is_ok() && !plan.remove.is_empty() {
            // It may stand for what was drained under another name, and will not run again.
            came_up = self.undrain(&added);
        }
        if self.bears(came_up)? {
            self.done.added.clone_from(&plan.add);
        }
        self.restart(&plan.restart, restart)?;
        for ids in plan.start.chunks(if thorough { 1 } else { plan.start.len().max(1) }) {
            let started = self.start(ids);
            self.bears(started)?;
        }
        if let Some(setback) = self.setback.take() {
            return Err(setback);
        }
        let up = [&added, &plan.restart, &plan.start, &plan.already].into_iter().flatten().cloned();
        self.are(&up.collect::<Vec<_>>(), &[State::Running])
    }

    /// Whether something was done, or did not come about and is to be borne; then it is told in the end.
    fn bears(&mut self, outcome: Result<(), SupervisorError>) -> Result<bool, SupervisorError> {
        match outcome {
            Err(error) if self.thorough && !error.is_unreachable() => {
                self.setback.get_or_insert(error);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Stops and starts running processes: each alone and confirmed, or in two halves that are confirmed in the end. A
    /// half is begun only while all of the one before it are on their way up.
    pub(in crate::supervisor) fn restart(&mut self, ids: &[String], restart: Restart) -> Result<(), SupervisorError> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| self.settings.get(id).map(|program| program.priority));
        let (confirmed, at_once) = match restart {
            Restart::Together if !self.thorough => (ids.len(), ids.len().div_ceil(2)),
            Restart::Rolling | Restart::Together => (1, 1),
        };
        for part in ids.chunks(confirmed.max(1)) {
            let restarted = self.restart_part(part, at_once.max(1));
            if self.bears(restarted)? {
                self.done.restarted.extend_from_slice(part);
            }
        }
        Ok(())
    }

    fn restart_part(&mut self, part: &[String], at_once: usize) -> Result<(), SupervisorError> {
        for (before, turn) in part.chunks(at_once).enumerate() {
            self.around.note(&format!("restarting {}", turn.join(", ")));
            self.are(&part[..before * at_once], &[State::Starting, State::Running])?;
            self.turn_over(turn)?;
        }
        self.wait_up(part, false)?;
        self.undrain(part)
    }

    /// Stops processes and, when all of them are down, asks them to start.
    fn turn_over(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        self.drain(ids)?;
        let stopped = self.client.stop_all(ids)?;
        stopped.into_iter().try_for_each(|stopped| ignore(stopped, &[Fault::NotRunning]))?;
        self.wait_down(ids)?;
        let started = self.client.start_all(ids)?;
        ids.iter().zip(started).try_for_each(|(id, started)| self.is_started(id, started))
    }

    /// Starts processes and waits for them.
    pub(in crate::supervisor) fn start(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        for id in ids {
            self.around.note(&format!("starting {id}"));
            self.ask_to_start(id)?;
        }
        self.wait_up(ids, false)?;
        self.undrain(ids)?;
        self.done.started.extend_from_slice(ids);
        Ok(())
    }

    /// Stops processes and waits for that.
    pub(in crate::supervisor) fn stop(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        self.drain(ids)?;
        for id in ids {
            self.around.note(&format!("stopping {id}"));
            ignore(self.client.stop(id), &[Fault::NotRunning])?;
        }
        self.wait_down(ids)?;
        self.done.stopped.extend_from_slice(ids);
        Ok(())
    }

    /// Takes what failed for good for stopped, so that it stays so and no change of release waits for it. supervisord has
    /// no call for that either. One of which there is no program cannot be started, and stays what it is.
    pub(in crate::supervisor) fn give_up(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        for id in ids {
            self.around.note(&format!("stopping {id}"));
            self.client.call_together(&held_back(id))?;
            ignore(self.client.stop(id), &[Fault::NotRunning])?;
        }
        self.wait_down(ids)?;
        for id in ids {
            if self.client.process(id)?.state == State::Stopped {
                self.done.stopped.push(id.clone());
            }
        }
        Ok(())
    }

    fn remove(&mut self, group: &str) -> Result<(), SupervisorError> {
        self.around.note(&format!("removing {group}"));
        self.drain(&self.running(group)?)?;
        self.forget(group)
    }

    /// Makes a group anew. All its processes are stopped meanwhile: supervisord has no other way.
    fn replace(&mut self, group: &str, plan: &Plan) -> Result<(), SupervisorError> {
        self.around.note(&format!("replacing {group}"));
        let running = self.running(group)?;
        self.drain(&running)?;
        self.forget(group)?;
        let mut up = self.make(group, plan)?;
        self.wait_up(&up, true)?;
        // One that was stopped for this change was drained then.
        up.retain(|id| plan.up.contains(id));
        self.undrain(&up)
    }

    /// Makes a group active, with what is on its way up then.
    fn make(&self, group: &str, plan: &Plan) -> Result<Vec<String>, SupervisorError> {
        let (mut up, mut others) = (self.members(group, |s| s.autostart), self.members(group, |s| !s.autostart));
        let held: Vec<String> = up.iter().filter(|id| plan.hold.contains(*id)).cloned().collect();
        self.add_held(group, &held)?;
        others.retain(|id| plan.up.contains(id));
        others.iter().try_for_each(|id| self.ask_to_start(id))?;
        up.retain(|id| plan.up.contains(id) || !(plan.hold.contains(id) || plan.finished.contains(id)));
        up.extend(others);
        Ok(up)
    }

    /// Makes a group active and leaves its `held` processes stopped, though they are `autostart`.
    ///
    /// supervisord has no call for that: it starts what was never started as soon as it looks. So within one call,
    /// between two of its looks, each is started, killed and told to stop. Mostly that is before the fork has become the
    /// program, always in its first milliseconds; a group that is not replaced would go on with its old definition instead.
    fn add_held(&self, group: &str, held: &[String]) -> Result<(), SupervisorError> {
        if held.is_empty() {
            return ignore(self.client.add_group(group), &[Fault::AlreadyAdded]);
        }
        let mut calls = vec![("supervisor.addProcessGroup", vec![group.into()])];
        calls.extend(held.iter().flat_map(|id| held_back(id)));
        let mut results = self.client.call_together(&calls)?.into_iter();
        ignore(results.next().unwrap_or(Ok(Value::Nil)).map(drop), &[Fault::AlreadyAdded])?;
        // One that could not even be started is tried again by supervisord until it is told to stop.
        for id in held {
            ignore(self.client.stop(id), &[Fault::NotRunning])?;
        }
        self.wait_down(held)
    }

    /// Stops a group's processes and makes it inactive.
    fn forget(&self, group: &str) -> Result<(), SupervisorError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.client.stop_group(group) {
                Err(error) if error.fault() == Some(Fault::BadName) => return Ok(()),
                stopped => stopped?,
            }
            self.wait_down(&self.running(group)?)?;
            match self.client.remove_group(group) {
                // A process that had exited was started again by supervisord in between.
                Err(error) if error.fault() == Some(Fault::StillRunning) && Instant::now() < deadline => {}
                removed => return ignore(removed, &[Fault::BadName]),
            }
        }
    }

    fn ask_to_start(&self, id: &str) -> Result<(), SupervisorError> {
        self.is_started(id, self.client.start(id))
    }

    /// What supervisord's answer to being asked to start a process comes to.
    fn is_started(&self, id: &str, answer: Result<(), RpcError>) -> Result<(), SupervisorError> {
        let faults =
            [Fault::NoFile, Fault::NotExecutable, Fault::SpawnError, Fault::AbnormalTermination, Fault::Failed];
        match answer {
            Err(RpcError::Fault { fault, text, .. }) if faults.contains(&fault) => {
                let state = self.client.process(id).map_or(State::Unknown, |process| process.state);
                Err(self.not_up(id, state, text))
            }
            started => ignore(started, &[Fault::AlreadyStarted]),
        }
    }

    fn running(&self, group: &str) -> Result<Vec<String>, SupervisorError> {
        let processes = self.client.processes()?;
        Ok(processes.iter().filter(|p| p.group == group && !p.state.is_down()).map(Process::id).collect())
    }

    fn members(&self, group: &str, which: impl Fn(&Settings) -> bool) -> Vec<String> {
        let of_group = self.settings.iter().filter(|(_, s)| s.group == group && which(s));
        of_group.map(|(id, _)| id.clone()).collect()
    }

    /// Waits until none of `ids` has a process. What supervisord does not know any more has none.
    pub(in crate::supervisor) fn wait_down(&self, ids: &[String]) -> Result<(), SupervisorError> {
        let deadline = Instant::now() + self.patience;
        let mut pauses = pauses();
        loop {
            let processes = self.client.processes()?;
            let up = processes.iter().find(|p| !p.state.is_down() && ids.contains(&p.id()));
            let Some(up) = up.filter(|_| !ids.is_empty()) else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(SupervisorError::NotDown { program: up.id(), state: up.state, waited: self.patience });
            }
            pauses(None);
        }
    }

    /// Waits until all of `ids` are RUNNING; whatever supervisord calls anything but on the way there is a failure. A
    /// `fresh` one may be found before supervisord has first looked at it.
    fn wait_up(&self, ids: &[String], fresh: bool) -> Result<(), SupervisorError> {
        let begun = Instant::now();
        let mut pauses = pauses();
        let mut pending: BTreeSet<&String> = ids.iter().collect();
        while !pending.is_empty() {
            let processes: BTreeMap<String, Process> =
                self.client.processes()?.into_iter().map(|p| (p.id(), p)).collect();
            let mut still = BTreeSet::new();
            for id in pending {
                let Some(process) = processes.get(id) else {
                    return Err(self.not_up(id, State::Unknown, "supervisord does not know it any more".to_owned()));
                };
                let late = begun.elapsed() >= self.time_to_start(id);
                match process.state {
                    State::Running => {}
                    State::Exited if self.is_brief(id) && process.exit_status == 0 => {}
                    State::Starting | State::Stopping if !late => drop(still.insert(id)),
                    State::Stopped if fresh && !late => drop(still.insert(id)),
                    state => return Err(self.not_up(id, state, process.description.clone())),
                }
            }
            pending = still;
            if !pending.is_empty() {
                let seconds = |id: &String| self.settings.get(id).map_or(0, |program| program.startsecs);
                let due = pending.iter().filter_map(|id| begun.checked_add(Duration::from_secs(seconds(id))));
                pauses(due.filter(|due| *due > Instant::now()).min());
            }
        }
        Ok(())
    }

    /// Whether each of `ids` is in one of these states, or has ended successfully.
    fn are(&self, ids: &[String], states: &[State]) -> Result<(), SupervisorError> {
        if ids.is_empty() {
            return Ok(());
        }
        for process in self.client.processes()?.iter().filter(|process| ids.contains(&process.id())) {
            let done = process.state == State::Exited && process.exit_status == 0;
            if !states.contains(&process.state) && !done {
                return Err(self.not_up(&process.id(), process.state, process.description.clone()));
            }
        }
        Ok(())
    }

    /// startsecs × (startretries + 2) + 5 s
    fn time_to_start(&self, id: &str) -> Duration {
        let seconds = |s: &Settings| s.startsecs.saturating_mul(s.startretries.saturating_add(2)).saturating_add(5);
        Duration::from_secs(self.settings.get(id).map_or(5, seconds))
    }

    /// Whether it counts as running from its first moment, so that it may have ended well before we look.
    fn is_brief(&self, id: &str) -> bool {
        self.settings.get(id).is_some_and(|program| program.startsecs == 0)
    }

    fn not_up(&self, id: &str, state: State, why: String) -> SupervisorError {
        let tail = |error| self.client.tail(id, error, TAIL.0).unwrap_or_default();
        let said = Some(tail(true)).filter(|said| !said.trim().is_empty()).unwrap_or_else(|| tail(false));
        let lines: Vec<&str> = said.trim_end().lines().collect();
        let log = lines[lines.len().saturating_sub(TAIL.1)..].join("\n");
        SupervisorError::NotUp { program: id.to_owned(), state, why, log }
    }

    fn drain(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        let hook = |id: &String, message| SupervisorError::Hook { hook: "drain", program: id.clone(), message };
        ids.iter().try_for_each(|id| self.around.drain(id).map_err(|message| hook(id, message)))
    }

    fn undrain(&mut self, ids: &[String]) -> Result<(), SupervisorError> {
        let hook = |id: &String, message| SupervisorError::Hook { hook: "undrain", program: id.clone(), message };
        ids.iter().try_for_each(|id| self.around.undrain(id).map_err(|message| hook(id, message)))
    }
}

/// The calls that leave a process stopped before it has done anything.
fn held_back(id: &str) -> [(&'static str, Vec<Value>); 3] {
    let id = Value::from(id);
    [
        ("supervisor.startProcess", vec![id.clone(), Value::Bool(false)]),
        ("supervisor.signalProcess", vec![id.clone(), "KILL".into()]),
        ("supervisor.stopProcess", vec![id, Value::Bool(false)]),
    ]
}

/// Takes faults that say "it is so already" for success.
fn ignore(result: Result<(), RpcError>, faults: &[Fault]) -> Result<(), SupervisorError> {
    match result {
        Err(error) if error.fault().is_some_and(|fault| faults.contains(&fault)) => Ok(()),
        other => other.map_err(SupervisorError::from),
    }
}

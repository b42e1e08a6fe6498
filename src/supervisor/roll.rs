//! What has to be done to the programs of one environment when its release changes. Decided here, purely; done in act.rs.
//!
//! Ours are the groups that the release before or the release after declares, and nothing else is ever touched, whatever
//! supervisord says about it. supervisord's own word for what changed is never acted on unless it is what the releases
//! declare: if the flip went wrong (a dangling link, files that were not read) it says "removed" of programs that are to
//! run, and `supervisorctl update` would stop them all.

pub(super) mod act;
mod pauses;

use super::conf::Declared;
use super::rpc::methods::{Process, Reread, Settings, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The moment between the flip and doing anything about it.
#[derive(Debug)]
pub struct Situation<'a> {
    /// What the release that was live declares.
    pub before: &'a Declared,
    /// What the release that is live declares.
    pub after: &'a Declared,
    /// All processes, of everybody, as they were before the files were read again.
    pub processes: &'a [Process],
    /// What supervisord says of its files.
    pub reread: &'a Reread,
    /// What the files declare now, of everybody.
    pub settings: &'a [Settings],
    /// Programs or groups of ours that are to run although they are stopped: those that we stopped ourselves.
    pub wanted: &'a BTreeSet<String>,
    /// Processes (by `group:name`) that are to stay stopped although their group is made.
    pub held: &'a BTreeSet<String>,
    /// Processes (by `group:name`) that run from the live release already, as long as they have this process id.
    pub already: &'a BTreeMap<String, i32>,
}

/// What is to be done, in this order. Groups by name, processes by `group:name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Groups to be stopped and forgotten.
    pub remove: Vec<String>,
    /// Groups to be stopped and made anew as the files have them.
    pub replace: Vec<String>,
    /// Groups to be made.
    pub add: Vec<String>,
    /// Processes of unchanged groups that run: to be stopped and started.
    pub restart: Vec<String>,
    /// Processes of unchanged groups that do not run and should.
    pub start: Vec<String>,
    /// Processes that run from the live release already.
    pub already: Vec<String>,
    /// Processes that an operator stopped, or nobody ever started: they stay as they are.
    pub at_rest: Vec<String>,
    /// Processes of ours, of any group, that were up or meant to be.
    pub up: BTreeSet<String>,
    /// Processes of groups that are removed, replaced or made that must not come up with a group.
    pub hold: BTreeSet<String>,
    /// Processes of replaced groups that had done their work: they may come up with their group, or not.
    pub finished: BTreeSet<String>,
}

/// supervisord's view of its files is not what the releases declare. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexpected {
    /// Groups of the live release are not in the files any more.
    #[error("supervisord no longer finds {} in its files", groups.join(", "))]
    Vanished {
        /// Which.
        groups: Vec<String>,
    },
    /// Groups of the live release were not read.
    #[error("supervisord did not read {} of the release", groups.join(", "))]
    Unread {
        /// Which.
        groups: Vec<String>,
    },
    /// The release has no programs, while programs of the one before run.
    #[error("the release declares no programs, while {} {} up", running.join(", "), if running.len() == 1 { "is" } else { "are" })]
    NothingDeclared {
        /// `group:name` of each.
        running: Vec<String>,
    },
}

/// How a process stood before the change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It runs, or tries to, or failed to.
    Up,
    /// Somebody stopped it.
    Stopped,
    /// It ended by itself, successfully.
    Finished,
    /// It was never started.
    Idle,
}

fn standing(process: &Process, wanted: &BTreeSet<String>) -> Standing {
    if wanted.iter().any(|name| is_named(process, name)) {
        return Standing::Up;
    }
    match process.state {
        State::Starting | State::Running | State::Backoff | State::Fatal => Standing::Up,
        State::Exited if process.exit_status == 0 => Standing::Finished,
        State::Exited => Standing::Up,
        State::Stopped if process.started == 0 => Standing::Idle,
        State::Stopped | State::Stopping | State::Unknown => Standing::Stopped,
    }
}

/// Whether `name`, as an operator says it, names this process: its group, `group:name`, `group:*`, or its own name.
pub fn is_named(process: &Process, name: &str) -> bool {
    match name.split_once(':') {
        Some((group, "*")) => process.group == group,
        Some(_) => process.id() == name,
        None => process.group == name || process.name == name,
    }
}

/// Which processes of what is declared (`group:name`) run, try to, or failed to: not those an operator stopped. Recorded
/// before a change, it tells after a crash what has to be brought up again.
pub fn up(declared: &Declared, processes: &[Process]) -> BTreeSet<String> {
    let none = BTreeSet::new();
    let is_up = |p: &&Process| declared.owns(&p.group) && standing(p, &none) == Standing::Up;
    processes.iter().filter(is_up).map(Process::id).collect()
}

/// Refuses a release without programs if programs of the one before are up: a build that went wrong, not a wish.
pub fn foresee(before: &Declared, after: &Declared, processes: &[Process]) -> Result<(), Unexpected> {
    if !after.groups.is_empty() {
        return Ok(());
    }
    let up = |p: &&Process| before.owns(&p.group) && matches!(p.state, State::Running | State::Starting);
    let running: Vec<String> = processes.iter().filter(up).map(Process::label).collect();
    if running.is_empty() { Ok(()) } else { Err(Unexpected::NothingDeclared { running }) }
}

/// What has to be done, or why nothing may be.
pub fn decide(now: &Situation<'_>) -> Result<Plan, Unexpected> {
    foresee(now.before, now.after, now.processes)?;
    let ours = |group: &String| now.before.owns(group) || now.after.owns(group);
    let active: BTreeSet<&String> = now.processes.iter().map(|p| &p.group).collect();
    let only = |groups: &[String], which: &dyn Fn(&String) -> bool| -> Vec<String> {
        groups.iter().filter(|group| which(group)).cloned().collect()
    };
    let vanished = only(&now.reread.removed, &|group| now.after.owns(group));
    if !vanished.is_empty() {
        return Err(Unexpected::Vanished { groups: vanished });
    }
    let known = |group: &&String| active.contains(group) || now.reread.added.contains(group);
    let unread: Vec<String> = now.after.groups.keys().filter(|group| !known(group)).cloned().collect();
    if !unread.is_empty() {
        return Err(Unexpected::Unread { groups: unread });
    }
    let mut plan = Plan {
        remove: only(&now.reread.removed, &|group| now.before.owns(group)),
        replace: only(&now.reread.changed, &ours),
        add: only(&now.reread.added, &|group| now.after.owns(group)),
        ..Plan::default()
    };
    for process in now.processes.iter().filter(|process| ours(&process.group)) {
        plan.place(process, now);
    }
    now.settings.iter().for_each(|new| plan.inherit(new, now));
    Ok(plan)
}

impl Plan {
    fn place(&mut self, process: &Process, now: &Situation<'_>) {
        let (id, standing) = (process.id(), standing(process, now.wanted));
        if standing == Standing::Up {
            self.up.insert(id.clone());
        }
        if self.remove.contains(&process.group) {
            if standing == Standing::Stopped {
                self.hold.insert(id);
            }
            return;
        }
        if self.replace.contains(&process.group) {
            match standing {
                Standing::Stopped => {
                    self.hold.insert(id.clone());
                    self.at_rest.push(id);
                }
                Standing::Finished => drop(self.finished.insert(id)),
                Standing::Up | Standing::Idle => {}
            }
            return;
        }
        if !now.after.owns(&process.group) {
            return;
        }
        let fresh =
            process.state == State::Running && process.pid.is_some() && now.already.get(&id) == process.pid.as_ref();
        match process.state {
            _ if standing != Standing::Up => self.at_rest.push(id),
            _ if fresh => self.already.push(id),
            // One that is on its way down is waited for first: asking it to start meanwhile does nothing.
            State::Running | State::Starting | State::Backoff | State::Stopping => self.restart.push(id),
            _ => self.start.push(id),
        }
    }

    /// A process of a group that is made stands as it did before it was removed, or as the one of its name does in a group
    /// that goes: it has only moved.
    fn inherit(&mut self, new: &Settings, now: &Situation<'_>) {
        if !self.add.contains(&new.group) {
            return;
        }
        let id = format!("{}:{}", new.group, new.name);
        let leaves = |old: &&Process| old.name == new.name && self.remove.contains(&old.group);
        let moved = now.processes.iter().find(leaves).map(Process::id);
        let is_in = |set: &BTreeSet<String>| moved.as_ref().is_some_and(|moved| set.contains(moved));
        if now.wanted.contains(&id) || is_in(&self.up) {
            self.up.insert(id);
        } else if now.held.contains(&id) || is_in(&self.hold) {
            self.at_rest.push(id.clone());
            self.hold.insert(id);
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        [&self.remove, &self.replace, &self.add, &self.restart, &self.start].iter().all(|list| list.is_empty())
    }
}

/// What was done: groups by name, processes by `group:name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Groups that are gone.
    pub removed: Vec<String>,
    /// Groups that were made anew and came up.
    pub replaced: Vec<String>,
    /// Groups that were made and came up.
    pub added: Vec<String>,
    /// Processes that were restarted and came up.
    pub restarted: Vec<String>,
    /// Processes that were started and came up.
    pub started: Vec<String>,
    /// Processes that were stopped.
    pub stopped: Vec<String>,
    /// Processes that stayed stopped.
    #[serde(skip)]
    pub at_rest: Vec<String>,
    /// Processes of ours that were up before, or meant to be: what going back has to bring up again.
    #[serde(skip)]
    pub up_before: BTreeSet<String>,
    /// Processes of ours that an operator had stopped and whose group may be gone: going back must not bring them up.
    #[serde(skip)]
    pub held_before: BTreeSet<String>,
    /// The process ids of ours before: what still has one of them was not touched.
    #[serde(skip)]
    pub pids_before: BTreeMap<String, i32>,
}

impl Done {
    /// What was done, in one line for people; none if it was nothing.
    pub fn summary(&self) -> Option<String> {
        let parts = [
            ("removed", &self.removed),
            ("replaced", &self.replaced),
            ("added", &self.added),
            ("restarted", &self.restarted),
            ("started", &self.started),
            ("stopped", &self.stopped),
        ];
        let said = parts.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> = said.map(|(verb, names)| format!("{verb} {}", names.join(", "))).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests;

//! The methods of supervisord that are used, with their answers as types (`supervisor/rpcinterface.py`).

use super::xml::Value;
use super::{Client, RpcError};

/// `supervisor.states.ProcessStates`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are named as supervisord names them")]
pub enum State {
    Stopped,
    Starting,
    Running,
    Backoff,
    Stopping,
    Exited,
    Fatal,
    Unknown,
}

impl State {
    fn new(code: i64) -> Self {
        match code {
            0 => Self::Stopped,
            10 => Self::Starting,
            20 => Self::Running,
            30 => Self::Backoff,
            40 => Self::Stopping,
            100 => Self::Exited,
            200 => Self::Fatal,
            _ => Self::Unknown,
        }
    }

    /// As supervisorctl prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Backoff => "BACKOFF",
            Self::Stopping => "STOPPING",
            Self::Exited => "EXITED",
            Self::Fatal => "FATAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Whether there is no process and none is about to be.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Stopped | Self::Exited | Self::Fatal | Self::Unknown)
    }
}

/// A process as supervisord sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its group.
    pub group: String,
    /// Its own name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Its process id, if it has one.
    pub pid: Option<i32>,
    /// Seconds since it was started, if it runs.
    pub uptime: Option<i64>,
    /// When it was last started, in seconds since 1970; 0 if never.
    pub started: i64,
    /// How it ended last.
    pub exit_status: i64,
    /// Why it could not be started.
    pub spawn_error: String,
    /// supervisord's own words.
    pub description: String,
    /// Whether supervisord itself has named the files of its standard output and its standard error.
    pub own_logs: [bool; 2],
}

impl Process {
    /// `group:name`, which names it whatever its group is called.
    pub fn id(&self) -> String {
        format!("{}:{}", self.group, self.name)
    }

    /// As supervisorctl prints it: `name` where that is also its group's, else `group:name`.
    pub fn label(&self) -> String {
        if self.group == self.name { self.name.clone() } else { self.id() }
    }
}

/// A process as supervisord's files declare it, as they were last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its group.
    pub group: String,
    /// Its own name.
    pub name: String,
    /// Whether it is started with supervisord.
    pub autostart: bool,
    /// Seconds it must stay up to count as running.
    pub startsecs: u64,
    /// How often starting it is tried again.
    pub startretries: u64,
    /// Seconds from asking it to stop to killing it.
    pub stopwaitsecs: u64,
    /// Its group's place and its own in the order of starting.
    pub priority: (i64, i64),
    /// What is run.
    pub command: String,
    /// Whether supervisord itself is to name the files of its standard output and its standard error.
    pub own_logs: [bool; 2],
}

/// What rereading the files would change: names of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// In the files, and not active.
    pub added: Vec<String>,
    /// Active, and other in the files.
    pub changed: Vec<String>,
    /// Active, and not in the files.
    pub removed: Vec<String>,
}

impl Reread {
    /// Adds to what is changed the groups of `processes` that lose the name of a log in their `settings`: supervisord takes a
    /// log that it is to name itself for the same as any other, and would go on with the one before.
    pub fn complete(&mut self, processes: &[Process], settings: &[Settings]) {
        for new in settings {
            let loses = |old: &Process| (0..2).any(|log| new.own_logs[log] && !old.own_logs[log]);
            let active = processes.iter().find(|old| old.group == new.group && old.name == new.name);
            if active.is_some_and(loses) && !self.changed.contains(&new.group) {
                self.changed.push(new.group.clone());
            }
        }
    }
}

impl Client {
    /// supervisord's version.
    pub fn version(&self) -> Result<String, RpcError> {
        let method = "supervisor.getSupervisorVersion";
        self.call(method, &[])?.text().map(str::to_owned).ok_or_else(|| self.unexpected(method))
    }

    /// What supervisord itself is doing: `RUNNING`, `RESTARTING`, `SHUTDOWN`, `FATAL`.
    pub fn state(&self) -> Result<String, RpcError> {
        let method = "supervisor.getState";
        let answer = self.call(method, &[])?;
        answer.member("statename").and_then(Value::text).map(str::to_owned).ok_or_else(|| self.unexpected(method))
    }

    /// supervisord's process id.
    pub fn pid(&self) -> Result<i64, RpcError> {
        let method = "supervisor.getPID";
        self.call(method, &[])?.int().ok_or_else(|| self.unexpected(method))
    }

    /// All processes, of everybody.
    pub fn processes(&self) -> Result<Vec<Process>, RpcError> {
        self.list("supervisor.getAllProcessInfo", process)
    }

    /// One process, by `group:name`.
    pub fn process(&self, id: &str) -> Result<Process, RpcError> {
        let method = "supervisor.getProcessInfo";
        process(&self.call(method, &[id.into()])?).ok_or_else(|| self.unexpected(method))
    }

    /// What the files declare, of everybody.
    pub fn settings(&self) -> Result<Vec<Settings>, RpcError> {
        self.list("supervisor.getAllConfigInfo", settings)
    }

    /// Has the files read again. Nothing is started or stopped by it. Fault `CantReread` if they cannot be.
    pub fn reread(&self) -> Result<Reread, RpcError> {
        let method = "supervisor.reloadConfig";
        let answer = self.call(method, &[])?;
        let lists: Option<Vec<Vec<String>>> =
            answer.array().and_then(|outer| outer.first()?.array()).and_then(|lists| {
                let names = |list: &Value| list.array()?.iter().map(|name| name.text().map(str::to_owned)).collect();
                lists.iter().map(names).collect()
            });
        match lists.and_then(|lists| <[Vec<String>; 3]>::try_from(lists).ok()) {
            Some([added, changed, removed]) => Ok(Reread { added, changed, removed }),
            None => Err(self.unexpected(method)),
        }
    }

    /// Makes a group active as it was last read; its `autostart` processes are started soon after.
    pub fn add_group(&self, group: &str) -> Result<(), RpcError> {
        self.call("supervisor.addProcessGroup", &[group.into()]).map(drop)
    }

    /// Makes a group whose processes are all stopped inactive.
    pub fn remove_group(&self, group: &str) -> Result<(), RpcError> {
        self.call("supervisor.removeProcessGroup", &[group.into()]).map(drop)
    }

    /// Asks for a process (`group:name`) to be started, without waiting for it.
    pub fn start(&self, id: &str) -> Result<(), RpcError> {
        self.call("supervisor.startProcess", &[id.into(), Value::Bool(false)]).map(drop)
    }

    /// Asks for a process (`group:name`) to be stopped, without waiting for it.
    pub fn stop(&self, id: &str) -> Result<(), RpcError> {
        self.call("supervisor.stopProcess", &[id.into(), Value::Bool(false)]).map(drop)
    }

    /// Asks for processes to be started, all in one call and without waiting for them. One result each, in order.
    pub fn start_all(&self, ids: &[String]) -> Result<Vec<Result<(), RpcError>>, RpcError> {
        self.for_all("supervisor.startProcess", ids)
    }

    /// Asks for processes to be stopped, all in one call and without waiting for them. One result each, in order.
    pub fn stop_all(&self, ids: &[String]) -> Result<Vec<Result<(), RpcError>>, RpcError> {
        self.for_all("supervisor.stopProcess", ids)
    }

    fn for_all(&self, method: &str, ids: &[String]) -> Result<Vec<Result<(), RpcError>>, RpcError> {
        let calls: Vec<_> = ids.iter().map(|id| (method, vec![id.as_str().into(), Value::Bool(false)])).collect();
        Ok(self.call_together(&calls)?.into_iter().map(|result| result.map(drop)).collect())
    }

    /// Asks for all processes of a group to be stopped, without waiting for them.
    pub fn stop_group(&self, group: &str) -> Result<(), RpcError> {
        self.call("supervisor.stopProcessGroup", &[group.into(), Value::Bool(false)]).map(drop)
    }

    /// The last `bytes` or so of what a process wrote to standard output, or to standard error; empty without a log.
    ///
    /// supervisord answers 500 if the part begins within a character, so a few bytes more are asked for then.
    pub fn tail(&self, id: &str, error: bool, bytes: i64) -> Result<String, RpcError> {
        let method = if error { "supervisor.tailProcessStderrLog" } else { "supervisor.tailProcessStdoutLog" };
        let ask = |more| {
            let answer = self.call(method, &[id.into(), Value::Int(0), Value::Int(bytes + more)])?;
            let text = answer.array().and_then(|parts| parts.first()?.text()).map(str::to_owned);
            text.ok_or_else(|| self.unexpected(method))
        };
        let mut answer = ask(0);
        for more in 1..4 {
            if !matches!(answer, Err(RpcError::Garbled { .. })) {
                break;
            }
            answer = ask(more);
        }
        answer
    }

    fn list<T>(&self, method: &str, read: fn(&Value) -> Option<T>) -> Result<Vec<T>, RpcError> {
        let answer = self.call(method, &[])?;
        let all = answer.array().and_then(|all| all.iter().map(read).collect());
        all.ok_or_else(|| self.unexpected(method))
    }

    fn unexpected(&self, method: &str) -> RpcError {
        let what = "an answer of another shape than supervisord 4 gives".to_owned();
        RpcError::Garbled { address: self.address().clone(), method: method.to_owned(), what }
    }
}

fn process(value: &Value) -> Option<Process> {
    let text = |name: &str| value.member(name).and_then(Value::text).map(str::to_owned);
    let int = |name| value.member(name).and_then(Value::int);
    let state = State::new(int("state")?);
    let started = int("start")?;
    let runs = matches!(state, State::Running | State::Starting | State::Stopping);
    let name = text("name")?;
    let own_logs = ["stdout", "stderr"].map(|channel| {
        let file = text(&format!("{channel}_logfile")).unwrap_or_default();
        file.rsplit('/').next().is_some_and(|file| file.starts_with(&format!("{name}-{channel}---")))
    });
    Some(Process {
        group: text("group")?,
        name,
        own_logs,
        state,
        pid: int("pid").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
        uptime: int("now").filter(|_| runs).map(|now| (now - started).max(0)),
        started,
        exit_status: int("exitstatus").unwrap_or_default(),
        spawn_error: text("spawnerr").unwrap_or_default(),
        description: text("description").unwrap_or_default(),
    })
}

fn settings(value: &Value) -> Option<Settings> {
    let text = |name| value.member(name).and_then(Value::text).map(str::to_owned);
    let int = |name| value.member(name).and_then(Value::int);
    let seconds = |name| int(name).and_then(|n| u64::try_from(n).ok());
    Some(Settings {
        group: text("group")?,
        name: text("name")?,
        autostart: int("autostart")? != 0,
        startsecs: seconds("startsecs")?,
        startretries: seconds("startretries")?,
        stopwaitsecs: seconds("stopwaitsecs")?,
        priority: (int("group_prio").unwrap_or(999), int("process_prio").unwrap_or(999)),
        command: text("command").unwrap_or_default(),
        own_logs: ["stdout_logfile", "stderr_logfile"].map(|log| text(log).is_some_and(|file| file == "auto")),
    })
}

//! A tree with a supervisord of its own, which is taken down with everything it started.

use crate::sandbox::{Answer, Sandbox};
use releasectl::supervisor::rpc::methods::Process;
use releasectl::supervisor::{Limits, Supervisor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longer than anything here takes, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.2.5, as `apt-get install supervisor` gives it.
    Debian,
    /// 4.3.0, in a virtual environment.
    Pypi,
}

/// A directory of virtual environment `name` with these packages, made once and kept.
pub fn virtualenv(name: &str, packages: &[&str]) -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache").join(name);
    let whole = venv.join("whole");
    if !whole.exists() {
        let _ = fs::remove_dir_all(&venv);
        must(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
        must(Command::new(venv.join("bin/pip")).args(["install", "-q"]).args(packages));
        fs::write(&whole, "").unwrap();
    }
    venv
}

fn pypi() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| virtualenv("it-supervisor-4.3", &["supervisor==4.3.0", "setuptools<81"]))
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The tree, its host file, and supervisord.
pub struct World {
    pub tree: Sandbox,
    version: Version,
    process: Option<Child>,
}

impl World {
    /// A supervisord that includes the tree's live release; nothing is live yet.
    pub fn new() -> Self {
        Self::of(Version::Debian, "")
    }

    /// The same with this version of supervisord and more in the host's file.
    pub fn of(version: Version, host: &str) -> Self {
        let mut world = Self { tree: Sandbox::laid_out(), version, process: None };
        world.host(host);
        let text = "[unix_http_server]\nfile=%(here)s/s.sock\n\
             [supervisord]\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/supervisord.pid\nchildlogdir=%(here)s\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://%(here)s/s.sock\n\n[include]\nfiles = others/*.conf\n";
        fs::write(world.config(), text).unwrap();
        fs::create_dir(world.tree.beside("others")).unwrap();
        world.done("supervisor wire");
        world.start();
        world
    }

    /// Writes the host's file: where supervisord is, and `more`.
    pub fn host(&self, more: &str) {
        let (root, config) = (self.tree.root(), self.config());
        let text = format!(
            "root = {root:?}\n{more}\n[supervisor]\nconfig = {config:?}\n",
            more = more.split("[supervisor]\n").next().unwrap_or_default()
        );
        let own = more.split_once("[supervisor]\n").map_or("", |(_, own)| own);
        fs::write(self.tree.beside("app.toml"), text + own).unwrap();
    }

    /// supervisord's configuration file.
    pub fn config(&self) -> PathBuf {
        self.tree.beside("supervisord.conf")
    }

    /// Starts supervisord in a session of its own, by which everything it starts is found again.
    pub fn start(&mut self) {
        let program = match self.version {
            Version::Debian => PathBuf::from("/usr/bin/supervisord"),
            Version::Pypi => pypi().join("bin/supervisord"),
        };
        let mut command = Command::new("setsid");
        command.arg(program).arg("-n").arg("-c").arg(self.config());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(child);
        until("supervisord is up", || Supervisor::connect(&self.config(), Limits::default()).is_ok());
    }

    /// Kills supervisord and everything it started.
    pub fn kill(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        while !of_session(child.id()).is_empty() {
            for pid in of_session(child.id()) {
                signal(pid, "KILL");
            }
        }
    }

    /// Sends supervisord itself a signal.
    pub fn signal(&self, name: &str) {
        signal(self.process.as_ref().unwrap().id(), name);
    }

    /// The real supervisorctl.
    pub fn ctl(&self, arguments: &[&str]) -> Answer {
        let program = match self.version {
            Version::Debian => PathBuf::from("/usr/bin/supervisorctl"),
            Version::Pypi => pypi().join("bin/supervisorctl"),
        };
        self.tree.clean(program).arg("-c").arg(self.config()).args(arguments).output().unwrap().into()
    }

    /// Builds a release: `conf` is its file for supervisord, in which ROOT stands for the tree's root; other files follow.
    pub fn build(&self, id: &str, conf: &str, files: &[(&str, &str)]) {
        let source = self.tree.source(id);
        let root = self.tree.root();
        let conf = conf.replace("ROOT", root.to_str().unwrap());
        let mut all = files.to_vec();
        if !conf.is_empty() {
            all.push(("services/supervisor/app.conf", &conf));
        }
        for (name, text) in all {
            fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
            fs::write(source.join(name), text).unwrap();
        }
        self.done(&format!("create {} --id {id}", source.display()));
    }

    /// The program with these words as arguments, not yet started.
    pub fn command(&self, words: &str) -> Command {
        let mut command = self.tree.clean(crate::sandbox::PROGRAM);
        command.arg("--config").arg(self.tree.beside("app.toml")).args(words.split_whitespace());
        command
    }

    /// Runs it and returns its answer, whatever it is.
    pub fn run(&self, words: &str) -> Answer {
        self.command(words).output().unwrap().into()
    }

    /// Runs it; it must end with `code`.
    #[track_caller]
    pub fn ends(&self, code: i32, words: &str) -> Answer {
        let answer = self.run(words);
        assert_eq!(answer.code, code, "{words}\n{}{}{}", answer.stdout, answer.stderr, self.log());
        answer
    }

    /// Runs it; it must succeed. Returns its standard output.
    #[track_caller]
    pub fn done(&self, words: &str) -> String {
        self.ends(0, words).stdout
    }

    /// Runs it with `--json`; it must end with `code`, and there is exactly one document.
    #[track_caller]
    pub fn json(&self, code: i32, words: &str) -> Value {
        let answer = self.ends(code, &format!("--json {words}"));
        serde_json::from_str(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", answer.stdout, answer.stderr))
    }

    /// What supervisord wrote last, for messages.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.tree.beside("supervisord.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Every process of supervisord's: its name, its state, and its number while it runs.
    fn processes(&self) -> BTreeMap<String, (String, Option<i32>)> {
        let found = Supervisor::connect(&self.config(), Limits::default()).and_then(|supervisor| supervisor.programs());
        let one = |process: Process| (process.label(), (process.state.name().to_owned(), process.pid));
        found.into_iter().flatten().map(one).collect()
    }

    /// Every process of supervisord's: its name and state.
    pub fn states(&self) -> BTreeMap<String, String> {
        self.processes().into_iter().map(|(name, (state, _))| (name, state)).collect()
    }

    /// The process of a program.
    pub fn pid(&self, program: &str) -> u32 {
        let processes = self.processes();
        let pid = processes.get(program).and_then(|(_, pid)| *pid);
        pid.unwrap_or_else(|| panic!("{program}: {processes:?}")).cast_unsigned()
    }

    /// The release a program works in.
    pub fn works_in(&self, program: &str) -> String {
        settled_directory(self.pid(program)).file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// These programs run, from the release `live`, which `current` names; nothing else of this environment runs.
    #[track_caller]
    pub fn runs(&self, live: &str, programs: &[&str]) {
        assert_eq!(self.tree.live().as_deref(), Some(live));
        let processes = self.processes();
        let running: Vec<_> = processes.iter().filter(|(_, (state, _))| *state == "RUNNING").collect();
        let names: Vec<&String> = running.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, programs, "{processes:?}\n{}", self.log());
        for (name, (_, pid)) in running {
            let directory = settled_directory(pid.unwrap().cast_unsigned());
            assert_eq!(directory.file_name().unwrap(), live, "{name}");
        }
    }

    /// Checks what must hold after everything: these programs run, from the release that `current` names, nothing else of
    /// this environment runs, and supervisord would start again from its files.
    #[track_caller]
    pub fn is_well(&self, live: &str, programs: &[&str]) {
        self.runs(live, programs);
        self.would_start();
    }

    /// supervisord would start from its files: it is tried with its own parser.
    #[track_caller]
    pub fn would_start(&self) {
        let parse = "import sys; from supervisor.options import ServerOptions as S; S().realize(['-c', sys.argv[1]])";
        let python = match self.version {
            Version::Debian => PathBuf::from("/usr/bin/python3"),
            Version::Pypi => pypi().join("bin/python"),
        };
        must(Command::new(python).args(["-W", "ignore", "-c", parse]).arg(self.config()));
    }

    /// The outcomes of `history`, oldest first: operation, release, outcome.
    pub fn history(&self) -> Vec<String> {
        let document = self.json(0, "history");
        let entries = document["entries"].as_array().unwrap().iter();
        let flips = entries.filter(|entry| ["activate", "rollback"].contains(&entry["operation"].as_str().unwrap()));
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        flips.map(|e| format!("{} {} {}", text(e, "operation"), text(e, "to"), text(e, "outcome"))).collect()
    }
}

/// Where a process works once it has left the directory it was forked in: until then it is still on its way to its program.
fn settled_directory(pid: u32) -> PathBuf {
    let works = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    let begun = Instant::now();
    while parent.is_some_and(|parent| works(pid) == works(parent)) && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    works(pid)
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `[program:NAME]` that sleeps in the live release, with `more`.
pub fn sleeper(name: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=/bin/sleep 1000\ndirectory=ROOT/current\nstartsecs=0\n{more}\n")
}

/// `[program:NAME]` that runs a script of the live release with sh, and must stay up for a second.
pub fn script(name: &str, file: &str, more: &str) -> String {
    format!(
        "[program:{name}]\ncommand=/bin/sh ROOT/current/{file}\ndirectory=ROOT/current\nstartsecs=1\nstartretries=1\n{more}\n"
    )
}

/// Waits for something that is to happen.
#[track_caller]
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn signal(pid: u32, name: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    let signal = format!("SIG{name}").parse::<nix::sys::signal::Signal>().unwrap();
    let _ = nix::sys::signal::kill(pid, signal);
}

/// The processes of a session.
fn of_session(session: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.first() != Some(&"Z") && fields.get(3).and_then(|s| s.parse().ok()) == Some(session)
    };
    processes.filter(is_member).collect()
}

//! A tree with a supervisord of its own, which is taken down with everything it started.

pub use crate::session::{Version, signal, sleeper, virtualenv};

use crate::patience::eventually;
use crate::sandbox::{Answer, Sandbox};
use crate::session::{Session, run, settled_directory};
use releasectl::supervisor::rpc::methods::Process;
use releasectl::supervisor::{Limits, Supervisor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The tree, its host file, and supervisord.
pub struct World {
    /// First, so that it ends before its files go.
    session: Option<Session>,
    pub tree: Sandbox,
    version: Version,
}

impl World {
    /// A supervisord that includes the tree's live release; nothing is live yet.
    pub fn new() -> Self {
        Self::of(Version::Debian, "")
    }

    /// The same with this version of supervisord and more in the host's file.
    pub fn of(version: Version, host: &str) -> Self {
        let mut world = Self { tree: Sandbox::laid_out(), version, session: None };
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

    /// Starts supervisord.
    pub fn start(&mut self) {
        self.session = Some(Session::start(self.version, &self.config()));
        eventually("supervisord is up", || Supervisor::connect(&self.config(), Limits::default()).is_ok());
    }

    /// Kills supervisord and everything it started.
    pub fn kill(&mut self) {
        self.session = None;
    }

    /// Sends supervisord itself a signal.
    pub fn signal(&self, name: &str) {
        self.session.as_ref().unwrap().signal(name);
    }

    /// The real supervisorctl.
    pub fn ctl(&self, arguments: &[&str]) -> Answer {
        let program = self.version.program("supervisorctl");
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
        run(Command::new(self.version.program("python3")).args(["-W", "ignore", "-c", parse]).arg(self.config()));
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

/// `[program:NAME]` that runs a script of the live release with sh, and must stay up for a second.
pub fn script(name: &str, file: &str, more: &str) -> String {
    format!(
        "[program:{name}]\ncommand=/bin/sh ROOT/current/{file}\ndirectory=ROOT/current\nstartsecs=1\nstartretries=1\n{more}\n"
    )
}

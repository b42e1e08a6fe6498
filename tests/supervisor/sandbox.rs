//! A supervisord of one's own, with the trees of two environments beside it.

pub use crate::session::{Version, run, signal, sleeper};

use crate::patience::eventually;
use crate::session::{Session, settled_directory};
use releasectl::directory::Dir;
use releasectl::recipe::Restart;
use releasectl::supervisor::conf::{Declared, declared_in};
use releasectl::supervisor::roll::Done;
use releasectl::supervisor::rpc::methods::{Process, State};
use releasectl::supervisor::validate::Candidate;
use releasectl::supervisor::{Around, Change, Failure, Limits, Plainly, Supervisor, SupervisorError};
use releasectl::tools::Tools;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub fn tools() -> Tools {
    Tools::new(std::env::vars_os(), false)
}

pub struct Sandbox {
    /// First, so that it ends before its files go.
    session: Option<Session>,
    tree: TempDir,
    pub version: Version,
}

impl Sandbox {
    /// A supervisord that includes the environments `production` and `staging`, which have no releases yet.
    pub fn new(version: Version) -> Self {
        Self::with(
            version,
            "[unix_http_server]\nfile=%(here)s/s.sock\n[supervisorctl]\nserverurl=unix://%(here)s/s.sock\n",
        )
    }

    /// The same, with these sections for how to talk to it.
    pub fn with(version: Version, server: &str) -> Self {
        let mut sandbox = Self { tree: tempfile::tempdir().unwrap(), version, session: None };
        for environment in ["production", "staging"] {
            fs::create_dir_all(sandbox.root(environment).join("releases")).unwrap();
        }
        let include = ["production", "staging"].map(|e| format!("www/{e}/current/services/supervisor/*.conf"));
        let text = format!(
            "{server}[supervisord]\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/supervisord.pid\nchildlogdir=%(here)s\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [include]\nfiles = {}\n",
            include.join(" ")
        );
        fs::write(sandbox.config(), text).unwrap();
        sandbox.start();
        sandbox
    }

    /// Starts supervisord.
    pub fn start(&mut self) {
        self.session = Some(Session::start(self.version, &self.config()));
        eventually("supervisord is up", || self.connect().is_ok());
    }

    /// Kills supervisord and everything it started.
    pub fn kill(&mut self) {
        self.session = None;
    }

    /// Sends supervisord itself a signal.
    pub fn signal(&self, name: &str) {
        self.session.as_ref().unwrap().signal(name);
    }

    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("supervisord.conf")
    }

    pub fn root(&self, environment: &str) -> PathBuf {
        self.path().join("www").join(environment)
    }

    pub fn release(&self, environment: &str, id: &str) -> PathBuf {
        self.root(environment).join("releases").join(id)
    }

    /// Makes a release with one file for supervisord, in which ROOT stands for the tree's root.
    pub fn make(&self, environment: &str, id: &str, conf: &str) -> Declared {
        let release = self.release(environment, id);
        fs::create_dir_all(release.join("services/supervisor")).unwrap();
        let conf = conf.replace("ROOT", self.root(environment).to_str().unwrap());
        fs::write(release.join("services/supervisor/app.conf"), conf).unwrap();
        declared_in(&Dir::open(&release).unwrap()).unwrap()
    }

    /// Makes a release live.
    pub fn flip(&self, environment: &str, id: &str) {
        let current = self.root(environment).join("current");
        let _ = fs::remove_file(&current);
        symlink(Path::new("releases").join(id), current).unwrap();
    }

    /// Makes a release, makes it live and brings its programs up.
    pub fn deploy(&self, environment: &str, id: &str, conf: &str) -> Declared {
        let declared = self.make(environment, id, conf);
        self.flip(environment, id);
        self.apply(&Declared::default(), &declared).unwrap();
        declared
    }

    pub fn connect(&self) -> Result<Supervisor, SupervisorError> {
        let limits = Limits { call: Duration::from_secs(20), ..Limits::default() };
        Supervisor::connect(&self.config(), limits)
    }

    pub fn supervisor(&self) -> Supervisor {
        self.connect().unwrap()
    }

    pub fn check(&self, environment: &str, id: &str, declared: &Declared) -> Result<(), String> {
        let (root, path) = (self.root(environment), self.release(environment, id));
        let candidate = Candidate { root: &root, path: &path, copies: None, unfinished: false };
        let checked = self.supervisor().check(&tools(), &candidate, &Declared::default(), declared);
        checked.map_err(|error| error.to_string())
    }

    pub fn apply(&self, before: &Declared, after: &Declared) -> Result<Done, Box<Failure>> {
        self.apply_around(before, after, Restart::Rolling, &mut Plainly)
    }

    pub fn apply_around(
        &self,
        before: &Declared,
        after: &Declared,
        restart: Restart,
        around: &mut dyn Around,
    ) -> Result<Done, Box<Failure>> {
        let change = Change {
            before,
            after,
            wanted: BTreeSet::new(),
            held: BTreeSet::new(),
            already: BTreeMap::new(),
            restart,
            thorough: false,
        };
        self.supervisor().apply(&change, around)
    }

    /// The other way round after a failure.
    pub fn go_back(&self, before: &Declared, after: &Declared, failure: &Failure) -> Done {
        let (wanted, already) = (failure.done.up_before.clone(), failure.done.pids_before.clone());
        let held = failure.done.held_before.clone();
        let change = Change { before, after, wanted, held, already, restart: Restart::Rolling, thorough: true };
        self.supervisor().apply(&change, &mut Plainly).unwrap()
    }

    pub fn process(&self, id: &str) -> Process {
        self.supervisor().client().process(id).unwrap()
    }

    pub fn state(&self, id: &str) -> State {
        self.process(id).state
    }

    pub fn pid(&self, id: &str) -> i32 {
        self.process(id).pid.unwrap_or_else(|| panic!("{id} has no process"))
    }

    /// Every process of supervisord's: its name and process id.
    pub fn pids(&self) -> BTreeMap<String, Option<i32>> {
        self.supervisor().programs().unwrap().into_iter().map(|p| (p.id(), p.pid)).collect()
    }

    /// The directory a program works in: its release, if its configuration says so.
    pub fn works_in(&self, id: &str) -> PathBuf {
        settled_directory(self.pid(id).cast_unsigned())
    }
}

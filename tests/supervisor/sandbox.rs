//! A supervisord of one's own, with the trees of two environments beside it.

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
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.2.5, as `apt-get install supervisor` gives it.
    Debian,
    /// 4.3.0, in a virtual environment.
    Pypi,
}

impl Version {
    pub fn supervisord(self) -> PathBuf {
        match self {
            Self::Debian => PathBuf::from("/usr/bin/supervisord"),
            Self::Pypi => pypi().join("bin/supervisord"),
        }
    }

    pub fn python(self) -> PathBuf {
        match self {
            Self::Debian => PathBuf::from("/usr/bin/python3"),
            Self::Pypi => pypi().join("bin/python"),
        }
    }
}

/// The virtual environment with supervisor 4.3, made once and kept.
fn pypi() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache").join("supervisor-4.3");
        let whole = venv.join("whole");
        if !whole.exists() {
            let _ = fs::remove_dir_all(&venv);
            run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
            let install = ["install", "-q", "supervisor==4.3.0", "setuptools<81"];
            run(Command::new(venv.join("bin/pip")).args(install));
            fs::write(&whole, "").unwrap();
        }
        venv
    })
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn tools() -> Tools {
    Tools::new(std::env::vars_os(), false)
}

pub struct Sandbox {
    tree: TempDir,
    pub version: Version,
    process: Option<Child>,
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
        let mut sandbox = Self { tree: tempfile::tempdir().unwrap(), version, process: None };
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

    /// Starts supervisord in a session of its own, by which everything it starts is found again.
    pub fn start(&mut self) {
        let mut command = Command::new("setsid");
        command.arg(self.version.supervisord()).arg("-n").arg("-c").arg(self.config()).env("SANDBOX", "here");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(child);
        until("supervisord is up", || self.connect().is_ok());
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
        let change =
            Change { before, after, wanted: BTreeSet::new(), already: BTreeMap::new(), restart, thorough: false };
        self.supervisor().apply(&change, around)
    }

    /// The other way round after a failure.
    pub fn go_back(&self, before: &Declared, after: &Declared, failure: &Failure) -> Done {
        let (wanted, already) = (failure.done.up_before.clone(), failure.done.pids_before.clone());
        let change = Change { before, after, wanted, already, restart: Restart::Rolling, thorough: true };
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
        settled_directory(self.pid(id))
    }
}

/// Where a process works once it has left the directory it was forked in: until then it is still on its way to its program.
fn settled_directory(pid: i32) -> PathBuf {
    let works = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    let begun = Instant::now();
    while parent.is_some_and(|parent| works(pid) == works(parent)) && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    works(pid)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `[program:NAME]` that sleeps in the live release, after `more`.
pub fn sleeper(name: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=/bin/sleep 1000\ndirectory=ROOT/current\nstartsecs=0\n{more}\n")
}

/// Waits for something that is to happen.
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

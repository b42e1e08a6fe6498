//! supervisord in the versions that are in use, in a session of its own, by which everything it starts is found again and
//! ended; and what waits for programs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.2.5, as `apt-get install supervisor` gives it.
    Debian,
    /// 4.3.0, in a virtual environment.
    Pypi,
    /// 4.2.5 under Python 2.7, of a host that has one.
    Python2,
    /// 3.4.0, which knows no other Python.
    Three,
}

impl Version {
    /// One of its programs, or the `python3` that runs them.
    pub fn program(self, name: &str) -> PathBuf {
        static MADE: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Debian => Path::new("/usr/bin").join(name),
            Self::Pypi => MADE
                .get_or_init(|| virtualenv("supervisor-4.3", &["supervisor==4.3.0", "setuptools<81"]))
                .join("bin")
                .join(name),
            Self::Python2 | Self::Three => self.packages().unwrap().join("bin").join(name),
        }
    }

    /// Whether this host can run it; says so if not.
    pub fn is_there_or_left_out(self) -> bool {
        let there = matches!(self, Self::Debian | Self::Pypi) || python2().is_some();
        if !there {
            let _ =
                writeln!(std::io::stderr(), "left out: supervisord as {self:?}: there is no Python 2.7 on this host");
        }
        there
    }

    /// The directory with its packages, if Python 2.7 runs it: that knows no virtual environments by itself.
    fn packages(self) -> Option<PathBuf> {
        let (name, package) = match self {
            Self::Python2 => ("supervisor-4-python2", "supervisor==4.2.5"),
            Self::Three => ("supervisor-3", "supervisor==3.4.0"),
            Self::Debian | Self::Pypi => return None,
        };
        let python = python2()?;
        Some(cached(name, |packages| {
            run(Command::new(python).args(["-m", "pip", "install", "-q", "--target"]).arg(packages).arg(package));
            // What pip leaves out of a package that it takes for one of several.
            let marks = fs::OpenOptions::new().append(true).create(true).open(packages.join("supervisor/__init__.py"));
            drop(marks.unwrap());
        }))
    }
}

/// A Python 2.7 with pip, on PATH or beside pyenv's others.
fn python2() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let kept = std::env::var_os("PYENV_ROOT").map(|root| Path::new(&root).join("versions"));
        let kept = kept.and_then(|kept| fs::read_dir(kept).ok()).into_iter().flatten().flatten();
        let kept = kept.map(|version| version.path().join("bin/python2.7"));
        let answers = |python: &PathBuf| {
            let mut ask = Command::new(python);
            ask.args(["-c", "import pip"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        std::iter::once(PathBuf::from("python2.7")).chain(kept).find(answers)
    };
    FOUND.get_or_init(find).as_deref()
}

/// The directory of the virtual environment `name` with these packages, made once and kept.
pub fn virtualenv(name: &str, packages: &[&str]) -> PathBuf {
    cached(name, |venv| {
        run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "-q"]).args(packages));
    })
}

/// The directory `name`, filled once by `make` and kept.
fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache");
    fs::create_dir_all(&cache).unwrap();
    // Other test programs have theirs there too.
    let turn = fs::File::create(cache.join("turn")).unwrap();
    turn.lock().unwrap();
    let directory = cache.join(name);
    let whole = directory.join("whole");
    if !whole.exists() {
        let _ = fs::remove_dir_all(&directory);
        make(&directory);
        fs::write(&whole, "").unwrap();
    }
    directory
}

/// Runs a program that must succeed, and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A supervisord that runs. It ends with this, and with it everything it started.
pub struct Session(Child);

impl Session {
    /// Starts it with the configuration file `config`, which may take SANDBOX from the environment.
    pub fn start(version: Version, config: &Path) -> Self {
        let mut command = Command::new("setsid");
        command.arg(version.program("supervisord")).arg("-n").arg("-c").arg(config).env("SANDBOX", "here");
        if let Some(packages) = version.packages() {
            command.env("PYTHONPATH", packages);
        }
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Sends supervisord itself a signal.
    pub fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Its processes.
    fn members(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_member = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            fields.first() != Some(&"Z") && fields.get(3).and_then(|s| s.parse().ok()) == Some(self.0.id())
        };
        all.filter(is_member).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        loop {
            let members = self.members();
            if members.is_empty() {
                break;
            }
            members.into_iter().for_each(|pid| signal(pid, "KILL"));
        }
    }
}

pub fn signal(pid: u32, name: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    let signal = format!("SIG{name}").parse::<nix::sys::signal::Signal>().unwrap();
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Where a process works once it has left the directory it was forked in: until then it is still on its way to its program.
pub fn settled_directory(pid: u32) -> PathBuf {
    let works = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
    let begun = Instant::now();
    while parent.is_some_and(|parent| works(pid) == works(parent)) && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    works(pid)
}

/// `[program:NAME]` that sleeps in the live release, with `more`.
pub fn sleeper(name: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=/bin/sleep 1000\ndirectory=ROOT/current\nstartsecs=0\n{more}\n")
}

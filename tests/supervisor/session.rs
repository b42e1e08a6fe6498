//! supervisord in the versions that are in use, in a session of its own, by which everything it starts is found again and
//! ended; and what waits for programs.

use std::fs;
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
        }
    }
}

/// The directory of the virtual environment `name` with these packages, made once and kept.
pub fn virtualenv(name: &str, packages: &[&str]) -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache");
    fs::create_dir_all(&cache).unwrap();
    // Other test programs have theirs there too.
    let turn = fs::File::create(cache.join("turn")).unwrap();
    turn.lock().unwrap();
    let venv = cache.join(name);
    let whole = venv.join("whole");
    if !whole.exists() {
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "-q"]).args(packages));
        fs::write(&whole, "").unwrap();
    }
    venv
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

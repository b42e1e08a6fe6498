//! Runs one program: arguments, environment, streams, time limit. The only home of `Command::new`.
//!
//! Every program gets /dev/null as standard input unless one is handed to it, a session of its own, no descriptor above
//! 2 and an environment made of what is known to be harmless; so no lock, terminal or poisoned variable reaches it.

mod watch;

pub use watch::Streaming;

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use watch::Running;

/// Where everything that a program prints goes, as it comes. An error of it ends the program.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Where programs are looked for by a root run, whatever PATH says.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that are handed on; `LC_*` beside them.
const HANDED_ON: [&str; 20] = [
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "NO_COLOR",
    "TERM",
    "COLORTERM",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];
/// How much of a shell command a message shows.
const LABEL: usize = 80;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not there or may not be run.
    #[error("cannot run {program}: {cause}")]
    Start {
        /// The program.
        program: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// It ran and failed.
    #[error("{program} failed: {status}{}", said(tail))]
    Failed {
        /// The program and its first argument.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        tail: String,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {} s and was killed{}", limit.as_secs(), said(tail))]
    Overdue {
        /// The program and its first argument.
        program: String,
        /// The time it had.
        limit: Duration,
        /// The end of what it printed.
        tail: String,
    },
    /// Its output could not be read or kept.
    #[error("lost the output of {program}: {cause}")]
    Output {
        /// The program and its first argument.
        program: String,
        /// What went wrong.
        cause: io::Error,
    },
}

impl ToolError {
    /// The same without `secret`, which the program may have been told and may have said.
    #[must_use]
    pub fn hiding(mut self, secret: &str) -> Self {
        if let Self::Failed { tail, .. } | Self::Overdue { tail, .. } = &mut self {
            *tail = tail.replace(secret, "***");
        }
        self
    }

    /// The same with what was said on standard error as the end of the output.
    fn saying(mut self, errors: File) -> Self {
        if let Self::Failed { tail, .. } | Self::Overdue { tail, .. } = &mut self {
            *tail = watch::end_of(errors).unwrap_or_default();
        }
        self
    }
}

/// A file in memory, for a stream that must not fill a pipe.
fn memfd(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

fn said(tail: &str) -> String {
    if tail.trim().is_empty() { String::new() } else { format!("\n{}", tail.trim_end()) }
}

/// What every program starts with: where to look for it, and its environment.
#[derive(Clone, Debug)]
pub struct Tools {
    environment: BTreeMap<OsString, OsString>,
}

impl Tools {
    /// Takes the harmless part of `environment`, as `std::env::vars_os` gives it. A `root` run gets a fixed PATH.
    pub fn new(environment: impl Iterator<Item = (OsString, OsString)>, root: bool) -> Self {
        let harmless = |name: &OsStr| {
            name.to_str().is_some_and(|n| HANDED_ON.contains(&n) || n.starts_with("LC_") || (n == "PATH" && !root))
        };
        let mut kept = BTreeMap::new();
        kept.extend(environment.filter(|(name, _)| harmless(name)));
        let inherited = kept.remove(OsStr::new("PATH")).unwrap_or_else(|| ROOT_PATH.into());
        let absolute = std::env::split_paths(&inherited).filter(|dir| dir.is_absolute());
        kept.insert("PATH".into(), std::env::join_paths(absolute).unwrap_or_else(|_| ROOT_PATH.into()));
        Self { environment: kept }
    }

    /// The same, for programs that run as the user `name` with that home.
    #[must_use]
    pub fn of_user(mut self, name: &str, home: &Path) -> Self {
        let own = [("USER", OsString::from(name)), ("LOGNAME", name.into()), ("HOME", home.into())];
        self.environment.extend(own.into_iter().map(|(key, value)| (key.into(), value)));
        self.environment.remove(OsStr::new("SSH_AUTH_SOCK"));
        self
    }

    /// The same, with a variable for every program.
    #[must_use]
    pub fn telling(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Where `program` is, looked for on PATH; `None` if it is not installed.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.environment.get(OsStr::new("PATH"))?;
        let runs = |file: &PathBuf| file.is_file() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok();
        std::env::split_paths(path).map(|dir| dir.join(program)).find(runs)
    }

    /// The home directory that programs are told.
    pub fn home(&self) -> Option<&OsStr> {
        self.environment.get(OsStr::new("HOME")).map(OsString::as_os_str)
    }

    /// PATH as programs get it.
    pub fn path(&self) -> &OsStr {
        self.environment.get(OsStr::new("PATH")).map_or(OsStr::new(ROOT_PATH), OsString::as_os_str)
    }

    /// A program to be run, by name or absolute path.
    pub fn program(&self, name: impl AsRef<OsStr>) -> Program {
        let name = name.as_ref();
        let found = name.to_str().filter(|n| !n.contains('/')).and_then(|n| self.find(n));
        Program {
            file: found.map_or_else(|| name.to_owned(), PathBuf::into_os_string),
            arguments: Vec::new(),
            environment: self.environment.clone(),
            directory: PathBuf::from("/"),
            limit: None,
            input: None,
            orphans: false,
        }
    }
}

/// One program, not yet started.
#[derive(Debug)]
pub struct Program {
    file: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    limit: Option<Duration>,
    input: Option<File>,
    orphans: bool,
}

impl Program {
    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// The directory it runs in; `/` otherwise.
    #[must_use]
    pub fn dir(mut self, directory: &Path) -> Self {
        self.directory = directory.to_owned();
        self
    }

    /// The longest it may run before it and its process group are ended.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Lets [`Program::run`] say, as the end of the output, which processes it left behind. This process must run one
    /// program at a time then: what another leaves meanwhile could not be told apart.
    #[must_use]
    pub fn naming_orphans(mut self) -> Self {
        self.orphans = true;
        self
    }

    /// What it reads as standard input.
    pub fn input(mut self, bytes: &[u8]) -> io::Result<Self> {
        let mut file = memfd("stdin")?;
        file.write_all(bytes)?;
        file.rewind()?;
        self.input = Some(file);
        Ok(self)
    }

    /// Runs it, hands everything it prints (both streams, in order) to `sink`, and returns when it has ended: what it
    /// left behind in the background is not waited for. An error of `sink` ends it.
    pub fn run(self, sink: &mut Sink<'_>) -> Result<(), ToolError> {
        let (label, limit) = (self.label(), self.limit);
        let failed = |cause| ToolError::Start { program: label.clone(), cause };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let before = self.orphans.then(watch::adopt_orphans);
        let mut command = self.command();
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let child = command.spawn().map_err(failed)?;
        drop(command);
        let ended = Running { label: label.clone(), limit, child, started: Instant::now() }.watch(reader, sink);
        if let Some(before) = before {
            let left: Vec<String> = watch::orphans().difference(&before).map(u32::to_string).collect();
            if !left.is_empty() {
                let _ = sink(format!("releasectl: {label} left processes behind: {}\n", left.join(", ")).as_bytes());
            }
        }
        ended
    }

    /// Runs it and returns what it printed on standard output, which must be short; standard error goes into the error.
    pub fn capture(self) -> Result<Vec<u8>, ToolError> {
        let (label, limit) = (self.label(), self.limit);
        let failed = |cause| ToolError::Start { program: label.clone(), cause };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let errors = memfd("stderr").map_err(failed)?;
        let mut command = self.command();
        command.stdout(writer).stderr(errors.try_clone().map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        drop(command);
        let mut output = Vec::new();
        let running = Running { label, limit, child, started: Instant::now() };
        let ended = running.watch(reader, &mut |bytes| {
            output.extend_from_slice(bytes);
            Ok(())
        });
        ended.map(|()| output).map_err(|error| error.saying(errors))
    }

    /// Starts it and hands out its standard output to be read; [`Streaming::finish`] must follow.
    pub fn stream(self) -> Result<Streaming, ToolError> {
        let label = self.label();
        let failed = |cause| ToolError::Start { program: label.clone(), cause };
        let mut command = self.command();
        let errors = memfd("stderr").map_err(failed)?;
        command.stdout(Stdio::piped()).stderr(errors.try_clone().map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| failed(io::Error::other("it has no output")))?;
        Ok(Streaming { output, label, child, errors })
    }

    /// Its name, for messages.
    pub fn name(&self) -> String {
        self.file.to_string_lossy().into_owned()
    }

    /// Becomes this program, keeping the process and its standard streams; returns only if that fails.
    pub fn replace(self) -> io::Error {
        // A bare name was looked for already. The system would look again, and say of a directory on PATH that may not be
        // read that the program may not be run.
        if !self.file.as_encoded_bytes().contains(&b'/') {
            return nix::errno::Errno::ENOENT.into();
        }
        let mut command = self.bare();
        command.exec()
    }

    /// What it is called in messages: its name and its verb, or the beginning of a shell command.
    fn label(&self) -> String {
        let name = Path::new(&self.file).file_name().unwrap_or(&self.file).to_string_lossy().into_owned();
        let words: Vec<_> = self.arguments.iter().map(|word| word.to_string_lossy()).collect();
        if let ("sh", [_, command, ..]) = (name.as_str(), &words[..]) {
            let line = command.lines().next().unwrap_or_default();
            let short: String = line.chars().take(LABEL).collect();
            let more = if short.len() < command.len() { " …" } else { "" };
            return format!("`{short}{more}`");
        }
        // An option's value, as in `-c key=value`, is no verb, and a script of several lines is none.
        let is_verb =
            |word: &&Cow<'_, str>| word.starts_with(|c: char| c.is_alphabetic()) && !word.contains(['=', '\n']);
        words.iter().find(is_verb).map_or(name.clone(), |verb| format!("{name} {verb}"))
    }

    #[expect(clippy::disallowed_methods, reason = "the one home of Command::new")]
    fn bare(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.args(&self.arguments).env_clear().envs(&self.environment).current_dir(&self.directory);
        command
    }

    #[expect(unsafe_code, reason = "only async-signal-safe system calls between fork and exec")]
    fn command(self) -> Command {
        let mut command = self.bare();
        command.stdin(self.input.map_or_else(Stdio::null, Stdio::from));
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                // If we are killed, what we wait for must not work on alone.
                nix::libc::prctl(nix::libc::PR_SET_PDEATHSIG, nix::libc::SIGKILL);
                // Descriptors we were started with may lack close-on-exec; where the call is unknown they stay.
                let (first, last, on_exec) = (3u32, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC);
                nix::libc::syscall(nix::libc::SYS_close_range, first, last, on_exec);
                Ok(())
            });
        }
        command
    }
}

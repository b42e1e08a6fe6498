//! What a command answers when it cannot do its work: what kind of failure, one sentence, and what to do about it.

use crate::config::ConfigError;
use crate::directory::PathError;
use crate::health::Unhealthy;
use crate::identity::IdentityError;
use crate::lock::{Holder, LockError};
use crate::pin::PastTheCalendar;
use crate::python::PythonError;
use crate::sharing::SharingError;
use crate::source::SourceError;
use crate::steps::StepError;
use crate::supervisor::conf::ConfError;
use crate::supervisor::render::RenderError;
use crate::supervisor::{Failure, SupervisorError};
use crate::tools::ToolError;
use crate::tree::TreeError;
use nix::libc::SIGKILL;
use serde::Serialize;
use std::os::unix::process::ExitStatusExt;

/// The kinds of failure; each has an exit status of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A step or an operation failed; what is live did not change.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// A precondition does not hold; nothing changed.
    Refused,
    /// Somebody holds the lock.
    Busy,
    /// It did not come up, or supervisord could not be asked; the message says what is live.
    NotConfirmed,
    /// The tree or the journal needs `doctor`.
    Damaged,
    /// The configuration is wrong.
    Configuration,
    /// The command of `exec`, `manage` or `task` may not be run.
    NotExecutable,
    /// The command of `exec`, `manage` or `task` is not there.
    NotFound,
}

/// A failure, as it is told once.
#[derive(Debug)]
pub struct Error {
    /// What kind it is.
    pub kind: Kind,
    /// What happened, to which path or release, and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Who is in the way.
    pub holder: Option<Box<Holder>>,
}

/// Shorthand of the verbs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, holder: None }
    }

    /// A precondition that does not hold.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with advice, if it has none of its own yet.
    #[must_use]
    pub fn or_hint(self, hint: impl FnOnce() -> String) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint()) }
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        if error.is_no_file() {
            let hint = "look what it is, move it away while no releasectl runs, then see `releasectl doctor`";
            return Self::new(Kind::Damaged, error.to_string()).hint(hint);
        }
        let kind = error.cause.kind();
        let hint = match kind {
            _ if error.is_full() => "free some space: `releasectl clean`, then repeat the command",
            std::io::ErrorKind::FileTooLarge => "no file may be that large here: look at `ulimit -f`, then repeat",
            std::io::ErrorKind::BrokenPipe => "whoever read it went away: see why, then repeat",
            std::io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is read-only: look at `dmesg`, remount it, repeat; \
                 for a unit of systemd it may be so on purpose: give it ReadWritePaths="
            }
            std::io::ErrorKind::PermissionDenied => {
                // A root run has become that user: what is in its way then is on the way to the path.
                "run it as the owner of the tree, or as root with `user` configured; \
                 if it was, `namei -l` and `lsattr -d` of that path show what is in the owner's way, \
                 and `chown -R` gives back what is another's now"
            }
            std::io::ErrorKind::NotADirectory => {
                "a directory must be there itself: no file, and no link to a directory; it may be a mount"
            }
            std::io::ErrorKind::InvalidInput if error.cause.raw_os_error().is_none() => {
                "take it away from there, and repeat"
            }
            _ => remedy(&error.cause).unwrap_or("see `releasectl doctor`"),
        };
        Self::new(Kind::Failed, error.to_string()).hint(hint)
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Busy { holder, .. } => {
                let message = match &holder {
                    Some(h) => format!("busy: {} (pid {}) is running `{}` since {}", h.user, h.pid, h.command, h.since),
                    None => "busy: another process holds the lock".to_owned(),
                };
                let hint = "repeat it later, or wait for the lock with --wait or --wait=5m";
                Self { kind: Kind::Busy, message, hint: Some(hint.to_owned()), holder }
            }
            LockError::Path(error) => error.into(),
        }
    }
}

impl From<TreeError> for Error {
    fn from(error: TreeError) -> Self {
        let message = error.to_string();
        match error {
            TreeError::Path(error) => error.into(),
            TreeError::Lock(error) => error.into(),
            TreeError::NoTree(_) => {
                Self::refused(message).hint("`releasectl init` lays one out, or takes over what is there")
            }
            TreeError::NotOurs(_) => {
                Self::refused(message).hint("`releasectl init` takes it over without moving anything")
            }
            TreeError::CurrentIsNoLink { .. } => Self::refused(message)
                .hint("it is never removed: move it to releases/<id> yourself, then `releasectl init`"),
            TreeError::OnNfs(_) => Self::refused(message)
                .hint("move the tree to a local file system, or set allow_nfs = true in the host's file if only one host writes"),
            TreeError::Foreign(_) => Self::refused(message).hint("`releasectl init` takes over what another tool has made"),
            TreeError::NoRelease(_) => Self::refused(message).hint("`releasectl list` shows what there is"),
            TreeError::NotReady { id, state, .. } => Self::refused(message).hint(match state {
                "incomplete" => format!("`releasectl log {id}` tells how far it came; `clean` removes it"),
                "still being built" => format!("`releasectl log {id}` tells how far it is; wait for its end"),
                _ => format!("`releasectl show {id}` tells what it is; `activate {id}` makes it live"),
            }),
            TreeError::Exists(_) => Self::refused(message).hint("choose another --id, or leave it out"),
            TreeError::Damaged { .. } => Self::new(Kind::Damaged, message).hint("`releasectl doctor` says what to do"),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let message = error.to_string();
        let (kind, hint) = match &error {
            ConfigError::Unsafe { path, .. } => {
                (Kind::Configuration, format!("`chown root {0}` and `chmod go-w {0}`", path.display()))
            }
            ConfigError::WhichEnvironment(names) if names.is_empty() => {
                (Kind::Configuration, "name a tree with --root, or write /etc/releasectl/<env>.toml".to_owned())
            }
            ConfigError::WhichEnvironment(names) => (Kind::Usage, format!("name one with --env: {}", names.join(", "))),
            ConfigError::NotAName(_) => (Kind::Usage, "a name is letters, digits and . _ -".to_owned()),
            ConfigError::Missing(_) => {
                (Kind::Configuration, "write it, or name another with --config or --env".to_owned())
            }
            ConfigError::NoRoot(_) => (Kind::Configuration, "add a line such as root = \"/srv/app\"".to_owned()),
            ConfigError::Fault { path, .. } => (Kind::Configuration, format!("correct {}", path.display())),
            // A release that is gone on with gets what the code has once more.
            ConfigError::Recipe { .. } => (
                Kind::Configuration,
                "correct it where the code comes from, then build anew, without --resume".to_owned(),
            ),
            ConfigError::Link(_) => {
                (Kind::Configuration, "put the file there instead of the link, or name it with --config".to_owned())
            }
            ConfigError::Path(error) if error.is_no_file() => {
                (Kind::Configuration, "look what is there: a configuration must be a file".to_owned())
            }
            ConfigError::Path(_) => (Kind::Configuration, "the file must be readable for whoever runs this".to_owned()),
        };
        Self::new(kind, message).hint(hint)
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::UnknownUser(_) => {
                Self::new(Kind::Configuration, message).hint("correct `user`, or add the user")
            }
            IdentityError::Refused { .. } => Self::new(Kind::Failed, message)
                .hint("root may not do that everywhere, as in a container: run it as that user, or give root CAP_SETUID and CAP_SETGID"),
            IdentityError::Untrusted { mend, .. } => Self::refused(message).hint(format!("`{mend}`")),
            IdentityError::Path(error) => error.into(),
        }
    }
}

impl From<PastTheCalendar> for Error {
    fn from(error: PastTheCalendar) -> Self {
        Self::new(Kind::Usage, error.to_string()).hint("`releasectl pin RELEASE --forever` keeps it for good")
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        let message = error.to_string();
        match error {
            SourceError::Path(error) => error.into(),
            SourceError::Tool(error) => error.into(),
            // git names the command, and it counts for whoever runs it.
            SourceError::Fetch { .. } if message.contains("dubious ownership") => Self::new(Kind::Failed, message)
                .hint("let the tree's user run that command, or own the repository: `git config` of another counts for nothing"),
            SourceError::Fetch { cause, .. } => Self { message, ..cause.into() },
            SourceError::NoPassword(_) => Self::new(Kind::Failed, message).hint(
                "write its URL into [source] of the host's file; `create` and `deploy` take it on the command line too",
            ),
            SourceError::Nothing(_) => {
                Self::refused(message).hint("name a URL, a repository, a directory, a tar file or -")
            }
            SourceError::Refused { .. } => {
                Self::refused(message).hint("name a URL, a repository, a directory outside the tree, a tar file or -")
            }
            SourceError::NoRef { .. } => {
                Self::refused(message).hint("`git ls-remote` shows what it has, --ref names it")
            }
            SourceError::Unfit { .. } => {
                Self::new(Kind::Failed, message).hint("let the build leave it out, or make it another way")
            }
            SourceError::Member { .. } | SourceError::NoTar { .. } => {
                Self::new(Kind::Failed, message).hint("nothing outside the release was written")
            }
            SourceError::OwnName(_) => Self::new(Kind::Failed, message).hint("take it out of the code"),
            SourceError::Mirror { .. } => {
                Self::new(Kind::Failed, message).hint("repeat it, and what it needs is fetched anew")
            }
            SourceError::Submodule { .. } => {
                Self::new(Kind::Failed, message).hint("correct .gitmodules, or set submodules = false in [source]")
            }
        }
    }
}

impl From<ToolError> for Error {
    fn from(error: ToolError) -> Self {
        let hint = match &error {
            ToolError::Start { cause, .. } => remedy(cause).unwrap_or(
                "install it where PATH leads, for a root run in /usr/local/bin or /usr/bin; \
                     if it is there, its own interpreter or /dev/null may not be",
            ),
            ToolError::Failed { status, .. } if status.signal() == Some(SIGKILL) => {
                "somebody killed it, or the system did for want of memory: `dmesg` tells; then repeat"
            }
            _ => "the end of its output is above",
        };
        Self::new(Kind::Failed, error.to_string()).hint(hint)
    }
}

/// What to do if there was not enough of what a process may have only so much of, or if the disk fails.
fn remedy(cause: &std::io::Error) -> Option<&'static str> {
    match nix::errno::Errno::from_raw(cause.raw_os_error()?) {
        nix::errno::Errno::EMFILE => Some("look at `ulimit -n`, then repeat"),
        nix::errno::Errno::EAGAIN => Some("look at `ulimit -u`, then repeat"),
        nix::errno::Errno::ENOMEM => Some("there is too little memory, see `free` and `dmesg`; then repeat"),
        // What a file system says of a disk that does not answer, and of what it finds wrong on it.
        nix::errno::Errno::EIO | nix::errno::Errno::EUCLEAN | nix::errno::Errno::EBADMSG => {
            Some("the disk or its file system fails: see `dmesg`, mend that, then `releasectl doctor`")
        }
        _ => None,
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        Self::new(Kind::Failed, error.to_string())
    }
}

impl From<SharingError> for Error {
    fn from(error: SharingError) -> Self {
        let message = error.to_string();
        match error {
            SharingError::Path(error) => error.into(),
            SharingError::Missing(path) => {
                Self::new(Kind::Failed, message).hint(format!("put it there: {}", path.display()))
            }
            SharingError::InTheWay { .. } => {
                Self::new(Kind::Failed, message).hint("take it out of the code, or out of [shared]")
            }
        }
    }
}

impl From<PythonError> for Error {
    fn from(error: PythonError) -> Self {
        let message = error.to_string();
        match error {
            PythonError::Path(error) if error.is_no_file() => {
                Self::new(Kind::Failed, message).hint("requirements and wheels are files of the code: see [python]")
            }
            PythonError::Path(error) => error.into(),
            PythonError::Tool(error) => error.into(),
            other => Self { hint: other.hint(), ..Self::new(Kind::Failed, message) },
        }
    }
}

impl From<SupervisorError> for Error {
    fn from(error: SupervisorError) -> Self {
        let hint = error.hint().map(str::to_owned);
        let kind = if matches!(error, SupervisorError::Unknown { .. }) { Kind::Refused } else { Kind::Failed };
        Self { hint, ..Self::new(kind, error.to_string()) }
    }
}

impl From<Box<Failure>> for Error {
    fn from(failure: Box<Failure>) -> Self {
        let nothing = failure.done.summary().is_none() && failure.left().is_empty();
        let message = if nothing { failure.cause.to_string() } else { failure.to_string() };
        Self { message, ..Self::from(failure.cause) }
    }
}

impl From<ConfError> for Error {
    fn from(error: ConfError) -> Self {
        SupervisorError::Conf(error).into()
    }
}

impl From<RenderError> for Error {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Path(error) => error.into(),
            error => Self::new(Kind::Failed, error.to_string())
                .hint("correct the template or the recipe where the code comes from, or [[supervisor.program]] of the host's file"),
        }
    }
}

impl From<Unhealthy> for Error {
    fn from(error: Unhealthy) -> Self {
        Self::new(Kind::Failed, error.to_string()).hint("the application's own log says more")
    }
}

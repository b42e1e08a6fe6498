//! What can go wrong with supervisord, and what the operator may do about it.

use super::conf::{self, ConfError};
use super::roll::Unexpected;
use super::rpc::methods::State;
use super::rpc::{Fault, RpcError};
use super::validate::ValidateError;
use std::time::Duration;

/// What went wrong with supervisord or a program of its.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Its configuration file, or a release's.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// It could not be asked, or it said no.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It would not start with the candidate live. Nothing was touched.
    #[error(transparent)]
    Invalid(#[from] ValidateError),
    /// It does not see what the release declares. Nothing was touched.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// It is shutting down or restarting.
    #[error("supervisord is not ready: it says {state}")]
    NotReady {
        /// Its own word.
        state: String,
    },
    /// A program did not come up.
    #[error("{program} did not come up: {} ({why}){}", state.name(), quoted(log))]
    NotUp {
        /// `group:name`
        program: String,
        /// What became of it.
        state: State,
        /// supervisord's words.
        why: String,
        /// The last lines it wrote.
        log: String,
    },
    /// A program did not stop, not even by SIGKILL.
    #[error("{program} did not stop within {} s: it is {}", waited.as_secs(), state.name())]
    NotDown {
        /// `group:name`
        program: String,
        /// What it is doing.
        state: State,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A hook around a restart failed.
    #[error("the {hook} hook failed for {program}: {message}")]
    Hook {
        /// `drain` or `undrain`.
        hook: &'static str,
        /// `group:name`
        program: String,
        /// Its words.
        message: String,
    },
    /// It does not tell what has to be known.
    #[error("supervisord {version} is too old: it does not tell how long its programs may take to start and to stop")]
    TooOld {
        /// Its version.
        version: String,
    },
    /// No program of this environment has that name.
    #[error("{name:?} is no program or group of this environment; there {}", known(programs))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        programs: Vec<String>,
    },
}

fn quoted(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; it said last:\n{log}") }
}

fn known(programs: &[String]) -> String {
    if programs.is_empty() { "are none".to_owned() } else { format!("are {}", programs.join(", ")) }
}

impl SupervisorError {
    /// Whether supervisord itself could not be asked, whatever it was to be asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Rpc(_) | Self::NotReady { .. })
    }

    /// What the operator may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Conf(error) => error.hint(),
            Self::Rpc(RpcError::Unreachable { .. }) => {
                "see whether supervisord runs and whether you may use its socket (`systemctl status supervisor`)"
            }
            Self::Rpc(RpcError::Overdue { .. }) => {
                "supervisord hangs or is overloaded: see what it does before restarting it"
            }
            Self::Rpc(RpcError::Unauthorized { .. }) => "compare [supervisorctl] with the server's own section",
            Self::Rpc(RpcError::Fault { fault: Fault::CantReread, .. }) => {
                "correct the file it names: supervisord would not start from it either"
            }
            Self::TooOld { .. } => {
                "install supervisor 4, which runs under Python 2.7 too; --no-restart does without it"
            }
            Self::Rpc(_) | Self::NotReady { .. } => "try again when supervisord runs; its own log says more",
            Self::Invalid(ValidateError::NotIncluded { copied: true, .. }) => {
                "add conf.d/*.conf to its [include], or write wiring = \"include\" into the host's file"
            }
            Self::Invalid(ValidateError::NotIncluded { .. }) => "run `releasectl supervisor wire`",
            Self::Invalid(ValidateError::Unknown { .. }) => {
                "run it as root: only supervisord's own user sees the environment that it takes %(ENV_…)s from"
            }
            Self::Invalid(ValidateError::NoParser(_)) => "is supervisor installed, and is its supervisord on PATH?",
            Self::Invalid(ValidateError::Tool(_)) => "see whether `supervisord --version` still answers",
            Self::Invalid(_) => conf::OF_RELEASE,
            Self::Unexpected(Unexpected::NothingDeclared { .. }) => {
                "if it is to have none, `releasectl stop` comes first; else see what the code has in services/supervisor"
            }
            Self::Unexpected(_) => "see `releasectl supervisor status` and what the release has in services/supervisor",
            Self::NotUp { .. } => "the program's own log says more",
            Self::NotDown { .. } => {
                "see what the process is waiting for: it survived SIGKILL or its stopwaitsecs is longer"
            }
            Self::Hook { .. } | Self::Unknown { .. } => return None,
        })
    }
}

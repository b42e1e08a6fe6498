//! The exit statuses; there are no others, but `exec`, `manage` and `task` hand on their command's.

use crate::error::Kind;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// A step or an operation failed; what is live did not change.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A precondition does not hold; nothing changed.
    Refused = 3,
    /// Another process holds the lock.
    Busy = 4,
    /// It did not come up, a step of phase finish failed, or supervisord could not be asked; the message says what is live.
    NotConfirmed = 5,
    /// The tree or the journal needs `doctor`.
    Damaged = 6,
    /// The configuration is wrong.
    Configuration = 7,
    /// The command of `exec`, `manage` or `task` may not be run.
    NotExecutable = 126,
    /// The command of `exec`, `manage` or `task` is not there.
    NotFound = 127,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Failed => Self::Failed,
            Kind::Usage => Self::Usage,
            Kind::Refused => Self::Refused,
            Kind::Busy => Self::Busy,
            Kind::NotConfirmed => Self::NotConfirmed,
            Kind::Damaged => Self::Damaged,
            Kind::Configuration => Self::Configuration,
            Kind::NotExecutable => Self::NotExecutable,
            Kind::NotFound => Self::NotFound,
        }
    }
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

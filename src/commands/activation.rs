//! What became of making a release live; one document for `activate`, `rollback`, `deploy` and `hotfix`.

use crate::release::{ReleaseId, StepRecord};
use serde::Serialize;

/// A change of what is live, or that there was none to make.
#[derive(Debug, Serialize)]
pub struct Activation {
    /// Whether anything changed.
    pub changed: bool,
    /// What was live.
    pub from: Option<ReleaseId>,
    /// What was to be live; it is, unless `rolled_back`.
    pub to: Option<ReleaseId>,
    /// The command that did it.
    pub cause: &'static str,
    /// Whether it is known to have come up, as far as there is anything to come up.
    pub confirmed: bool,
    /// Whether the release before is live again because it did not.
    pub rolled_back: bool,
    /// The steps that were run.
    pub steps: Vec<StepRecord>,
    /// Whether nothing was really done.
    #[serde(skip)]
    pub dry_run: bool,
    /// Why it is not confirmed, and what was done about it. The run fails with it.
    #[serde(skip)]
    pub unconfirmed: Option<Unconfirmed>,
}

/// What was made live and did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What happened, and what is live now.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Activation {
    /// What became of a flip. With no programs and no health check there is nothing that could fail to come up.
    pub(super) fn of(changed: bool, from: Option<ReleaseId>, to: Option<ReleaseId>, cause: &'static str) -> Self {
        let (confirmed, rolled_back, steps) = (true, false, Vec::new());
        Self { changed, from, to, cause, confirmed, rolled_back, steps, dry_run: false, unconfirmed: None }
    }
}

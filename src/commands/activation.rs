//! Whether a release can be made live, and what became of it; one document for `activate`, `rollback`, `deploy` and
//! `hotfix`.

use super::Context;
use crate::error::{Error, Result};
use crate::python;
use crate::release::{ReleaseId, StepRecord};
use crate::supervisor::SupervisorError;
use crate::tree::{Tree, TreeError};
use serde::Serialize;

/// A change of what is live, or that there was none to make.
#[derive(Debug, Serialize)]
pub struct Activation {
    /// Whether anything changed.
    pub changed: bool,
    /// What was live.
    pub from: Option<ReleaseId>,
    /// What was to be live. It is, unless `rolled_back`, or neither `changed` nor `confirmed`, or the message says what
    /// else is.
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

/// What was made live and did not come up, or was not even made live since nobody could have seen to its programs.
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

    /// What became of a flip that was not made, since the programs could not have been brought along.
    pub(super) fn not_begun(
        obstacle: &SupervisorError,
        live: Option<ReleaseId>,
        to: ReleaseId,
        cause: &'static str,
    ) -> Self {
        let still = live.as_ref().map_or("nothing is live".to_owned(), |id| format!("{id} is still live"));
        let message = format!("not confirmed: {obstacle}; nothing was flipped: {still}, the programs were not touched");
        let without = "`rollback --no-restart` and `activate --no-restart` do without supervisord";
        let hint = match obstacle.hint() {
            Some(hint) if obstacle.is_unreachable() => Some(format!("{hint}; {without}")),
            hint => hint.map(str::to_owned),
        };
        let unconfirmed = Some(Unconfirmed { message, hint });
        Self { confirmed: false, unconfirmed, ..Self::of(false, live, Some(to), cause) }
    }
}

/// Refuses a release that cannot go live: not ready, or with a Python that does not run any more. What the next change
/// takes over can.
pub(super) fn alive(context: &Context, tree: &Tree, id: &ReleaseId) -> Result<()> {
    let manifest = match tree.activatable(id) {
        Err(TreeError::Foreign(_)) if tree.is_awaited(&tree.standing()?, id) => return Ok(()),
        manifest => manifest?,
    };
    let Some(environment) = manifest.python else { return Ok(()) };
    let path = tree.layout().release(id).join(&environment.directory);
    python::alive(&context.tools, &path).map(drop).map_err(|error| {
        let message = format!("release {id} has a dead python_env: {error}");
        Error::refused(message).hint(format!(
            "it was made with {}; build a new release, or name another",
            environment.interpreter.display()
        ))
    })
}

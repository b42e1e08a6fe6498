//! `activate`: makes a release live.

use super::bring_up::{GoLive, go_live};
use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::python;
use crate::release::{ReleaseId, StepRecord};
use crate::tree::{LockedTree, Tree};
use serde::Serialize;
use std::str::FromStr;

/// What `--expect-current` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is live.
    Nothing,
    /// This release is.
    Release(ReleaseId),
}

impl FromStr for Expected {
    type Err = crate::release::NotAnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self::Nothing) } else { text.parse().map(Self::Release) }
    }
}

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

/// Makes `target` live, if what is live is what was expected.
pub fn run(context: &Context, target: &Target, expected: Option<&Expected>, restart: bool) -> Result<Outcome> {
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    expect(&locked, expected)?;
    let id = target.resolve(&tree)?;
    alive(context, &tree, &id)?;
    let wanted = GoLive { operation: Operation::Activate, to: &id, cause: "activate", restart };
    go_live(context, &mut locked, &wanted).map(Outcome::Activate)
}

/// Refuses a release that cannot go live: not ready, or with a Python that does not run any more.
pub(super) fn alive(context: &Context, tree: &Tree, id: &ReleaseId) -> Result<()> {
    let manifest = tree.activatable(id)?;
    let Some(environment) = manifest.python else { return Ok(()) };
    let path = tree.layout().release(id).join(&environment.directory);
    python::alive(&context.tools, &path).map(drop).map_err(|error| {
        let message = format!("release {id} has a dead python_env: {error}");
        Error::refused(message)
            .hint(format!("it was made with {}; build a new release", environment.interpreter.display()))
    })
}

/// Refuses if another release is live than was expected.
pub(super) fn expect(locked: &LockedTree<'_>, expected: Option<&Expected>) -> Result<()> {
    let live = locked.standing().live.as_ref();
    let holds = match expected {
        None => true,
        Some(Expected::Nothing) => live.is_none(),
        Some(Expected::Release(id)) => live == Some(id),
    };
    if holds {
        return Ok(());
    }
    let shown = live.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let wanted = match expected {
        Some(Expected::Release(id)) => id.to_string(),
        _ => "nothing".to_owned(),
    };
    let hint = "somebody was faster: look at `releasectl history`, then decide anew";
    Err(Error::refused(format!("{shown} is live, not {wanted} as expected; nothing was changed")).hint(hint))
}

impl Activation {
    /// What became of a flip. With no programs and no health check there is nothing that could fail to come up.
    pub(super) fn of(changed: bool, from: Option<ReleaseId>, to: Option<ReleaseId>, cause: &'static str) -> Self {
        let (confirmed, rolled_back, steps) = (true, false, Vec::new());
        Self { changed, from, to, cause, confirmed, rolled_back, steps, dry_run: false, unconfirmed: None }
    }
}

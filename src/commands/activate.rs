//! `activate`: makes a release live.

use super::activation::alive;
use super::bring_up::{GoLive, go_live};
use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::release::ReleaseId;
use std::str::FromStr;

/// What to do where another release is live than was expected.
pub(super) const FASTER: &str = "somebody was faster: look at `releasectl history`, then decide anew";

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

/// Makes `target` live, if what is live is what was expected, or `target` already: whoever lost the answer may repeat it.
pub fn run(context: &Context, target: &Target, expected: Option<&Expected>, restart: bool) -> Result<Outcome> {
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    let id = target.resolve(&tree)?;
    expect(locked.standing().live.as_ref(), expected, Some(&id))?;
    alive(context, &tree, &id)?;
    let wanted = GoLive { operation: Operation::Activate, to: &id, cause: "activate", restart };
    go_live(context, &mut locked, &wanted).map(Outcome::Activate)
}

/// Refuses if another release is live than was expected, and it is not `to`, which is to be made live, either.
pub(super) fn expect(live: Option<&ReleaseId>, expected: Option<&Expected>, to: Option<&ReleaseId>) -> Result<()> {
    let Some(surprise) = surprise(live, expected, to) else { return Ok(()) };
    Err(Error::refused(format!("{surprise}; nothing was changed")).hint(FASTER))
}

/// What is live, if another release was expected, and it is not `to` either.
pub(super) fn surprise(
    live: Option<&ReleaseId>,
    expected: Option<&Expected>,
    to: Option<&ReleaseId>,
) -> Option<String> {
    let wanted = match expected? {
        Expected::Nothing => None,
        Expected::Release(id) => Some(id),
    };
    let shown = |id: Option<&ReleaseId>| id.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let other = live != wanted && (to.is_none() || live != to);
    other.then(|| format!("{} is live, not {} as expected", shown(live), shown(wanted)))
}

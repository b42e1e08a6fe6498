//! `rollback`: makes the release live that was live before.

use super::activate::{Expected, expect};
use super::activation::{Activation, alive};
use super::bring_up::{GoLive, go_live};
use super::hooks::{self, News, Turn};
use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::release::{ReleaseId, State};
use crate::tree::{Tree, TreeError};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Rollback {
    /// A release of the operator's own choice.
    pub to: Option<Target>,
    /// What must be live for it.
    pub expected: Option<Expected>,
    /// Only say where it would go.
    pub dry_run: bool,
    /// Flip and leave the programs as they are.
    pub no_restart: bool,
}

/// Goes back. What was live is marked bad; it deletes nothing, and `activate` undoes it.
pub fn run(context: &Context, wanted: &Rollback) -> Result<Outcome> {
    let tree = context.tree()?;
    if wanted.dry_run {
        let live = tree.live()?.id().cloned();
        let to = choose(&tree, live.as_ref(), wanted)?;
        alive(context, &tree, &to)?;
        let activation = Activation::of(live.as_ref() != Some(&to), live, Some(to), "rollback");
        return Ok(Outcome::Activate(Activation { dry_run: true, ..activation }));
    }
    let mut locked = context.lock(&tree)?;
    let to = choose(&tree, locked.standing().live.as_ref(), wanted)?;
    alive(context, &tree, &to)?;
    let live_now = GoLive { operation: Operation::Rollback, to: &to, cause: "rollback", restart: !wanted.no_restart };
    let activation = go_live(context, &mut locked, &live_now)?;
    drop(locked);
    if activation.changed && !activation.rolled_back {
        let (from, to) = (activation.from.as_ref(), activation.to.as_ref());
        hooks::tell(context, &tree, Turn::Rollback, News { operation: "rollback", from, to, error: None });
    }
    Ok(Outcome::Activate(activation))
}

/// Where to go: what was asked for, which must be ready and not bad, or what was live before. What `live` is must be
/// expected, unless it is what was asked for: whoever lost the answer may repeat the command.
fn choose(tree: &Tree, live: Option<&ReleaseId>, wanted: &Rollback) -> Result<ReleaseId> {
    let target = wanted.to.as_ref().map(|target| target.resolve(tree)).transpose()?;
    expect(live, wanted.expected.as_ref(), target.as_ref())?;
    let Some(id) = target else { return Target::Previous.resolve(tree) };
    let manifest = match tree.activatable(&id) {
        Err(TreeError::Foreign(_)) if tree.is_awaited(&tree.standing()?, &id) => return Ok(id),
        manifest => manifest?,
    };
    if manifest.state(false) == State::Bad && live != Some(&id) {
        let why = manifest.bad.unwrap_or_default();
        let hint = format!("`releasectl activate {id}` makes it live all the same");
        return Err(Error::refused(format!("release {id} is bad: {why}")).hint(hint));
    }
    Ok(id)
}

/// There is no release to go back to.
pub(super) fn nowhere() -> Error {
    let hint = "`releasectl list` shows what is ready; name one with --to, or `activate` it";
    Error::refused("there is nothing to go back to: no release that was live before is still ready").hint(hint)
}

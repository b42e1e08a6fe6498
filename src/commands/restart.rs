//! `restart`: this environment's programs, one after the other.

use super::activation::alive;
use super::programs::{Act, operate, required};
use super::{Context, Outcome, Target, bring_up};
use crate::error::Result;

/// Restarts the programs and groups `names`, or all that run; those are brought onto the live release too, if a flip did not.
/// Nothing is stopped that the live release's Python could not start again.
pub fn run(context: &Context, names: &[String]) -> Result<Outcome> {
    required(context)?;
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    if let Some(live) = &locked.standing().live {
        alive(context, &tree, live)?;
    }
    let done = if names.is_empty() {
        let live = Target::Current.resolve(&tree)?;
        bring_up::again(context, &mut locked, &live)
    } else {
        operate(context, &mut locked, Act::Restart, names)
    };
    context.tell(&mut locked);
    done
}

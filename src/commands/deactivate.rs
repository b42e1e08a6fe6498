//! `deactivate`: nothing is live any more.

use super::activation::Activation;
use super::{Context, Outcome};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::tree::Flip;

/// Removes `current`, if the operator really means it.
pub fn run(context: &Context, yes: bool) -> Result<Outcome> {
    let tree = context.tree()?;
    if !yes {
        let hint = "`releasectl deactivate --yes` if that is what you want";
        return Err(Error::refused("this would take the live release away and put nothing in its place").hint(hint));
    }
    let mut locked = context.lock(&tree)?;
    if tree.live()? == crate::tree::Live::Nothing {
        return Ok(Outcome::Activate(Activation::of(false, None, None, "deactivate")));
    }
    let flipped = locked.flip(Flip::of(Operation::Deactivate, None, "deactivate"));
    context.tell(&mut locked);
    let flipped = flipped?;
    Ok(Outcome::Activate(Activation::of(true, flipped.from, None, "deactivate")))
}

//! `start`: this environment's programs.

use super::programs::{Act, operate};
use super::{Context, Outcome};
use crate::error::Result;

/// Starts the programs and groups `names`, or all of them.
pub fn run(context: &Context, names: &[String]) -> Result<Outcome> {
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    let done = operate(context, &mut locked, Act::Start, names);
    context.tell(&mut locked);
    done
}

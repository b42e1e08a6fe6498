//! `deactivate`: nothing is live any more.

use super::activation::Activation;
use super::programs::{configured, connect, ours};
use super::{Context, Outcome, copies};
use crate::error::{Error, Result};
use crate::identity::as_root;
use crate::operation::Operation;
use crate::supervisor::conf::Declared;
use crate::supervisor::rpc::methods::Process;
use crate::tree::{Flip, LockedTree, Tree};

/// Removes `current`, if the operator really means it.
pub fn run(context: &Context, yes: bool) -> Result<Outcome> {
    let tree = context.tree()?;
    if !yes {
        let hint = "`releasectl deactivate --yes` if that is what you want";
        return Err(Error::refused("this would take the live release away and put nothing in its place").hint(hint));
    }
    let mut locked = context.lock(&tree)?;
    let outcome = take_away(context, &tree, &mut locked)?;
    // supervisord might not even start again from copies whose programs are nowhere.
    if let Some(Err(error)) = configured(context).map(|config| copies::remove(context, config)) {
        let message = error.message;
        context.stages.warn(&format!("supervisord goes on reading the programs' files from their copies: {message}"));
    }
    Ok(outcome)
}

fn take_away(context: &Context, tree: &Tree, locked: &mut LockedTree<'_>) -> Result<Outcome> {
    let standing = locked.standing().clone();
    if tree.live()? == crate::tree::Live::Nothing {
        return Ok(Outcome::Activate(Activation::of(false, None, None, "deactivate")));
    }
    let flipped = locked.flip(Flip::of(Operation::Deactivate, None, "deactivate"));
    context.tell(locked);
    let flipped = flipped?;
    tell_running(context, &ours(context, tree, &standing));
    Ok(Outcome::Activate(Activation::of(true, flipped.from, None, "deactivate")))
}

/// Says which programs run on: nothing stops them by itself.
fn tell_running(context: &Context, declared: &Declared) {
    let Some(config) = configured(context).filter(|_| !declared.groups.is_empty()) else { return };
    let running = connect(config).and_then(|supervisor| as_root(|| supervisor.programs()));
    let still = |process: &&Process| declared.owns(&process.group) && !process.state.is_down();
    match running {
        Ok(running) => {
            let names: Vec<String> = running.iter().filter(still).map(Process::label).collect();
            if !names.is_empty() {
                let how = format!("`releasectl supervisorctl stop {}` stops them", names.join(" "));
                context.stages.warn(&format!("its programs still run: {how}"));
            }
        }
        Err(error) => context.stages.warn(&format!("whether its programs still run is not known: {error}")),
    }
}

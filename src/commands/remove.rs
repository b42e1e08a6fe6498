//! `remove`: removes releases by name, unless something protects them.

use super::clean::{lock_and_look, sweep, told};
use super::{Context, Outcome, Target};
use crate::error::{Error, Kind, Result};
use crate::operation::Operation;
use crate::release::ReleaseId;
use crate::retention::{Verdict, causes, in_words, protections};

/// Removes all of `targets`, or none of them if one is protected.
pub fn run(context: &Context, targets: &[Target]) -> Result<Outcome> {
    let tree = context.tree()?;
    let (mut locked, used) = lock_and_look(context, &tree)?;
    let mut ids: Vec<ReleaseId> = Vec::new();
    for target in targets {
        let id = target.resolve(&tree)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let facts = locked.facts(&used)?;
    let now = locked.trusted_now();
    let mut verdicts = Vec::new();
    for id in &ids {
        let fact = facts.iter().find(|fact| fact.name == id.as_str());
        let fact = fact.ok_or_else(|| crate::tree::TreeError::NoRelease(id.to_string()))?;
        let held = protections(fact, now);
        if !held.is_empty() {
            let pids: Vec<u32> = used.of(id).iter().map(|process| process.pid).collect();
            let reasons = in_words(&held, &pids);
            let hint = "nothing was removed; `releasectl show` tells more, `unpin` takes a pin away";
            return Err(Error::refused(format!("release {id} is protected: {reasons}")).hint(hint));
        }
        verdicts.push(Verdict { name: id.to_string(), id: Some(id.clone()), remove: true, reasons: causes(fact) });
    }
    let discarded = locked.discard(Operation::Remove, &ids);
    context.tell(&mut locked);
    let discarded = discarded?;
    drop(locked);
    let removed = sweep(context, &tree, discarded, &verdicts)?;
    if removed.removed.len() < ids.len() {
        // Each was asked for by its name.
        let message = format!("not all of them were removed: {}", removed.warnings.join("; "));
        return Err(Error::new(Kind::Failed, message).hint("`releasectl list` shows what is still there"));
    }
    Ok(told(context, removed))
}

//! `pin`, `unpin`: how long a release is kept.

use super::{Context, Outcome, Target};
use crate::error::{Error, Result};
use crate::pin::Pin;
use crate::release::ReleaseId;
use serde::Serialize;

/// What a release's pin is now.
#[derive(Debug, Serialize)]
pub struct Pinned {
    /// Whether anything changed.
    pub changed: bool,
    /// Which release.
    pub release: ReleaseId,
    /// How long it is kept.
    pub keep_until: Option<Pin>,
}

/// Pins `target`, or takes its pins away.
pub fn run(context: &Context, target: &Target, pin: Option<Pin>) -> Result<Outcome> {
    if let Some(pin) = pin.filter(|pin| !pin.holds(context.actor.clock.now())) {
        let message = format!("{pin} is over: such a pin keeps nothing");
        return Err(Error::refused(message).hint("name a time to come; `releasectl unpin` takes a pin away"));
    }
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    let release = target.resolve(&tree)?;
    let changed = locked.set_pin(&release, pin);
    context.tell(&mut locked);
    Ok(Outcome::Pin(Pinned { changed: changed?, release, keep_until: pin }))
}

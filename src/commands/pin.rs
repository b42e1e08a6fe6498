//! `pin`, `unpin`: how long a release is kept.

use super::{Context, Outcome, Target};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::pin::Pin;
use crate::release::ReleaseId;
use serde::Serialize;
use std::time::Duration;

const DAY: u64 = 86_400;

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
    let tree = context.tree()?;
    let mut locked = context.lock(&tree)?;
    let release = target.resolve(&tree)?;
    let changed = locked.set_pin(&release, pin);
    context.tell(&mut locked);
    Ok(Outcome::Pin(Pinned { changed: changed?, release, keep_until: pin }))
}

/// A pin for this many days from `now`, up to the end of that minute: names of pins have no seconds.
pub fn for_days(days: u64, now: Timestamp) -> Result<Pin> {
    let span = days.checked_mul(DAY).and_then(|seconds| seconds.checked_add(59)).map(Duration::from_secs);
    let until = span.and_then(|span| now.plus(span)).filter(|until| until.minute().len() == 16);
    until
        .map(Pin::Until)
        .ok_or_else(|| Error::new(Kind::Usage, format!("{days} days lead past the end of the calendar")))
}

//! Waiting for what is to happen.

use std::time::{Duration, Instant};

/// Longer than anything here takes, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `happened`.
#[track_caller]
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

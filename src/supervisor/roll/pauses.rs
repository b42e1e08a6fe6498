//! How long is waited between two looks at what supervisord is doing.

use std::time::{Duration, Instant};

/// Pauses between two looks: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// Sleeps longer each time, but not beyond the moment at which something is due, and begins anew then.
pub(super) fn pauses() -> impl FnMut(Option<Instant>) {
    let [shortest, longest] = PAUSES;
    let mut pause = shortest;
    move |due| {
        let left = due.map(|due| due.saturating_duration_since(Instant::now())).filter(|left| *left <= pause);
        std::thread::sleep(left.unwrap_or(pause));
        pause = if left.is_some() { shortest } else { (pause * 3 / 2).min(longest) };
    }
}

//! Pins: `KEEP_UNTIL__<time>` and `KEEP_UNTIL__forever`, files in a release whose name alone counts.

use crate::clock::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// What the names begin with.
pub const PREFIX: &str = "KEEP_UNTIL__";
const FOREVER: &str = "forever";

const DAY: u64 = 86_400;

/// So many days that no name of a pin could say when they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} days lead past the end of the calendar")]
pub struct PastTheCalendar(u64);

/// How long a release is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// Until this moment.
    Until(Timestamp),
    /// Until it is unpinned.
    Forever,
    /// Somebody meant to pin it, but the name says no time. Counts as protected.
    Unreadable,
}

impl Pin {
    /// A pin for this many days from `now`, up to the next whole minute.
    pub fn for_days(days: u64, now: Timestamp) -> Result<Self, PastTheCalendar> {
        let span = days.checked_mul(DAY).map(Duration::from_secs);
        span.and_then(|span| now.plus(span)).and_then(Self::until).ok_or(PastTheCalendar(days))
    }

    /// A pin until `moment`, up to the next whole minute: names of pins have no seconds. `None` past the calendar.
    pub fn until(moment: Timestamp) -> Option<Self> {
        let minute = moment.plus(Duration::from_secs(59))?.minute();
        Timestamp::parse(&minute).filter(|_| minute.len() == 16).map(Self::Until)
    }

    /// What the file name `name` says; `None` if it is no pin. Names that are not UTF-8 are given lossily.
    pub fn of_name(name: &str) -> Option<Self> {
        let until = name.strip_prefix(PREFIX)?;
        if until == FOREVER {
            return Some(Self::Forever);
        }
        Some(Timestamp::parse(until).map_or(Self::Unreadable, Self::Until))
    }

    /// The file name that says this. An unreadable pin has none.
    pub fn name(self) -> Option<String> {
        match self {
            Self::Until(moment) => Some(format!("{PREFIX}{}", moment.minute())),
            Self::Forever => Some(format!("{PREFIX}{FOREVER}")),
            Self::Unreadable => None,
        }
    }

    /// Whether it still protects at `now`.
    pub fn holds(self, now: Timestamp) -> bool {
        !matches!(self, Self::Until(moment) if moment <= now)
    }

    /// Of several pins the one that counts: an unreadable one, or else the latest.
    pub fn strongest(pins: impl IntoIterator<Item = Self>) -> Option<Self> {
        pins.into_iter().max()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(moment) => moment.fmt(out),
            Self::Forever | Self::Unreadable => out.write_str(FOREVER),
        }
    }
}

/// As in the JSON documents: a time, or `forever`, which is also how an unreadable pin is treated.
impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p08_of_two_pins_the_later_counts_and_an_unreadable_one_protects() {
        let pin = |name: &str| Pin::of_name(name).unwrap();
        let (early, late) = (pin("KEEP_UNTIL__2026-12-02_23.40"), pin("KEEP_UNTIL__2027-01-01_00.00"));
        assert_eq!(Pin::strongest([late, early]), Some(late));
        assert_eq!(Pin::strongest([pin("KEEP_UNTIL__forever"), late]), Some(Pin::Forever));
        assert_eq!(Pin::strongest([pin("KEEP_UNTIL__soon"), Pin::Forever]), Some(Pin::Unreadable));
        assert_eq!(Pin::strongest([]), None);
        assert_eq!(Pin::of_name("KEEP_UNTIL_2026"), None);
        assert_eq!(late.name().as_deref(), Some("KEEP_UNTIL__2027-01-01_00.00"));
        let end = Timestamp::parse("2026-12-02_23.40").unwrap();
        assert!(!early.holds(end) && late.holds(end) && Pin::Unreadable.holds(end));
    }

    #[test]
    fn a_pin_ends_when_its_name_says_and_never_before_it_was_asked_to() {
        for (asked, ends) in
            [("2026-12-02T23:40:00Z", "2026-12-02_23.40"), ("2026-12-02T23:40:01Z", "2026-12-02_23.41")]
        {
            let asked = Timestamp::parse(asked).unwrap();
            let pin = Pin::until(asked).unwrap();
            assert_eq!(pin, Pin::Until(Timestamp::parse(ends).unwrap()));
            assert_eq!(Pin::of_name(&pin.name().unwrap()), Some(pin));
            assert_eq!(Pin::for_days(0, asked), Ok(pin));
        }
    }
}

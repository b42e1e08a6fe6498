//! The time of day. The only module that asks the system for it; everything else is handed a [`Timestamp`].

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// The minute format of release ids and pins, the one the older tooling uses.
const MINUTE: &str = "%Y-%m-%d_%H.%M";
/// The same with seconds.
const SECOND: &str = "%Y-%m-%d_%H.%M.%S";

/// The longest span there is, in seconds: more than thirty thousand years.
const LONGEST: u64 = 1 << 40;

/// A moment in UTC, whole seconds. Written and read as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// A moment given as seconds since 1970; `None` outside the years 0 to 9999.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        DateTime::from_timestamp(seconds, 0).and_then(Self::within_reach)
    }

    /// Cut to whole seconds, leap seconds included. RFC 3339 has four digits for a year: what it cannot say could not be
    /// read back.
    fn within_reach(moment: DateTime<Utc>) -> Option<Self> {
        let whole = DateTime::from_timestamp(moment.timestamp(), 0)?;
        (0..=9999).contains(&whole.year()).then_some(Self(whole))
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0.timestamp()
    }

    /// Reads RFC 3339, `YYYY-MM-DD_HH.MM`, `YYYY-MM-DD HH:MM` or `YYYY-MM-DD` (its first moment); UTC unless it says otherwise.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Self::within_reach(moment.with_timezone(&Utc));
        }
        let whole = [MINUTE, SECOND, "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0);
        whole.or_else(day).and_then(|naive| Self::within_reach(naive.and_utc()))
    }

    /// `2026-11-22_23.40`: the name of a release made in this minute.
    pub fn minute(self) -> String {
        self.0.format(MINUTE).to_string()
    }

    /// `2026-11-22_23.40.17`: the same with seconds.
    pub fn second(self) -> String {
        self.0.format(SECOND).to_string()
    }

    /// `20261122T234017Z`: a moment as part of a file name.
    pub fn compact(self) -> String {
        self.0.format("%Y%m%dT%H%M%SZ").to_string()
    }

    /// This moment and `span` more; `None` past the end of the calendar.
    pub fn plus(self, span: Duration) -> Option<Self> {
        let span = TimeDelta::from_std(span).ok()?;
        self.0.checked_add_signed(span).and_then(Self::within_reach)
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time")))
    }
}

/// Where `now` comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// Always this moment.
    Fixed(Timestamp),
}

impl Clock {
    /// The present moment, cut to whole seconds; 1970 if the clock says what no calendar has. One before 1970 is a moment
    /// like any other: what is wrong with a clock that was set back is seen by the history.
    #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => {
                let seconds = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                    Ok(since) => i64::try_from(since.as_secs()),
                    Err(before) => i64::try_from(before.duration().as_secs()).map(i64::wrapping_neg),
                };
                let moment = seconds.ok().and_then(Timestamp::from_unix);
                moment.unwrap_or(Timestamp(DateTime::UNIX_EPOCH))
            }
            Self::Fixed(moment) => moment,
        }
    }
}

/// Seconds since `started`, to the millisecond, as records and documents give them.
pub fn seconds_since(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

/// Reads a span: `90`, `90s`, `15m`, `4h`, `10d`, `2w`; a bare number is seconds. One that is longer than any calendar is
/// none: no deadline could be reckoned from it.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (seconds <= LONGEST).then_some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_its_own_text() {
        let moment = Timestamp::parse("2026-11-22T23:40:17Z").unwrap();
        assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
        assert_eq!(moment.minute(), "2026-11-22_23.40");
        assert_eq!(moment.second(), "2026-11-22_23.40.17");
        assert_eq!(Timestamp::parse("2026-11-23T01:40:17+02:00"), Some(moment));
        assert_eq!(Timestamp::parse("2026-11-22_23.40").map(Timestamp::minute).as_deref(), Some("2026-11-22_23.40"));
        assert_eq!(Timestamp::parse("2026-11-22T23:40:17.999Z"), Some(moment));
        let leap = Timestamp::parse("2016-12-31T23:59:60.5Z").unwrap();
        assert_eq!(Timestamp::parse(&leap.to_string()), Some(leap));
        assert_eq!(Timestamp::parse("2026-02-30"), None);
        assert_eq!(Timestamp::parse(""), None);
        for beyond in ["-0001-01-01_00.00", "+10000-01-01_00.00", "0000-01-01T00:00:00+01:00"] {
            assert_eq!(Timestamp::parse(beyond), None, "{beyond}");
        }
        assert_eq!(Timestamp::from_unix(i64::from(u32::MAX) * 100), None);
    }

    #[test]
    fn a_duration_has_a_unit_or_is_seconds() {
        assert_eq!(parse_duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("10d"), Some(Duration::from_secs(864_000)));
        for bad in ["", "m", "-5s", "1.5h", "5 s", "99999999999999999999d", "9999999999999999999s", "5y"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_calendar_has_an_end() {
        let moment = Timestamp::parse("2026-11-22").unwrap();
        assert_eq!(moment.plus(Duration::from_secs(u64::MAX)), None);
        assert_eq!(moment.since(moment.plus(Duration::from_secs(5)).unwrap()), Duration::ZERO);
    }
}

//! The shape of a line of the journal, read in one pass: every field any event has.

use super::{Begin, Chain, Done, Event, Following, Operation, Outcome, Programs, Record, Step};
use crate::clock::Timestamp;
use crate::release::{ReleaseId, StepRecord, StepStatus};
use serde::Deserialize;
use std::collections::BTreeSet;

/// What kind of event it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Event::Begin`].
    Begin,
    /// [`Event::Step`].
    Step,
    /// [`Event::Done`].
    Done,
    /// [`Event::Confirmed`].
    Confirmed,
    /// [`Event::Programs`].
    Programs,
}

/// What of a line tells when a release went live; the rest is passed over.
#[derive(Debug, Deserialize)]
pub struct Glance<'a> {
    /// [`Record::seq`].
    pub seq: u64,
    /// [`Record::at`], as it is written.
    pub at: &'a str,
    /// Which event.
    pub event: Kind,
    /// [`Begin::operation`].
    pub operation: Option<Operation>,
    /// [`Begin::to`].
    pub to: Option<ReleaseId>,
    /// [`Done::of`].
    pub of: Option<u64>,
    /// [`Done::outcome`].
    pub outcome: Option<Outcome>,
}

/// All fields of all events.
#[derive(Deserialize)]
pub(super) struct Line {
    seq: u64,
    at: Timestamp,
    event: Kind,
    operation: Option<Operation>,
    by: Option<String>,
    from: Option<ReleaseId>,
    to: Option<ReleaseId>,
    chain: Option<Chain>,
    #[serde(default)]
    releases: Vec<ReleaseId>,
    cause: Option<String>,
    bad: Option<String>,
    #[serde(default)]
    programs: Following,
    of: Option<u64>,
    name: Option<String>,
    status: Option<StepStatus>,
    outcome: Option<Outcome>,
    seconds: Option<f64>,
    note: Option<String>,
    #[serde(default)]
    owed: BTreeSet<String>,
    #[serde(default)]
    gone: BTreeSet<String>,
    #[serde(default)]
    settled: BTreeSet<String>,
}

impl Line {
    fn event(self) -> Option<Event> {
        Some(match self.event {
            Kind::Begin => Event::Begin(Begin {
                operation: self.operation?,
                by: self.by?,
                from: self.from,
                to: self.to,
                chain: self.chain,
                releases: self.releases,
                cause: self.cause,
                bad: self.bad,
                programs: self.programs,
            }),
            Kind::Step => {
                let record = StepRecord { name: self.name?, status: self.status?, seconds: self.seconds? };
                Event::Step(Step { of: self.of?, record })
            }
            Kind::Done | Kind::Confirmed => {
                let done = Done { of: self.of?, outcome: self.outcome?, seconds: self.seconds?, note: self.note };
                if self.event == Kind::Done { Event::Done(done) } else { Event::Confirmed(done) }
            }
            Kind::Programs => Event::Programs(Programs { owed: self.owed, gone: self.gone, settled: self.settled }),
        })
    }
}

impl TryFrom<Line> for Record {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        let (seq, at) = (line.seq, line.at);
        line.event().map(|event| Self { seq, at, event }).ok_or("a field of its event is missing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_every_field_of_its_event_is_a_record_and_one_with_fewer_is_none() {
        let read = |event: &str| {
            serde_json::from_str::<Record>(&format!("{{\"seq\":1,\"at\":\"2026-11-22T23:40:00Z\",{event}}}")).ok()
        };
        for (event, cut) in [
            (r#""event":"begin","operation":"pin","by":"me""#, r#""event":"begin","operation":"pin""#),
            (r#""event":"done","of":1,"outcome":"done","seconds":1"#, r#""event":"confirmed","of":1,"outcome":"done""#),
            (
                r#""event":"step","of":1,"name":"a","status":"done","seconds":1.5"#,
                r#""event":"step","of":1,"name":"a""#,
            ),
            (r#""event":"programs","owed":["a:b"]"#, r#""event":"nothing""#),
        ] {
            let record = read(event).unwrap();
            let written = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&written).unwrap(), record, "{written}");
            assert!(read(cut).is_none(), "{cut}");
        }
    }
}

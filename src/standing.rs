//! What is live and what was before it: the journal's flips folded with what `current` says, which decides.

use crate::operation::{Begin, Chain, Event, Following, Operation, Outcome, Programs, Record};
use crate::release::ReleaseId;
use std::collections::{BTreeSet, HashMap};

/// What is live and what was before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The release that `current` leads to.
    pub live: Option<ReleaseId>,
    /// The live release and those before it, with what is live taken into account.
    pub chain: Chain,
    /// The same as the journal has it, whatever is live.
    pub before: Chain,
    /// What the journal believes to be live; another release there means that somebody else moved the link.
    pub believed: Option<ReleaseId>,
    /// Releases that another hand made live since, and those that its list names, as far as that is known.
    pub recorded: Vec<ReleaseId>,
    /// The numbers of flips that were made and have no outcome on record.
    pub untold: Vec<u64>,
    /// What the programs are still owed.
    pub owed: Owed,
    /// What the last flip means for what it came from and went to.
    pub marks: Marks,
}

/// What the last flip that was made means for the marks of two releases. A full disk may have kept them from being written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// Its number: what was built since is not meant.
    pub since: u64,
    /// It went live though it was bad, and is not any more.
    pub good: Option<ReleaseId>,
    /// It was rolled back from, and is bad.
    pub bad: Option<ReleaseId>,
}

impl Marks {
    /// Those of the flip `begin`, number `seq`.
    pub fn of(seq: u64, begin: &Begin) -> Self {
        let good = begin.to.clone().filter(|_| begin.bad.is_some());
        let bad = begin.from.clone().filter(|_| begin.operation == Operation::Rollback);
        Self { since: seq, good, bad }
    }
}

/// What the programs are owed since they were last confirmed to be up from the live release.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owed {
    /// The last flip that did not bring them over, or is not known to have.
    pub since: Option<u64>,
    /// Releases they may still run from, the earliest first.
    pub from: Vec<ReleaseId>,
    /// Those that are to run, as `group:name`, though they may be stopped now.
    pub up: BTreeSet<String>,
    /// Groups that may run yet though no release's files have them any more.
    pub gone: BTreeSet<String>,
}

impl Owed {
    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        self.since.is_none() && self.up.is_empty() && self.gone.is_empty()
    }

    /// What is owed once the flip `begin`, number `seq`, is made.
    pub fn after(&mut self, seq: u64, begin: &Begin) {
        if !begin.leaves_programs() {
            *self = Self::default();
            return;
        }
        self.since = Some(seq);
        self.from.extend(begin.from.clone().filter(|from| !self.from.contains(from)));
        if let Following::Up(up) = &begin.programs {
            self.up.extend(up.iter().cloned());
        }
    }

    /// What is owed after programs were stopped or started beside a flip.
    pub fn changed_by(&mut self, programs: &Programs) {
        self.up.extend(programs.owed.iter().cloned());
        self.up.retain(|id| !programs.settled.contains(id));
        self.gone.extend(programs.gone.iter().cloned());
        self.gone.retain(|group| !programs.settled.contains(group));
    }
}

impl Standing {
    /// Folds `records`, in the journal's order, with the release that is `live` now.
    pub fn new(records: &[Record], live: Option<&ReleaseId>) -> Self {
        let outcomes = outcomes(records);
        let mut standing = Self { live: live.cloned(), ..Self::default() };
        let mut last: Option<(u64, &Begin)> = None;
        for (at, Record { seq, event, .. }) in records.iter().enumerate() {
            match event {
                Event::Begin(begin) if begin.operation.is_flip() => {
                    // What was live after it the next one tells, or else the link.
                    let then = || flips(&records[at + 1..]).next().map_or(live, |(_, next)| next.from.as_ref());
                    let outcome = outcomes.get(seq);
                    if outcome.map_or_else(|| then() == begin.to.as_ref(), |outcome| *outcome == Outcome::Done) {
                        standing.owed.after(*seq, begin);
                        standing.untold.extend(Some(*seq).filter(|_| outcome.is_none()));
                        last = Some((*seq, begin));
                    }
                }
                Event::Confirmed(done) if done.outcome == Outcome::Done => standing.owed = Owed::default(),
                Event::Programs(programs) => standing.owed.changed_by(programs),
                Event::Begin(_) | Event::Step(_) | Event::Done(_) | Event::Confirmed(_) | Event::Later => {}
            }
        }
        if let Some((seq, flip)) = last {
            standing.marks = Marks::of(seq, flip);
            standing.chain = flip.chain.clone().unwrap_or_default();
            standing.believed.clone_from(&flip.to);
        }
        standing.before = standing.chain.clone();
        if let (Some(live), true) = (live, live != standing.believed.as_ref()) {
            standing.chain = standing.chain.activated(live);
        }
        standing
    }

    /// Whether somebody else moved `current` since the last flip.
    pub fn was_moved(&self) -> bool {
        self.live != self.believed
    }

    /// The chain that a flip by `operation` to `to` leaves.
    pub fn chain_after(&self, operation: Operation, to: Option<&ReleaseId>) -> Chain {
        match (operation, to) {
            (Operation::Rollback, Some(to)) => self.chain.went_back(to),
            (_, Some(to)) => self.chain.activated(to),
            (_, None) => self.chain.clone(),
        }
    }
}

/// Whether `records`, the end of a journal, tell enough for [`Standing::new`]: they hold a flip that was made and that owes
/// the programs nothing any more.
pub fn is_enough(records: &[Record]) -> bool {
    let (outcomes, confirmed) = (outcomes(records), confirmations(records));
    flips(records).any(|(seq, begin)| {
        let settled = !begin.leaves_programs() || confirmed.get(&seq) == Some(&Outcome::Done);
        outcomes.get(&seq) == Some(&Outcome::Done) && settled
    })
}

/// The flips that were made and of which it is not said whether the programs came up, oldest first.
pub fn unconfirmed(records: &[Record]) -> Vec<u64> {
    let (outcomes, confirmed) = (outcomes(records), confirmations(records));
    let followed = |begin: &Begin| matches!(begin.programs, Following::Up(_));
    let made = |seq: &u64| outcomes.get(seq).is_none_or(|outcome| *outcome == Outcome::Done);
    let flips = flips(records).filter(|(_, begin)| followed(begin)).map(|(seq, _)| seq);
    flips.filter(|seq| made(seq) && !confirmed.contains_key(seq)).collect()
}

/// The operations that have no outcome yet, oldest first.
pub fn unfinished(records: &[Record]) -> Vec<(u64, &Begin)> {
    let outcomes = outcomes(records);
    begins(records).filter(|(seq, _)| !outcomes.contains_key(seq)).collect()
}

fn begins(records: &[Record]) -> impl Iterator<Item = (u64, &Begin)> {
    records.iter().filter_map(|record| match &record.event {
        Event::Begin(begin) => Some((record.seq, begin)),
        _ => None,
    })
}

fn flips(records: &[Record]) -> impl Iterator<Item = (u64, &Begin)> {
    begins(records).filter(|(_, begin)| begin.operation.is_flip())
}

fn confirmations(records: &[Record]) -> HashMap<u64, Outcome> {
    let confirmed = records.iter().filter_map(|record| match &record.event {
        Event::Confirmed(done) => Some((done.of, done.outcome)),
        _ => None,
    });
    confirmed.collect()
}

fn outcomes(records: &[Record]) -> HashMap<u64, Outcome> {
    let dones = records.iter().filter_map(|record| match &record.event {
        Event::Done(done) => Some((done.of, done.outcome)),
        _ => None,
    });
    dones.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::operation::Done;

    fn id(text: &str) -> ReleaseId {
        text.parse().unwrap()
    }

    fn journal(events: Vec<Event>) -> Vec<Record> {
        let at = Timestamp::parse("2026-11-22_23.40").unwrap();
        (1..).zip(events).map(|(seq, event)| Record { seq, at, event }).collect()
    }

    fn flip(operation: Operation, from: &str, to: &str, programs: Following) -> Event {
        let (from, to, chain) = (Some(id(from)), Some(id(to)), Some(Chain::default().activated(&id(to))));
        Event::Begin(Begin { from, to, chain, programs, ..Begin::of(operation, "me") })
    }

    fn up(names: &str) -> Following {
        Following::Up(names.split_whitespace().map(str::to_owned).collect())
    }

    fn done(of: u64, outcome: Outcome) -> Done {
        Done { of, outcome, seconds: 0.0, note: None }
    }

    #[test]
    fn what_was_not_confirmed_is_owed_over_every_flip_until_it_is() {
        let mut events = vec![
            flip(Operation::Activate, "A", "B", up("web:0")),
            Event::Done(done(1, Outcome::Done)),
            Event::Confirmed(done(1, Outcome::Unconfirmed)),
            flip(Operation::Activate, "B", "C", Following::Left),
            Event::Done(done(4, Outcome::Done)),
        ];
        let owed = Standing::new(&journal(events.clone()), Some(&id("C"))).owed;
        assert_eq!((owed.since, owed.from), (Some(4), vec![id("A"), id("B")]));
        assert_eq!(owed.up, BTreeSet::from(["web:0".to_owned()]));
        assert!(!is_enough(&journal(events.clone())));
        events.push(Event::Confirmed(done(4, Outcome::Done)));
        assert!(Standing::new(&journal(events.clone()), Some(&id("C"))).owed.is_nothing());
        assert!(is_enough(&journal(events)));
    }

    #[test]
    fn a_flip_that_was_not_made_owes_nothing() {
        let events = vec![flip(Operation::Activate, "A", "B", up("web:0"))];
        assert!(Standing::new(&journal(events.clone()), Some(&id("A"))).owed.is_nothing());
        assert_eq!(Standing::new(&journal(events.clone()), Some(&id("B"))).owed.since, Some(1));
        assert_eq!(unconfirmed(&journal(events)), [1]);
    }

    #[test]
    fn what_a_step_stops_is_owed_until_it_is_started() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<String>>();
        let mut events = vec![Event::Programs(Programs { owed: names("w:0 w:1"), ..Programs::default() })];
        events.push(Event::Programs(Programs { settled: names("w:0"), ..Programs::default() }));
        assert_eq!(Standing::new(&journal(events), None).owed.up, names("w:1"));
    }

    #[test]
    fn a_returned_activation_is_in_the_chain_as_the_way_back() {
        let begin = |operation, from, to, programs, chain: &[&str]| match flip(operation, from, to, programs) {
            Event::Begin(begin) => Event::Begin(Begin { chain: Some(chain.iter().map(|c| id(c)).collect()), ..begin }),
            other => other,
        };
        let events = vec![
            begin(Operation::Activate, "A", "B", up("web:0"), &["B", "A", "Z"]),
            Event::Done(done(1, Outcome::Done)),
            begin(Operation::Rollback, "B", "A", up("web:0"), &["A", "Z"]),
            Event::Done(done(3, Outcome::Done)),
            Event::Confirmed(done(1, Outcome::Returned)),
            Event::Confirmed(done(3, Outcome::Done)),
        ];
        let standing = Standing::new(&journal(events.clone()), Some(&id("A")));
        assert_eq!(standing.chain.candidates(Some(&id("A"))).next(), Some(&id("Z")));
        assert!(standing.owed.is_nothing());
        let mut entries = crate::operation::Entries::default();
        entries.extend(journal(events));
        let shown: Vec<Outcome> = entries.newest(2).iter().map(|entry| entry.outcome).collect();
        assert_eq!(shown, [Outcome::Returned, Outcome::Done]);
    }
}

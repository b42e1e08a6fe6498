//! Which releases go and which stay, and why: a function of facts, decided before anything is touched.

use crate::clock::Timestamp;
use crate::pin::Pin;
use crate::release::{ReleaseId, State};
use serde::Serialize;
use std::time::Duration;

/// How many good releases are kept if nobody says otherwise.
pub const DEFAULT_KEEP: usize = 3;

/// What is known of one entry of `releases/`.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name, as it is shown.
    pub name: String,
    /// Its id, and what it is good for; `None` for what is no release of ours or cannot be read.
    pub release: Option<(ReleaseId, State)>,
    /// Its place in the journal's order; higher is newer.
    pub sequence: u64,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Bytes of disk it is believed to hold.
    pub bytes: u64,
    /// `current` leads to it.
    pub current: bool,
    /// A rollback would go to it, or it may be what was live before and nobody knows.
    pub rollback_target: bool,
    /// Its strongest pin.
    pub pin: Option<Pin>,
    /// A live process holds its lease.
    pub leased: bool,
    /// A process runs from it, or that could not be established.
    pub in_use: bool,
    /// An operation on it has no outcome yet.
    pub unfinished: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// This many of the newest good releases.
    pub keep: usize,
    /// Everything younger than this.
    pub keep_for: Option<Duration>,
    /// Fewer than `keep`, oldest first, until this many bytes more are free.
    pub wanted_bytes: u64,
}

/// Why a release stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is live.
    Current,
    /// A rollback would go to it.
    RollbackTarget,
    /// It is pinned.
    Pinned,
    /// Its pin cannot be read.
    PinUnreadable,
    /// Somebody holds its lease.
    Leased,
    /// A process runs from it.
    InUse,
    /// An operation on it is not over.
    Unfinished,
    /// It is one of the newest good ones.
    AmongNewest,
    /// It is young.
    Recent,
    /// Its pin has run out.
    Expired,
    /// It was never ready.
    Incomplete,
    /// It was rolled back from, or did not come up.
    Bad,
    /// Newer good ones are enough.
    Surplus,
    /// It is no release of ours.
    Unrecognised,
}

impl Reason {
    /// Whether it protects a release even from being removed by name.
    pub fn protects(self) -> bool {
        use Reason::*;
        matches!(self, Current | RollbackTarget | Pinned | PinUnreadable | Leased | InUse | Unfinished | Unrecognised)
    }

    /// It as in the JSON documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::RollbackTarget => "rollback_target",
            Self::Pinned => "pinned",
            Self::PinUnreadable => "pin_unreadable",
            Self::Leased => "leased",
            Self::InUse => "in_use",
            Self::Unfinished => "unfinished",
            Self::AmongNewest => "among_newest",
            Self::Recent => "recent",
            Self::Expired => "expired",
            Self::Incomplete => "incomplete",
            Self::Bad => "bad",
            Self::Surplus => "surplus",
            Self::Unrecognised => "unrecognised",
        }
    }
}

/// These reasons in words, and which processes are meant.
pub fn in_words(reasons: &[Reason], pids: &[u32]) -> String {
    let word = |reason: &Reason| match (reason, pids) {
        (Reason::InUse, [_, ..]) => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("in_use by process {}", pids.join(" and "))
        }
        _ => reason.name().to_owned(),
    };
    reasons.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// What is to become of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The entry's name.
    pub name: String,
    /// Its id, if it is a release.
    pub id: Option<ReleaseId>,
    /// Whether it goes.
    pub remove: bool,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

/// Decides for each of `facts`, in their order. `now` is `None` when the clock cannot be trusted (it lies before the
/// newest entry of the journal): then nothing is too old, so every dated pin holds and `keep_for` keeps everything.
pub fn decide(facts: &[Facts], policy: Policy, now: Option<Timestamp>) -> Vec<Verdict> {
    let newest = newest_good(facts, policy.keep);
    let mut verdicts: Vec<Verdict> = facts
        .iter()
        .map(|fact| {
            let mut reasons = protections(fact, now);
            if fact.release.is_some() && newest.contains(&fact.name.as_str()) {
                reasons.push(Reason::AmongNewest);
            }
            if fact.release.is_some() && is_recent(fact, policy.keep_for, now) {
                reasons.push(Reason::Recent);
            }
            let remove = reasons.is_empty();
            if remove {
                reasons = causes(fact);
            }
            Verdict { name: fact.name.clone(), id: fact.release.as_ref().map(|(id, _)| id.clone()), remove, reasons }
        })
        .collect();
    free_more(facts, &mut verdicts, policy.wanted_bytes);
    verdicts
}

/// What keeps a release from being removed, by whatever command.
pub fn protections(fact: &Facts, now: Option<Timestamp>) -> Vec<Reason> {
    let pinned = match fact.pin {
        None => None,
        Some(Pin::Unreadable) => Some(Reason::PinUnreadable),
        Some(pin) => now.is_none_or(|now| pin.holds(now)).then_some(Reason::Pinned),
    };
    let building = matches!(fact.release, Some((_, State::Building)));
    let held = [
        (fact.current, Reason::Current),
        (fact.rollback_target, Reason::RollbackTarget),
        (fact.leased || building, Reason::Leased),
        (fact.in_use, Reason::InUse),
        (fact.unfinished, Reason::Unfinished),
        (fact.release.is_none(), Reason::Unrecognised),
    ];
    held.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)).chain(pinned).collect()
}

/// Why an unprotected release goes.
pub fn causes(fact: &Facts) -> Vec<Reason> {
    let cause = match fact.release {
        Some((_, State::Incomplete | State::Building)) => Reason::Incomplete,
        Some((_, State::Bad)) => Reason::Bad,
        _ => Reason::Surplus,
    };
    // A pin that is still there and did not protect has run out.
    fact.pin.map(|_| Reason::Expired).into_iter().chain([cause]).collect()
}

/// The names of the newest `keep` good releases. Failed and bad ones do not count.
fn newest_good(facts: &[Facts], keep: usize) -> Vec<&str> {
    let good = oldest_first(facts).into_iter().rev().map(|at| &facts[at]);
    let good = good.filter(|fact| matches!(fact.release, Some((_, State::Ready))));
    good.take(keep).map(|fact| fact.name.as_str()).collect()
}

/// The places of `facts` in the journal's order.
fn oldest_first(facts: &[Facts]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..facts.len()).collect();
    places.sort_unstable_by_key(|at| (facts[*at].sequence, *at));
    places
}

fn is_recent(fact: &Facts, keep_for: Option<Duration>, now: Option<Timestamp>) -> bool {
    match (keep_for, now, fact.created_at) {
        (None, ..) => false,
        (Some(span), Some(now), Some(created)) => now.since(created) < span,
        (Some(_), ..) => true,
    }
}

/// Gives up releases that are only among the newest, the oldest first, until `wanted` bytes more are freed.
fn free_more(facts: &[Facts], verdicts: &mut [Verdict], wanted: u64) {
    let going = facts.iter().zip(verdicts.iter()).filter(|(_, verdict)| verdict.remove);
    let mut freed: u64 = going.map(|(fact, _)| fact.bytes).sum();
    for at in oldest_first(facts) {
        let (fact, verdict) = (&facts[at], &mut verdicts[at]);
        if freed >= wanted {
            return;
        }
        if verdict.reasons != [Reason::AmongNewest] {
            continue;
        }
        verdict.remove = true;
        verdict.reasons = causes(fact);
        freed += fact.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::*;

    const MIB: u64 = 1 << 20;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn noon() -> Timestamp {
        at("2026-12-01_12.00")
    }

    /// A ready release that nothing protects, the `sequence`th, made in that minute of the day; one MiB.
    fn release(sequence: u64) -> Facts {
        let name = format!("R{sequence}");
        let (release, created_at) =
            (Some((name.parse().unwrap(), State::Ready)), noon().unix() - 3600 + 60 * sequence as i64);
        Facts {
            name,
            release,
            sequence,
            created_at: Timestamp::from_unix(created_at),
            bytes: MIB,
            current: false,
            rollback_target: false,
            pin: None,
            leased: false,
            in_use: false,
            unfinished: false,
        }
    }

    fn in_state(sequence: u64, state: State) -> Facts {
        let good = release(sequence);
        Facts { release: good.release.map(|(id, _)| (id, state)), ..good }
    }

    fn keep(keep: usize) -> Policy {
        Policy { keep, keep_for: None, wanted_bytes: 0 }
    }

    /// The one verdict on a release of which only `fact` is known.
    fn judged(fact: Facts, now: Option<Timestamp>) -> (bool, Vec<Reason>) {
        let verdict = decide(&[fact], keep(0), now).remove(0);
        (verdict.remove, verdict.reasons)
    }

    fn going(verdicts: &[Verdict]) -> Vec<&str> {
        verdicts.iter().filter(|verdict| verdict.remove).map(|verdict| verdict.name.as_str()).collect()
    }

    #[test]
    fn p08_each_protection_is_enough_by_itself() {
        let free = || release(1);
        let pin = |name: &str| Pin::of_name(name);
        let cases = [
            (Facts { current: true, ..free() }, Current),
            (Facts { rollback_target: true, ..free() }, RollbackTarget),
            (Facts { pin: pin("KEEP_UNTIL__2026-12-01_12.01"), ..free() }, Pinned),
            (Facts { pin: pin("KEEP_UNTIL__forever"), ..free() }, Pinned),
            (Facts { pin: pin("KEEP_UNTIL__next week"), ..free() }, PinUnreadable),
            (Facts { leased: true, ..free() }, Leased),
            (in_state(1, State::Building), Leased),
            (Facts { in_use: true, ..free() }, InUse),
            (Facts { unfinished: true, ..free() }, Unfinished),
            (Facts { release: None, ..free() }, Unrecognised),
        ];
        for (fact, reason) in cases {
            assert!(reason.protects());
            assert_eq!(protections(&fact, Some(noon())), [reason]);
            assert_eq!(judged(fact, Some(noon())), (false, vec![reason]));
        }
    }

    #[test]
    fn p10_what_goes_has_a_reason_too() {
        let ended = Pin::of_name("KEEP_UNTIL__2026-12-01_12.00");
        let cases = [
            (release(1), vec![Surplus]),
            (in_state(1, State::Bad), vec![Bad]),
            (in_state(1, State::Incomplete), vec![Incomplete]),
            (Facts { pin: ended, ..release(1) }, vec![Expired, Surplus]),
            (Facts { pin: ended, ..in_state(1, State::Bad) }, vec![Expired, Bad]),
        ];
        for (fact, reasons) in cases {
            assert!(reasons.iter().all(|reason| !reason.protects()));
            assert_eq!(judged(fact, Some(noon())), (true, reasons));
        }
    }

    #[test]
    fn p08_of_two_pins_the_later_counts() {
        let pins =
            ["KEEP_UNTIL__2026-11-01_00.00", "KEEP_UNTIL__2027-01-01_00.00"].map(|name| Pin::of_name(name).unwrap());
        let twice = Facts { pin: Pin::strongest(pins), ..release(1) };
        assert_eq!(judged(twice, Some(noon())), (false, vec![Pinned]));
    }

    #[test]
    fn failed_and_bad_releases_do_not_count_towards_keep() {
        let facts = [
            release(1),
            release(2),
            release(3),
            in_state(4, State::Bad),
            in_state(5, State::Incomplete),
            in_state(6, State::Incomplete),
        ];
        assert_eq!(going(&decide(&facts, keep(2), Some(noon()))), ["R1", "R4", "R5", "R6"]);
        assert_eq!(going(&decide(&facts, keep(3), Some(noon()))), ["R4", "R5", "R6"]);
        assert_eq!(going(&decide(&facts, keep(9), Some(noon()))), ["R4", "R5", "R6"]);
    }

    #[test]
    fn the_newest_are_those_that_the_journal_put_last() {
        let older_name = Facts { sequence: 9, ..release(1) };
        let facts = [release(3), older_name, release(2)];
        let verdicts = decide(&facts, keep(1), Some(noon()));
        assert_eq!(going(&verdicts), ["R3", "R2"], "neither by name nor by time, and told in the order of the facts");
        assert_eq!(verdicts[1].reasons, [AmongNewest]);
    }

    #[test]
    fn what_is_protected_still_counts_among_the_newest() {
        let facts = [release(1), release(2), Facts { current: true, ..release(3) }];
        let verdicts = decide(&facts, keep(2), Some(noon()));
        assert_eq!(going(&verdicts), ["R1"]);
        assert_eq!(verdicts[2].reasons, [Current, AmongNewest]);
    }

    #[test]
    fn p08_a_clock_that_cannot_be_trusted_ends_no_pin_and_makes_nothing_old() {
        let ended = Facts { pin: Pin::of_name("KEEP_UNTIL__2020-01-01_00.00"), ..release(1) };
        assert_eq!(judged(ended, None), (false, vec![Pinned]));
        let policy = Policy { keep_for: Some(Duration::from_secs(1)), ..keep(0) };
        assert_eq!(decide(&[release(1)], policy, None)[0].reasons, [Recent]);
        assert_eq!(judged(release(1), None), (true, vec![Surplus]), "what nothing but its number speaks against");
    }

    #[test]
    fn keep_for_keeps_what_is_younger_whatever_it_is() {
        let policy = |minutes: u64| Policy { keep_for: Some(Duration::from_secs(60 * minutes)), ..keep(0) };
        let undated = Facts { created_at: None, ..release(4) };
        let facts = [release(1), in_state(2, State::Incomplete), in_state(3, State::Bad), undated];
        assert_eq!(going(&decide(&facts, policy(58), Some(noon()))), ["R1", "R2"]);
        let recent = decide(&facts, policy(60), Some(noon()));
        assert!(recent.iter().all(|verdict| verdict.reasons == [Recent]), "{recent:?}");
    }

    #[test]
    fn min_free_gives_up_the_oldest_of_the_newest_and_no_more_than_it_must() {
        let current = Facts { current: true, ..release(5) };
        let facts = [release(1), release(2), release(3), release(4), current];
        let gone = |wanted_bytes| {
            let verdicts = decide(&facts, Policy { wanted_bytes, ..keep(4) }, Some(noon()));
            going(&verdicts).join(" ")
        };
        assert_eq!(gone(0), "R1");
        assert_eq!(gone(MIB), "R1", "what goes anyway is enough");
        assert_eq!(gone(MIB + 1), "R1 R2");
        assert_eq!(gone(3 * MIB), "R1 R2 R3");
        assert_eq!(gone(u64::MAX), "R1 R2 R3 R4", "what is live stays, however much is wanted");
    }
}

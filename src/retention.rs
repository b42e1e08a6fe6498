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
    /// A rollback would go to it.
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
fn causes(fact: &Facts) -> Vec<Reason> {
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
    let mut good: Vec<&Facts> = facts.iter().filter(|f| matches!(f.release, Some((_, State::Ready)))).collect();
    good.sort_by_key(|fact| std::cmp::Reverse(fact.sequence));
    good.into_iter().take(keep).map(|fact| fact.name.as_str()).collect()
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
    let mut spare: Vec<(&Facts, &mut Verdict)> = facts.iter().zip(verdicts).collect();
    spare.retain(|(_, verdict)| verdict.reasons == [Reason::AmongNewest]);
    spare.sort_by_key(|(fact, _)| fact.sequence);
    for (fact, verdict) in spare {
        if freed >= wanted {
            return;
        }
        verdict.remove = true;
        verdict.reasons = causes(fact);
        freed += fact.bytes;
    }
}

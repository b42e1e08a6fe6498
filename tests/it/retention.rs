//! What is decided before anything is touched, for any tree whatever.

use proptest::prelude::*;
use releasectl::clock::Timestamp;
use releasectl::pin::Pin;
use releasectl::release::State;
use releasectl::retention::{Facts, Policy, Reason, Verdict, decide, protections};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const NOW: &str = "2026-12-01T12:00:00Z";

/// One entry as chance has it: state, the four things that may hold it, pin, size.
type Lot = (Option<State>, [bool; 4], Option<&'static str>, u64);

fn lot() -> impl Strategy<Value = Lot> {
    let states = [Some(State::Ready), Some(State::Bad), Some(State::Incomplete), Some(State::Building), None];
    let pins = ["2020-01-01_00.00", "2030-01-01_00.00", "forever", "soon"];
    let state = prop_oneof![4 => Just(Some(State::Ready)), 3 => prop::sample::select(states.to_vec())];
    let held = prop_oneof![3 => Just([false; 4]), 1 => any::<[bool; 4]>()];
    let pin = prop::option::weighted(0.2, prop::sample::select(pins.to_vec()));
    (state, held, pin, 0..4_u64)
}

fn facts_of(lots: Vec<Lot>, current: usize, target: usize) -> Vec<Facts> {
    let now = Timestamp::parse(NOW).unwrap().unix();
    let one = |(at, (state, [leased, in_use, unfinished, undated], pin, mib)): (usize, Lot)| {
        let name = format!("R{at}");
        let made = Timestamp::from_unix(now - 7200 + 60 * i64::try_from(at).unwrap());
        Facts {
            release: state.map(|state| (name.parse().unwrap(), state)),
            name,
            sequence: at as u64 + 1,
            created_at: made.filter(|_| !undated),
            bytes: mib * MIB,
            current: at == current,
            rollback_target: at == target && at != current,
            pin: pin.and_then(|until| Pin::of_name(&format!("KEEP_UNTIL__{until}"))),
            leased,
            in_use,
            unfinished,
        }
    };
    lots.into_iter().enumerate().map(one).collect()
}

fn stay(facts: &[Facts], verdicts: &[Verdict]) -> Vec<Facts> {
    let both = facts.iter().zip(verdicts);
    both.filter(|(_, verdict)| !verdict.remove).map(|(fact, _)| fact.clone()).collect()
}

proptest! {
    #[test]
    fn p08_whatever_the_tree_what_is_needed_stays_and_a_second_time_nothing_more_goes(
        lots in prop::collection::vec(lot(), 0..14),
        current in 0..14_usize,
        target in 0..14_usize,
        keep in 0..6_usize,
        keep_for in prop::option::of(0..9000_u64),
        wanted in 0..20_u64,
        trusted in any::<bool>(),
    ) {
        let facts = facts_of(lots, current, target);
        let policy = Policy { keep, keep_for: keep_for.map(Duration::from_secs), wanted_bytes: wanted * MIB };
        let now = Timestamp::parse(NOW).filter(|_| trusted);
        let verdicts = decide(&facts, policy, now);
        prop_assert_eq!(verdicts.len(), facts.len());
        for (fact, verdict) in facts.iter().zip(&verdicts) {
            prop_assert_eq!(&fact.name, &verdict.name);
            prop_assert!(!verdict.reasons.is_empty());
            let keeps = |reason: &Reason| reason.protects() || matches!(reason, Reason::AmongNewest | Reason::Recent);
            prop_assert_eq!(verdict.reasons.iter().any(keeps), !verdict.remove, "{:?}", verdict);
            prop_assert_eq!(verdict.remove && !protections(fact, now).is_empty(), false);
            prop_assert_eq!(verdict.remove && (fact.current || fact.rollback_target), false);
        }
        let left = stay(&facts, &verdicts);
        let freed = facts.iter().map(|fact| fact.bytes).sum::<u64>() - left.iter().map(|fact| fact.bytes).sum::<u64>();
        let again = decide(&left, Policy { wanted_bytes: policy.wanted_bytes.saturating_sub(freed), ..policy }, now);
        prop_assert_eq!(stay(&left, &again).len(), left.len());
    }
}

//! Deployer: numbered releases, a line in `.dep/releases_log` for each deploy that began, `BAD_RELEASE` in one that was
//! rolled back from, a link `release` to one under way or failed. Its rollback goes to the entry before the live one that
//! is not bad. That a deploy failed is nowhere on record once the next one has begun; a release without the `REVISION`
//! that others have failed before its code was there.

use super::{Condition, Mark, Reading, Remains, Remnant, Told};
use crate::clock::Timestamp;
use crate::release::ReleaseId;
use serde_json::Value;

const DOUBT: &str = "Deployer's log does not tell a failed deploy from a good one: look at the rollback target before \
                     you need it, and activate or remove what is not what it should be";

pub(super) fn read(remains: &Remains) -> Reading {
    let log = entries(remains.releases_log.as_deref().unwrap_or_default());
    let logged = |id: &ReleaseId| log.iter().any(|(name, _)| name == id);
    let marked = remains.has(Mark::Revision);
    let condition = |remnant: &Remnant| {
        if remnant.marks.contains(&Mark::Bad) {
            Condition::Bad("Deployer rolled back from it")
        } else if remains.under_way.as_ref() == Some(&remnant.id) {
            Condition::Incomplete("the link `release` leads to it: its deploy did not come to its end")
        } else if !logged(&remnant.id) {
            Condition::Incomplete("it is not in .dep/releases_log")
        } else if marked && !remnant.marks.contains(&Mark::Revision) {
            Condition::Incomplete("it has no REVISION")
        } else {
            Condition::Ready
        }
    };
    let is_release =
        |id: &ReleaseId| logged(id) || remains.is_live(id) || id.as_str().bytes().all(|byte| byte.is_ascii_digit());
    // The log's order first; what it does not name comes before it all.
    let place = |remnant: &&Remnant| log.iter().rposition(|(name, _)| *name == remnant.id);
    let mut order: Vec<&Remnant> = remains.in_order().into_iter().filter(|r| is_release(&r.id)).collect();
    order.sort_by_key(place);
    let told = |remnant: &Remnant| {
        let at = log.iter().rev().find(|(name, _)| *name == remnant.id).and_then(|(_, at)| *at);
        let told = Told::new(&remnant.id, condition(remnant));
        Told { created_at: at.or(told.created_at), ..told }
    };
    let mut history: Vec<ReleaseId> = log.iter().map(|(name, _)| name.clone()).collect();
    match history.iter().rposition(|id| remains.is_live(id)) {
        Some(at) => history.truncate(at),
        None => history.retain(|_| remains.live.is_some()),
    }
    let doubt = (!history.is_empty()).then_some(DOUBT);
    Reading { releases: order.into_iter().map(told).collect(), history, doubt }
}

/// The releases of the log and when they were begun, first to last.
fn entries(text: &str) -> Vec<(ReleaseId, Option<Timestamp>)> {
    text.lines().filter_map(|line| of_today(line).or_else(|| of_old(line))).collect()
}

/// A line of version 7: `{"created_at":"2026-11-22T23:40:17+0000","release_name":"12",…}`.
fn of_today(line: &str) -> Option<(ReleaseId, Option<Timestamp>)> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let name = match entry.get("release_name")? {
        Value::String(name) => name.clone(),
        name => name.as_u64()?.to_string(),
    };
    let at = entry.get("created_at").and_then(Value::as_str);
    let at = at.and_then(|at| Timestamp::parse(at).or_else(|| Timestamp::parse(&at.replace("+0000", "Z"))));
    Some((name.parse().ok()?, at))
}

/// A line of version 6: `20261122234017,12`.
fn of_old(line: &str) -> Option<(ReleaseId, Option<Timestamp>)> {
    let (stamp, name) = line.split_once(',')?;
    let at = stamp.parse().ok().and_then(|stamp| super::moment_of(&stamp));
    Some((name.trim().parse().ok()?, at))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{remains, told};
    use super::super::{Remains, account};

    fn with_log(releases: &[&str], names: &[&str]) -> Remains {
        let line = |name: &&str| {
            format!("{{\"created_at\":\"2026-11-22T23:40:17+0000\",\"release_name\":\"{name}\",\"user\":\"me\"}}\n")
        };
        Remains { releases_log: Some(names.iter().map(line).collect()), ..remains(releases) }
    }

    #[test]
    fn the_entry_before_the_live_one_that_is_not_bad() {
        let remains = with_log(&["8", "9", "10 bad", "11 *"], &["8", "9", "10", "11"]);
        assert_eq!(told(&remains), ("8 9 10! 11".into(), "9 8".into()));
        let at = account(&remains).releases[0].created_at.unwrap();
        assert_eq!(at.to_string(), "2026-11-22T23:40:17Z");
    }

    #[test]
    fn what_is_under_way_or_in_no_log_is_incomplete() {
        let mut remains = with_log(&["7", "9", "10 *", "11", "assets"], &["9", "10", "11"]);
        remains.under_way = Some("11".parse().unwrap());
        assert_eq!(told(&remains), ("7? 9 10 11?".into(), "9".into()));
    }

    #[test]
    fn a_release_whose_code_never_came_is_passed_by() {
        let remains = with_log(&["1 revision", "2", "3 revision *"], &["1", "2", "3"]);
        assert_eq!(told(&remains), ("1 2? 3".into(), "1".into()));
    }

    #[test]
    fn what_came_after_the_live_one_is_no_way_back() {
        let remains = with_log(&["1", "2 *", "3"], &["1", "2", "3"]);
        assert_eq!(told(&remains), ("1 2 3".into(), "1".into()));
    }

    #[test]
    fn the_log_of_older_versions_is_read_too() {
        let log = Some("20261121100000,1\n20261122234017,2\n".to_owned());
        let remains = Remains { releases_log: log, ..remains(&["1", "2 *"]) };
        assert_eq!(told(&remains), ("1 2".into(), "1".into()));
        assert_eq!(account(&remains).releases[1].created_at.unwrap().to_string(), "2026-11-22T23:40:17Z");
    }
}

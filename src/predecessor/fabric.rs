//! Fabric's tasks and commcare-cloud's playbooks: `releases/<YYYY-MM-DD_HH.MM>`, `RELEASES.txt` to which the path of a
//! release is appended once it is live and its services are restarted, `.build-complete` in a release built to its end.
//!
//! A rollback of theirs goes to the line before the last, whatever is live. A deploy that failed after the flip left no
//! line, so that would pass the last good release by: here what is live is asked first.

use super::{Condition, Mark, Reading, Remains, Remnant, Told, ledger};
use crate::release::ReleaseId;

pub(super) fn read(remains: &Remains) -> Reading {
    let listed = ledger::listed(remains.releases_txt.as_deref().unwrap_or_default());
    let marked = remains.has(Mark::BuildComplete);
    let condition = |remnant: &Remnant| {
        if listed.contains(&remnant.id) || remnant.marks.contains(&Mark::BuildComplete) {
            Condition::Ready
        } else if marked {
            Condition::Incomplete("it has no .build-complete and is not in RELEASES.txt")
        } else {
            Condition::Incomplete("it is not in RELEASES.txt")
        }
    };
    // Other directories, commcare-cloud's git_mirrors among them, are no releases.
    let is_release = |id: &ReleaseId| id.is_dated() || listed.contains(id) || remains.is_live(id);
    let order = remains.in_order().into_iter().filter(|remnant| is_release(&remnant.id));
    let releases: Vec<Told> = order.map(|remnant| Told::new(&remnant.id, condition(remnant))).collect();
    let history = match (&remains.releases_txt, &remains.live) {
        (None, live) => {
            let older = |told: &&Told| live.as_ref().is_some_and(|live| told.id < *live);
            releases.iter().filter(older).map(|told| told.id.clone()).collect()
        }
        // What stands behind the live one was gone back from by hand.
        (Some(_), Some(live)) => match listed.iter().rposition(|id| id == live) {
            Some(at) => listed[..at].to_vec(),
            None => listed,
        },
        (Some(_), None) => listed,
    };
    Reading { releases, history, doubt: None }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{remains, told};
    use super::super::{Remains, Tool, account};

    const OLD: [&str; 4] = ["2026-11-01_10.00", "2026-11-02_10.00", "2026-11-03_10.00 *", "2026-11-04_10.00"];

    fn with_list(releases: &[&str], days: &[u8]) -> Remains {
        let lines: String = days.iter().map(|day| format!("/srv/releases/2026-11-0{day}_10.00\n")).collect();
        Remains { releases_txt: Some(lines), ..remains(releases) }
    }

    #[test]
    fn the_line_before_the_live_one_is_gone_back_to() {
        let (releases, back) = told(&with_list(&OLD, &[1, 2, 3]));
        assert_eq!(releases, "2026-11-01_10.00 2026-11-02_10.00 2026-11-03_10.00 2026-11-04_10.00?");
        assert_eq!(back, "2026-11-02_10.00 2026-11-01_10.00");
    }

    #[test]
    fn a_live_release_that_was_never_listed_does_not_hide_the_last_good_one() {
        assert_eq!(told(&with_list(&OLD, &[1, 2])).1, "2026-11-02_10.00 2026-11-01_10.00");
    }

    #[test]
    fn what_stands_behind_the_live_one_and_what_is_gone_are_no_way_back() {
        let moved = ["2026-11-01_10.00", "2026-11-02_10.00 *", "2026-11-03_10.00"];
        assert_eq!(told(&with_list(&moved, &[1, 9, 2, 3])).1, "2026-11-01_10.00");
        assert_eq!(told(&with_list(&["2026-11-03_10.00 *"], &[1, 2, 3])).1, "");
    }

    #[test]
    fn a_build_that_is_marked_complete_is_good_and_was_never_live() {
        let marked =
            ["2026-11-01_10.00", "2026-11-02_10.00 complete", "2026-11-03_10.00 complete *", "2026-11-04_10.00"];
        let remains = with_list(&marked, &[1, 3]);
        assert_eq!(told(&remains).0, "2026-11-01_10.00 2026-11-02_10.00 2026-11-03_10.00 2026-11-04_10.00?");
        assert_eq!(told(&remains).1, "2026-11-01_10.00");
        assert_eq!(account(&remains).tool, Some(Tool::Fabric));
    }

    #[test]
    fn without_a_list_the_marked_ones_were_live_by_their_names() {
        let remains = remains(&["git_mirrors", "2026-11-02_10.00 complete", "2026-11-01_10.00", "2026-11-03_10.00 *"]);
        assert_eq!(told(&remains).0, "2026-11-01_10.00? 2026-11-02_10.00 2026-11-03_10.00");
        assert_eq!(told(&remains).1, "2026-11-02_10.00");
    }
}

//! Ansistrano and Ansible's deploy_helper: releases named by their second, a link `current`, and no record of what was
//! live but the modification times, which are none. deploy_helper marks what is not finished; of Ansistrano's, what is
//! newer than the live one never went live, or was rolled back from and kept.

use super::{Mark, Reading, Remains, Remnant, by_name};

const DOUBT: &str = "Ansistrano keeps no record of what was live: what is older than the live release counts as good";

pub(super) fn read(remains: &Remains) -> Reading {
    let unfinished = |remnant: &Remnant| {
        if remnant.marks.contains(&Mark::Unfinished) {
            return Some("it is marked DEPLOY_UNFINISHED");
        }
        let above = remains.live.as_ref().is_some_and(|live| by_name(&remnant.id, live).is_gt());
        above.then_some("it is newer than the live one")
    };
    Reading { doubt: Some(DOUBT), ..remains.by_names(unfinished) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{remains, told};
    use super::super::{Tool, account};

    #[test]
    fn names_are_the_order_and_marks_the_truth() {
        let tree = remains(&["20261101100000Z", "20261102100000Z unfinished", "20261103100000Z *", "20261104100000Z"]);
        assert_eq!(account(&tree).tool, Some(Tool::Ansistrano));
        let (releases, back) = told(&tree);
        assert_eq!(releases, "20261101100000Z 20261102100000Z? 20261103100000Z 20261104100000Z?");
        assert_eq!(back, "20261101100000Z");
    }
}

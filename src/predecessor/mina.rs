//! Mina: numbered releases, moved into `releases/` when their build begins there, and `last_version`, which older versions
//! write once a deploy is over. Its rollback goes to the second highest number and deletes the highest, even where that
//! is the only one. A number above the live one and `last_version` was cut off before it went live.

use super::{Reading, Remains, Remnant, by_name};
use crate::release::ReleaseId;

const DOUBT: &str = "Mina keeps no record of what was live: what is older than the live release counts as good";

pub(super) fn read(remains: &Remains) -> Reading {
    let last: Option<ReleaseId> = remains.last_version.as_deref().and_then(|text| text.trim().parse().ok());
    let newest = [&remains.live, &last].into_iter().flatten().max_by(|a, b| by_name(a, b));
    let unfinished = |remnant: &Remnant| {
        let above = newest.is_some_and(|newest| by_name(&remnant.id, newest).is_gt());
        above.then_some("it is newer than the last that went live")
    };
    Reading { doubt: Some(DOUBT), ..remains.by_names(unfinished) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{remains, told};
    use super::super::{Remains, Tool, account};

    #[test]
    fn numbers_are_numbers() {
        let tree = remains(&["9", "10 *", "8", "11"]);
        assert_eq!(account(&tree).tool, Some(Tool::Mina));
        assert_eq!(told(&tree), ("8 9 10 11?".into(), "9 8".into()));
    }

    #[test]
    fn what_went_live_and_was_left_by_hand_is_good() {
        let tree = Remains { last_version: Some("11\n".into()), ..remains(&["9", "10 *", "11", "12"]) };
        assert_eq!(told(&tree), ("9 10 11 12?".into(), "9".into()));
    }

    #[test]
    fn the_only_release_has_no_way_back() {
        assert_eq!(told(&remains(&["1 *"])).1, "");
    }
}

//! Capistrano: `releases/<14 digits>`, and a line in `revisions.log` for each release that was deployed or rolled back
//! to. Its own rollback takes the second newest directory by modification time, which any write into an older release
//! changes; the log is what happened. The line is written last, so a failed restart leaves the live release without one.

use super::{Condition, Mark, Reading, Remains, Remnant, Told, by_name, is_stamp};
use crate::release::ReleaseId;
use std::collections::HashSet;

/// What the log tells.
#[derive(Default)]
struct Log {
    /// Those that were live in turn, without what was gone back from.
    history: Vec<ReleaseId>,
    /// All that were ever live.
    seen: HashSet<ReleaseId>,
    /// Those that were gone back from and never deployed again.
    left: HashSet<ReleaseId>,
}

pub(super) fn read(remains: &Remains) -> Reading {
    let log = remains.revisions_log.as_deref().unwrap_or_default().lines().fold(Log::default(), Log::line);
    let first = log.seen.iter().min_by(|a, b| by_name(a, b));
    // The log may have been begun, or cut, after the first releases.
    let before_the_log = |id: &ReleaseId| first.is_some_and(|first| by_name(id, first).is_lt());
    let marked = remains.has(Mark::Revision);
    let condition = |remnant: &Remnant| {
        if log.left.contains(&remnant.id) {
            Condition::Bad("Capistrano rolled back from it")
        } else if log.seen.contains(&remnant.id) {
            Condition::Ready
        } else if !before_the_log(&remnant.id) {
            Condition::Incomplete("it is not in revisions.log")
        } else if marked && !remnant.marks.contains(&Mark::Revision) {
            Condition::Incomplete("it has no REVISION")
        } else {
            Condition::Ready
        }
    };
    let is_release = |id: &ReleaseId| is_stamp(id.as_str()) || log.seen.contains(id) || remains.is_live(id);
    let order = remains.in_order().into_iter().filter(|remnant| is_release(&remnant.id));
    let releases: Vec<Told> = order.map(|remnant| Told::new(&remnant.id, condition(remnant))).collect();
    let older = releases.iter().map(|told| told.id.clone()).filter(before_the_log);
    let mut history: Vec<ReleaseId> = older.chain(log.history).collect();
    if let Some(at) = history.iter().rposition(|id| remains.is_live(id)) {
        history.truncate(at);
    }
    Reading { releases, history, doubt: None }
}

impl Log {
    fn line(mut self, line: &str) -> Self {
        let after = |words: &str| line.split_once(words)?.1.split_whitespace().next()?.parse::<ReleaseId>().ok();
        if let Some(to) = after("rolled back to release ") {
            if let Some(at) = self.history.iter().rposition(|id| *id == to) {
                self.left.extend(self.history.drain(at + 1..));
            } else {
                self.left.extend(self.history.pop());
                self.history.push(to.clone());
            }
            self.left.remove(&to);
            self.seen.insert(to);
        } else if let Some(to) = after("deployed as release ").or_else(|| stamp_in(line)) {
            self.left.remove(&to);
            self.seen.insert(to.clone());
            self.history.push(to);
        }
        self
    }
}

/// The release in a line whose wording was changed.
fn stamp_in(line: &str) -> Option<ReleaseId> {
    line.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| is_stamp(word))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Remains;
    use super::super::tests::{remains, told};

    fn id(day: u8) -> String {
        format!("202611{day:02}100000")
    }

    /// Releases of these days with these marks, and a log: `+3` for a deploy, `-2` for a rollback to the 2nd.
    fn tree(releases: &[(u8, &str)], log: &[&str]) -> Remains {
        let names: Vec<String> = releases.iter().map(|(day, marks)| format!("{} {marks}", id(*day))).collect();
        let line = |word: &&str| match word.split_at(1) {
            ("+", day) => {
                format!("Branch master (at 1a2b3c4) deployed as release {} by me\n", id(day.parse().unwrap()))
            }
            (_, day) => format!("me rolled back to release {}\n", id(day.parse().unwrap())),
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Remains { revisions_log: Some(log.iter().map(line).collect()), ..remains(&names) }
    }

    fn days(text: &str) -> String {
        text.replace("202611", "").replace("100000", "")
    }

    fn read(releases: &[(u8, &str)], log: &[&str]) -> (String, String) {
        let (releases, back) = told(&tree(releases, log));
        (days(&releases), days(&back))
    }

    #[test]
    fn the_log_says_what_was_live_before() {
        let told = read(&[(1, ""), (2, ""), (3, "*"), (4, "")], &["+1", "+2", "+3"]);
        assert_eq!(told, ("01 02 03 04?".into(), "02 01".into()));
    }

    #[test]
    fn what_was_rolled_back_from_is_bad_and_no_way_back() {
        let told = read(&[(1, ""), (2, "*"), (3, "")], &["+1", "+2", "+3", "-2"]);
        assert_eq!(told, ("01 02 03!".into(), "01".into()));
        let told = read(&[(1, ""), (2, ""), (3, ""), (4, "*")], &["+1", "+2", "+3", "-2", "+4"]);
        assert_eq!(told, ("01 02 03! 04".into(), "02 01".into()));
    }

    #[test]
    fn a_live_release_without_a_line_and_a_log_that_was_cut() {
        assert_eq!(read(&[(1, ""), (2, ""), (3, "*")], &["+1", "+2"]).1, "02 01", "its restart failed");
        let told = read(&[(1, "revision"), (2, ""), (3, "revision"), (4, "revision *")], &["+3", "+4"]);
        assert_eq!(told, ("01 02? 03 04".into(), "03 01".into()));
    }

    #[test]
    fn a_line_in_other_words_still_names_its_release() {
        let mut tree = tree(&[(1, ""), (2, "*")], &[]);
        tree.revisions_log = Some(format!("[ok] {} by ci\nhello\n[ok] {} by ci\n", id(1), id(2)));
        assert_eq!(days(&told(&tree).1), "01");
    }
}

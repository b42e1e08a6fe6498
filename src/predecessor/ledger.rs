//! `RELEASES.txt`, in which Fabric's tasks append the path of each release that went live, and from which a rollback
//! takes the last line away: what a release is, and what it is to say so that it is true.

use crate::release::ReleaseId;
use std::path::Path;

/// The releases it names, first to last.
pub fn listed(text: &str) -> Vec<ReleaseId> {
    text.lines().filter_map(named).collect()
}

/// The release that a line names: by its path, or by its name alone.
fn named(line: &str) -> Option<ReleaseId> {
    line.trim().trim_end_matches('/').rsplit('/').next()?.parse().ok()
}

/// What it is to say: the releases of `before`, oldest first and the live one last, at its end, so that its last two
/// lines are what is live and where a rollback goes; before them the others that it named and that `stays` holds for.
/// Lines keep their spelling, and what names no release its place. New ones are spelt as the last one is, a path in
/// `releases` if there is none.
pub fn kept_true(text: &str, releases: &Path, stays: &dyn Fn(&ReleaseId) -> bool, before: &[ReleaseId]) -> String {
    let goes_last = |id: &ReleaseId| before.contains(id);
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| named(line).is_none_or(|id| stays(&id) && !goes_last(&id)))
        .map(str::to_owned)
        .collect();
    let spelling = |id: &ReleaseId| text.lines().rev().find(|line| named(line).as_ref() == Some(id)).map(str::to_owned);
    let prefix = match text.lines().rev().find(|line| named(line).is_some()) {
        Some(line) => line.trim().trim_end_matches('/').rsplit_once('/').map_or("", |(above, _)| above).to_owned(),
        None => releases.display().to_string(),
    };
    let made = |id: &ReleaseId| if prefix.is_empty() { id.to_string() } else { format!("{prefix}/{id}") };
    lines.extend(before.iter().map(|id| spelling(id).unwrap_or_else(|| made(id))));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &str) -> Vec<ReleaseId> {
        names.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    fn kept(text: &str, gone: &str, before: &str) -> String {
        let gone = ids(gone);
        kept_true(text, Path::new("/srv/releases"), &|id| !gone.contains(id), &ids(before))
    }

    #[test]
    fn a_line_is_a_path_or_a_name() {
        assert_eq!(listed("/x/releases/A\nB\n\n # no\n/x/releases/C/\n../\n"), ids("A B C"));
    }

    #[test]
    fn its_end_is_what_is_live_and_what_was_before() {
        assert_eq!(kept("/r/A\n/r/B\n", "", "A B"), "/r/A\n/r/B\n", "it is true already");
        assert_eq!(kept("/r/A\n/r/B\n", "", "A B C"), "/r/A\n/r/B\n/r/C\n", "C went live");
        assert_eq!(kept("/r/A\n/r/B\n/r/C\n", "C", "A B"), "/r/A\n/r/B\n", "C was rolled back from");
        assert_eq!(kept("/r/A\n/r/B\n/r/C\n", "", "B C A"), "/r/B\n/r/C\n/r/A\n", "A went live again");
        assert_eq!(kept("/r/A\n/r/B\n/r/C\n", "A", "B C"), "/r/B\n/r/C\n", "A was removed");
        assert_eq!(kept("# ours\nA\nX\n", "", "A B"), "# ours\nX\nA\nB\n", "spellings and strange lines stay");
        assert_eq!(kept("", "", "A"), "/srv/releases/A\n", "the first");
        let once = kept("/r/A\n/r/A\n/r/B\n/r/A\n", "", "B A");
        assert_eq!(once, "/r/B\n/r/A\n");
        assert_eq!(kept(&once, "", "B A"), once);
    }
}

//! Killed before any of its system calls, a command leaves a tree whose `current` is whole, in which the next command
//! works, whose history agrees, and in which `clean` leaves nothing behind.

use crate::checker::Checker;
use crate::states::{Start, State};
use crate::trace::{self, Point};
use std::io::Write;

/// Of the calls that change nothing, one in so many is a point too, by default.
const STRIDE: usize = 25;

/// Kills `command` (made from a state) everywhere in each of `states`, and prints how many states were seen, which must
/// be at least `floor`.
#[track_caller]
fn killed_everywhere(verb: &str, states: &[State], command: fn(&Start) -> Vec<String>, floor: usize) {
    let (mut seen, mut complaints) = (0, Vec::new());
    for state in states {
        let start = Start::new(*state);
        let (points, more) = killed_from(&start, &command(&start));
        seen += points;
        complaints.extend(more.into_iter().map(|complaint| format!("{verb} from {state:?}: {complaint}")));
    }
    let _ = writeln!(std::io::stderr(), "kill: {verb}: {seen} states seen, {} complaints", complaints.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(seen >= floor, "{verb}: only {seen} states were seen, not {floor}");
}

/// How many points were taken from `start`, and the complaints.
fn killed_from(start: &Start, arguments: &[String]) -> (usize, Vec<String>) {
    let tree = start.copy();
    let before = tree.live();
    let (calls, _) = trace::calls(&tree, arguments);
    let allowed = [before, tree.live()];
    let (mut points, others) = trace::points(&calls, &tree);
    points.extend(trace::sample(&others, STRIDE));
    let complaints = trace::each(&points, |at, point| {
        let found = killed_at(start, arguments, point, at, &allowed);
        found.into_iter().map(|complaint| format!("before {}: {complaint}", point.does)).collect()
    });
    (points.len(), complaints)
}

fn killed_at(start: &Start, arguments: &[String], point: &Point, at: usize, allowed: &[Option<String>]) -> Vec<String> {
    let tree = start.copy();
    let output = trace::inject(&tree, point, "signal=SIGKILL", false, arguments).output().unwrap();
    let mut checker = Checker::new(&tree);
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    checker.must(killed, || format!("it was not killed but ended with {:?}", output.status));
    checker.current_is_one_of(allowed);
    if at.is_multiple_of(2) {
        // Whoever lost the connection repeats the command; what it may be refused for it says.
        checker.ends(&[0, 3], arguments);
        let live = tree.live();
        checker.everything(&[live]);
    } else {
        checker.everything(allowed);
    }
    checker.complaints()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn p01_an_activation_killed_at_any_call() {
    use State::*;
    let states = [One, Three, Trash, UnfinishedBuild, Staged, Flipped, Torn];
    killed_everywhere("activate", &states, |_| words(&["activate", "A"]), 70);
}

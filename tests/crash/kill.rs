//! Killed before any of its system calls, a command leaves a tree whose `current` is whole, in which the next command
//! works, whose history agrees, and in which `clean` leaves nothing behind.

use crate::checker::Checker;
use crate::sandbox::{self, Answer};
use crate::states::{Start, State};
use crate::trace::{self, Point};
use crate::verbs::{self, Verb};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of the calls that change nothing, one in so many is a point too, by default.
const STRIDE: usize = 40;

/// Kills `verb` everywhere from each of its states, and prints how many states were seen, which must be at least `floor`.
#[track_caller]
fn killed_everywhere(verb: &Verb, floor: usize) {
    let (mut seen, mut complaints) = (Seen::default(), Vec::new());
    for state in verb.states {
        let start = Start::new(*state);
        let more = killed_from(&start, verb, &mut seen);
        complaints.extend(more.into_iter().map(|complaint| format!("from {state:?} {complaint}")));
    }
    tell(verb.name, seen, floor, &complaints);
}

/// How many states were seen.
#[derive(Default)]
struct Seen {
    /// Before a call that changes something.
    changing: usize,
    /// Before another.
    others: usize,
}

#[track_caller]
fn tell(what: &str, Seen { changing, others }: Seen, floor: usize, complaints: &[String]) {
    let all = changing + others;
    let told =
        format!("kill: {what}: {all} states, {changing} of them before a change; {} complaints", complaints.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    assert!(complaints.is_empty(), "{what}:\n{}", complaints.join("\n"));
    assert!(changing >= floor, "{told}; there were {floor}");
}

/// Kills `verb` everywhere from `start`. Returns the complaints.
fn killed_from(start: &Start, verb: &Verb, seen: &mut Seen) -> Vec<String> {
    let tree = start.copy();
    let before = tree.live();
    let (calls, answer) = trace::aside(|| trace::calls(&tree, &(verb.words)(start, &tree)));
    assert!([0, 3].contains(&answer.code), "{}", answer.stderr);
    let allowed = [before, tree.live()];
    let (mut points, others) = trace::points(&calls, &tree);
    let changing = points.len();
    points.extend(trace::sample(&others, STRIDE));
    let missed = AtomicUsize::new(0);
    let complaints = trace::each(&points, |at, point| {
        // Whoever lost the connection repeats the command, or somebody does something else; by default a half of each.
        let ways = if trace::full() { &[true, false][..] } else { &[at.is_multiple_of(2)] };
        let ends = ways.iter().map(|repeated| killed_at(start, verb, point, *repeated, &allowed));
        let (killed, found) = ends.fold((true, Vec::new()), |(all, mut complaints), (killed, found)| {
            complaints.extend(found);
            (all && killed, complaints)
        });
        missed.fetch_add(usize::from(!killed && at >= changing), Ordering::Relaxed);
        // How often somebody looks or waits may differ from run to run; what is changed does not.
        let found = if killed || at < changing { found } else { Vec::new() };
        found.into_iter().map(|complaint| format!("before {}: {complaint}", point.does)).collect()
    });
    seen.changing += changing;
    seen.others += points.len() - changing - missed.into_inner();
    complaints
}

/// Whether it was killed there, and the complaints.
fn killed_at(
    start: &Start,
    verb: &Verb,
    point: &Point,
    repeated: bool,
    allowed: &[Option<String>],
) -> (bool, Vec<String>) {
    let tree = start.copy();
    let arguments = (verb.words)(start, &tree);
    let mut checker = Checker::new(&tree);
    let killed = kill(&mut checker, point, &arguments);
    checker.current_is_one_of(allowed);
    if verb.name == verbs::WIRE.name {
        wired(&mut checker, &arguments);
    } else if verb.name == verbs::WIRE_COPY.name {
        copied(&mut checker, &arguments);
    }
    if repeated {
        let refusable = (verb.is_refused)(&tree);
        checker.ends(if refusable { &[0, 3] } else { &[0] }, &arguments);
        for (path, _) in sandbox::picture(&tree.at(".releasectl/mirror")) {
            let cut_off = path.extension().is_some_and(|end| end == "lock") || path.to_str().unwrap().contains("/tmp_");
            checker.must(!cut_off, || format!("git's {} is left", path.display()));
        }
        let live = tree.live();
        checker.everything(&[live]);
    } else {
        checker.everything(allowed);
    }
    (killed, checker.complaints())
}

/// supervisord's file is whole, as it was or as it is to be, and after the command is repeated it is alone.
pub fn wired(checker: &mut Checker<'_>, arguments: &[String]) {
    let etc = verbs::etc(checker.tree());
    let include = format!("{}/current/services/supervisor/*.conf", checker.tree().root().display());
    let read = || fs::read_to_string(etc.join("supervisord.conf")).unwrap_or_default();
    let whole = read() == verbs::UNWIRED || read().starts_with(verbs::UNWIRED) && read().contains(&include);
    checker.must(whole, || format!("supervisord.conf is torn: {}", read()));
    checker.works(arguments);
    checker.must(read().contains(&include), || format!("repeated, it does not wire: {}", read()));
    let names: Vec<_> = etc.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    checker.must(names == ["supervisord.conf"], || format!("left beside supervisord.conf: {names:?}"));
}

/// Each copy is whole, as it was or as it is to be, and after the command is repeated they are what the live release has,
/// beside what is another's.
fn copied(checker: &mut Checker<'_>, arguments: &[String]) {
    let copies = verbs::etc(checker.tree()).join("conf.d");
    let read = || -> BTreeMap<String, String> {
        let entries = copies.read_dir().unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect()
    };
    for (name, text) in read().into_iter().filter(|(name, _)| !name.starts_with('.')) {
        let whole = ["old", "a.conf", "b.conf"].iter().any(|program| text == verbs::program(program));
        checker.must(whole, || format!("{name} is torn: {text}"));
    }
    checker.works(arguments);
    let wanted = [("other.conf", "old"), ("releasectl-host@a.conf", "a.conf"), ("releasectl-host@b.conf", "b.conf")];
    let wanted = wanted.map(|(name, program)| (name.to_owned(), verbs::program(program)));
    let found = read();
    checker.must(found == BTreeMap::from(wanted), || format!("repeated, it leaves {found:?}"));
}

fn kill(checker: &mut Checker<'_>, point: &Point, arguments: &[String]) -> bool {
    let output = trace::inject(checker.tree(), point, "signal=SIGKILL", false, arguments).output().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    let answer = Answer::from(output);
    // A git that is killed is an error.
    let failed = [1, 3].contains(&answer.code) && answer.stderr.contains("git");
    checker.must(killed || failed, || format!("it was not killed but ended with {}: {}", answer.code, answer.stderr));
    killed || failed
}

#[test]
fn p03_init_killed_at_any_call() {
    killed_everywhere(&verbs::INIT, 90);
}

#[test]
fn p12_create_killed_at_any_call() {
    killed_everywhere(&verbs::CREATE, 330);
}

#[test]
fn p12_create_of_a_tar_killed_at_any_call() {
    killed_everywhere(&verbs::CREATE_TAR, 32);
}

#[test]
fn p12_create_of_a_commit_killed_at_any_call() {
    killed_everywhere(&verbs::CREATE_GIT, 80);
}

#[test]
fn p01_activate_killed_at_any_call() {
    killed_everywhere(&verbs::ACTIVATE, 80);
}

#[test]
fn p04_rollback_killed_at_any_call() {
    killed_everywhere(&verbs::ROLLBACK, 105);
}

#[test]
fn p09_clean_killed_at_any_call() {
    killed_everywhere(&verbs::CLEAN, 175);
}

#[test]
fn p08_pin_killed_at_any_call() {
    killed_everywhere(&verbs::PIN, 62);
}

#[test]
fn p09_remove_killed_at_any_call() {
    killed_everywhere(&verbs::REMOVE, 165);
}

#[test]
fn p13_deploy_resume_killed_at_any_call() {
    killed_everywhere(&verbs::RESUME, 85);
}

#[test]
fn p03_supervisor_wire_killed_at_any_call() {
    killed_everywhere(&verbs::WIRE, 16);
}

#[test]
fn p03_supervisor_wire_by_copies_killed_at_any_call() {
    killed_everywhere(&verbs::WIRE_COPY, 20);
}

/// What a kill left is settled by the next command, which is killed at each of its own calls in turn.
#[test]
fn p03_the_command_that_settles_a_kill_killed_at_any_call() {
    let start = Start::new(State::Three);
    let (mut seen, mut complaints) = (Seen::default(), Vec::new());
    for verb in [&verbs::ACTIVATE, &verbs::ROLLBACK] {
        let tree = start.copy();
        let arguments = (verb.words)(&start, &tree);
        let (calls, _) = trace::aside(|| trace::calls(&tree, &arguments));
        for point in trace::points(&calls, &tree).0 {
            let left = Start { made: start.copy() };
            let mut checker = Checker::new(&left.made);
            kill(&mut checker, &point, &arguments);
            complaints.extend(checker.complaints());
            let more = killed_from(&left, &verbs::SETTLE, &mut seen);
            complaints
                .extend(more.into_iter().map(|c| format!("{} killed before {}, then {c}", verb.name, point.does)));
        }
    }
    tell("the command that settles", seen, 300, &complaints);
}

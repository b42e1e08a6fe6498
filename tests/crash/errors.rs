//! Refused at any of its system calls, once or from then on, a command ends with one clear error and a status of its own,
//! says nothing untrue of what is live, asks no sync a second time, and leaves a tree in which the next command works.

use crate::checker::Checker;
use crate::sandbox::{Answer, PROGRAM, Sandbox};
use crate::states::Start;
use crate::trace::{self, Call, Point};
use crate::verbs::{self, Verb};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a file system may answer, and as a person reads it.
const ANSWERS: [(&str, &str); 8] = [
    ("ENOSPC", "No space left on device"),
    ("EIO", "Input/output error"),
    ("EDQUOT", "Disk quota exceeded"),
    ("EACCES", "Permission denied"),
    ("EROFS", "Read-only file system"),
    ("EMFILE", "Too many open files"),
    ("ENOMEM", "Cannot allocate memory"),
    ("EINTR", "Interrupted system call"),
];

/// Calls about files that are looks; those that change something are known to the tracer.
const LOOKS: &[&str] =
    &["openat", "openat2", "read", "pread64", "newfstatat", "fstat", "statx", "getdents64", "readlinkat", "fstatfs"];

/// Calls that start something; that they fail is the business of another test.
const STARTS: &[&str] = &["execve", "clone", "clone3", "fork", "vfork"];

/// Of the looks, one in so many is a point too, by default.
const STRIDE: usize = 12;

/// An error at a point.
struct Fault<'p> {
    point: &'p Point,
    errno: &'static str,
    cause: &'static str,
    ever: bool,
}

/// Every answer at every point where all of it is asked for, else one answer a point, each in its turn.
fn faults(points: &[Point]) -> Vec<Fault<'_>> {
    let all = points.iter().enumerate().flat_map(|(at, point)| {
        let (full, turns) = (trace::full(), 2 * ANSWERS.len());
        let turns = if full { 0..turns } else { at * 5 % turns..at * 5 % turns + 1 };
        turns.map(move |turn| {
            let (errno, cause) = ANSWERS[turn % ANSWERS.len()];
            // Nobody is interrupted for ever.
            Fault { point, errno, cause, ever: turn >= ANSWERS.len() && errno != "EINTR" }
        })
    });
    all.collect()
}

/// The points of a run, once the program itself has begun: what the system loads before cannot be judged.
fn points(calls: &[Call], tree: &Sandbox) -> Vec<Point> {
    let begun = calls.iter().position(|call| call.name == "sigaltstack").unwrap_or(0);
    let loaded = |point: &Point| {
        let before = calls[..begun].iter().filter(|call| call.name == point.name).count();
        usize::try_from(point.nth).unwrap() <= before
    };
    let (changing, others) = trace::points(calls, tree);
    let looks: Vec<Point> = others.into_iter().filter(|p| LOOKS.contains(&p.name.as_str()) && !loaded(p)).collect();
    let changing = changing.into_iter().filter(|point| !STARTS.contains(&point.name.as_str()) && !loaded(point));
    changing.chain(trace::sample(&looks, STRIDE)).collect()
}

/// Refuses `verb` everywhere from each of its states; by default at one point in `stride` from each, and prints how many
/// errors were seen, which must be at least `floor`.
#[track_caller]
fn refused_everywhere(verb: &Verb, stride: usize, floor: usize) {
    let (seen, mut complaints) = (AtomicUsize::new(0), Vec::new());
    for state in verb.states {
        let start = Start::new(*state);
        let tree = start.copy();
        let before = tree.live();
        let (calls, _) = trace::aside(|| trace::calls(&tree, &(verb.words)(&start, &tree)));
        let after = tree.live();
        let points = trace::sample(&points(&calls, &tree), stride);
        complaints.extend(trace::each(&faults(&points), |at, fault| {
            seen.fetch_add(1, Ordering::Relaxed);
            let found = refused_at(&start, verb, fault, at % 2 == 0, [&before, &after]);
            let ever = if fault.ever { ", ever after" } else { "" };
            let at = format!("from {state:?} {} at {}{ever}", fault.errno, fault.point.does);
            found.into_iter().map(|complaint| format!("{at}: {complaint}")).collect()
        }));
    }
    let seen = seen.into_inner();
    let _ = writeln!(std::io::stderr(), "errors: {}: {seen} errors, {} complaints", verb.name, complaints.len());
    assert!(complaints.is_empty(), "{}:\n{}", verb.name, complaints.join("\n"));
    assert!(seen >= floor, "{}: only {seen} errors, not {floor}", verb.name);
}

fn refused_at(
    start: &Start,
    verb: &Verb,
    fault: &Fault<'_>,
    json: bool,
    [before, after]: [&Option<String>; 2],
) -> Vec<String> {
    let tree = start.copy();
    let mut words = (verb.words)(start, &tree);
    if json {
        words.insert(0, "--json".to_owned());
    }
    let (answer, calls) = inject(&tree, fault, &words);
    let mut checker = Checker::new(&tree);
    let live = tree.live();
    let said = || format!("{}{}", answer.stdout, answer.stderr);
    // What is said of what is live is true.
    let truth = match answer.code {
        0 => live == *after,
        5 => live.as_ref().is_none_or(|id| said().contains(id.as_str())),
        _ => live == *before,
    };
    checker.must((0..=7).contains(&answer.code), || format!("it ends with {}: {}", answer.code, said()));
    checker.must(truth, || format!("{live:?} is live, and it ends with {}: {}", answer.code, said()));
    let calls = trace::parse(&calls);
    if calls.iter().any(unheard) {
        // It had no way to tell.
    } else if json {
        told_as_json(&mut checker, &answer);
    } else if ![0, 3].contains(&answer.code) {
        let line = answer.stderr.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default().to_owned();
        // A path, or the program that failed; and why.
        let clear =
            (line.contains('/') || line.contains("git ")) && (line.contains(fault.cause) || line.contains(": "));
        checker.must(clear, || format!("not a clear error: {}", said()));
    }
    for sync in asked_again(&calls) {
        checker.must(fault.errno == "EINTR", || format!("after a failure it is asked again: {sync}"));
    }
    checker.current_is_one_of(&[before.clone(), after.clone()]);
    checker.everything(&[live]);
    checker.complaints()
}

/// Whether what it says was itself refused: a number is counted in each process, and git writes before the program does.
fn unheard(call: &Call) -> bool {
    trace::WRITES.contains(&call.name.as_str())
        && ["1<pipe:", "2<pipe:"].iter().any(|on| call.arguments.starts_with(on))
        && call.answer.contains("INJECTED")
}

/// Exactly one document, which agrees with the status.
fn told_as_json(checker: &mut Checker<'_>, answer: &Answer) {
    let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    let exit = if document["ok"] == true { 0.into() } else { document["error"]["exit"].clone() };
    let message = document["error"]["message"].as_str().unwrap_or_default();
    let agrees = exit == answer.code && (answer.code == 0 || !message.is_empty());
    checker.must(agrees, || format!("it ends with {} and says {}{}", answer.code, answer.stdout, answer.stderr));
}

/// Runs it with the fault. Returns its answer, and what it changed, synced and closed as strace shows it.
fn inject(tree: &Sandbox, fault: &Fault<'_>, words: &[String]) -> (Answer, String) {
    let Fault { point: Point { name, nth, .. }, errno, ever, .. } = fault;
    let log = tree.beside("syncs");
    let mut command = tree.clean("strace");
    // The kernel stops it at these calls alone: an error can be put there so, a signal cannot.
    command.args(["-f", "--seccomp-bpf", "-y", "-qq", "-o"]).arg(&log);
    command.args(["-e", &format!("trace=close,{},{},{name}", trace::CHANGES.join(","), trace::WRITES.join(","))]);
    command.args(["-e", &format!("inject={name}:error={errno}:when={nth}{}", if *ever { "+" } else { "" })]);
    let output = command.arg(PROGRAM).arg("--root").arg(tree.root()).args(words).output().unwrap();
    (output.into(), fs::read_to_string(log).unwrap())
}

/// Syncs of what was synced in vain before, with nothing new to be synced in between.
fn asked_again(calls: &[Call]) -> Vec<String> {
    let mut failed: Vec<&str> = Vec::new();
    let mut again = Vec::new();
    for call in calls {
        // What was unlinked meanwhile has another path.
        let on = call.arguments.split('<').next().unwrap();
        match call.name.as_str() {
            "close" => failed.retain(|other| *other != on),
            "fsync" | "fdatasync" | "syncfs" => {
                again.extend(failed.contains(&on).then(|| format!("{}({})", call.name, call.arguments)));
                if call.answer.starts_with("-1") {
                    failed.push(on);
                }
            }
            _ if call.changes_disk() => failed.clear(),
            _ => {}
        }
    }
    again
}

#[test]
fn a_sync_that_is_asked_again_is_seen() {
    let calls = |text: String| asked_again(&trace::parse(&text));
    let failed = "1 fsync(3</t/a>) = -1 EIO (Input/output error)\n";
    assert_eq!(calls(format!("{failed}1 write(3</t/a>, \"x\", 1) = 1\n1 fsync(3</t/a>) = 0\n")), [""; 0]);
    assert_eq!(calls(format!("{failed}1 fsync(3</t/a>) = 0\n")), ["fsync(3</t/a>)"]);
    assert_eq!(calls(format!("{failed}1 close(3</t/a>) = 0\n1 fsync(3</t/a>) = 0\n")), [""; 0]);
}

#[test]
fn p15_init_refused_at_any_call() {
    refused_everywhere(&verbs::INIT, 2, 92);
}

#[test]
fn p15_create_refused_at_any_call() {
    refused_everywhere(&verbs::CREATE, 2, 190);
}

#[test]
fn p15_create_of_a_tar_refused_at_any_call() {
    refused_everywhere(&verbs::CREATE_TAR, 1, 48);
}

#[test]
fn p15_create_of_a_commit_refused_at_any_call() {
    refused_everywhere(&verbs::CREATE_GIT, 1, 85);
}

#[test]
fn p15_activate_refused_at_any_call() {
    refused_everywhere(&verbs::ACTIVATE, 1, 115);
}

#[test]
fn p15_rollback_refused_at_any_call() {
    refused_everywhere(&verbs::ROLLBACK, 1, 160);
}

#[test]
fn p15_clean_refused_at_any_call() {
    refused_everywhere(&verbs::CLEAN, 1, 270);
}

#[test]
fn p15_pin_refused_at_any_call() {
    refused_everywhere(&verbs::PIN, 1, 88);
}

#[test]
fn p15_remove_refused_at_any_call() {
    refused_everywhere(&verbs::REMOVE, 2, 128);
}

#[test]
fn p15_deploy_resume_refused_at_any_call() {
    refused_everywhere(&verbs::RESUME, 1, 110);
}

#[test]
fn p15_supervisor_wire_refused_at_any_call() {
    refused_everywhere(&verbs::WIRE, 1, 20);
}

#[test]
fn p15_supervisor_wire_by_copies_refused_at_any_call() {
    refused_everywhere(&verbs::WIRE_COPY, 1, 30);
}

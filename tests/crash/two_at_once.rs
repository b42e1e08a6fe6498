//! P3, P6, P7: one command is stopped before each of its calls while another one runs from its beginning to its end, and
//! then goes on. Both end as if one had come after the other, or one of them says that it was busy or refused; whoever
//! only looks never fails.

use crate::checker::Checker;
use crate::sandbox::{Answer, PROGRAM, Sandbox, Started};
use crate::states::{Start, State};
use crate::trace::{Point, calls, each_outside, full, points, sample};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The commands of every pair, on a tree where A, B and C were live in turn. No command waits for another's lock.
const COMMANDS: [(&str, &[&str]); 6] = [
    ("create", &["create", "SOURCE", "--id", "E"]),
    ("activate", &["activate", "A"]),
    ("rollback", &["rollback"]),
    ("clean", &["clean", "--keep", "1"]),
    ("pin", &["pin", "A", "--forever"]),
    ("exec", &["exec", "--release", "A", "--", "cat", "version"]),
];
/// What only looks, and must always answer: while one is stopped, and when the other is over.
const LOOKS: [[&[&str]; 2]; 2] = [[&["list"], &["path"]], [&["status"], &["history"]]];
/// Of the points of a command one in so many is taken for each other command, by default.
const STRIDE: usize = 11;

/// What is left of a tree when all is over: what is live and would be gone back to, and each release with its state and
/// pin.
type Left = BTreeSet<String>;

fn left(tree: &Sandbox) -> Left {
    let listing = tree.json(&["list"]);
    let releases = listing["releases"].as_array().unwrap().iter();
    let of = |release: &serde_json::Value| format!("{} {} {}", release["id"], release["state"], release["keep_until"]);
    let mut left: Left = releases.map(of).collect();
    left.insert(format!("current {} previous {}", listing["current"], listing["previous"]));
    left
}

fn words(start: &Start, words: &[&str]) -> Vec<String> {
    let source = start.made.source("E").display().to_string();
    let mut all = vec!["--wait=0s".to_owned()];
    all.extend(words.iter().map(|word| if *word == "SOURCE" { source.clone() } else { (*word).to_owned() }));
    all
}

/// What may be left if `orders` of commands were run one after the other.
fn serial(start: &Start, orders: &[&[&Vec<String>]]) -> Vec<Left> {
    let run = |order: &&[&Vec<String>]| {
        let tree = start.copy();
        order.iter().for_each(|words| drop(tree.run(words)));
        left(&tree)
    };
    orders.iter().map(run).collect()
}

/// The program under strace, stopped before the call at a point.
struct Stopped {
    strace: Option<Started>,
    log: std::path::PathBuf,
}

impl Stopped {
    /// Starts it and waits until it is stopped; it may also end without coming there.
    fn start(tree: &Sandbox, point: &Point, words: &[String]) -> Self {
        let log = tree.beside("stopped");
        let mut command = tree.clean("strace");
        command.args(["-f", "-q", "-o"]).arg(&log);
        command.args(["-e", &format!("trace={}", point.name)]);
        command.args(["-e", &format!("inject={}:signal=SIGSTOP:when={}", point.name, point.nth)]);
        command.arg(PROGRAM).arg("--root").arg(tree.root()).args(words);
        let mut stopped = Self { strace: Some(Started::new(command)), log };
        stopped.wait_for(1);
        stopped
    }

    /// Waits until it was stopped so many times, or ended. Returns the process that was stopped last, if it was.
    fn wait_for(&mut self, times: usize) -> Option<i32> {
        loop {
            let ended = self.strace.as_mut().is_none_or(|strace| strace.0.try_wait().unwrap().is_some());
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let stops: Vec<&str> = text.lines().filter(|line| line.contains("--- stopped by SIGSTOP")).collect();
            if let Some(line) = stops.get(times - 1) {
                return line.split(' ').next().and_then(|pid| pid.parse().ok());
            }
            if ended {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Lets it go on to its end, through every other stop on the way.
    fn go_on(mut self) -> (Answer, usize) {
        let mut times = 0;
        while let Some(pid) = self.wait_for(times + 1) {
            // One that was stopped and one that is waited for elsewhere are woken alike.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT);
            times += 1;
        }
        (self.strace.take().unwrap().answer(), times)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Killed while its child is stopped, strace would leave it so for ever.
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let pids: BTreeSet<i32> = text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
        for pid in pids.into_iter().filter(|pid| ours(*pid)) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Whether a process is still the program under test, and not another that was given its number.
fn ours(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM))
}

/// One pair at one point; counts whether it came there. Returns complaints.
fn met(
    start: &Start,
    (first, second): (&[String], &[String]),
    point: &Point,
    allowed: &Allowed,
    stops: &AtomicUsize,
) -> Vec<String> {
    let tree = start.copy();
    let stopped = Stopped::start(&tree, point, first);
    let mut checker = Checker::new(&tree);
    for look in LOOKS[0] {
        checker.works(look);
    }
    checker.must(tree.live().is_some(), || "current leads nowhere meanwhile".to_owned());
    let other: Answer = tree.run(second);
    for look in LOOKS[1] {
        checker.works(look);
    }
    let (own, times) = stopped.go_on();
    stops.fetch_add(usize::from(times > 0), Ordering::Relaxed);
    for (who, answer) in [("the one that was stopped", &own), ("the other", &other)] {
        let fine = [0, 3, 4].contains(&answer.code) && !answer.stderr.contains("panicked");
        checker.must(fine, || format!("{who} ends with {}: {}", answer.code, answer.stderr));
    }
    let found = left(&tree);
    let fits = match (own.code, other.code) {
        (0, 0) => allowed.both.contains(&found),
        (0, _) => allowed.first.contains(&found),
        (_, 0) => allowed.second.contains(&found),
        _ => allowed.neither.contains(&found),
    };
    checker.must(fits, || format!("after {} and {} there is {found:?}", own.code, other.code));
    let live = tree.live();
    checker.everything(&[live]);
    checker.complaints()
}

/// What may be left, by who was done.
struct Allowed {
    both: Vec<Left>,
    first: Vec<Left>,
    second: Vec<Left>,
    neither: Vec<Left>,
}

/// Every pair that begins with the `nth` command.
fn pairs_with(first: usize) {
    let start = Start::new(State::Three);
    let (name, own) = (COMMANDS[first].0, words(&start, COMMANDS[first].1));
    let tree = start.copy();
    let (made, _) = calls(&tree, &own);
    let (mut changing, others) = points(&made, &tree);
    if changing.len() < COMMANDS.len() {
        // One that changes nothing can be met anywhere.
        changing.extend(others);
    }
    let mut meetings = Vec::new();
    for (at, (other, command)) in COMMANDS.iter().enumerate() {
        let second = words(&start, command);
        let mut both = serial(&start, &[&[&own, &second], &[&second, &own]]);
        if COMMANDS[first].0 == "exec" || *other == "exec" {
            // While something runs in a release, nobody removes it.
            both.extend(serial(&start, &[&[]]));
        }
        let allowed = Allowed {
            both,
            first: serial(&start, &[&[&own]]),
            second: serial(&start, &[&[&second]]),
            neither: serial(&start, &[&[]]),
        };
        let allowed = std::sync::Arc::new(allowed);
        let stride = if full() { 1 } else { STRIDE * changing.len().div_ceil(50) };
        // Each of the others meets it at other points.
        let here = &changing[at.min(changing.len() - 1)..];
        let chosen = sample(here, stride.min(here.len()));
        meetings.extend(chosen.into_iter().map(|point| (*other, second.clone(), point, allowed.clone())));
    }
    let stops = AtomicUsize::new(0);
    let complaints = each_outside(&meetings, |_, (other, second, point, allowed)| {
        let found = met(&start, (&own, second), point, allowed, &stops);
        found.into_iter().map(|complaint| format!("{name} before {} and {other}: {complaint}", point.does)).collect()
    });
    let _ = writeln!(
        std::io::stderr(),
        "two at once: {name}: {} of {} meetings at {} calls seen, {} complaints",
        stops.load(Ordering::Relaxed),
        meetings.len(),
        changing.len(),
        complaints.len()
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(meetings.len() >= COMMANDS.len(), "only {} meetings", meetings.len());
    // Which of two threads makes a call is not always the same.
    let stops = stops.into_inner();
    assert!(stops * 4 >= meetings.len() * 3, "only {stops} of {} were stopped", meetings.len());
}

#[test]
fn p07_a_create_and_any_other() {
    pairs_with(0);
}

#[test]
fn p03_an_activation_and_any_other() {
    pairs_with(1);
}

#[test]
fn p03_a_rollback_and_any_other() {
    pairs_with(2);
}

#[test]
fn p08_a_clean_and_any_other() {
    pairs_with(3);
}

#[test]
fn p08_a_pin_and_any_other() {
    pairs_with(4);
}

#[test]
fn p11_an_exec_and_any_other() {
    pairs_with(5);
}

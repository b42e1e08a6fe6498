//! P1–P8 under load: six processes give random commands to one tree, some are killed at random moments, readers look at
//! `current` all the time, and a model of the tree says after each command what may have come of it. The seed is printed,
//! and RELEASECTL_SEED gives one.

use crate::checker::Checker;
use crate::patience::eventually;
use crate::sandbox::{Answer, Sandbox, Started};
use crate::trace::full;
use releasectl::operation::{Begin, Done, Event, Operation, Outcome, Record};
use releasectl::release::ReleaseId;
use releasectl::sealed::unseal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many give commands at once.
const PROCESSES: u64 = 6;
/// How many commands are given at least, and for how long.
const SOME: (usize, Duration) = (1200, Duration::ZERO);
/// The same if everything is asked for.
const ALL: (usize, Duration) = (5000, Duration::from_secs(600));
/// The names releases are given; a name comes back once it was removed.
const NAMES: [&str; 12] = ["A", "B", "C", "D", "E", "F", "G", "H", "J", "K", "L", "M"];

/// A row of numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.next(all.len())]
    }
}

fn seed() -> u64 {
    let given = std::env::var("RELEASECTL_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() ^ u64::from(std::process::id())
    })
}

/// A command as it comes.
fn command(random: &mut Random, tree: &Sandbox) -> Vec<String> {
    let name = random.one_of(&NAMES);
    let source = || tree.beside(&format!("source-{name}")).display().to_string();
    let words: Vec<String> = match random.next(20) {
        0..5 => vec!["create".into(), source(), "--id".into(), name.into()],
        5..9 => vec!["activate".into(), name.into()],
        9..12 => vec!["rollback".into()],
        12..14 => vec!["clean".into(), "--keep".into(), random.next(4).to_string()],
        14 => vec!["pin".into(), name.into(), "--days".into(), "1".into()],
        15 => vec!["unpin".into(), name.into()],
        16 => vec!["remove".into(), name.into()],
        17 => vec!["exec".into(), "--".into(), "cat".into(), "version".into()],
        18 => vec!["list".into()],
        _ => vec!["status".into()],
    };
    let wait = ["--wait=0s", "--wait=1s", "--wait=20s"][random.next(3)];
    [vec![wait.to_owned()], words].concat()
}

/// What is found wrong, with the command after which it was.
#[derive(Default)]
struct Violations(Mutex<Vec<String>>);

impl Violations {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

/// What is to be done by all of them.
struct Work {
    given: AtomicUsize,
    commands: usize,
    until: Instant,
}

impl Work {
    fn new((commands, time): (usize, Duration)) -> Self {
        Self { given: AtomicUsize::new(0), commands, until: Instant::now() + time }
    }

    /// Takes one command of it.
    fn is_left(&self) -> bool {
        self.given.fetch_add(1, Ordering::Relaxed) < self.commands || Instant::now() < self.until
    }
}

/// How many commands ended how; `None` is killed.
type Ends = BTreeMap<Option<i32>, usize>;

/// One process after the other, until all commands are given.
fn give(tree: &Sandbox, seed: u64, work: &Work, violations: &Violations) -> Ends {
    let mut random = Random(seed);
    let mut ends = Ends::new();
    while work.is_left() {
        let words = command(&mut random, tree);
        let mut child = Started::new(tree.command(&words));
        if random.next(5) == 0 {
            std::thread::sleep(Duration::from_micros(random.next(25_000) as u64));
            child.kill();
            *ends.entry(None).or_default() += 1;
            continue;
        }
        let answer = child.answer();
        *ends.entry(Some(answer.code)).or_default() += 1;
        judge(&words, &answer, violations);
    }
    ends
}

/// A command that was not killed is done, refused or busy; what only looks is done, and what runs in the live release
/// finds it whole.
fn judge(words: &[String], answer: &Answer, violations: &Violations) {
    let looks = ["list", "status"].contains(&words[1].as_str());
    let fine = if looks { answer.code == 0 } else { [0, 3, 4].contains(&answer.code) };
    if !fine || answer.stderr.contains("panicked") {
        violations.add(format!("{words:?} ends with {}: {}{}", answer.code, answer.stdout, answer.stderr));
    }
    if words[1] == "exec" && answer.code == 0 && !NAMES.contains(&answer.stdout.as_str()) {
        violations.add(format!("{words:?} finds {:?}", answer.stdout));
    }
}

/// Reads what is live without a pause; it is always a whole release.
fn read(tree: &Sandbox, stop: &AtomicBool, violations: &Violations) -> usize {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let target = fs::read_link(tree.at("current")).map(|target| target.display().to_string());
        if !target.as_ref().is_ok_and(|target| target.starts_with("releases/")) {
            violations.add(format!("current is {target:?}"));
        }
        // By one walk: two could see two releases.
        match fs::read_to_string(tree.at("current/version")) {
            Ok(version) if NAMES.contains(&version.as_str()) => {}
            other => violations.add(format!("current/version is {other:?}")),
        }
        reads += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    reads
}

/// The model: what the journal's records, taken one after the other, say of the tree.
#[derive(Default)]
struct Model {
    live: Option<String>,
    /// The releases that are there, and whether that is certain: a clean may leave one whose lease was taken meanwhile, and
    /// one that was killed may have taken some of its victims.
    made: BTreeMap<String, bool>,
    open: BTreeMap<u64, Begin>,
    violations: Vec<String>,
}

impl Model {
    /// Folds one record, which must be possible after those before.
    fn see(&mut self, record: Record) {
        match record.event {
            Event::Begin(begin) => {
                if let (Operation::Create, Some(id)) = (begin.operation, begin.to.as_ref().map(ReleaseId::to_string)) {
                    // It is there as soon as its own record says so, which is before its outcome is in the history.
                    if self.made.insert(id.clone(), false) == Some(true) {
                        self.violations.push(format!("line {}: create of {id}, which was there already", record.seq));
                    }
                }
                self.open.insert(record.seq, begin);
            }
            Event::Done(done) => match self.open.remove(&done.of) {
                Some(begin) => self.apply(record.seq, &begin, &done),
                None => self.violations.push(format!("line {}: an outcome of nothing", record.seq)),
            },
            _ => {}
        }
    }

    fn apply(&mut self, seq: u64, begin: &Begin, done: &Done) {
        let text = |id: &ReleaseId| id.to_string();
        let (from, to) = (begin.from.as_ref().map(text), begin.to.as_ref().map(text));
        let mut must = |holds: bool, what: &str| {
            if !holds {
                self.violations.push(format!("line {seq}: {} from {from:?} to {to:?}: {what}", begin.operation));
            }
        };
        let made = done.outcome == Outcome::Done;
        match begin.operation {
            Operation::Create if made => self.made.extend(to.map(|to| (to, true))),
            Operation::Create => self.made.retain(|id, certain| *certain || Some(id) != to.as_ref()),
            Operation::Activate | Operation::Rollback if made => {
                must(from == self.live, "something else was live");
                must(to.as_ref().is_some_and(|to| self.made.contains_key(to)), "it was not there");
                must(begin.operation == Operation::Activate || to != from, "it went back to itself");
                self.live.clone_from(&to);
                self.made.extend(to.map(|to| (to, true)));
            }
            Operation::Clean | Operation::Remove => {
                let all = made && !done.note.as_ref().is_some_and(|note| note.contains("could not be removed"));
                for id in begin.releases.iter().map(text) {
                    must(self.live.as_ref() != Some(&id), &format!("it took {id}, which is live"));
                    if all {
                        self.made.remove(&id);
                    } else {
                        self.made.insert(id, false);
                    }
                }
            }
            Operation::External | Operation::Deactivate => must(false, "nobody did that"),
            _ => {}
        }
    }
}

/// Compares the journal, by the model, with what is there in the end.
fn compare(tree: &Sandbox, violations: &Violations) -> usize {
    let text = fs::read(tree.at(".releasectl/journal.jsonl")).unwrap();
    let mut model = Model::default();
    let (mut lines, mut last) = (0, 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match unseal::<Record>(line) {
            Some(record) if record.seq > last => {
                last = record.seq;
                lines += 1;
                model.see(record);
            }
            _ => violations.add(format!("a line of the journal is damaged: {}", String::from_utf8_lossy(line))),
        }
    }
    model.violations.into_iter().for_each(|what| violations.add(what));
    if model.live != tree.live() {
        violations.add(format!("the journal ends with {:?} live, and {:?} is", model.live, tree.live()));
    }
    let ready: BTreeSet<String> = tree
        .states()
        .into_iter()
        .filter(|(_, state)| ["ready", "bad"].contains(&state.as_str()))
        .map(|(id, _)| id)
        .collect();
    if !ready.iter().all(|id| model.made.contains_key(id)) {
        violations.add(format!("{ready:?} are ready, and only {:?} were made", model.made));
    }
    for (seq, open) in model.open {
        violations.add(format!("line {seq} has no outcome: {open:?}"));
    }
    lines
}

#[test]
fn p03_six_at_once_and_kills_at_any_moment_leave_what_the_model_says() {
    let seed = seed();
    let tree = Sandbox::in_memory();
    NAMES.iter().for_each(|name| drop(tree.source(name)));
    tree.done(&["init"]);
    tree.create("A");
    tree.done(&["activate", "A"]);
    let work = Work::new(if full() { ALL } else { SOME });
    let (stop, violations) = (AtomicBool::new(false), Violations::default());
    let (ends, reads) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&tree, &stop, &violations));
        let (tree, work, violations) = (&tree, &work, &violations);
        let givers: Vec<_> = (0..PROCESSES)
            .map(|nth| scope.spawn(move || give(tree, seed.wrapping_add(nth << 32), work, violations)))
            .collect();
        let mut all = Ends::new();
        for ends in givers.into_iter().map(|giver| giver.join().unwrap()) {
            ends.into_iter().for_each(|(code, count)| *all.entry(code).or_default() += count);
        }
        stop.store(true, Ordering::Relaxed);
        (all, reader.join().unwrap())
    });
    // What was killed lets go of its leases a moment later.
    let mut settled = Answer { code: -1, stdout: String::new(), stderr: String::new() };
    eventually("the tree is free", || {
        settled = tree.run(&["clean", "--keep", "2"]);
        settled.code != 4
    });
    let lines = compare(&tree, &violations);
    let mut checker = Checker::new(&tree);
    let live = tree.live();
    checker.must(live.is_some() && settled.code == 0, || format!("{live:?} is live; {}", settled.stderr));
    checker.everything(&[live]);
    checker.complaints().into_iter().for_each(|complaint| violations.add(complaint));
    let violations = violations.0.into_inner().unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "soak: RELEASECTL_SEED={seed}: {ends:?}, {reads} reads, {lines} lines of history, {} violations",
        violations.len()
    );
    assert!(violations.is_empty(), "RELEASECTL_SEED={seed}:\n{}", violations.join("\n"));
    let commands: usize = ends.values().sum();
    let (done, killed) = (ends.get(&Some(0)).copied().unwrap_or(0), ends.get(&None).copied().unwrap_or(0));
    assert!(done > commands / 5 && killed > commands / 10 && reads > commands, "too little was done: {ends:?}");
}

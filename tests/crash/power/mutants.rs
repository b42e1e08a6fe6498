//! Each sync is needed: runs of the program in which one is left out lose something of what was promised, and the model
//! sees it.

mod cases;
mod places;

use super::image::Disk;
use super::judge::Judge;
use super::model::Run;
use crate::states::Start;
use crate::trace;
use cases::{Case, Unsynced};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The line of `file` with these words, at which a sync is wanted.
pub fn place_of(file: &str, words: &str) -> String {
    let mut places = places::all().into_iter();
    places.find(|(place, code)| is_in(place, code, &(file, words, ""))).unwrap().0
}

/// Runs `case` with a sync left out, by its number or its place; none if there is no such one.
fn run(case: &Case, start: &Start, leave_out: &str) -> Judge {
    let tree = start.copy();
    let arguments = (case.words)(start, &tree);
    let place = tree.root().parent().unwrap().to_owned();
    let (before, live) = (Disk::read(&place), tree.live());
    let (calls, answer) = trace::calls_with(&[("RELEASECTL_LEAVE_OUT", leave_out)], &tree, &arguments);
    assert_eq!(answer.code, case.ends, "{}, {leave_out} left out: {}", case.name, answer.stderr);
    let mut run = Run::new(before, &place, &calls);
    match case.unsynced {
        Some(Unsynced::Content(path)) => run.not_synced_yet(path),
        Some(Unsynced::Name(path)) => run.not_named_yet(path),
        None => {}
    }
    Judge::new(run, live)
}

/// Leaves out each sync of `case`, and tells what was wrong then.
fn leave_out_each(case: &Case) -> Vec<(String, Option<String>)> {
    let start = Start::new(case.state);
    let whole = run(case, &start, "none");
    assert_eq!((whole.first_wrong(), whole.run.left_out()), (None, None), "{}, nothing left out", case.name);
    let without = |number: usize| {
        let judge = run(case, &start, &number.to_string());
        Some((judge.run.left_out()?.to_owned(), judge.first_wrong()))
    };
    (0..).map_while(without).collect()
}

/// Lines whose syncs the model need not miss: the file, words of the line, and why.
const NOT_MISSED: [(&str, &str, &str); 8] = [
    ("src/python/record.rs", "release.sync_file_system()", "a real file system shows it"),
    ("src/python/record.rs", "write_file(name", "without it an environment is made anew"),
    ("src/tree/build.rs", "put_file(name, &content", "without it an environment is made anew"),
    ("src/tree/inventory.rs", "put_file(INVENTORY", "without it a resumed build begins anew"),
    ("src/tree/build.rs", "open_own(BUILD_LOG", "what a build printed is not promised"),
    ("src/tree/discard.rs", "Ok(dir.sync()?)", "it is for an overlay, and the model has no layers"),
    ("src/tree/flip.rs", "releases.sync()", "it is for two file systems, and the model has one"),
    ("src/tree/locked.rs", "let _ = ", "it makes room, and keeps nothing"),
];

fn is_in(place: &str, code: &str, (file, words, _): &(&str, &str, &str)) -> bool {
    place.starts_with(file) && code.contains(words)
}

#[test]
fn p02_every_sync_is_needed() {
    let (all, cases) = (places::all(), cases::all());
    // By `file of PLACE` or `directory of PLACE`.
    let found = Mutex::new(BTreeMap::<String, Vec<String>>::new());
    let runs = AtomicUsize::new(0);
    trace::each(&cases, |_, case| {
        for (sync, wrong) in leave_out_each(case) {
            runs.fetch_add(1, Ordering::Relaxed);
            found.lock().unwrap().entry(sync).or_default().extend(wrong);
        }
        Vec::new()
    });
    let (found, runs) = (found.into_inner().unwrap(), runs.into_inner());
    let place = |sync: &str| sync.split_once(" of ").unwrap().1.to_owned();
    let reached: BTreeSet<String> = found.keys().map(|sync| place(sync)).collect();
    let named = |place: &String| NOT_MISSED.iter().any(|named| is_in(place, &all[place], named));
    let unreached: Vec<_> = all.keys().filter(|place| !reached.contains(*place) && !named(place)).collect();
    let unmissed: Vec<_> = found.iter().filter(|(sync, wrongs)| wrongs.is_empty() != named(&place(sync))).collect();
    let (syncs, lines) = (found.len(), reached.len());
    let told = format!("power: {runs} runs without one of {syncs} syncs, which {lines} of {} lines want", all.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    assert!(unreached.is_empty(), "{told}; no run comes to {unreached:?}");
    assert!(unmissed.is_empty(), "{told}; not missed, or named without need: {unmissed:?}");
    for named in &NOT_MISSED {
        assert!(all.iter().any(|(place, code)| is_in(place, code, named)), "not there: {named:?}");
    }
    assert!(runs >= 122 && syncs >= 48, "{told}");
}

#[test]
fn p02_modes_and_times_are_missed_too() {
    let case = Case::create();
    let start = Start::new(case.state);
    let commits = ("src/tree/build.rs", "sync_file_system", "");
    let mut missed = 0;
    for (place, _) in places::all().iter().filter(|(place, code)| is_in(place, code, &commits)) {
        trace::aside(|| run(&case, &start, place)).cuts(&mut |_, wrong| {
            missed += usize::from(wrong.is_some_and(|what| what.contains("another mode or time")));
        });
    }
    let _ = writeln!(std::io::stderr(), "power: modes and times are lost on {missed} disks");
    assert!(missed >= 20, "there were {missed}");
}

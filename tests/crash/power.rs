//! Power is cut at any moment: whatever of a command had not been made durable, in whatever combination or in part,
//! `current` leads to a complete release with the modes and times it was given, the intent of what it shows is on record,
//! and what was answered to be done stays done. Each sync is shown to be needed for that by leaving it out.

mod environment;
mod image;
mod judge;
mod model;
mod mutants;
mod real;
mod record;

use crate::checker::Checker;
use crate::sandbox::Sandbox;
use crate::states::{Start, State};
use crate::trace;
use crate::verbs::{self, Verb};
use image::Disk;
use judge::Judge;
use model::Run;
use releasectl::operation::Record;
use releasectl::sealed::unseal;
use std::io::Write;

/// By default one in so many disks is also handed to the program.
const STRIDE: usize = 40;

/// What is left of a journal that was damaged.
const SET_ASIDE: &str = "left behind: .releasectl/journal.broken-";

/// Whether a line of the journal is torn and one after it is not, so that it is set aside as damaged.
fn is_damaged(disk: &Disk) -> bool {
    let journal = disk.content("/tree/.releasectl/journal.jsonl").unwrap_or_default();
    let good = journal.split(|byte| *byte == b'\n').map(|line| unseal::<Record>(line).is_some());
    good.skip_while(|good| *good).any(|good| good)
}

/// A clean run of `verb` from `state`.
fn run(verb: &Verb, state: State) -> Judge {
    let start = Start::new(state);
    let tree = start.copy();
    let arguments = (verb.words)(&start, &tree);
    if verb.name == verbs::PIN.name {
        // One pin takes the place of another.
        tree.done(&["pin", "A", "--days", "3"]);
    }
    let place = tree.root().parent().unwrap().to_owned();
    let (before, live) = (Disk::read(&place), tree.live());
    let (calls, answer) = trace::aside(|| trace::calls(&tree, &arguments));
    assert_eq!(answer.code, 0, "{} from {state:?}: {}", verb.name, answer.stderr);
    Judge::new(Run::new(before, &place, &calls), live)
}

/// Cuts power everywhere in `verb`, and prints how many disks were seen, which must be at least `floor`.
#[track_caller]
fn cut_everywhere(verb: &Verb, states: &[State], floor: usize) {
    let (mut disks, mut complaints, mut handed) = (0, Vec::new(), 0);
    for state in states {
        let judge = run(verb, *state);
        let mut sample = Vec::new();
        judge.cuts(&mut |disk, wrong| {
            complaints.extend(wrong.map(|what| format!("from {state:?}: {what}")));
            disks += 1;
            if trace::full() || disks % STRIDE == 1 {
                sample.push(disk);
            }
        });
        handed += sample.len();
        let allowed = judge.allowed();
        complaints.extend(trace::each(&sample, |_, disk| {
            let tree = Sandbox::in_memory();
            std::fs::remove_dir(tree.beside("home")).unwrap();
            let real = tree.beside("disk");
            disk.write(&real);
            if real.join("tree").exists() {
                std::fs::rename(real.join("tree"), tree.root()).unwrap();
            }
            let mut checker = Checker::new(&tree);
            checker.everything(&allowed);
            for id in disk.names("/tree/releases").iter().filter(|id| tree.release(id).exists()) {
                checker.works(&["verify", id]);
            }
            let found = checker.complaints().into_iter().filter(|what| !(is_damaged(disk) && what.contains(SET_ASIDE)));
            found.map(|what| format!("from {state:?}, by the program: {what}")).collect()
        }));
    }
    let name = verb.name;
    let told =
        format!("power: {name}: {disks} disks, {handed} of them by the program, {} complaints", complaints.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    complaints.dedup();
    assert!(complaints.is_empty(), "{told}\n{}", complaints.join("\n"));
    assert!(disks >= floor, "{told}; there were {floor}");
}

#[test]
fn p01_activate_cut_anywhere() {
    cut_everywhere(&verbs::ACTIVATE, &[State::One, State::Three, State::Staged, State::Flipped], 150);
}

#[test]
fn p04_rollback_cut_anywhere() {
    cut_everywhere(&verbs::ROLLBACK, &[State::Three, State::Staged, State::Flipped], 150);
}

#[test]
fn p13_create_cut_anywhere() {
    cut_everywhere(&verbs::CREATE, &[State::Fresh, State::One], 1200);
}

#[test]
fn p09_clean_and_remove_cut_anywhere() {
    cut_everywhere(&verbs::CLEAN, &[State::Three, State::Trash], 300);
    cut_everywhere(&verbs::REMOVE, &[State::One, State::Three], 450);
}

#[test]
fn p08_pin_cut_anywhere() {
    cut_everywhere(&verbs::PIN, &[State::One, State::Three], 100);
}

#[test]
fn p01_init_cut_anywhere() {
    cut_everywhere(&verbs::INIT, &[State::Fresh, State::Torn], 120);
}

#[test]
fn p13_deploy_resume_cut_anywhere() {
    cut_everywhere(&verbs::RESUME, &[State::UnfinishedDeploy], 1000);
}

#[test]
fn supervisor_wire_cut_anywhere() {
    cut_everywhere(&verbs::WIRE, &[State::One], 20);
}

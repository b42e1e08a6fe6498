//! A journal or manifest that is missing, cut anywhere or changed anywhere: nothing is lost, history is what can be read.

use crate::lab::{assert_kept, gone};
use crate::sandbox::{Answer, Sandbox, picture};
use releasectl::clock::Clock;
use releasectl::directory::Dir;
use releasectl::lock::Wait;
use releasectl::release::ReleaseId;
use releasectl::sealed::seal;
use releasectl::tree::{Actor, Found, Tree};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

/// A tree with something of everything in its journal; C is live and B was before it.
fn with_history() -> Sandbox {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.create("D");
    tree.done(&["pin", "A", "--forever"]);
    tree.done(&["remove", "D"]);
    tree
}

fn open(tree: &Sandbox) -> Tree {
    Tree::open(Dir::open(&tree.root()).unwrap()).unwrap()
}

fn journal(tree: &Sandbox) -> PathBuf {
    tree.at(".releasectl/journal.jsonl")
}

/// The journals that were set aside.
fn set_aside(tree: &Sandbox) -> Vec<PathBuf> {
    let names = fs::read_dir(tree.at(".releasectl")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("journal.broken-")).collect()
}

/// The tree is opened for a change: what is live stays, what is gone back to is good, and the second time all is well.
#[track_caller]
fn survives(tree: &Sandbox, at: &str) -> Option<ReleaseId> {
    let actor = Actor { by: "tester".into(), command: "test".into(), host: "here".into(), clock: Clock::System };
    let opened = open(tree);
    let target = {
        let locked = opened.lock(&actor, Wait::Forever).unwrap();
        assert_eq!(locked.standing().live.as_ref().map(ReleaseId::as_str), Some("C"), "{at}");
        opened.rollback_target(locked.standing()).unwrap()
    };
    let mut again = opened.lock(&actor, Wait::Forever).unwrap();
    assert_eq!(again.take_notices(), Vec::<String>::new(), "{at}: it is mended once");
    assert_eq!(opened.rollback_target(again.standing()).unwrap(), target, "{at}");
    assert!(target.as_ref().is_none_or(|id| ["A", "B"].contains(&id.as_str())), "{at}: {target:?}");
    target
}

/// Puts the journal back as it was.
fn restore(tree: &Sandbox, bytes: &[u8]) {
    set_aside(tree).iter().for_each(|path| fs::remove_file(path).unwrap());
    fs::write(journal(tree), bytes).unwrap();
}

#[test]
fn p03_a_journal_cut_at_any_byte_is_read_up_to_there() {
    let tree = with_history();
    let (whole, releases) = (fs::read(journal(&tree)).unwrap(), picture(&tree.at("releases")));
    let lines: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    // B is what a rollback goes to once its own activation can be read.
    let text = String::from_utf8_lossy(&whole).into_owned();
    let activated =
        text.lines().position(|line| line.contains(r#""operation":"activate""#) && line.contains(r#""to":"B""#));
    let known = lines[activated.unwrap() + 1];
    for cut in 0..=whole.len() {
        restore(&tree, &whole[..cut]);
        let target = survives(&tree, &format!("cut at {cut} of {}", whole.len()));
        if cut >= known {
            assert_eq!(target.as_ref().map(ReleaseId::as_str), Some("B"), "cut at {cut}");
        }
        let left = fs::read(journal(&tree)).unwrap();
        let good = lines.iter().rev().find(|end| **end <= cut).copied().unwrap_or(0);
        assert!(left.starts_with(&whole[..good]), "cut at {cut}: every whole line is kept");
        assert_eq!(set_aside(&tree), Vec::<PathBuf>::new(), "a line cut short is no damage");
    }
    assert_eq!(picture(&tree.at("releases")), releases);
}

#[test]
fn p03_a_last_line_of_which_only_a_part_reached_the_disk_is_dropped() {
    let tree = with_history();
    let whole = fs::read(journal(&tree)).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for middle in last + 1..whole.len() {
        for absent in [last..middle, middle..whole.len()] {
            let mut torn = whole.clone();
            torn[absent].fill(0);
            restore(&tree, &torn);
            survives(&tree, &format!("torn at {middle}"));
            assert!(fs::read(journal(&tree)).unwrap().starts_with(&whole[..last]), "torn at {middle}");
            assert_eq!(set_aside(&tree), Vec::<PathBuf>::new(), "torn at {middle}: it is no damage");
        }
    }
}

#[test]
fn p03_a_journal_with_any_bit_flipped_is_set_aside_and_its_good_lines_go_on() {
    let tree = with_history();
    let (whole, releases) = (fs::read(journal(&tree)).unwrap(), picture(&tree.at("releases")));
    let count = whole.iter().filter(|byte| **byte == b'\n').count();
    let samples = (0..whole.len()).step_by(11).chain((0..whole.len()).filter(|at| whole[*at] == b'\n'));
    for (sample, at) in samples.enumerate() {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (sample % 8);
        restore(&tree, &bent);
        let doubtful = format!("bit {} of byte {at}", sample % 8);
        survives(&tree, &doubtful);
        let lines = fs::read_to_string(journal(&tree)).unwrap().lines().count();
        // A line end that is none any more takes two lines with it; a move of current may have been noted.
        assert!(lines + 2 >= count, "{doubtful}: {lines} of {count} lines");
        // At the very end it is a line cut short.
        let aside: Vec<Vec<u8>> = set_aside(&tree).iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(aside == [bent] || at + 1 == whole.len() && aside.is_empty(), "{doubtful}: it is kept as it was");
    }
    assert_eq!(picture(&tree.at("releases")), releases);
}

#[test]
fn p03_what_a_later_version_wrote_is_no_damage_and_is_kept() {
    let tree = with_history();
    let mut written = fs::read_to_string(journal(&tree)).unwrap();
    let (next, at) = (written.lines().count() as u64 + 1, "2026-11-28T10:00:00Z");
    for line in [
        json!({"seq": next, "at": at, "event": "begin", "operation": "sign", "by": "me", "to": "A"}),
        json!({"seq": next + 1, "at": at, "event": "done", "of": next, "outcome": "splendid", "seconds": 1}),
        json!({"seq": next + 2, "at": at, "event": "audited", "findings": [{"of": "A"}]}),
    ] {
        written += &(seal(&line).unwrap() + "\n");
    }
    fs::write(journal(&tree), &written).unwrap();
    tree.done(&["doctor"]);
    let history = tree.history();
    let rollback = tree.ends(0, &["rollback"]);
    assert!(!rollback.stderr.contains("warning"), "{}", rollback.stderr);
    assert_eq!(set_aside(&tree), Vec::<PathBuf>::new());
    assert!(fs::read_to_string(journal(&tree)).unwrap().starts_with(&written));
    assert_eq!(tree.history(), [history, vec!["rollback C B done".to_owned()]].concat());
}

#[test]
fn p04_a_manifest_of_a_later_version_is_told_as_that_and_nothing_is_done_with_its_release() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let manifest = tree.release("A").join(".releasectl/release.json");
    let read: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    for (field, value) in [("schema", json!(2)), ("steps", json!([{"name": "sign", "status": "splendid"}]))] {
        let mut later = read.clone();
        later.as_object_mut().unwrap().remove("crc");
        later[field] = value;
        fs::write(&manifest, seal(&later).unwrap() + "\n").unwrap();
        let said = tree.ends(6, &["activate", "A"]).stderr;
        assert!(said.contains("a later version of releasectl wrote it"), "{field}: {said}");
        assert!(tree.ends(6, &["doctor"]).stdout.contains("manifests that cannot be used: A"), "{field}");
        tree.refused(&["rollback"]);
        tree.done(&["clean", "--keep", "1"]);
        assert!(manifest.exists(), "{field}");
    }
}

#[test]
fn p03_with_a_damaged_journal_everything_still_can_be_looked_at_and_doctor_says_so() {
    let tree = with_history();
    let mut bytes = fs::read(journal(&tree)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(journal(&tree), &bytes).unwrap();
    let before = tree.picture();
    for arguments in [&["status"][..], &["list"], &["show"], &["rollback", "--dry-run"], &["clean", "--dry-run"]] {
        tree.done(arguments);
    }
    assert!(tree.ends(6, &["history"]).stderr.contains("hint: "), "only history is blocked");
    assert!(tree.ends(6, &["doctor"]).stdout.contains("1 of its lines cannot be used"));
    assert_eq!(tree.picture(), before, "looking mends nothing");
    let answer = tree.ends(0, &["rollback"]);
    assert!(answer.stderr.contains("journal.broken-"), "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("B"));
    assert_eq!(fs::read(&set_aside(&tree)[0]).unwrap(), bytes);
    tree.done(&["doctor"]);
}

#[test]
fn p03_without_a_journal_what_is_live_stays_and_nothing_is_guessed() {
    let tree = with_history();
    fs::remove_file(journal(&tree)).unwrap();
    let releases = picture(&tree.at("releases"));
    assert_eq!(tree.json(&["status"])["current"], "C");
    assert!(tree.ends(6, &["doctor"]).stdout.contains("it is missing"));
    tree.refused(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
    assert_eq!(picture(&tree.at("releases")), releases);
    tree.done(&["doctor"]);
    tree.done(&["activate", "A"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("C"), "from now on history is known again");
    tree.create("E");
    let ids = tree.json(&["list"]);
    assert_eq!(ids["releases"][3]["id"], "E", "order goes on where the releases say it was");
}

#[test]
fn p03_an_outcome_that_can_be_written_neither_at_once_nor_by_the_next_command_is_known_all_the_same() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.done(&["rollback"]);
    // What is written first is the lock's note; then the lines of the history, of which one does not fit.
    let squeezed = |nth: u32, words: &[&str]| {
        let answer: Answer = tree.faulty(&format!("pwrite64:error=ENOSPC:when={nth}"), words).output().unwrap().into();
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        assert!(answer.stderr.contains("the outcome is not in the history yet"), "{}", answer.stderr);
    };
    squeezed(3, &["activate", "B"]);
    squeezed(2, &["activate", "A"]);
    tree.done(&["pin", "A", "--forever"]);
    let mut flips = tree.history();
    flips.retain(|line| !line.starts_with("create") && !line.starts_with("pin"));
    let made =
        ["activate - A done", "activate A B done", "rollback B A done", "activate A B done", "activate B A done"];
    assert_eq!(flips, made);
    assert_eq!(tree.states()["B"], "ready");
    assert_eq!(tree.json(&["rollback", "--dry-run"])["to"], "B");
}

#[test]
fn p08_while_nobody_knows_what_was_live_before_any_good_release_may_be_it() {
    type Loss = fn(&Sandbox);
    let losses: [(&str, Loss); 4] = [
        ("the journal is gone", |tree| fs::remove_file(journal(tree)).unwrap()),
        ("it is empty", |tree| fs::write(journal(tree), "").unwrap()),
        ("no line of it can be read", |tree| {
            let text = fs::read_to_string(journal(tree)).unwrap();
            fs::write(journal(tree), text.replace("seq", "xxx")).unwrap();
        }),
        ("all that is ours is gone", |tree| {
            fs::remove_dir_all(tree.at(".releasectl")).unwrap();
            tree.done(&["init"]);
        }),
    ];
    for (loss, lose) in losses {
        let tree = Sandbox::with_live(&["A", "B", "C", "D"]);
        tree.done(&["rollback"]);
        lose(&tree);
        // Looked at, while it is recorded what is live, and ever after.
        for arguments in
            [&["clean", "--keep", "0", "--dry-run"][..], &["clean", "--keep", "0"], &["clean", "--keep", "0"]]
        {
            let cleaned = tree.json(arguments);
            ["A", "B"].iter().for_each(|id| assert_kept(&cleaned, id, "rollback_target"));
            assert_kept(&cleaned, "C", "current");
            assert!(cleaned["warnings"][0].as_str().unwrap().contains("what was live before"), "{loss}: {cleaned}");
        }
        assert!(!tree.release("D").exists(), "{loss}: what is bad is no way back");
        assert!(tree.refused(&["remove", "A"]).contains("rollback_target"), "{loss}");
        tree.refused(&["rollback"]);
        tree.done(&["activate", "B"]);
        assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), ["A"], "{loss}: from now on it is known again");
        assert_eq!(tree.json(&["rollback"])["to"], "C", "{loss}");
    }
}

#[test]
fn a_manifest_cut_or_bent_anywhere_is_never_taken_for_whole() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let manifest = tree.release("B").join(".releasectl/release.json");
    let whole = fs::read(&manifest).unwrap();
    let opened = open(&tree);
    let found = |bytes: &[u8]| {
        fs::write(&manifest, bytes).unwrap();
        opened.entry(OsStr::new("B")).unwrap().unwrap().found
    };
    let Found::Release(good) = found(&whole) else { panic!("it was good") };
    for cut in 0..whole.len() - 1 {
        assert!(matches!(found(&whole[..cut]), Found::Damaged(..)), "cut at {cut}");
    }
    assert!(matches!(found(&whole[..whole.len() - 1]), Found::Release(_)), "only the line end is missing");
    for at in 0..whole.len() - 1 {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (at % 8);
        match found(&bent) {
            Found::Damaged(..) => {}
            Found::Release(manifest) => assert_eq!(manifest, good, "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

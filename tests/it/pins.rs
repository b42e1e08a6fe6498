//! `pin`, `unpin`, `--keep-days`, and the pins that the older tooling left.

use crate::lab::{assert_kept, gone, verdicts};
use crate::sandbox::Sandbox;
use releasectl::clock::{Clock, Timestamp};
use releasectl::directory::Dir;
use releasectl::lock::Wait;
use releasectl::pin::Pin;
use releasectl::tree::{Actor, Tree};
use serde_json::Value;
use std::fs;

/// The pins of a release, as they lie on disk.
fn pins(tree: &Sandbox, id: &str) -> Vec<String> {
    let names = fs::read_dir(tree.release(id)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pins: Vec<String> = names.filter(|name| name.starts_with("KEEP_UNTIL__")).collect();
    pins.sort();
    pins
}

/// Pins as the older tooling does it.
fn touch(tree: &Sandbox, id: &str, until: &str) {
    fs::write(tree.release(id).join(format!("KEEP_UNTIL__{until}")), "").unwrap();
}

fn clean(tree: &Sandbox) -> Value {
    let planned = tree.json(&["clean", "--keep", "0", "--dry-run"]);
    let done = tree.json(&["clean", "--keep", "0"]);
    assert_eq!(verdicts(&planned), verdicts(&done), "what was announced is what is done");
    done
}

#[test]
fn p08_a_pinned_release_stays_whoever_pinned_it_and_whether_it_was_live_or_not() {
    let tree = Sandbox::with_live(&["deployed", "A", "B"]);
    for id in
        ["private", "forever", "two", "two-forever", "unreadable", "unreadable-too", "ended", "ended-twice", "free"]
    {
        tree.create(id);
    }
    let source = tree.source("days");
    tree.done(&["create", source.to_str().unwrap(), "--id", "days", "--keep-days", "10"]);
    for (id, until) in [
        ("deployed", "2099-01-01_00.00"),
        ("private", "2099-01-01_00.00"),
        ("forever", "forever"),
        ("two", "2000-01-01_00.00"),
        ("two", "2099-01-01_00.00"),
        ("two-forever", "2000-01-01_00.00"),
        ("two-forever", "forever"),
        ("unreadable", "tomorrow"),
        ("unreadable-too", ""),
        ("unreadable-too", "2000-01-01_00.00"),
        ("ended", "2000-01-01_00.00"),
        ("ended-twice", "2000-01-01_00.00"),
        ("ended-twice", "2001-12-31_23.59"),
    ] {
        touch(&tree, id, until);
    }
    let cleaned = clean(&tree);
    for id in ["deployed", "private", "forever", "two", "two-forever", "days"] {
        assert_kept(&cleaned, id, "pinned");
    }
    assert_kept(&cleaned, "unreadable", "pin_unreadable");
    assert_kept(&cleaned, "unreadable-too", "pin_unreadable");
    assert_eq!(gone(&cleaned), ["ended", "ended-twice", "free"]);
    assert_eq!(verdicts(&cleaned)["ended"], (true, vec!["expired".to_owned(), "surplus".to_owned()]));
    for id in ["deployed", "unreadable", "days"] {
        assert!(tree.refused(&["remove", id]).contains("pin"), "{id}");
    }
}

#[test]
fn a_pin_takes_the_place_of_the_pins_there_are_and_unpin_takes_all_away() {
    let tree = Sandbox::with_releases(&["A"]);
    touch(&tree, "A", "soon");
    touch(&tree, "A", "2000-01-01_00.00");
    let pinned = tree.json(&["pin", "A", "--until", "2099-12-31"]);
    assert_eq!((&pinned["changed"], &pinned["keep_until"]), (&true.into(), &"2099-12-31T00:00:00Z".into()));
    assert_eq!(pins(&tree, "A"), ["KEEP_UNTIL__2099-12-31_00.00"]);
    assert_eq!(tree.json(&["pin", "A", "--until", "2099-12-31"])["changed"], false);
    assert_eq!(tree.json(&["list"])["releases"][0]["keep_until"], "2099-12-31T00:00:00Z");
    tree.done(&["pin", "latest", "--forever"]);
    assert_eq!(pins(&tree, "A"), ["KEEP_UNTIL__forever"]);
    assert_eq!(tree.json(&["show", "A"])["release"]["keep_until"], "forever");
    tree.done(&["pin", "A", "--days", "3"]);
    let name = pins(&tree, "A").remove(0);
    let until = Pin::of_name(&name).unwrap();
    let days = |days: u64| Pin::for_days(days, Clock::System.now()).unwrap();
    assert!(days(2) < until && until < days(4), "{name}");
    assert_eq!(tree.done(&["unpin", "A"]), "A is not pinned any more\n");
    assert_eq!(pins(&tree, "A"), Vec::<String>::new());
    assert_eq!(tree.json(&["unpin", "A"])["changed"], false);
    assert_eq!(tree.json(&["show", "A"])["release"]["keep_until"], Value::Null);
    assert_eq!(gone(&clean(&tree)), ["A"]);
}

#[test]
fn a_directory_in_the_place_of_a_pin_keeps_the_release_and_is_told_of_before_anything_is_done() {
    let tree = Sandbox::with_releases(&["A", "B"]);
    fs::create_dir(tree.release("A").join("KEEP_UNTIL__2099-01-01_00.00")).unwrap();
    let before = tree.picture();
    for words in [&["unpin", "A"][..], &["pin", "A", "--forever"]] {
        let said = tree.ends(6, words).stderr;
        assert!(said.contains("KEEP_UNTIL__2099-01-01_00.00: it is not a regular file"), "{said}");
    }
    assert_eq!(tree.picture(), before);
    assert_kept(&clean(&tree), "A", "pinned");
}

#[test]
fn a_pin_that_makes_no_sense_changes_nothing() {
    let tree = Sandbox::with_releases(&["A"]);
    let before = tree.picture();
    tree.ends(2, &["pin", "A"]);
    tree.ends(2, &["pin", "A", "--forever", "--days", "3"]);
    tree.ends(2, &["pin", "A", "--days", "-1"]);
    tree.ends(2, &["pin", "A", "--days", "99999999999"]);
    tree.ends(2, &["pin", "A", "--until", "whenever"]);
    tree.ends(2, &["pin", "../A", "--forever"]);
    tree.refused(&["pin", "B", "--forever"]);
    tree.refused(&["unpin", "B"]);
    tree.refused(&["pin", "A", "--until", "2020-12-02"]);
    assert_eq!(tree.picture(), before);
}

#[test]
fn p08_keep_days_counts_for_a_release_that_is_gone_on_with_or_deployed_later_too() {
    let tree = Sandbox::with_live(&["A"]);
    let step = "[[step]]\nname = 'x'\nphase = 'create'\nrun = 'test -e \"$RELEASECTL_ROOT/go\"'\n";
    let source = tree.code("code", step, &[]);
    tree.ends(1, &["create", &source, "--id", "B"]);
    fs::write(tree.at("go"), "").unwrap();
    tree.done(&["create", "--resume", "B", "--keep-days", "3"]);
    tree.create("C");
    tree.done(&["deploy", "--release", "C", "--keep-days", "3"]);
    for id in ["B", "C"] {
        assert_eq!(pins(&tree, id).len(), 1, "{id}");
    }
}

#[test]
fn p08_no_code_brings_a_pin_or_a_record_of_ours_wherever_it_comes_from() {
    let tree = Sandbox::with_live(&["A"]);
    let refuses = |arguments: &[&str], name: &str| {
        let said = tree.ends(1, arguments).stderr;
        assert!(said.contains(&format!("the code has {name:?} at its top")) && said.contains("hint: "), "{said}");
    };
    let repository = tree.repository("code.git");
    fs::write(repository.join("KEEP_UNTIL__forever"), "").unwrap();
    tree.commit(&repository, "a pin");
    let source = repository.to_str().unwrap();
    refuses(&["create", source], "KEEP_UNTIL__forever");
    refuses(&["create", source, "--as", "dir"], "KEEP_UNTIL__forever");
    // Where git changes what it checks out, it comes another way.
    fs::write(repository.join(".gitattributes"), "version export-subst\n").unwrap();
    tree.commit(&repository, "attributes");
    refuses(&["create", source], "KEEP_UNTIL__forever");
    fs::remove_file(repository.join("KEEP_UNTIL__forever")).unwrap();
    fs::create_dir(repository.join(".releasectl")).unwrap();
    fs::write(repository.join(".releasectl/release.json"), "{}").unwrap();
    tree.commit(&repository, "a record");
    refuses(&["create", source], ".releasectl");
    for name in ["KEEP_UNTIL__2099-01-01_00.00", ".releasectl"] {
        let patch = tree.beside("pin.patch");
        let path = if name == ".releasectl" { ".releasectl/x" } else { name };
        fs::write(&patch, format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n")).unwrap();
        refuses(&["hotfix", "--patch", patch.to_str().unwrap()], name);
    }
    let document = tree.json(&["list"]);
    let kept = document["releases"].as_array().unwrap().iter().map(|release| &release["keep_until"]);
    assert!(kept.into_iter().all(Value::is_null), "{document}");
    // Deeper it is a name like any other.
    fs::remove_dir_all(repository.join(".releasectl")).unwrap();
    fs::create_dir(repository.join("app")).unwrap();
    fs::write(repository.join("app/KEEP_UNTIL__forever"), "").unwrap();
    tree.commit(&repository, "deeper");
    tree.done(&["create", source, "--id", "B"]);
    tree.done(&["create", source, "--as", "dir", "--id", "C"]);
}

#[test]
fn a_release_that_is_not_ours_is_not_pinned_by_us() {
    let tree = Sandbox::laid_out();
    fs::create_dir(tree.release("theirs")).unwrap();
    fs::write(tree.release("theirs").join("x"), "").unwrap();
    let before = tree.picture();
    tree.refused(&["pin", "theirs", "--forever"]);
    assert_eq!(tree.picture(), before);
}

#[test]
fn p08_a_clock_that_was_set_back_ends_no_pin_and_makes_nothing_old() {
    let tree = Sandbox::with_releases(&["ended", "free"]);
    touch(&tree, "ended", "2000-01-01_00.00");
    pinned_in_the_future(&tree, "free");
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "ended", "pinned");
    let told = cleaned["warnings"].to_string();
    assert!(told.contains("clock"), "{told}");
    assert!(tree.refused(&["remove", "ended"]).contains("pinned"));
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0", "--keep-for", "1s"])), Vec::<String>::new());
    tree.create("newer");
    assert_eq!(tree.json(&["list"])["releases"][2]["id"], "newer", "order comes from the journal, not from the clock");
}

/// Leaves an entry in the journal that lies in the future, as a clock does that ran ahead and was set right.
fn pinned_in_the_future(tree: &Sandbox, id: &str) {
    let clock = Clock::Fixed(Timestamp::parse("2099-01-01").unwrap());
    let actor = Actor { by: "tester".into(), command: "releasectl pin".into(), host: "here".into(), clock };
    let opened = Tree::open(Dir::open(&tree.root()).unwrap()).unwrap();
    let mut locked = opened.lock(&actor, Wait::Forever).unwrap();
    locked.set_pin(&id.parse().unwrap(), Some(Pin::Forever)).unwrap();
}

//! A clock that is wrong changes no order: not set back, to 1970 or to 2100, not on a leap day or where summer time ends,
//! and not when it stands still. Time is libfaketime's, in the program alone.

use crate::lab::{gone, json, left_out};
use crate::sandbox::{Answer, PROGRAM, Sandbox};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and others put it.
fn library() -> Option<PathBuf> {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    let more = ["/usr/lib/faketime", "/usr/local/lib/faketime"];
    places.iter().chain(&more).map(|place| Path::new(place).join("libfaketime.so.1")).find(|path| path.exists())
}

/// The program on `tree` at the moment `at`, which is UTC and stands still.
fn at(tree: &Sandbox, library: &Path, at: &str, arguments: &[&str]) -> Command {
    let mut command = tree.clean(PROGRAM);
    command.env("LD_PRELOAD", library).env("FAKETIME", at).env("TZ", "UTC").env("FAKETIME_DONT_RESET", "1");
    // Files keep their true times.
    command.env("NO_FAKE_STAT", "1").arg("--json").arg("--root").arg(tree.root()).args(arguments);
    command
}

#[track_caller]
fn done(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let document = json(&output);
    assert!(output.status.success(), "{document}");
    document
}

/// Does `act` with a way to run the program at a moment, unless there is no libfaketime.
fn with_a_clock(what: &str, act: impl FnOnce(&Sandbox, &dyn Fn(&str, &[&str]) -> Value)) {
    let Some(library) = library() else { return left_out(what, "libfaketime is not installed") };
    let tree = Sandbox::in_memory();
    let run = |moment: &str, arguments: &[&str]| done(at(&tree, &library, moment, arguments));
    act(&tree, &run);
    // It was believed: the history says so.
    let text = fs::read_to_string(tree.at(".releasectl/journal.jsonl")).unwrap();
    assert!(!text.contains(&format!("\"at\":\"{}", &real_day())), "the clock was not the one that was set");
}

fn real_day() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn create(tree: &Sandbox, run: &dyn Fn(&str, &[&str]) -> Value, moment: &str) -> String {
    let source = tree.source("x").display().to_string();
    run(moment, &["create", &source])["release"]["id"].as_str().unwrap().to_owned()
}

fn ids(run: &dyn Fn(&str, &[&str]) -> Value, moment: &str) -> Vec<String> {
    let listing = run(moment, &["list"]);
    listing["releases"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn p04_a_clock_that_jumps_changes_no_order_and_no_rollback_target() {
    with_a_clock("a clock that jumps", |tree, run| {
        let moments = ["2030-06-01 12:00:00", "1970-01-01 00:00:10", "2099-12-31 23:59:59", "2029-01-01 00:00:00"];
        run(moments[0], &["init"]);
        let made: Vec<String> = moments.iter().map(|moment| create(tree, run, moment)).collect();
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 4, "{made:?}");
        assert_eq!(ids(run, moments[1]), made, "the order is that of their making, whatever their names and times");
        for (at, id) in made.iter().enumerate() {
            run(moments[3 - at], &["activate", id]);
        }
        assert_eq!(run(moments[1], &["list"])["previous"], *made[2]);
        assert_eq!(run(moments[2], &["rollback"])["to"], *made[2]);
        let entries = run(moments[0], &["history"])["entries"].as_array().unwrap().clone();
        let operations: Vec<&str> = entries.iter().rev().take(2).map(|e| e["operation"].as_str().unwrap()).collect();
        assert_eq!(operations[0], "rollback", "{entries:?}");
        // What was rolled back from is no longer good: the newest that is was made before it, in 2099.
        assert_eq!(run(moments[0], &["activate", "latest"])["to"], *made[2]);
    });
}

#[test]
fn p04_a_clock_before_1970_is_as_wrong_as_any_other_and_ends_nothing() {
    with_a_clock("a clock before 1970", |tree, run| {
        let (before, after) = ("1965-01-01 00:00:00", "2030-06-01 12:00:00");
        run(before, &["init"]);
        let made: Vec<String> = [after, before, after].iter().map(|moment| create(tree, run, moment)).collect();
        made.iter().for_each(|id| drop(run(before, &["activate", id])));
        assert_eq!(run(before, &["rollback"])["to"], *made[1]);
        assert!(made[1].starts_with("1965-01-01_00.00"), "{made:?}");
        run(before, &["pin", &made[0], "--days", "3"]);
        run(before, &["clean"]);
        assert_eq!(run(after, &["history", "-n", "2"])["entries"][0]["operation"], "pin");
    });
}

#[test]
fn p08_with_a_clock_before_the_newest_entry_nothing_is_removed_for_its_age() {
    with_a_clock("a clock that was set back", |tree, run| {
        let (past, present) = ("1970-01-02 00:00:00", "2030-06-10 12:00:00");
        run("2030-06-01 12:00:00", &["init"]);
        let old = create(tree, run, "2030-06-01 12:00:00");
        run("2030-06-01 12:01:00", &["pin", &old, "--days", "3"]);
        create(tree, run, present);
        let live = create(tree, run, present);
        run(present, &["activate", &live]);
        for moment in [past, "2030-06-10 11:59:59"] {
            let cleaned = run(moment, &["clean", "--keep", "0", "--keep-for", "1d"]);
            assert_eq!(gone(&cleaned), Vec::<String>::new(), "{moment}: {cleaned}");
            assert!(cleaned["warnings"].to_string().contains("the clock lies before"), "{cleaned}");
        }
        // In 2100 every pin has run out, and everything is old; what is live stays.
        let cleaned = run("2100-01-01 00:00:00", &["clean", "--keep", "0", "--keep-for", "1d"]);
        assert_eq!(gone(&cleaned).len(), 2, "{cleaned}");
        assert_eq!(run(present, &["list"])["current"], *live);
    });
}

#[test]
fn p12_ids_of_one_second_differ_and_sort_in_the_order_of_their_making() {
    with_a_clock("a clock that stands still", |tree, run| {
        let moment = "2030-06-01 12:00:17";
        run(moment, &["init"]);
        let made: Vec<String> = (0..12).map(|_| create(tree, run, moment)).collect();
        let mut sorted = made.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, made);
        assert_eq!(made[..3], ["2030-06-01_12.00", "2030-06-01_12.00.17", "2030-06-01_12.00.17.001"]);
        assert_eq!(ids(run, moment), made);
    });
}

#[test]
fn p08_a_pin_ends_when_it_says_across_leap_days_and_the_ends_of_summer_time() {
    let Some(library) = library() else { return left_out("days of odd lengths", "libfaketime is not installed") };
    let cases = [
        // Made at, days, still held at, over at.
        ("2028-02-28 12:00:00", "1", "2028-02-29 11:59:59", "2028-02-29 12:01:00"),
        ("2028-02-29 12:00:00", "365", "2029-02-28 11:59:59", "2029-02-28 12:01:00"),
        ("2027-02-28 23:59:00", "1", "2027-03-01 23:58:59", "2027-03-02 00:00:00"),
        ("2026-10-24 12:00:00", "1", "2026-10-25 11:59:59", "2026-10-25 12:01:00"),
        ("2026-03-28 12:00:00", "1", "2026-03-29 11:59:59", "2026-03-29 12:01:00"),
        ("2099-12-31 23:59:00", "1", "2100-01-01 23:58:59", "2100-01-02 00:00:00"),
    ];
    for zone in ["UTC", "Europe/Berlin", "America/New_York"] {
        for (made, days, held, over) in cases {
            let tree = Sandbox::in_memory();
            let run = |moment: &str, arguments: &[&str]| {
                // libfaketime reads the moment in the zone; written with its seconds since 1970 it is the same in all.
                let mut date = Command::new("date");
                let seconds = date.args(["-u", "-d", moment, "+%s"]).output().unwrap().stdout;
                let seconds = String::from_utf8(seconds).unwrap();
                let mut command = at(&tree, &library, seconds.trim(), arguments);
                command.env("TZ", zone).env("FAKETIME_FMT", "%s");
                done(command)
            };
            run(made, &["init"]);
            let id = create(&tree, &run, made);
            assert_eq!(id, made.replace(' ', "_").replace(':', ".")[..16], "{zone}: an id is UTC");
            run(made, &["pin", &id, "--days", days]);
            let clean = |moment: &str| gone(&run(moment, &["clean", "--keep", "0"]));
            assert_eq!(clean(held), Vec::<String>::new(), "{zone}: {made} and {days} days, at {held}");
            assert_eq!(clean(over), [id], "{zone}: {made} and {days} days, at {over}");
        }
    }
}

#[test]
fn p08_a_pin_until_a_moment_means_it_in_utc_unless_it_says_otherwise() {
    let tree = Sandbox::with_releases(&["A"]);
    let pin = |until: &str| {
        let answer: Answer =
            tree.command(&["pin", "A", "--until", until]).env("TZ", "Asia/Tokyo").output().unwrap().into();
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        tree.json(&["show", "A"])["release"]["keep_until"].as_str().unwrap().to_owned()
    };
    assert_eq!(pin("2096-02-29"), "2096-02-29T00:00:00Z");
    assert_eq!(pin("2096-02-29T08:30:00+09:00"), "2096-02-28T23:30:00Z");
    assert_eq!(tree.ends(2, &["pin", "A", "--until", "2100-02-29"]).code, 2, "2100 has no leap day");
}

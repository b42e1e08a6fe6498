//! `clean`, `remove`: what is needed stays, whoever needs it and however it is written.

use crate::lab::{Waiting, as_root_or_left_out, assert_kept, gone, tar_of, verdicts};
use crate::sandbox::{Sandbox, picture};
use proptest::prelude::*;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;

/// Cleans as hard as possible: nothing is kept for being new.
fn clean(tree: &Sandbox) -> Value {
    let planned = tree.json(&["clean", "--keep", "0", "--dry-run"]);
    let done = tree.json(&["clean", "--keep", "0"]);
    assert_eq!(done["ok"], true, "{done}");
    assert_eq!(verdicts(&planned), verdicts(&done), "what was announced is what is done");
    done
}

fn exists(tree: &Sandbox, id: &str) -> bool {
    tree.release(id).join("version").exists()
}

#[test]
fn p08_the_live_release_stays_however_its_link_is_spelled() {
    let tree = Sandbox::with_releases(&["A"]);
    let root = tree.root().display().to_string();
    symlink(tree.release("A"), tree.beside("elsewhere")).unwrap();
    symlink("releases", tree.at("older-name")).unwrap();
    symlink(tree.root(), tree.beside("other-way")).unwrap();
    let spellings = [
        "releases/A".to_owned(),
        "./releases//A/".to_owned(),
        format!("{root}/releases/A"),
        format!("{root}/releases/A/"),
        format!("{root}/releases/../releases/./A"),
        "../elsewhere".to_owned(),
        "older-name/A".to_owned(),
        "../other-way/releases/A".to_owned(),
    ];
    for (at, spelling) in spellings.iter().enumerate() {
        let surplus = format!("surplus-{at}");
        tree.create(&surplus);
        let _ = fs::remove_file(tree.at("current"));
        symlink(spelling, tree.at("current")).unwrap();
        let cleaned = clean(&tree);
        assert_kept(&cleaned, "A", "current");
        assert_eq!(gone(&cleaned), [surplus], "{spelling}");
        assert_eq!(fs::read_to_string(tree.at("current/version")).unwrap(), "A", "{spelling}");
        assert_eq!(tree.json(&["list"])["current"], "A", "{spelling}");
    }
}

#[test]
fn p08_a_release_stays_if_current_leads_somewhere_into_it() {
    let tree = Sandbox::with_releases(&["A", "B"]);
    symlink("releases/A/app", tree.at("current")).unwrap();
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "A", "current");
    assert_eq!(gone(&cleaned), ["B"]);
    assert!(tree.refused(&["remove", "A"]).contains("current"));
    assert!(tree.at("current/main.py").exists());
}

#[test]
fn p08_the_rollback_target_stays_and_what_is_newer_but_was_never_live_goes() {
    let tree = Sandbox::with_releases(&["A", "B", "C", "D"]);
    tree.done(&["activate", "A"]);
    tree.done(&["activate", "C"]);
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "A", "rollback_target");
    assert_kept(&cleaned, "C", "current");
    assert_eq!(gone(&cleaned), ["B", "D"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p08_a_link_that_leads_nowhere_does_not_make_what_was_live_fair_game() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::remove_file(tree.at("current")).unwrap();
    symlink("releases/gone", tree.at("current")).unwrap();
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "B", "rollback_target");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn p08_a_leased_release_stays_and_goes_once_the_lease_is_given_back() {
    let tree = Sandbox::with_releases(&["shared", "exclusive", "C"]);
    let flock = |kind: &str, id: &str| {
        let mut flock = tree.clean("flock");
        flock.arg(kind).arg(tree.release(id)).args(["sh", "-c", "echo ready; exec cat"]);
        Waiting::start(&mut flock)
    };
    let holders = [flock("--shared", "shared"), flock("--exclusive", "exclusive")];
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "shared", "leased");
    assert_kept(&cleaned, "exclusive", "leased");
    assert_eq!(gone(&cleaned), ["C"]);
    assert!(tree.refused(&["remove", "shared"]).contains("leased"));
    drop(holders);
    assert_eq!(gone(&clean(&tree)), ["exclusive", "shared"]);
}

#[test]
fn p08_a_release_that_a_process_runs_from_by_another_path_as_in_a_container_stays() {
    if !as_root_or_left_out("a process with bind mounts of its own") {
        return;
    }
    let tree = Sandbox::with_releases(&["in-the-tree", "alone", "free"]);
    let (app, one) = (tree.beside("app"), tree.beside("one"));
    for place in [&app, &one] {
        fs::create_dir(place).unwrap();
    }
    let script = r#"mount --bind "$1" "$2" && mount --bind "$1/releases/alone" "$3" || exit
        exec 7<"$3/version"; cd "$2/releases/in-the-tree" && echo ready; cat >/dev/null; :"#;
    let mut shell = tree.clean("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(tree.root()).args([&app, &one]);
    let process = Waiting::start(&mut shell);
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "in-the-tree", "in_use");
    assert_kept(&cleaned, "alone", "in_use");
    assert_eq!(gone(&cleaned), ["free"]);
    drop(process);
    assert_eq!(gone(&clean(&tree)), ["alone", "in-the-tree"]);
}

#[test]
fn p08_a_release_that_a_process_runs_from_stays() {
    let tree = Sandbox::with_releases(&["cwd", "open", "mapped", "named", "free"]);
    let shell = |id: &str, script: &str| Waiting::shell(&tree, &tree.release(id), script, &[]);
    let map = "import mmap, os, sys
file = open('app/main.py', 'rb')
kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
file.close(); os.chdir('/'); print('ready', flush=True); sys.stdin.read()";
    let mut python = tree.clean("python3");
    python.args(["-c", map]).current_dir(tree.release("mapped"));
    let processes = [
        shell("cwd", "cd app"),
        shell("open", "exec 7<version; cd /"),
        Waiting::start(&mut python),
        Waiting::shell(&tree, &PathBuf::from("/"), ":", &[&tree.release("named").join("app/main.py")]),
    ];
    let cleaned = clean(&tree);
    for id in ["cwd", "open", "mapped", "named"] {
        assert_kept(&cleaned, id, "in_use");
        tree.done(&["pin", id, "--days", "1"]);
        let said = tree.refused(&["remove", id]);
        assert!(said.contains("in_use by process ") && !said.contains("pinned by"), "{said}");
        tree.done(&["unpin", id]);
        assert_ne!(tree.json(&["show", id])["release"]["pids"], serde_json::json!([]), "{id}");
    }
    assert_eq!(gone(&cleaned), ["free"]);
    drop(processes);
    assert_eq!(gone(&clean(&tree)), ["cwd", "mapped", "named", "open"]);
}

#[test]
fn p08_somebody_elses_build_in_progress_stays_and_comes_to_its_end() {
    let tree = Sandbox::with_releases(&["A"]);
    let bytes = tar_of(&[("version", b"BUSY"), ("more", &[b'x'; 100_000])]);
    let mut build = tree
        .command(&["create", "-", "--id", "BUSY"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = build.stdin.take().unwrap();
    input.write_all(&bytes[..2048]).unwrap();
    tree.until_building("BUSY");
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "BUSY", "leased");
    assert_eq!(gone(&cleaned), ["A"]);
    assert!(tree.refused(&["remove", "BUSY"]).contains("leased"));
    input.write_all(&bytes[2048..]).unwrap();
    drop(input);
    assert!(build.wait().unwrap().success());
    assert_eq!(tree.states()["BUSY"], "ready");
    assert_eq!(fs::read(tree.release("BUSY").join("more")).unwrap().len(), 100_000);
}

#[test]
fn p08_the_build_of_somebody_who_died_is_incomplete_and_goes() {
    let tree = Sandbox::laid_out();
    let mut build = tree
        .command(&["create", "-", "--id", "DEAD"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = build.stdin.take();
    tree.until_building("DEAD");
    build.kill().unwrap();
    build.wait().unwrap();
    drop(input);
    assert_eq!(tree.states()["DEAD"], "incomplete");
    let cleaned = clean(&tree);
    assert_eq!(verdicts(&cleaned)["DEAD"], (true, vec!["incomplete".to_owned()]));
}

#[test]
fn p08_what_is_not_ours_stays() {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    let releases = tree.at("releases");
    let odd: [&[u8]; 6] = [b"caf\xe9", b"-rf", b".hidden", b"a b", b"new\nline", b"2026-01-01_00.00"];
    for name in odd {
        let directory = releases.join(OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("precious"), "x").unwrap();
    }
    fs::write(releases.join("file"), "x").unwrap();
    fs::create_dir(tree.beside("outside")).unwrap();
    fs::write(tree.beside("outside/precious"), "x").unwrap();
    symlink(tree.beside("outside"), releases.join("2020-01-01_00.00")).unwrap();
    symlink("B", releases.join("link-to-B")).unwrap();
    symlink("nowhere", releases.join("dangling")).unwrap();
    let outside = picture(&tree.beside("outside"));
    let before = picture(&releases);
    let cleaned = clean(&tree);
    assert_eq!(gone(&cleaned), ["B"]);
    let strangers =
        ["caf\u{fffd}", "-rf", ".hidden", "a b", "new\nline", "2026-01-01_00.00", "file", "2020-01-01_00.00"];
    for name in strangers.iter().chain(&["link-to-B", "dangling"]) {
        assert_kept(&cleaned, name, "unrecognised");
    }
    let mut after = before;
    after.retain(|path, _| !path.starts_with("B"));
    assert_eq!(picture(&releases), after);
    assert_eq!(picture(&tree.beside("outside")), outside);
    assert_eq!(tree.json(&["list"])["foreign"].as_array().map(Vec::len), Some(10));
    for name in ["file", "2026-01-01_00.00", "2020-01-01_00.00"] {
        tree.refused(&["remove", name]);
    }
    assert_eq!(picture(&releases), after);
}

#[test]
fn p08_a_release_whose_manifest_cannot_be_read_stays() {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    tree.create("C");
    fs::write(tree.release("B").join(".releasectl/release.json"), "{}").unwrap();
    let cleaned = clean(&tree);
    assert_kept(&cleaned, "B", "unrecognised");
    assert_eq!(gone(&cleaned), ["C"]);
    assert!(exists(&tree, "B"));
}

#[test]
fn failed_builds_never_crowd_out_good_ones() {
    let tree = Sandbox::with_releases(&["A", "B", "C"]);
    fs::write(tree.beside("broken.tar"), &tar_of(&[("version", &[b'x'; 5000])])[..3000]).unwrap();
    for id in ["F1", "F2", "F3", "F4"] {
        tree.ends(1, &["create", "broken.tar", "--id", id]);
    }
    let cleaned = tree.json(&["clean", "--keep", "2"]);
    assert_eq!(gone(&cleaned), ["A", "F1", "F2", "F3", "F4"]);
    assert_kept(&cleaned, "B", "among_newest");
    assert_kept(&cleaned, "C", "among_newest");
}

#[test]
fn min_free_takes_what_it_may_and_nothing_that_is_needed() {
    let tree = Sandbox::with_live(&["A", "B"]);
    for id in ["C", "D", "E"] {
        tree.create(id);
    }
    assert!(gone(&tree.json(&["clean", "--keep", "9", "--min-free", "1K"])).is_empty(), "that much is free");
    let cleaned = tree.json(&["clean", "--keep", "9", "--min-free", "1000000T"]);
    assert_eq!(gone(&cleaned), ["C", "D", "E"]);
    assert_kept(&cleaned, "A", "rollback_target");
    assert_kept(&cleaned, "B", "current");
    for dry in [&["--dry-run"][..], &[]] {
        let said = tree.ends(0, &[&["clean", "--min-free", "1000000T"], dry].concat()).stderr;
        assert!(said.contains("MiB less are free than min-free asks for"), "{said}");
    }
}

#[test]
fn keep_for_spares_the_young() {
    let tree = Sandbox::with_releases(&["A", "B"]);
    let cleaned = tree.json(&["clean", "--keep", "0", "--keep-for", "1h"]);
    assert_kept(&cleaned, "A", "recent");
    assert_eq!(gone(&cleaned), Vec::<String>::new());
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0", "--keep-for", "0s"])), ["A", "B"]);
}

#[test]
fn remove_takes_all_that_are_named_or_none() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["rollback"]);
    tree.create("D");
    tree.create("E");
    tree.done(&["pin", "E", "--forever"]);
    let before = tree.picture();
    for (words, reason) in [
        (vec!["D", "B"], "current"),
        (vec!["D", "A"], "rollback_target"),
        (vec!["E", "D"], "pinned"),
        (vec!["D", "nobody"], "there is no release nobody"),
        (vec!["current"], "current"),
        (vec!["previous"], "rollback_target"),
    ] {
        let words: Vec<&str> = std::iter::once("remove").chain(words).collect();
        let told = tree.refused(&words);
        assert!(told.contains(reason), "{told}");
    }
    tree.ends(2, &["remove"]);
    tree.ends(2, &["remove", "../D"]);
    assert_eq!(tree.picture(), before, "a refusal changes nothing");
    let removed = tree.json(&["remove", "C", "D", "C"]);
    assert_eq!(verdicts(&removed)["C"], (true, vec!["bad".to_owned()]));
    assert_eq!(verdicts(&removed)["D"], (true, vec!["surplus".to_owned()]));
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(2), "{removed}");
    assert_eq!(removed["warnings"], serde_json::json!([]));
    assert_eq!(tree.states().into_keys().collect::<Vec<_>>(), ["A", "B", "E"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p10_for_any_tree_the_plan_is_what_is_done_and_what_is_needed_stays(
        kinds in prop::collection::vec(0..7_u8, 1..9),
        keep in 0..4_usize,
    ) {
        let tree = Sandbox::laid_out();
        for (at, kind) in kinds.iter().enumerate() {
            let id = format!("R{at}");
            if *kind == 0 {
                fs::create_dir(tree.release(&id)).unwrap();
                fs::write(tree.release(&id).join("precious"), "x").unwrap();
                continue;
            }
            tree.create(&id);
            match kind {
                1 | 2 => drop(tree.done(&["activate", &id])),
                3 => drop(tree.run(&["rollback"])),
                4 => drop(tree.done(&["pin", &id, "--days", "1"])),
                5 => fs::write(tree.release(&id).join("KEEP_UNTIL__2020-01-01_00.00"), "").unwrap(),
                _ => {}
            }
        }
        let (live, before) = (tree.live(), tree.json(&["status"]));
        let keep = keep.to_string();
        let planned = tree.json(&["clean", "--keep", &keep, "--dry-run"]);
        let done = tree.json(&["clean", "--keep", &keep]);
        prop_assert_eq!(verdicts(&planned), verdicts(&done));
        let left: Vec<String> = picture(&tree.at("releases")).into_keys().map(|path| path.iter().next().unwrap().to_str().unwrap().to_owned()).collect();
        for (id, (goes, _)) in verdicts(&done) {
            prop_assert_eq!(left.contains(&id), !goes, "{}", id);
        }
        let after = tree.json(&["status"]);
        prop_assert_eq!(tree.live(), live);
        prop_assert_eq!(&after["current"], &before["current"]);
        prop_assert_eq!(&after["previous"], &before["previous"]);
        prop_assert_eq!(gone(&tree.json(&["clean", "--keep", &keep])), Vec::<String>::new());
        prop_assert_eq!(tree.done(&["clean", "--keep", &keep, "--quiet"]), "");
    }
}

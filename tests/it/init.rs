//! `init`: a tree is laid out, or the one that is there is taken over as it is.

use crate::lab::{assert_kept, gone};
use crate::sandbox::{Answer, Sandbox, picture};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// A tree as the older tooling left it: dated releases, an absolute link, pins, a list.
fn of_old() -> Sandbox {
    let tree = Sandbox::new();
    for id in ["2026-11-20_09.15", "2026-11-21_10.00", "2026-11-22_23.40"] {
        fs::create_dir_all(tree.release(id).join("python_env/bin")).unwrap();
        fs::write(tree.release(id).join("version"), id).unwrap();
    }
    fs::write(tree.release("2026-11-20_09.15").join("KEEP_UNTIL__2099-01-01_00.00"), "").unwrap();
    fs::write(tree.at("RELEASES.txt"), "2026-11-20_09.15\n2026-11-22_23.40\n").unwrap();
    fs::create_dir(tree.at("releases/scratch dir")).unwrap();
    fs::write(tree.at("releases/notes"), "x").unwrap();
    symlink(tree.release("2026-11-22_23.40"), tree.at("current")).unwrap();
    tree
}

/// What `before` had is there as it was; only our own may be new.
fn assert_untouched(tree: &Sandbox, before: &BTreeMap<PathBuf, String>) {
    let mut after = picture(&tree.root());
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(&after, before);
}

#[test]
fn init_lays_out_a_tree_and_done_twice_it_changes_nothing() {
    let tree = Sandbox::new();
    let first = tree.json(&["init"]);
    assert_eq!((&first["ok"], &first["changed"]), (&true.into(), &true.into()));
    for name in ["releases", "shared", "log", ".releasectl"] {
        assert!(tree.at(name).is_dir(), "{name}");
    }
    let mode = fs::metadata(tree.at(".releasectl")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    let before = tree.picture();
    assert_eq!(tree.json(&["init"])["changed"], false);
    assert_eq!(tree.picture(), before);
    tree.done(&["doctor"]);
}

#[test]
fn p20_a_tree_of_the_older_tooling_is_taken_over_as_it_is() {
    let tree = of_old();
    let before = picture(&tree.root());
    let answer = tree.ends(0, &["init"]);
    assert!(!answer.stderr.contains("warning"), "{}", answer.stderr);
    assert_untouched(&tree, &before);
    let listing = tree.json(&["list"]);
    assert_eq!(listing["current"], "2026-11-22_23.40");
    let ids: Vec<&str> = listing["releases"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["2026-11-20_09.15", "2026-11-21_10.00", "2026-11-22_23.40"]);
    assert_eq!(listing["releases"][0]["created_at"], "2026-11-20T09:15:00Z");
    assert_eq!(listing["foreign"], serde_json::json!(["notes", "scratch dir"]));
    let laid = picture(&tree.root());
    assert_eq!(tree.json(&["init"])["changed"], false);
    assert_eq!(picture(&tree.root()).len(), laid.len());
    assert_untouched(&tree, &before);
}

#[test]
fn p20_what_was_taken_over_is_activated_gone_back_to_and_cleaned_like_any_other() {
    let tree = of_old();
    tree.done(&["init"]);
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert_kept(&cleaned, "2026-11-22_23.40", "current");
    assert_kept(&cleaned, "2026-11-20_09.15", "pinned");
    tree.create("new");
    tree.done(&["activate", "new"]);
    assert_eq!(fs::read_link(tree.at("current")).unwrap(), PathBuf::from("releases/new"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("2026-11-22_23.40"));
    tree.done(&["activate", "2026-11-20_09.15"]);
    tree.done(&["unpin", "2026-11-20_09.15"]);
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), ["new"]);
    tree.done(&["doctor"]);
}

#[test]
fn p20_what_was_known_of_a_release_goes_with_it_and_makes_nothing_ready_that_comes_under_its_name() {
    let old = "2026-11-20_09.15";
    let taken_over = || {
        let tree = of_old();
        tree.done(&["init"]);
        tree.create("new");
        tree.done(&["activate", "new"]);
        tree.done(&["unpin", old]);
        assert_eq!(tree.states()[old], "ready");
        tree
    };
    for words in [&["remove", old][..], &["clean", "--keep", "0"]] {
        let tree = taken_over();
        tree.done(words);
        // Half of what another tool copies.
        fs::create_dir(tree.release(old)).unwrap();
        fs::write(tree.release(old).join("file"), "").unwrap();
        assert!(!tree.states().contains_key(old), "{words:?}: {:?}", tree.states());
    }
    // One that went by another hand, and half of what we build.
    let tree = taken_over();
    fs::remove_dir_all(tree.release(old)).unwrap();
    let source = tree.source("x").display().to_string();
    // The first rename is that of RELEASES.txt.
    tree.killed("renameat:signal=SIGKILL:when=2", &["create", &source, "--id", old]);
    assert_eq!(tree.states()[old], "incomplete");
    tree.ends(3, &["activate", old]);
}

#[test]
fn p08_what_a_file_system_has_of_its_own_is_no_release() {
    let tree = Sandbox::new();
    fs::create_dir_all(tree.at("releases/lost+found")).unwrap();
    fs::create_dir(tree.at("releases/1")).unwrap();
    fs::write(tree.at("releases/1/file"), "").unwrap();
    assert_eq!(tree.json(&["init"])["adopted"], serde_json::json!(["1"]));
    assert_eq!(tree.json(&["list"])["foreign"], serde_json::json!(["lost+found"]));
    let fresh = Sandbox::new();
    fs::create_dir_all(fresh.at("lost+found")).unwrap();
    fresh.create("A");
}

#[test]
fn p20_what_is_live_and_no_release_is_told_when_its_tree_is_taken_over() {
    let tree = Sandbox::new();
    fs::create_dir_all(tree.release("A").join("public")).unwrap();
    for target in ["/srv/elsewhere", "releases/A/public", "releases/gone"] {
        let _ = fs::remove_dir_all(tree.at(".releasectl"));
        let _ = fs::remove_file(tree.at("current"));
        std::os::unix::fs::symlink(target, tree.at("current")).unwrap();
        let said = tree.ends(0, &["init"]).stderr;
        assert!(said.contains(&format!("warning: current leads to {target}, which is no release here")), "{said}");
        assert_eq!(fs::read_link(tree.at("current")).unwrap(), std::path::Path::new(target));
    }
}

#[test]
fn p20_a_current_that_is_no_link_is_refused_before_anything_is_made() {
    for directory in [true, false] {
        let tree = of_old();
        fs::remove_file(tree.at("current")).unwrap();
        if directory {
            fs::create_dir(tree.at("current")).unwrap();
            fs::write(tree.at("current/precious"), "x").unwrap();
        } else {
            fs::write(tree.at("current"), "precious").unwrap();
        }
        let before = picture(&tree.root());
        let error = tree.refused(&["init"]);
        assert!(error.contains("never removed"), "{error}");
        assert_eq!(picture(&tree.root()), before);
    }
}

/// What fstatfs answers on NFS, put into the answer on its way back.
const ON_NFS: &str = "fstatfs:poke_exit=@arg2=6969000000000000:when=1+";

#[test]
fn a_tree_on_nfs_is_refused_before_anything_is_made_unless_the_host_allows_it() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = tree.picture();
    let run = |arguments: &[&str]| Answer::from(tree.faulty(ON_NFS, arguments).output().unwrap());
    let source = tree.source("C").display().to_string();
    let changes = [
        &["init"][..],
        &["create", &source],
        &["deploy", &source],
        &["rollback"],
        &["clean"],
        &["pin", "A", "--forever"],
    ];
    for arguments in changes {
        let answer = run(arguments);
        assert_eq!(answer.code, 3, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains("lies on NFS") && answer.stderr.contains("allow_nfs"), "{}", answer.stderr);
    }
    assert_eq!(tree.picture(), before);
    assert_eq!(run(&["list"]).code, 0, "looking is allowed");
    let doctor = run(&["doctor"]);
    assert!(doctor.code == 6 && doctor.stdout.contains("lies on NFS"), "{}", doctor.stdout);
    // A tree that is not there yet.
    let nothing = Sandbox::new();
    assert_eq!(Answer::from(nothing.faulty(ON_NFS, &["deploy", &source]).output().unwrap()).code, 3);
    assert!(!nothing.root().exists());
    // The host's own word.
    let file = tree.beside("production.toml");
    fs::write(&file, "root = \"/\"\nallow_nfs = true\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let config = file.to_str().unwrap();
    assert_eq!(run(&["rollback", "--config", config]).code, 0);
    assert_eq!(tree.live().as_deref(), Some("A"));
    assert!(run(&["doctor", "--config", config]).stdout.contains("the host's file allows"));
}

#[test]
fn a_root_whose_disk_is_not_mounted_is_told_with_where_it_leads() {
    let tree = Sandbox::new();
    std::os::unix::fs::symlink(tree.beside("disk"), tree.root()).unwrap();
    for words in [&["status"][..], &["deploy", tree.source("A").to_str().unwrap()]] {
        let said = tree.ends(2, words).stderr;
        let leads = format!("leads to {}, which is not there", tree.beside("disk").display());
        assert!(said.contains(&leads) && said.contains("is mounted"), "{said}");
    }
    assert!(!tree.beside("disk").exists());
}

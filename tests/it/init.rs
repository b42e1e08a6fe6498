//! `init`: a tree is laid out, or the one that is there is taken over as it is.

use crate::lab::{assert_kept, gone};
use crate::sandbox::{Sandbox, picture};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
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

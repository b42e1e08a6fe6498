//! What another hand does between our look and our act is its own: it is told, and never undone.

use crate::locks::Holder;
use crate::sandbox::{Sandbox, picture};
use std::fs::{self, File};

#[test]
fn p12_what_somebody_makes_under_a_name_that_is_just_being_reserved_is_his_and_is_not_touched() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.source("other").display().to_string();
    // The intent is in the journal by then, and the directory is not made yet.
    for words in [&["create", &source, "--id", "B"][..], &["create", &source]] {
        let stopped = Holder::after(&tree, "fsync:1", words);
        let id = tree.json(&["status"])["unfinished"][0]["to"].as_str().unwrap().to_owned();
        fs::create_dir(tree.release(&id)).unwrap();
        fs::write(tree.release(&id).join("precious"), "another tool's").unwrap();
        let before = picture(&tree.release(&id));
        let answer = stopped.go_on();
        assert_eq!(picture(&tree.release(&id)), before, "{}", answer.stderr);
        if id == "B" {
            assert_eq!(answer.code, 3, "{}", answer.stderr);
            assert!(answer.stderr.contains("release B exists already"), "{}", answer.stderr);
        } else {
            assert_eq!(answer.code, 0, "another name is free: {}", answer.stderr);
            assert!(!answer.stdout.trim_end().ends_with(&id), "{}", answer.stdout);
        }
        assert_eq!(tree.json(&["status"])["unfinished"], serde_json::json!([]));
    }
}

#[test]
fn p09_what_somebody_puts_in_the_place_of_a_victim_is_given_back_and_not_deleted() {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    // The tree's lock, a try for the lease of each release, and the victim's lease: what is next is to rename it away.
    let stopped = Holder::after(&tree, "flock:4", &["clean", "--keep", "0"]);
    fs::rename(tree.release("B"), tree.beside("kept")).unwrap();
    fs::create_dir(tree.release("B")).unwrap();
    fs::write(tree.release("B").join("precious"), "").unwrap();
    let answer = stopped.go_on();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stderr.contains("release B stays: ") && answer.stderr.contains("in its place"), "{}", answer.stderr);
    assert!(tree.release("B").join("precious").exists() && tree.beside("kept/version").exists());
    assert_eq!(fs::read_dir(tree.at(".releasectl/trash")).unwrap().count(), 0);
}

#[test]
fn p06_a_clean_that_has_removed_something_says_so_though_somebody_has_the_lock_by_then() {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    // What the tree lies on is looked at for the fifth time when a release is deleted, without the lock.
    let stopped = Holder::after(&tree, "fstatfs:5", &["--json", "clean", "--keep", "0"]);
    assert!(!tree.release("B").exists());
    let lock = File::open(tree.at(".releasectl/lock")).unwrap();
    lock.try_lock().unwrap();
    let answer = stopped.go_on();
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains(r#""removed":[{"id":"B""#), "{}", answer.stdout);
}

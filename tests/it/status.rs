//! `status` and `history`: the fingerprint by which hosts are seen to agree, what room there is, and what became of which release.

use crate::lab::{as_root_or_left_out, in_mount_namespace};
use crate::sandbox::Sandbox;
use std::path::Path;

fn fingerprint(tree: &Sandbox) -> String {
    let text = tree.json(&["status"])["fingerprint"].as_str().unwrap().to_owned();
    assert!(text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    assert!(tree.done(&["status"]).contains(&format!("fingerprint {text}\n")));
    text
}

/// A host on which the code of `reference` was made live as `ids`, one after the other.
fn host(repository: &Path, reference: &str, ids: &[&str]) -> Sandbox {
    let tree = Sandbox::new();
    for id in ids {
        tree.done(&["create", repository.to_str().unwrap(), "--ref", reference, "--id", id]);
        tree.done(&["activate", id]);
    }
    tree
}

#[test]
fn the_fingerprint_is_the_same_where_hosts_agree_and_only_there() {
    let source = Sandbox::new();
    let repository = source.repository("source");
    let one = source.commit(&repository, "two");
    std::fs::write(repository.join("requirements.txt"), "").unwrap();
    let two = source.commit(&repository, "three");
    let first = host(&repository, &one, &["A", "B"]);
    let agreed = fingerprint(&first);
    assert_eq!(fingerprint(&host(&repository, &one, &["A", "B"])), agreed);
    assert_eq!(fingerprint(&host(&repository, &one, &["0", "A", "B"])), agreed, "what is older counts for nothing");
    assert_ne!(fingerprint(&host(&repository, &one, &["B"])), agreed, "another rollback target");
    assert_ne!(fingerprint(&host(&repository, &one, &["B", "A"])), agreed, "the other way round");
    assert_ne!(fingerprint(&host(&repository, &two, &["A", "B"])), agreed, "another revision");
    let etc = first.beside("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("production.toml"), "").unwrap();
    let file = etc.join("production.toml").display().to_string();
    let named = first.json(&["status", "--config", &file]);
    assert_eq!(named["env"], "production");
    assert_ne!(named["fingerprint"], agreed, "another environment");
    first.done(&["create", repository.to_str().unwrap(), "--id", "C"]);
    assert_eq!(fingerprint(&first), agreed, "what is not live counts for nothing");
    first.done(&["rollback"]);
    assert_ne!(fingerprint(&first), agreed);
}

#[test]
fn a_file_system_that_makes_inodes_as_it_needs_them_is_not_told_to_have_none() {
    if !as_root_or_left_out("a tree on a file system without a number of inodes") {
        return;
    }
    let source = Sandbox::new();
    let script = "mkdir \"$2/tree\"; mount -t tmpfs -o nr_inodes=0 none \"$2/tree\"; \"$1\" --root \"$2/tree\" init
        for verb in status doctor \"--json status\"; do \"$1\" --root \"$2/tree\" $verb; done";
    let output = in_mount_namespace(&source, script, &[&source.beside("")]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("0 inodes") && said.contains("\"free_inodes\":null"), "{said}");
}

#[test]
fn the_history_names_what_was_removed_and_has_a_line_for_each_operation() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["remove", "A"]);
    tree.create("D");
    tree.create("E");
    tree.done(&["clean", "--keep", "0"]);
    let many = "[[step]]\nname = 'one'\nphase = 'create'\nrun = 'echo first >&2; echo second >&2; exit 1'\n";
    tree.ends(1, &["create", &tree.code("code", many, &[]), "--id", "F"]);
    let entries = tree.json(&["history", "-n", "5"])["entries"].clone();
    let of = |at: usize| (entries[at]["operation"].as_str().unwrap(), entries[at]["releases"].clone());
    assert_eq!(of(0), ("remove", serde_json::json!(["A"])));
    assert_eq!(of(3), ("clean", serde_json::json!(["D", "E"])));
    assert_eq!(of(4), ("create", serde_json::json!([])));
    let shown = tree.done(&["history", "-n", "5"]);
    assert_eq!(shown.lines().count(), 5, "{shown}");
    assert!(shown.lines().next().unwrap().ends_with(" A") && shown.contains(" D, E\n"), "{shown}");
    assert!(
        shown.contains("exit status: 1)\n") && !shown.contains("; second"),
        "what it printed is in the log: {shown}"
    );
    assert!(entries[4]["note"].as_str().unwrap().contains("second"), "{entries}");
}

//! P16: whatever the tree's own user plants in the place of anything of ours (links, FIFOs, second names of files
//! elsewhere, devices, sockets), a run as root is led nowhere by it, ends, and says once what is wrong.

use crate::lab::as_root_or_left_out;
use crate::races::{Attacked, NOBODY, Owner};
use crate::sandbox::{PROGRAM, Sandbox};
use crate::trace::{each_outside, full};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What may be planted in the place of something of ours.
const PLANTED: [&str; 7] = ["link", "dangling", "fifo", "hard link", "device", "directory", "socket"];

/// Where it may be planted.
const PLACES: [&str; 18] = [
    "current",
    ".current.releasectl",
    "releases",
    "shared",
    ".releasectl/lock",
    ".releasectl/journal.jsonl",
    ".releasectl/ballast",
    ".releasectl/trash",
    ".releasectl/mirror",
    "releases/C/.releasectl",
    "releases/C/.releasectl/release.json",
    "releases/C/.releasectl/.release.json.tmp",
    "releases/C/.releasectl/build.log",
    "releases/C/.releasectl/inventory",
    "releases/C/KEEP_UNTIL__forever",
    "releases/C/theirs",
    "releases/D",
    "RELEASES.txt",
];

/// Puts it at `path`, which something of ours may have been at.
fn put(tree: &Sandbox, kind: &str, path: &Path) {
    let precious = tree.beside("outside/file");
    let _ = fs::rename(path, path.with_file_name("was-here"));
    let run = |program: &str, arguments: &[&str]| {
        assert!(tree.clean(program).args(arguments).arg(path).output().unwrap().status.success(), "{program} {path:?}");
    };
    match kind {
        "link" if path.with_file_name("was-here").is_dir() => symlink(tree.beside("outside/sub"), path).unwrap(),
        "link" => symlink(precious, path).unwrap(),
        "dangling" => symlink(tree.beside("outside/new"), path).unwrap(),
        "fifo" => run("mkfifo", &[]),
        "hard link" => fs::hard_link(precious, path).unwrap(),
        "device" => assert!(tree.clean("mknod").arg(path).args(["c", "1", "5"]).output().unwrap().status.success()),
        "directory" => fs::create_dir(path).unwrap(),
        _ => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
    }
    let _ = std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY));
}

/// Runs every verb over a tree in which a thing of this kind is planted at `place`. Counts the runs; returns complaints.
fn led_nowhere(place: &str, kind: &str, runs: &AtomicUsize) -> Vec<String> {
    let attacked = Attacked::new(Owner::Nobody);
    let code = attacked.tree.beside("source-D").display().to_string();
    put(&attacked.tree, kind, &attacked.tree.at(place));
    let before = attacked.outside();
    let mut complaints = Vec::new();
    let verbs: [&[&str]; 8] = [
        &["init"],
        &["activate", "C"],
        &["pin", "C", "--forever"],
        &["create", &code, "--id", "D"],
        &["rollback"],
        &["unpin", "C"],
        &["remove", "C"],
        &["clean", "--keep", "0"],
    ];
    for verb in verbs {
        runs.fetch_add(1, Ordering::Relaxed);
        let mut command = attacked.tree.clean("timeout");
        command.args(["20", PROGRAM, "--wait=0s", "--root"]).arg(attacked.tree.root()).args(verb);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = said.lines().filter(|line| line.starts_with("error: ")).count();
        let fine = match output.status.code() {
            Some(0) => told == 0,
            Some(1 | 3 | 6) => told == 1,
            _ => false,
        };
        if !fine || said.contains("panicked") {
            complaints.push(format!("`{}` ends with {:?}: {said}", verb.join(" "), output.status.code()));
        }
    }
    if attacked.outside() != before {
        complaints.push(format!("what is outside has changed: {:?}, not {before:?}", attacked.outside()));
    }
    if kind != "hard link" && attacked.leaked() != Vec::<PathBuf>::new() {
        complaints.push(format!("what is outside has been copied: {:?}", attacked.leaked()));
    }
    complaints.into_iter().map(|complaint| format!("{kind} at {place}: {complaint}")).collect()
}

#[test]
fn p16_whatever_is_planted_in_the_place_of_anything_of_ours_leads_nowhere() {
    if !as_root_or_left_out("what is planted in a tree") {
        return;
    }
    let all: Vec<_> = PLACES.iter().flat_map(|place| PLANTED.iter().map(move |kind| (*place, *kind))).collect();
    let step = if full() { 1 } else { 4 };
    let chosen: Vec<_> = all.iter().skip(std::process::id() as usize % step).step_by(step).collect();
    let runs = AtomicUsize::new(0);
    let complaints = each_outside(&chosen, |_, (place, kind)| led_nowhere(place, kind, &runs));
    let runs = runs.into_inner();
    let _ = writeln!(
        std::io::stderr(),
        "hostile: {} things planted, {runs} runs seen, {} complaints",
        chosen.len(),
        complaints.len()
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(chosen.len() >= PLACES.len() * PLANTED.len() / step);
}

#[test]
fn p16_a_tree_below_a_directory_that_all_may_write_to_is_not_worked_on_as_root() {
    if !as_root_or_left_out("a 0777 parent") {
        return;
    }
    let attacked = Attacked::new(Owner::Nobody);
    let above = attacked.tree.beside("");
    fs::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
    let before = attacked.outside();
    // As nobody it works in a place where all may write: whatever is swapped there, it is nobody's rights that are used.
    attacked.tree.done(&["rollback"]);
    assert_eq!(attacked.outside(), before);
    let roots = Attacked::new(Owner::Root);
    fs::set_permissions(roots.tree.beside(""), Permissions::from_mode(0o777)).unwrap();
    assert!(roots.tree.refused(&["rollback"]).contains("chmod go-w"));
}

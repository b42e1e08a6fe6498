//! `activate` and `rollback`: what goes live, what one goes back to, and when neither is done.

use crate::sandbox::{Answer, Sandbox, Started, is_root};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

#[test]
fn p04_each_rollback_goes_one_further_back() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
    let before = tree.picture();
    tree.refused(&["rollback"]);
    assert_eq!(tree.picture(), before);
    tree.done(&["activate", "C"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
}

#[test]
fn p04_with_one_release_or_none_a_rollback_is_refused_and_changes_nothing() {
    let tree = Sandbox::with_releases(&["A"]);
    for _ in 0..2 {
        let before = tree.picture();
        tree.refused(&["rollback"]);
        assert_eq!(tree.picture(), before);
        tree.done(&["activate", "A"]);
    }
}

#[test]
fn p04_a_failed_or_killed_build_is_never_gone_back_to_and_cannot_go_live() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::write(tree.beside("bad.tar"), [b'x'; 2048]).unwrap();
    tree.ends(1, &["create", "bad.tar", "--id", "failed"]);
    let mut command = tree.command(&["create", "-", "--id", "killed"]);
    let mut build = Started::new({
        command.stdin(Stdio::piped());
        command
    });
    tree.until_building("killed");
    build.kill();
    assert_eq!(tree.states()["failed"], "incomplete");
    assert_eq!(tree.states()["killed"], "incomplete");
    for id in ["failed", "killed"] {
        let before = tree.picture();
        tree.refused(&["activate", id]);
        tree.refused(&["rollback", "--to", id]);
        // The kill left an intent without an outcome, which the first of the two settles.
        assert!(id == "failed" || tree.picture().len() == before.len());
    }
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
    tree.refused(&["rollback"]);
}

#[test]
fn p04_a_removed_release_is_passed_over() {
    let tree = Sandbox::with_live(&["A", "B", "C", "D"]);
    tree.done(&["remove", "B"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p04_a_half_deleted_release_is_passed_over() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    // As `rm -rf` by hand would leave it, cut off after the first files.
    fs::remove_dir_all(tree.release("B").join(".releasectl")).unwrap();
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p04_a_bad_release_is_never_gone_back_to() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.states()["C"], "bad");
    tree.create("D");
    tree.done(&["activate", "D"]);
    tree.refused(&["rollback", "--to", "C"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
    assert_eq!(tree.states()["D"], "bad");
    // The newest ready release is the one that is live: nothing bad goes live unless it is named.
    tree.done(&["activate"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn p04_activate_undoes_a_rollback() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["rollback"]);
    tree.done(&["activate", "C"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
    assert_eq!(tree.states()["C"], "ready");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn p04_touching_files_and_directories_changes_nothing() {
    let tree = Sandbox::with_live(&["B", "A", "C"]);
    for (age, id) in [(0, "B"), (10, "C"), (20, "A")] {
        let time = SystemTime::now() - Duration::from_secs(age * 86_400);
        let walk = walkdir::WalkDir::new(tree.release(id)).into_iter().flatten();
        for entry in walk.filter(|entry| entry.file_type().is_file() || entry.file_type().is_dir()) {
            fs::File::open(entry.path()).unwrap().set_modified(time).unwrap();
        }
    }
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn p05_a_deploy_tells_what_went_live_while_it_ran() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let step = "[[step]]\nname = 'meanwhile'\nrun = 'cd \"$RELEASECTL_ROOT\" && ln -sfn releases/A current'\n";
    let source = tree.code("code", step, &[]);
    let said = tree.ends(0, &["deploy", &source]).stderr;
    let deployed = tree.live().unwrap();
    assert!(
        said.contains(&format!("warning: A went live while this was deployed, and gives way to {deployed}")),
        "{said}"
    );
    // Who has said what must be live is refused.
    let said = tree.ends(1, &["deploy", &source, "--expect-current", &deployed]).stderr;
    assert!(!said.contains("gives way") && tree.live().as_deref() == Some("A"), "{said}");
    let source = tree.source("plain").display().to_string();
    assert!(!tree.ends(0, &["deploy", &source]).stderr.contains("gives way"));
}

#[test]
fn p04_a_flip_that_fails_leaves_the_way_back_as_it_was() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.create("C");
    let answer: Answer = tree.faulty("renameat:error=EIO", &["activate", "C"]).output().unwrap().into();
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert!(answer.stderr.contains("error: ") && answer.stderr.contains("hint: "), "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("B"));
    assert_eq!(tree.history().last().unwrap(), "activate B C failed");
    assert_eq!(tree.json(&["status"])["previous"], "A");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

/// A directory nobody can change, not even root, while this lives.
pub struct Frozen(PathBuf);

impl Frozen {
    pub fn new(directory: PathBuf) -> Self {
        let frozen = Self(directory);
        frozen.set("+i", 0o555);
        frozen
    }

    fn set(&self, attribute: &str, mode: u32) {
        if is_root() {
            let output = Command::new("chattr").arg(attribute).arg(&self.0).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.set("-i", 0o755);
    }
}

#[test]
fn p15_a_current_that_cannot_be_changed_stays_and_so_does_the_way_back() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.create("C");
    let frozen = Frozen::new(tree.root());
    let doctor = tree.ends(6, &["doctor"]).stdout;
    assert!(doctor.contains("cannot write to ") && doctor.contains("lsattr -d"), "{doctor}");
    for words in [&["activate", "C"][..], &["rollback"], &["deactivate", "--yes"]] {
        let said = tree.ends(1, words).stderr;
        assert!(said.contains(tree.root().to_str().unwrap()) && said.contains("hint: "), "{said}");
        assert_eq!(tree.live().as_deref(), Some("B"));
        assert_eq!(tree.states()["B"], "ready");
    }
    drop(frozen);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p04_a_failure_after_the_flip_leaves_the_release_before_it_as_the_way_back() {
    // The third fsync is that of the root after the rename; the third write that of the journal's outcome.
    for fault in ["fsync:error=EIO:when=3", "pwrite64:error=ENOSPC:when=3"] {
        let tree = Sandbox::with_live(&["A", "B"]);
        tree.create("C");
        let answer: Answer = tree.faulty(fault, &["activate", "C"]).output().unwrap().into();
        assert_eq!(answer.code, 0, "{fault}: {}", answer.stderr);
        assert!(answer.stderr.contains("warning: "), "{fault}: {}", answer.stderr);
        assert_eq!(tree.live().as_deref(), Some("C"));
        tree.done(&["rollback"]);
        assert_eq!(tree.live().as_deref(), Some("B"), "{fault}");
    }
}

#[test]
fn p05_another_release_than_expected_is_refused_and_nothing_changes() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = tree.picture();
    let source = tree.source("C");
    let deploy = ["deploy", source.to_str().unwrap()];
    for verb in
        [&["activate", "A"][..], &["rollback"], &["rollback", "--to", "A"], &["deploy", "--release", "A"], &deploy]
    {
        for expected in ["A", "none", "not-there"] {
            let mut words = verb.to_vec();
            words.extend(["--expect-current", expected]);
            let said = tree.refused(&words);
            assert!(said.contains("B is live"), "{said}");
            assert_eq!(tree.picture(), before, "{words:?}");
        }
    }
    tree.done(&["rollback", "--expect-current", "B"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p05_who_lost_the_answer_of_a_deploy_may_repeat_it() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.create("C");
    for _ in 0..2 {
        tree.done(&["deploy", "--release", "C", "--expect-current", "B"]);
        assert_eq!(tree.live().as_deref(), Some("C"));
    }
    tree.done(&["deploy", "--resume", "--expect-current", "B"]);
    tree.done(&["activate", "A"]);
    for words in [["--release", "C"].as_slice(), &["--resume"]] {
        let said = tree.refused(&[&["deploy", "--expect-current", "B"], words].concat());
        assert!(said.contains("A is live, not B as expected"), "{said}");
    }
}

#[test]
fn p05_none_is_expected_of_a_tree_where_nothing_is_live() {
    let tree = Sandbox::with_releases(&["A"]);
    tree.refused(&["activate", "A", "--expect-current", "A"]);
    assert_eq!(tree.live(), None);
    tree.done(&["activate", "A", "--expect-current", "none"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p03_a_link_made_by_hand_is_noticed_and_recorded() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    let output = tree.clean("ln").args(["-sfn", "releases/A"]).arg(tree.at("current")).output().unwrap();
    assert!(output.status.success());
    let said = tree.ends(0, &["activate", "A"]).stderr;
    assert!(said.contains("warning: ") && said.contains("another hand"), "{said}");
    assert_eq!(tree.history().last().unwrap(), "external C A done");
    assert_eq!(tree.json(&["status"])["previous"], "C");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("C"));
}

#[test]
fn p03_a_link_that_leads_elsewhere_is_replaced_and_nothing_it_led_to_is_touched() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::remove_file(tree.at("current")).unwrap();
    symlink(tree.source("elsewhere"), tree.at("current")).unwrap();
    tree.done(&["activate", "A"]);
    assert_eq!(fs::read_link(tree.at("current")).unwrap(), Path::new("releases/A"));
    assert!(tree.source("elsewhere").join("app/main.py").exists());
}

#[test]
fn a_finished_command_repeated_is_a_success_that_changes_nothing() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = tree.picture();
    for words in [&["activate", "B"][..], &["activate"], &["activate", "current"], &["init"]] {
        let document = tree.json(words);
        assert_eq!((&document["ok"], &document["changed"]), (&true.into(), &false.into()), "{document}");
        assert_eq!(tree.picture(), before, "{words:?}");
    }
    tree.done(&["rollback", "--to", "A"]);
    let before = tree.picture();
    // A caller who lost the answer repeats its own words.
    for words in [
        &["rollback", "--to", "A"][..],
        &["rollback", "--to", "A", "--expect-current", "B"],
        &["rollback", "--to", "A", "--expect-current", "B", "--dry-run"],
        &["activate", "A", "--expect-current", "B"],
    ] {
        let document = tree.json(words);
        assert_eq!((&document["ok"], &document["changed"]), (&true.into(), &false.into()), "{document}");
        assert_eq!(tree.picture(), before, "{words:?}");
    }
    tree.done(&["deactivate", "--yes"]);
    let before = tree.picture();
    assert_eq!(tree.json(&["deactivate", "--yes"])["changed"], false);
    assert_eq!(tree.picture(), before);
}

#[test]
fn p04_a_dry_run_says_where_it_would_go_and_goes_nowhere() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = tree.picture();
    let document = tree.json(&["rollback", "--dry-run"]);
    assert!(tree.done(&["rollback", "--dry-run", "--quiet"]).starts_with("would make "), "it was asked for");
    assert_eq!((&document["from"], &document["to"]), (&"B".into(), &"A".into()));
    assert_eq!(tree.run(&["rollback", "--dry-run", "--expect-current", "A"]).code, 3);
    assert_eq!(tree.picture(), before);
}

#[test]
fn p05_of_two_activations_that_expect_the_same_only_one_is_made() {
    let tree = Sandbox::with_live(&["A"]);
    ["B", "C"].iter().for_each(|id| tree.create(id));
    let started = ["B", "C"].map(|id| Started::new(tree.command(&["activate", id, "--expect-current", "A", "--wait"])));
    let mut codes = started.map(|run| run.answer().code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 3]);
}

#[test]
fn p14_a_reader_that_went_away_stops_no_activation() {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    let mut run = Started::new(tree.command(&["-v", "activate", "B"]));
    drop((run.0.stdout.take(), run.0.stderr.take()));
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn a_health_check_whose_name_cannot_be_asked_for_is_not_passed_and_what_was_live_is_back() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("B", "[health]\nurl = 'http://localhost:1/up'\ntimeout = '1s'\n", &[]);
    tree.done(&["create", &source, "--id", "B"]);
    // A name is asked for beside, and no address space holds the stack of such a thread.
    let mut activate = tree.command(&["activate", "B"]);
    let answer: Answer = activate.env("RUST_MIN_STACK", (1_u64 << 50).to_string()).output().unwrap().into();
    assert!(answer.code == 5 && answer.stderr.contains("Resource temporarily unavailable"), "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

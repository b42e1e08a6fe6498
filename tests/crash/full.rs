//! P15: on a file system without another block, inode or byte of a file, every command is done or says once why not; what
//! is live is what it was or what was wanted; going back and cleaning work; and once there is room everything does.

use crate::checker::Checker;
use crate::disk::{Kind, alone, command, fill_blocks, fill_inodes, may_mount, mount_image, tmpfs};
use crate::lab::as_root_or_left_out;
use crate::sandbox::{Answer, Sandbox};
use crate::states::{Start, State};
use crate::trace::{each_outside, full};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Runs a command that may find no room: it is done, or refused with one error. What is live is what it was, or what
/// an activation that was done wanted.
fn squeezed(tree: &Sandbox, arguments: &[&str], checker: &mut Checker<'_>) -> Answer {
    let before = tree.live();
    let answer = tree.run(arguments);
    let told = answer.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    let why = answer.stderr.contains("No space left on device") || answer.stderr.contains("File too large");
    let words = arguments.join(" ");
    match answer.code {
        0 => checker.must(told == 0, || format!("`{words}` is done and says {}", answer.stderr)),
        // There is no tree yet, or no such release, because there was no room for it.
        3 => checker.must(told == 1, || format!("`{words}`: {}", answer.stderr)),
        1 => checker
            .must(told == 1 && why, || format!("`{words}` does not say once that there is no room: {}", answer.stderr)),
        code => checker.must(false, || format!("`{words}` ends with {code}: {}", answer.stderr)),
    }
    let live = tree.live();
    checker
        .must(answer.code == 0 || live == before, || format!("`{words}` failed, and {live:?} is live, not {before:?}"));
    answer
}

/// Everything an operator would try on a full disk, then with room again. `more_room` makes it.
fn survives(tree: &Sandbox, checker: &mut Checker<'_>, more_room: impl FnOnce()) -> usize {
    let source = |id: &str| tree.source(id).display().to_string();
    let (first, second) = (source("E"), source("G"));
    let commands: [&[&str]; 10] = [
        &["init"],
        &["create", &first, "--id", "E"],
        &["activate", "E"],
        &["pin", "E", "--forever"],
        &["rollback"],
        &["clean", "--keep", "1"],
        &["create", &second, "--id", "G"],
        &["activate", "G"],
        &["unpin", "E"],
        &["remove", "E"],
    ];
    let refused = commands.iter().filter(|words| squeezed(tree, words, checker).code != 0).count();
    more_room();
    let live = tree.live();
    if tree.run(&["init"]).code != 0 {
        checker.works(&["init"]);
    }
    checker.everything(&[live]);
    checker.works(&["create", &source("F"), "--id", "F"]);
    checker.works(&["activate", "F"]);
    refused
}

/// Prints what a part saw; a part that saw less than it should fails.
#[track_caller]
fn told(part: &str, seen: usize, floor: usize, complaints: &[String]) {
    let _ = writeln!(std::io::stderr(), "full: {part}: {seen} states seen, {} complaints", complaints.len());
    assert!(complaints.is_empty(), "{part}:\n{}", complaints.join("\n"));
    assert!(seen >= floor, "{part}: only {seen} states were seen, not {floor}");
}

/// A disk of this kind, with three releases that were live in turn and one that nobody needs, filled by `fill`: a
/// rollback and a clean work on it.
fn filled_to_the_last(kind: Kind, inodes: Option<u32>, fill: impl Fn(&Sandbox) + Sync) {
    if !as_root_or_left_out(&format!("a full {kind:?}")) {
        return;
    }
    let tree = Sandbox::new();
    let complaints = alone(|| {
        mount_image(&tree, kind, inodes);
        tree.done(&["init"]);
        ["A", "B", "C", "D"].iter().for_each(|id| tree.create(id));
        ["A", "B", "C"].iter().for_each(|id| drop(tree.done(&["activate", id])));
        fs::create_dir(tree.at("shared/fill")).unwrap();
        fill(&tree);
        let mut checker = Checker::new(&tree);
        let full =
            fs::File::create_new(tree.at("shared/fill/another")).and_then(|mut file| file.write_all(&[0; 1 << 20]));
        checker.must(full.is_err(), || "it is not full".to_owned());
        let _ = fs::remove_file(tree.at("shared/fill/another"));
        checker.works(&["rollback"]);
        checker.current_is_one_of(&[Some("B".to_owned())]);
        checker.works(&["activate", "C"]);
        checker.works(&["rollback", "--to", "A"]);
        // What was rolled back from goes, and the ballast comes back: there is room for it where it was.
        checker.works(&["clean"]);
        checker.must(!tree.release("C").exists(), || "clean did not remove what was rolled back from".to_owned());
        checker.works(&["remove", "D"]);
        fill(&tree);
        let source = tree.source("E").display().to_string();
        squeezed(&tree, &["create", &source, "--id", "E"], &mut checker);
        checker.works(&["clean"]);
        checker.current_is_one_of(&[Some("A".to_owned())]);
        fs::remove_dir_all(tree.at("shared/fill")).unwrap();
        checker.everything(&[Some("A".to_owned())]);
        checker.works(&["create", tree.source("F").to_str().unwrap(), "--id", "F"]);
        checker.complaints()
    });
    told(&format!("{kind:?}"), 1, 1, &complaints);
}

#[test]
fn p15_on_an_ext4_without_another_block_a_rollback_and_a_clean_work() {
    filled_to_the_last(Kind::Ext4, None, |tree| fill_blocks(&tree.at("shared/fill")));
}

#[test]
fn p15_on_an_ext4_without_another_inode_a_rollback_and_a_clean_work() {
    filled_to_the_last(Kind::Ext4, Some(256), |tree| fill_inodes(&tree.at("shared/fill")));
}

#[test]
fn p15_on_an_xfs_without_another_block_a_rollback_and_a_clean_work() {
    filled_to_the_last(Kind::Xfs, None, |tree| fill_blocks(&tree.at("shared/fill")));
}

#[test]
fn p15_on_an_xfs_without_another_inode_a_rollback_and_a_clean_work() {
    filled_to_the_last(Kind::Xfs, None, |tree| fill_inodes(&tree.at("shared/fill")));
}

#[test]
fn p15_on_a_btrfs_without_another_block_a_rollback_and_a_clean_work() {
    filled_to_the_last(Kind::Btrfs, None, |tree| fill_blocks(&tree.at("shared/fill")));
}

/// A tmpfs with each of these limits, from too little for anything to enough for all.
fn swept(part: &str, limits: &[String], enough: &str, floor: usize) {
    let refused = std::sync::atomic::AtomicUsize::new(0);
    let complaints = each_outside(limits, |_, limit| {
        let tree = Sandbox::new();
        let found = alone(|| {
            tmpfs(&tree, limit);
            let mut checker = Checker::new(&tree);
            let count = survives(&tree, &mut checker, || tmpfs(&tree, enough));
            refused.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            checker.complaints()
        });
        found.into_iter().map(|complaint| format!("{limit}: {complaint}")).collect()
    });
    told(part, limits.len(), floor, &complaints);
    let refused = refused.into_inner();
    assert!(refused > limits.len() / 2, "only {refused} commands found no room: it was not full");
}

#[test]
fn p15_a_tmpfs_of_any_size() {
    if !may_mount("full::p15_a_tmpfs_of_any_size") {
        return;
    }
    // Pages. With the ballast everything that is done here fits into 340 of them.
    let step = if full() { 1 } else { 12 };
    let begin = 1 + std::process::id() % step;
    let sizes: Vec<String> = (begin..350).step_by(step as usize).map(|pages| format!("size={}k", 4 * pages)).collect();
    swept("tmpfs, size", &sizes, "size=20m", 28);
}

#[test]
fn p15_a_tmpfs_of_any_number_of_inodes() {
    if !may_mount("full::p15_a_tmpfs_of_any_number_of_inodes") {
        return;
    }
    let step = if full() { 1 } else { 3 };
    let begin = 2 + std::process::id() % step;
    let counts: Vec<String> = (begin..60).step_by(step as usize).map(|count| format!("nr_inodes={count}")).collect();
    swept("tmpfs, inodes", &counts, "nr_inodes=1000", 18);
}

#[test]
fn p15_a_file_that_may_not_grow_by_another_byte_of_a_journal_line() {
    let start = Start::new(State::Three);
    // The journal must be the largest file that is written.
    for _ in 0..8 {
        ["A", "B", "C"].iter().for_each(|id| drop(start.made.done(&["activate", id])));
    }
    let length = |tree: &Sandbox| fs::metadata(tree.at(".releasectl/journal.jsonl")).unwrap().len();
    let (before, after) = {
        let tree = start.copy();
        let before = length(&tree);
        tree.done(&["activate", "A"]);
        (before, length(&tree))
    };
    let step = if full() { 1 } else { 4 };
    let begin = before + u64::from(std::process::id()) % step;
    let limits: Vec<u64> = (begin..=after + 1).step_by(step as usize).collect();
    let outcomes = std::sync::Mutex::new(std::collections::BTreeMap::<i32, usize>::new());
    let complaints = each_outside(&limits, |_, limit| {
        let tree = start.copy();
        let mut checker = Checker::new(&tree);
        let mut command = tree.clean("prlimit");
        command.arg(format!("--fsize={limit}")).arg(crate::sandbox::PROGRAM).arg("--root").arg(tree.root());
        let answer: Answer = command.args(["activate", "A"]).output().unwrap().into();
        *outcomes.lock().unwrap().entry(answer.code).or_default() += 1;
        let (wanted, why) =
            if answer.code == 0 { ("A", true) } else { ("C", answer.stderr.contains("File too large")) };
        checker.must([0, 1].contains(&answer.code) && why, || format!("ends with {}: {}", answer.code, answer.stderr));
        checker.current_is_one_of(&[Some(wanted.to_owned())]);
        checker.everything(&[Some(wanted.to_owned())]);
        checker.complaints().into_iter().map(|complaint| format!("{limit} of {before}..{after}: {complaint}")).collect()
    });
    let outcomes = outcomes.into_inner().unwrap();
    told("RLIMIT_FSIZE", limits.len(), if full() { 300 } else { 80 }, &complaints);
    assert!([0, 1].iter().all(|code| outcomes.contains_key(code)), "both ends were seen: {outcomes:?}");
}

#[test]
fn p15_an_ext4_that_an_error_made_read_only_is_seen_by_doctor_and_told_by_every_change() {
    if !as_root_or_left_out("an ext4 with an error") {
        return;
    }
    let tree = Sandbox::new();
    alone(|| {
        mount_image(&tree, Kind::Ext4, None);
        command(&tree, "mount", &["-o", "remount,errors=remount-ro", tree.root().to_str().unwrap()]);
        ["A", "B"].iter().for_each(|id| tree.create(id));
        ["A", "B"].iter().for_each(|id| drop(tree.done(&["activate", id])));
        assert!(tree.run(&["doctor"]).stdout.contains("ok   file system"));
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let root = tree.root().display().to_string();
        let device = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&root)).unwrap();
        let device = Path::new(device.split(' ').next().unwrap()).file_name().unwrap();
        fs::write(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"), "1").unwrap();
        let doctor = tree.ends(6, &["doctor"]).stdout;
        assert!(doctor.contains("BAD  file system") && doctor.contains("the file system is read-only"), "{doctor}");
        for words in [&["rollback"][..], &["clean"], &["create", tree.source("C").to_str().unwrap()]] {
            let said = tree.ends(1, words).stderr;
            assert!(said.contains("hint: the file system is read-only"), "{words:?}: {said}");
        }
        assert_eq!(tree.live().as_deref(), Some("B"));
    });
}

//! States that nobody planned: each gives its exit status, a message with a hint, and loses nothing.

use crate::lab::{as_root_or_left_out, gone, in_mount_namespace};
use crate::sandbox::{Answer, Sandbox, picture};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const LOOKS: [&[&str]; 9] = [
    &["status"],
    &["list"],
    &["history"],
    &["ps"],
    &["show", "A"],
    &["log", "A"],
    &["path", "A"],
    &["clean", "--dry-run"],
    &["rollback", "--dry-run"],
];
const CHANGES: [&[&str]; 7] = [
    &["activate", "A"],
    &["rollback"],
    &["clean", "--keep", "0"],
    &["remove", "A"],
    &["pin", "A", "--forever"],
    &["unpin", "A"],
    &["deactivate", "--yes"],
];

/// An error says what is wrong and what to do.
#[track_caller]
fn told(answer: &Answer) -> &str {
    assert!(answer.stderr.contains("error: ") && answer.stderr.contains("hint: "), "{answer:?}");
    &answer.stderr
}

/// It ends with `code`, says why and what to do, and changes nothing in the releases or in what is live.
#[track_caller]
fn fails(tree: &Sandbox, code: i32, arguments: &[&str]) -> String {
    let live = fs::read_link(tree.at("current")).ok();
    let before = picture(&tree.at("releases"));
    let answer = tree.ends(code, arguments);
    assert_eq!(fs::read_link(tree.at("current")).ok(), live, "{arguments:?}");
    assert_eq!(picture(&tree.at("releases")), before, "{arguments:?}");
    told(&answer).to_owned()
}

#[test]
fn without_a_tree_nothing_is_found_and_nothing_is_made() {
    let tree = Sandbox::new();
    for prepare in [None, Some("empty"), Some("with something else in it")] {
        if prepare.is_some() {
            fs::create_dir_all(tree.root()).unwrap();
        }
        if prepare == Some("with something else in it") {
            fs::write(tree.at("precious"), "x").unwrap();
        }
        let before = picture(&tree.beside(""));
        for arguments in LOOKS.iter().chain(&CHANGES).chain(&[&["verify", "A"][..], &["doctor"]]) {
            let error = tree.refused(arguments);
            assert!(error.contains("there is no release tree at"), "{error}");
        }
        // Nor is one laid out for what cannot be begun.
        let doomed =
            [&["create", "/nowhere"][..], &["deploy", "/nowhere"], &["create"], &["create", "/etc", "--ref", "v1"]];
        for arguments in
            doomed.iter().chain(&[&["create", "--resume"][..], &["deploy", "--resume"], &["deploy", "--release", "A"]])
        {
            tree.refused(arguments);
        }
        tree.ends(2, &["create", "/etc", "--keep-days", "99999999999"]);
        assert_eq!(picture(&tree.beside("")), before);
    }
    let source = tree.source("A");
    let error = tree.refused(&["create", source.to_str().unwrap()]);
    assert!(error.contains("is not empty and not a release tree"), "{error}");
    assert_eq!(picture(&tree.root()).len(), 1);
}

#[test]
fn an_empty_tree_is_looked_at_and_has_nothing_to_offer() {
    let tree = Sandbox::laid_out();
    let before = tree.picture();
    for arguments in
        [&["status"][..], &["list"], &["history"], &["ps"], &["clean"], &["doctor"], &["deactivate", "--yes"]]
    {
        tree.done(arguments);
    }
    for arguments in
        [&["activate"][..], &["rollback"], &["rollback", "--dry-run"], &["show"], &["path"], &["log"], &["verify"]]
    {
        tree.refused(arguments);
    }
    assert_eq!(tree.picture(), before);
}

#[test]
fn a_current_that_leads_to_no_release_is_told_of_and_mended_by_activate_or_rollback() {
    for target in ["releases/gone", "/nonexistent/place", "/etc", ".", "releases", "current", "releases/A/version"] {
        let tree = Sandbox::with_live(&["A", "B"]);
        fs::remove_file(tree.at("current")).unwrap();
        symlink(target, tree.at("current")).unwrap();
        for arguments in LOOKS {
            tree.done(arguments);
        }
        let status = tree.run(&["status"]);
        assert!(status.stderr.contains(target) && status.stderr.contains("no release here"), "{status:?}");
        assert_eq!(tree.json(&["status"])["current"], Value::Null, "{target}");
        assert!(tree.ends(6, &["doctor"]).stdout.contains(target));
        for arguments in [&["path"][..], &["show"], &["exec", "true"]] {
            let said = fails(&tree, 3, arguments);
            assert!(said.contains(&format!("current leads to {target}, which is no release here")), "{said}");
        }
        let cleaned = tree.json(&["clean", "--keep", "0"]);
        assert!(!gone(&cleaned).contains(&"B".to_owned()), "what was live last may be wanted: {target}");
        tree.done(&["rollback"]);
        assert_eq!(tree.live().as_deref(), Some("B"), "{target}");
        assert_eq!(fs::read_link(tree.at("current")).unwrap(), Path::new("releases/B"));
    }
}

#[test]
fn a_current_that_is_no_link_is_refused_and_never_removed() {
    for directory in [true, false] {
        let tree = Sandbox::with_releases(&["A", "B"]);
        if directory {
            fs::create_dir(tree.at("current")).unwrap();
            fs::write(tree.at("current/precious"), "x").unwrap();
        } else {
            fs::write(tree.at("current"), "precious").unwrap();
        }
        let before = tree.picture();
        for arguments in CHANGES.iter().chain(&[&["init"][..], &["status"]]) {
            let error = tree.refused(arguments);
            assert!(
                error.contains(if directory { "is a directory, not a link" } else { "is a file, not a link" }),
                "{error}"
            );
        }
        assert!(tree.ends(6, &["doctor"]).stdout.contains("not a link"));
        assert_eq!(tree.picture(), before);
    }
}

#[test]
fn a_release_without_its_manifest_is_not_used_and_not_removed() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.create("D");
    for id in ["B", "D"] {
        fs::remove_file(tree.release(id).join(".releasectl/release.json")).unwrap();
    }
    assert_eq!(tree.json(&["list"])["foreign"], serde_json::json!(["B", "D"]));
    for arguments in
        [&["activate", "B"][..], &["show", "B"], &["rollback", "--to", "B"], &["remove", "B"], &["verify", "B"]]
    {
        fails(&tree, 3, arguments);
    }
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), Vec::<String>::new());
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"), "B was live before, but who knows what it is now");
}

#[test]
fn a_live_release_without_its_manifest_can_be_left() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::remove_file(tree.release("B").join(".releasectl/release.json")).unwrap();
    assert_eq!(tree.json(&["status"])["current"], "B");
    assert!(tree.ends(6, &["doctor"]).stdout.contains("B"));
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), Vec::<String>::new());
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn a_damaged_manifest_is_damage_and_the_other_releases_go_on() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    let manifest = tree.release("B").join(".releasectl/release.json");
    let good = fs::read(&manifest).unwrap();
    let other = fs::read(tree.release("A").join(".releasectl/release.json")).unwrap();
    let flipped = [&good[..40], &[good[40] ^ 1], &good[41..]].concat();
    for bytes in [&good[..0], &good[..good.len() / 2], &flipped, b"{}\n", b"\0\0\0", &other] {
        fs::write(&manifest, bytes).unwrap();
        for arguments in [&["activate", "B"][..], &["show", "B"], &["rollback", "--to", "B"], &["verify", "B"]] {
            let error = fails(&tree, 6, arguments);
            assert!(error.contains("manifest of release B cannot be used"), "{error}");
        }
        assert!(fails(&tree, 3, &["remove", "B"]).contains("unrecognised"));
        assert!(tree.ends(6, &["doctor"]).stdout.contains("manifests that cannot be used: B"));
        assert!(tree.ends(0, &["list"]).stderr.contains("manifest of release B cannot be used"));
        assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), Vec::<String>::new());
        assert_eq!(tree.json(&["rollback", "--dry-run"])["to"], "A");
    }
    fs::write(&manifest, &good).unwrap();
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"), "put right, it is what it was");
}

#[test]
fn a_release_that_a_person_renamed_is_told_with_its_own_name_and_is_well_when_it_has_it_back() {
    let tree = Sandbox::with_live(&["A", "B"]);
    fs::rename(tree.release("B"), tree.release("B.broken")).unwrap();
    let said = tree.ends(6, &["doctor"]).stdout;
    assert!(said.contains("B.broken (it is that of B)") && said.contains("`mv` a renamed one back"), "{said}");
    fs::rename(tree.release("B.broken"), tree.release("B")).unwrap();
    tree.done(&["doctor"]);
}

#[test]
fn a_lock_or_journal_that_is_no_file_is_damage_that_doctor_names() {
    for name in ["lock", "journal.jsonl"] {
        for oddity in ["a directory", "a FIFO", "a link"] {
            let tree = Sandbox::with_live(&["A", "B"]);
            let (place, outside) = (tree.at(".releasectl").join(name), tree.beside("outside"));
            fs::rename(&place, tree.beside("kept")).unwrap();
            fs::write(&outside, "precious").unwrap();
            match oddity {
                "a directory" => fs::create_dir(&place).unwrap(),
                "a FIFO" => nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                _ => symlink(&outside, &place).unwrap(),
            }
            for arguments in CHANGES {
                let error = fails(&tree, 6, arguments);
                assert!(error.contains(name) && error.contains("not a regular file"), "{error}");
            }
            let looks = if name == "lock" { 0 } else { 6 };
            for arguments in [&["status"][..], &["list"]] {
                tree.ends(looks, arguments);
            }
            assert!(tree.ends(6, &["doctor"]).stdout.contains("not a regular file"), "{name}: {oddity}");
            assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
            if oddity == "a directory" { fs::remove_dir(&place) } else { fs::remove_file(&place) }.unwrap();
            fs::rename(tree.beside("kept"), &place).unwrap();
            tree.done(&["rollback"]);
            assert_eq!(tree.live().as_deref(), Some("A"));
        }
    }
}

#[test]
fn a_directory_of_the_tree_that_is_a_link_is_refused_as_what_it_is() {
    let tree = Sandbox::with_live(&["A"]);
    fs::rename(tree.at("releases"), tree.beside("elsewhere")).unwrap();
    symlink(tree.beside("elsewhere"), tree.at("releases")).unwrap();
    for words in [&["list"][..], &["init"], &["doctor"], &["clean"]] {
        let said = tree.ends(1, words).stderr;
        assert!(said.contains(tree.at("releases").to_str().unwrap()) && said.contains("no link"), "{said}");
    }
}

#[test]
fn an_entry_that_cannot_be_looked_into_hides_no_other() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.create("closed");
    let closed = tree.release("closed");
    tree.give_to_nobody(&tree.root());
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if crate::sandbox::is_root() {
        fs::create_dir(tree.release("lost+found")).unwrap();
        fs::set_permissions(tree.release("lost+found"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    assert!(tree.ends(0, &["list"]).stderr.contains("release closed cannot be used"));
    assert!(tree.ends(0, &["status"]).stdout.contains("current     B"));
    assert!(fails(&tree, 1, &["activate", "closed"]).contains("Permission denied"));
    // It may be as good as any other.
    let doctor = tree.ends(6, &["doctor"]).stdout;
    assert!(doctor.contains("Permission denied") && !doctor.contains("remove it yourself"), "{doctor}");
    assert_eq!(gone(&tree.json(&["clean", "--keep", "0"])), Vec::<String>::new());
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p15_on_a_read_only_file_system_looking_works_and_every_change_says_why_it_does_not() {
    if !as_root_or_left_out("a read-only file system") {
        return;
    }
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = tree.picture();
    let script = r#"mount --bind "$2" "$2"; mount -o remount,bind,ro "$2"
        program=$1; root=$2; shift 2
        set +e
        for words; do echo "$words"; "$program" --root "$root" $words 2>&1; echo "ended $?"; done"#;
    let root = tree.root();
    let lines = |all: &[&[&str]]| all.iter().map(|words| PathBuf::from(words.join(" "))).collect::<Vec<_>>();
    let run = |all: &[PathBuf]| {
        let words: Vec<&Path> = std::iter::once(root.as_path()).chain(all.iter().map(PathBuf::as_path)).collect();
        let output = in_mount_namespace(&tree, script, &words);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let looks = run(&lines(&LOOKS));
    assert_eq!(looks.matches("ended 0").count(), LOOKS.len(), "{looks}");
    assert!(run(&lines(&[&["verify", "A"]])).contains("ended 0"));
    let doctor = run(&lines(&[&["doctor"]]));
    assert!(doctor.contains("ended 6") && doctor.contains("hint:        the file system is read-only"), "{doctor}");
    let changes = run(&lines(&CHANGES));
    assert_eq!(changes.matches("ended 1").count(), CHANGES.len(), "{changes}");
    assert_eq!(changes.matches("Read-only file system").count(), CHANGES.len(), "{changes}");
    assert_eq!(changes.matches("hint: the file system is read-only").count(), CHANGES.len(), "{changes}");
    assert_eq!(tree.picture(), before);
}

#[test]
fn p01_a_bad_release_that_another_hand_made_live_is_not_bad_any_more() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.done(&["rollback"]);
    fs::remove_file(tree.at("current")).unwrap();
    std::os::unix::fs::symlink("releases/B", tree.at("current")).unwrap();
    tree.done(&["pin", "A", "--forever"]);
    assert_eq!(tree.states()["B"], "ready");
    tree.done(&["rollback"]);
    assert_eq!((tree.live().as_deref(), tree.states()["B"].as_str()), (Some("A"), "bad"));
}

#[test]
fn a_release_that_was_given_away_is_told_with_its_path_and_comes_back() {
    if !as_root_or_left_out("giving a release away") {
        return;
    }
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.give_to_nobody(&tree.root());
    let give = |owner: &str| tree.clean("chown").args(["-R", owner]).arg(tree.release("B")).status().unwrap();
    assert!(give("0:0").success());
    let refused = format!("{}/.releasectl: Permission denied", tree.release("B").display());
    let doctor = tree.ends(6, &["doctor"]).stdout;
    assert!(doctor.contains(&refused) && !doctor.contains("no release B"), "{doctor}");
    let activate = tree.run(&["activate", "B"]).stderr;
    assert!(activate.contains(&refused), "{activate}");
    tree.done(&["clean", "--keep", "0"]);
    assert!(give("nobody:").success());
    tree.done(&["doctor"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
}

#[test]
fn of_a_log_that_is_very_long_the_end_is_shown_and_one_that_cannot_be_read_is_told_of() {
    let tree = Sandbox::with_releases(&["A"]);
    let log = tree.release("A").join(".releasectl/build.log");
    let file = fs::File::create(&log).unwrap();
    file.set_len(80 << 20).unwrap();
    std::io::Write::write_all(&mut fs::File::options().append(true).open(&log).unwrap(), b"\nthe end\n").unwrap();
    let shown = tree.done(&["log", "A"]);
    assert!(shown.len() == 64 << 20 && shown.ends_with("\nthe end\n"), "{}", shown.len());
    fs::remove_file(&log).unwrap();
    assert_eq!(tree.done(&["log", "A"]), "", "a release need not have one");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(fails(&tree, 6, &["log", "A"]).contains("build.log: it is not a regular file"));
}

#[test]
fn a_link_in_a_directorys_place_is_refused_and_a_mount_is_told_to_do() {
    for name in ["releases", ".releasectl"] {
        let tree = Sandbox::with_live(&["A"]);
        let away = tree.beside("away");
        fs::rename(tree.at(name), &away).unwrap();
        symlink(&away, tree.at(name)).unwrap();
        let before = picture(&away);
        for arguments in [&["list"][..], &["deactivate", "--yes"], &["doctor"]] {
            let said = tree.ends(1, arguments).stderr;
            assert!(said.contains(name) && said.contains("it may be a mount"), "{said}");
        }
        assert_eq!(picture(&away), before);
    }
}

#[test]
fn a_program_that_is_there_and_cannot_start_is_not_only_told_to_be_installed() {
    if !as_root_or_left_out("a host without /dev/null") {
        return;
    }
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    let script = "mount -t tmpfs none /dev; ! \"$1\" --root \"$2\" create \"$3\"";
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &repository]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("cannot run git") && said.contains("/dev/null"), "{said}");
}

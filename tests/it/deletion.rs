//! How a release is deleted: out of sight first, then exactly what is in it, whatever is in it.

use crate::lab::{as_root_or_left_out, gone, in_mount_namespace, json, left_out, strace};
use crate::sandbox::{PROGRAM, Sandbox, picture};
use releasectl::directory::Dir;
use releasectl::removal::{Removed, delete};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A tree whose live release is A, and B, which nobody needs.
fn with_surplus() -> Sandbox {
    let tree = Sandbox::with_live(&["A"]);
    tree.create("B");
    tree
}

/// Deletes `victim` beside the tree by the library.
fn delete_beside(tree: &Sandbox, victim: &str) -> Removed {
    let parent = Dir::open(&tree.beside("")).unwrap();
    delete(&parent, OsStr::new(victim), &|_| {})
}

fn trash(tree: &Sandbox) -> Vec<PathBuf> {
    picture(&tree.at(".releasectl/trash")).into_keys().collect()
}

/// Directories inside one another, `levels` of them, each name `length` long. Returns the number of entries made.
fn dig(at: &Path, levels: u64, length: usize) -> u64 {
    let mut dir = Dir::open(at).unwrap();
    for _ in 0..levels {
        dir.create_file("file", 0o644).unwrap();
        dir = dir.make_dir("d".repeat(length), 0o755).unwrap();
    }
    2 * levels
}

#[test]
fn p09_links_are_removed_and_never_followed() {
    let tree = Sandbox::new();
    let (outside, victim) = (tree.beside("outside"), tree.beside("victim"));
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/precious"), "x").unwrap();
    fs::create_dir_all(victim.join("deep")).unwrap();
    symlink(&outside, victim.join("absolute")).unwrap();
    symlink("../../outside", victim.join("deep/relative")).unwrap();
    symlink(outside.join("sub/precious"), victim.join("to-file")).unwrap();
    symlink("nowhere", victim.join("dangling")).unwrap();
    symlink(".", victim.join("itself")).unwrap();
    fs::hard_link(outside.join("sub/precious"), victim.join("second-name")).unwrap();
    let before = picture(&outside);
    let removed = delete_beside(&tree, "victim");
    assert!(removed.left.is_empty(), "{:?}", removed.left);
    assert_eq!(removed.entries, 8, "six links, a directory and the victim itself");
    assert!(!victim.exists());
    assert_eq!(picture(&outside), before);
}

#[test]
fn p09_what_is_freed_is_what_had_no_other_name() {
    const MIB: u64 = 1 << 20;
    let tree = Sandbox::new();
    let (outside, victim) = (tree.beside("outside"), tree.beside("victim"));
    fs::create_dir_all(victim.join("deep")).unwrap();
    fs::create_dir(&outside).unwrap();
    for (name, size) in [("own", 3 * MIB), ("shared", 8 * MIB)] {
        fs::write(victim.join("deep").join(name), vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    }
    fs::hard_link(victim.join("deep/shared"), outside.join("shared")).unwrap();
    let removed = delete_beside(&tree, "victim");
    assert_eq!(removed.entries, 4);
    assert!((3 * MIB..4 * MIB).contains(&removed.bytes), "{}", removed.bytes);
}

#[test]
fn p09_a_link_in_the_place_of_the_victim_is_not_followed() {
    let tree = Sandbox::new();
    fs::create_dir(tree.beside("outside")).unwrap();
    fs::write(tree.beside("outside/precious"), "x").unwrap();
    symlink("outside", tree.beside("victim")).unwrap();
    let before = picture(&tree.beside(""));
    let removed = delete_beside(&tree, "victim");
    assert_eq!(removed.left.len(), 1);
    assert_eq!(removed.left[0].path, tree.beside("victim"));
    assert_eq!(picture(&tree.beside("")), before);
}

#[test]
fn p09_any_name_can_be_removed() {
    let tree = Sandbox::new();
    let victim = tree.beside("victim");
    let odd: [&[u8]; 7] = [b"caf\xe9", b"\xff\xfe", b"-rf", b"new\nline", b"*", b"...", b" "];
    for name in odd.iter().map(|name| OsStr::from_bytes(name)) {
        fs::create_dir_all(victim.join(name)).unwrap();
        odd.iter().for_each(|other| fs::write(victim.join(name).join(OsStr::from_bytes(other)), "x").unwrap());
    }
    let told = AtomicU64::new(0);
    let parent = Dir::open(&tree.beside("")).unwrap();
    let tell = |done| {
        told.fetch_max(done, Ordering::Relaxed);
    };
    let removed = delete(&parent, OsStr::new("victim"), &tell);
    assert!(removed.left.is_empty(), "{:?}", removed.left);
    assert_eq!(removed.entries, 7 * 8 + 1);
    assert!(told.into_inner() >= 7 * 7, "progress is told");
    assert!(!victim.exists());
}

#[test]
fn p09_directories_that_may_not_be_read_entered_or_changed_are_given_access_first() {
    let tree = with_surplus();
    let root = tree.root();
    // At the top, shared among the workers, and below what is shared.
    for place in ["", "1/2", "1/2/3/4/5/6/7/8/9/10"] {
        for mode in 0..8 {
            let directory = tree.release("B").join(place).join(format!("mode-{mode}"));
            fs::create_dir_all(directory.join("empty")).unwrap();
            fs::create_dir_all(directory.join("full")).unwrap();
            fs::write(directory.join("file"), "x").unwrap();
            fs::write(directory.join("full/file"), "x").unwrap();
            for name in ["empty", "full", ""] {
                fs::set_permissions(directory.join(name), Permissions::from_mode(mode << 6)).unwrap();
            }
        }
    }
    fs::set_permissions(tree.release("B").join("1"), Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(tree.release("B"), Permissions::from_mode(0o500)).unwrap();
    // Root may do everything; a run over a tree of somebody else's becomes that user.
    tree.give_to_nobody(&root);
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert_eq!(cleaned["warnings"], serde_json::json!([]));
    assert_eq!(gone(&cleaned), ["B"]);
    assert_eq!(trash(&tree), Vec::<PathBuf>::new());
}

#[test]
fn p09_three_thousand_levels_go_with_few_descriptors_and_little_memory() {
    let tree = with_surplus();
    dig(&tree.release("B"), 3000, 200);
    // A path of that depth alone has 600 kB: one for each level would be gigabytes.
    let limits = ["--nofile=64", "--as=400000000", PROGRAM, "--root"];
    let mut command = tree.clean("prlimit");
    command.args(limits).arg(tree.root()).args(["--json", "clean", "--keep", "0"]);
    let cleaned = json(&command.output().unwrap());
    assert_eq!(cleaned["warnings"], serde_json::json!([]));
    assert_eq!(gone(&cleaned), ["B"]);
    assert_eq!(trash(&tree), Vec::<PathBuf>::new());
}

#[test]
fn p09_a_hundred_thousand_files_go_with_few_descriptors() {
    let tree = with_surplus();
    let wide = tree.release("B").join("wide");
    let narrow = tree.release("B").join("narrow");
    fs::create_dir(&wide).unwrap();
    (0..60_000).for_each(|n| fs::write(wide.join(n.to_string()), "").unwrap());
    for n in 0..4_000 {
        let directory = narrow.join(n.to_string());
        fs::create_dir_all(&directory).unwrap();
        (0..10).for_each(|n| fs::write(directory.join(n.to_string()), "").unwrap());
    }
    let before = picture(&tree.release("A"));
    let mut command = tree.clean("prlimit");
    command.args(["--nofile=64", PROGRAM, "--root"]).arg(tree.root()).args(["--json", "clean", "--keep", "0"]);
    let cleaned = json(&command.output().unwrap());
    assert_eq!(cleaned["warnings"], serde_json::json!([]));
    assert_eq!(gone(&cleaned), ["B"]);
    assert_eq!(trash(&tree), Vec::<PathBuf>::new());
    assert_eq!(picture(&tree.release("A")), before);
}

#[test]
fn p09_nothing_mounted_is_entered_and_the_warning_names_the_path() {
    if !as_root_or_left_out("deleting a release with mounts in it") {
        return;
    }
    let tree = with_surplus();
    let outside = tree.beside("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/precious"), "x").unwrap();
    for place in ["bound", "1/2/3/4/5/6/7/8/9/10/bound", "other"] {
        fs::create_dir_all(tree.release("B").join(place)).unwrap();
    }
    let before = picture(&outside);
    let script = r#"release=$2/releases/B
        mount --bind "$3" "$release/bound"
        mount --bind "$3" "$release/1/2/3/4/5/6/7/8/9/10/bound"
        mount -t tmpfs none "$release/other"
        touch "$release/other/precious"
        "$1" --root "$2" --json clean --keep 0"#;
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &outside]);
    let cleaned = json(&output);
    let warnings = cleaned["warnings"].to_string();
    assert_eq!(gone(&cleaned), ["B"], "{cleaned}");
    for place in ["/bound: ", "/1/2/3/4/5/6/7/8/9/10/bound: ", "/other: "] {
        assert!(warnings.contains(place), "{place} in {warnings}");
    }
    assert_eq!(cleaned["warnings"].as_array().map(Vec::len), Some(3), "the rest is not told of: {warnings}");
    assert_eq!(picture(&outside), before);
    assert!(!tree.release("B").exists() && tree.at(".releasectl/trash").read_dir().unwrap().count() == 1);
    assert_eq!(tree.json(&["clean"])["warnings"], serde_json::json!([]), "with the mounts gone the rest goes too");
    assert_eq!(trash(&tree), Vec::<PathBuf>::new());
    assert_eq!(picture(&outside), before);
}

#[test]
fn p09_what_cannot_be_deleted_is_told_where_progress_is_though_nothing_else_is() {
    if !as_root_or_left_out("deleting a release with a mount in it") {
        return;
    }
    let tree = with_surplus();
    fs::create_dir(tree.release("B").join("bound")).unwrap();
    let script = r#"mount -t tmpfs none "$2/releases/B/bound"; "$1" --root "$2" clean --keep 0 --quiet"#;
    let output = in_mount_namespace(&tree, script, &[&tree.root()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("warning: ") && told.contains("/bound: ") && told.lines().count() == 1, "{told}");
}

#[test]
fn p09_a_release_that_is_a_mount_itself_stays() {
    if !as_root_or_left_out("cleaning a release that is a mount") {
        return;
    }
    let tree = with_surplus();
    let script = r#"mount --bind "$2/releases/B" "$2/releases/B"; "$1" --root "$2" --json clean --keep 0
        if "$1" --root "$2" remove B 2>"$2/said"; then exit 9; fi; grep -q 'B: something is mounted' "$2/said"; "$1" --root "$2" verify B"#;
    let before = picture(&tree.release("B"));
    let output = in_mount_namespace(&tree, script, &[&tree.root()]);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let cleaned: serde_json::Value = serde_json::from_str(answer.lines().next().unwrap()).unwrap();
    assert_eq!(gone(&cleaned), Vec::<String>::new());
    let warnings = cleaned["warnings"].to_string();
    assert!(warnings.contains("releases/B: something is mounted on it"), "{warnings}");
    assert!(output.status.success(), "it is still whole: {answer}");
    assert_eq!(picture(&tree.release("B")), before);
}

#[test]
fn p09_what_may_not_be_removed_is_a_warning_that_names_it_and_the_rest_goes() {
    if !as_root_or_left_out("deleting what is immutable") {
        return;
    }
    let tree = with_surplus();
    let chattr = |change: &str, path: &Path| tree.clean("chattr").arg(change).arg(path).output().unwrap();
    let stuck = tree.release("B").join("app/stuck");
    fs::write(&stuck, "x").unwrap();
    let set = chattr("+i", &stuck);
    if !set.status.success() {
        return left_out("deleting what is immutable", &String::from_utf8_lossy(&set.stderr));
    }
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    let left = trash(&tree);
    let still = tree.at(".releasectl/trash").join(left.last().unwrap());
    assert!(chattr("-i", &still).status.success(), "{left:?}");
    let warnings = cleaned["warnings"].to_string();
    assert!(warnings.contains("app/stuck: Operation not permitted"), "{warnings}");
    assert_eq!(cleaned["warnings"].as_array().map(Vec::len), Some(1), "{warnings}");
    assert_eq!(gone(&cleaned), ["B"]);
    assert_eq!(left.len(), 3, "the release, app and stuck: {left:?}");
    assert_eq!(tree.json(&["clean"])["warnings"], serde_json::json!([]));
    assert_eq!(trash(&tree), Vec::<PathBuf>::new());
}

#[test]
fn p09_a_release_is_in_the_trash_before_its_first_file_is_unlinked() {
    let tree = with_surplus();
    let calls = strace(&tree, &["-e", "trace=/^(unlink|rename|rmdir|fsync)"], &["clean", "--keep", "0"]);
    let at = |what: &str, words: &[&str]| {
        let found = calls.iter().position(|call| words.iter().all(|word| call.contains(word)));
        found.unwrap_or_else(|| panic!("{what} in {calls:#?}"))
    };
    let intent = at("the intent is durable", &["fsync(", "journal.jsonl"]);
    let renamed = at("the release is renamed away", &["renameat2(", "/releases>, \"B\"", "/trash>", "NOREPLACE"]);
    let durable = at("that is durable", &["fsync(", "/releases>"]);
    let first = at("its first file is unlinked", &["unlinkat(", "/trash/B."]);
    assert!(intent < renamed && renamed < durable && durable < first, "{calls:#?}");
    assert!(!calls.iter().any(|call| call.starts_with("unlink") && call.contains("/releases/B")), "{calls:#?}");
}

#[test]
fn p09_a_clean_that_is_killed_leaves_no_half_release_and_the_next_one_finishes() {
    let tree = Sandbox::with_live(&["A"]);
    let mut killed = 0;
    let points =
        ["renameat2:1", "fsync:1", "fsync:2", "unlinkat:1", "unlinkat:2", "unlinkat:3", "unlinkat:5", "unlinkat:8"];
    for (at, point) in points.iter().enumerate() {
        let id = format!("victim-{at}");
        tree.create(&id);
        let whole = picture(&tree.release(&id));
        let (call, when) = point.split_once(':').unwrap();
        let inject = format!("inject={call}:signal=SIGKILL:when={when}");
        let trace = format!("trace={call}");
        let calls = strace(&tree, &["-e", &trace, "-e", &inject], &["clean", "--keep", "0"]);
        killed += usize::from(calls.iter().any(|call| call.contains("killed by SIGKILL")));
        if tree.release(&id).exists() {
            assert_eq!(picture(&tree.release(&id)), whole, "{point}: it is whole or it is gone");
            assert_eq!(tree.states()[&id], "ready");
        } else {
            assert!(!tree.states().contains_key(&id), "{point}");
        }
        tree.done(&["clean", "--keep", "0"]);
        assert_eq!(tree.states().into_keys().collect::<Vec<_>>(), ["A"], "{point}");
        assert_eq!(trash(&tree), Vec::<PathBuf>::new(), "{point}");
        assert_eq!(tree.json(&["status"])["unfinished"], serde_json::json!([]), "{point}");
    }
    assert!(killed >= 6, "only {killed} were killed");
}

#[test]
fn p09_on_the_lower_layer_of_an_overlay_a_release_is_removed_all_the_same() {
    if !as_root_or_left_out("deleting from the lower layer of an overlay") {
        return;
    }
    let tree = with_surplus();
    let layers = tree.beside("layers");
    ["upper", "work", "merged"].iter().for_each(|name| fs::create_dir_all(layers.join(name)).unwrap());
    // The kill comes at the first file; what is left of B must not look like a release then.
    let script = r#"mount -t overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" none "$3/merged" || exit 77
        strace -f -qq -o /dev/null -e trace=unlinkat -e inject=unlinkat:signal=SIGKILL:when=4+ \
            "$1" --root "$3/merged" clean --keep 0 >/dev/null 2>&1 || true
        "$1" --root "$3/merged" --json list
        "$1" --root "$3/merged" --json clean --keep 0
        "$1" --root "$3/merged" --json list
        ls -A "$3/merged/.releasectl/trash" "$3/merged/releases""#;
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &layers]);
    if output.status.code() == Some(77) {
        return left_out("deleting from the lower layer of an overlay", &String::from_utf8_lossy(&output.stderr));
    }
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = answer.lines();
    let mut document = || -> serde_json::Value { serde_json::from_str(lines.next().unwrap()).unwrap() };
    let (killed, cleaned, after) = (document(), document(), document());
    assert_eq!(killed["releases"][1]["id"], "B", "{killed}");
    assert_eq!(killed["releases"][1]["state"], "incomplete", "{killed}");
    assert_eq!(gone(&cleaned), ["B"], "{cleaned}");
    assert_eq!(cleaned["warnings"], serde_json::json!([]));
    assert_eq!(after["releases"].as_array().map(Vec::len), Some(1), "{after}");
    assert_eq!(after["current"], "A");
    assert_eq!(
        lines.collect::<Vec<_>>().concat(),
        format!("{0}/.releasectl/trash:{0}/releases:A", layers.join("merged").display())
    );
    assert_eq!(tree.states()["B"], "ready", "the lower layer itself is as it was");
}

#[test]
fn where_releases_have_a_file_system_of_their_own_its_room_counts_and_what_comes_back_there_is_told() {
    if !as_root_or_left_out("releases on a file system of their own") {
        return;
    }
    let tree = Sandbox::new();
    let source = tree.source("x");
    fs::write(source.join("large"), vec![b'x'; 1 << 20]).unwrap();
    let script = r#"program=$1; root=$2; source=$3
        run() { "$program" --root "$root" "$@"; }
        mkdir -p "$root/releases"
        mount -t tmpfs -o size=100m none "$root/releases"
        for id in A B C D; do run create "$source" --id $id; run activate $id; done >/dev/null
        run doctor | grep -q 'ok   space'
        head -c 50000000 /dev/zero >"$root/releases/.filler"
        run --json status >"$root/../status"
        run doctor >"$root/../doctor" || true
        run --json clean --keep 9 --min-free 90M"#;
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &source]);
    let cleaned = json(&output);
    assert_eq!(gone(&cleaned), ["A", "B"], "{cleaned}");
    assert!(cleaned["freed_bytes"].as_u64().unwrap() >= 2 << 20, "{cleaned}");
    let status: serde_json::Value = serde_json::from_slice(&fs::read(tree.beside("status")).unwrap()).unwrap();
    assert!(status["free_bytes"].as_u64().unwrap() < 55_000_000, "{status}");
    let doctor = fs::read_to_string(tree.beside("doctor")).unwrap();
    assert!(doctor.contains("BAD  space") && doctor.contains("releases: too little"), "{doctor}");
}

//! P15: a disk that fills while a release is built: one clear error, nothing live changed, `clean` frees it, the next
//! deploy works; and what still works on one that is full. The disk is a tmpfs in a mount namespace of its own.

use crate::lab::{as_root_or_left_out, gone, in_mount_namespace};
use crate::packages::wheelhouse;
use crate::sandbox::Sandbox;
use serde_json::Value;
use std::fs;

/// What every script begins with: the disk, and the program on it. `$1` is the program, `$2` the place beside the disk.
const BEGIN: &str = r#"
mkdir "$2/tree"
mount -t tmpfs -o size=64m none "$2/tree"
program=$1 place=$2
releasectl() { "$program" --root "$place/tree" "$@"; }
live() { readlink "$place/tree/current"; }
free() { stat --file-system --format %a "$place/tree"; }
fails() {
    before=$(live)
    code=0
    "$@" >"$place/out" 2>"$place/err" || code=$?
    cat "$place/err"
    test "$code" = 1
    test "$(grep -c '^error: ' "$place/err")" = 1
    grep -q '^error: .*No space left on device' "$place/err" || grep -q 'No space left on device' "$place/err"
    test "$(live)" = "$before"
    cat "$place/tree/current/version" >/dev/null
    releasectl status >/dev/null
}
"#;

/// What every script ends with: all that failed is removed, and what is small enough is deployed.
const END: &str = r#"
releasectl clean >"$place/cleaned"
test "$(ls "$place/tree/releases" | wc -l)" = 1
test -z "$(ls "$place/tree/.releasectl/trash")"
test "$(free)" -gt 10000
test "$(stat --format %s "$place/tree/.releasectl/ballast")" = 1048576
releasectl deploy "$place/small"
test "$(cat "$place/tree/current/version")" = small
releasectl rollback
echo the end is reached
"#;

/// Runs the script on a disk of its own; nothing of it is left.
#[track_caller]
fn on_a_small_disk(tree: &Sandbox, script: &str) -> String {
    let output = in_mount_namespace(tree, &format!("{BEGIN}{script}{END}"), &[&tree.beside("")]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("the end is reached"), "{said}");
    said
}

/// Code that fits on the disk.
fn with_small(tree: &Sandbox) {
    tree.code("small", "", &[("version", "small")]);
    tree.code("first", "", &[("version", "first")]);
}

/// Content that nothing makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

#[test]
fn p15_a_disk_that_fills_during_the_check_out_is_one_error_and_clean_frees_it() {
    if !as_root_or_left_out("a full disk during the check-out") {
        return;
    }
    let tree = Sandbox::new();
    with_small(&tree);
    let repository = tree.repository("large.git");
    for at in 0..45 {
        fs::write(repository.join(format!("blob-{at}")), vec![at; 1 << 20]).unwrap();
    }
    tree.commit(&repository, "large");
    fs::create_dir(tree.beside("large")).unwrap();
    (0..70).for_each(|at| fs::write(tree.beside(&format!("large/blob-{at}")), vec![at; 1 << 20]).unwrap());
    let script = r#"
releasectl deploy "$place/first"
fails releasectl deploy "$place/large"
releasectl clean
head -c 30000000 /dev/zero >"$place/tree/shared/of-others"
fails releasectl deploy "$place/large.git"
tar --create --directory="$place/large" . >"$place/large.tar"
releasectl clean
code=0
releasectl deploy "$place/large.tar" 2>"$place/err" || code=$?
cat "$place/err"
test "$code" = 1
test "$(cat "$place/tree/current/version")" = first
rm "$place/tree/shared/of-others"
rm -rf "$place/tree/.releasectl/mirror"/*
"#;
    let said = on_a_small_disk(&tree, script);
    assert!(said.contains("blob-"), "the path is named: {said}");
}

#[test]
fn p15_a_disk_that_fills_while_pip_installs_is_one_error_and_clean_frees_it() {
    if !as_root_or_left_out("a full disk during pip") {
        return;
    }
    let tree = Sandbox::new();
    with_small(&tree);
    tree.code("large", "[python]\nwheelhouse = 'wheelhouse'\n", &[("requirements.txt", "Django\n")]);
    wheelhouse(&["django", "sqlparse", "asgiref"], &tree.beside("large/wheelhouse"));
    // What a virtual environment and its pip need is there, what Django needs is not.
    let script = r#"
releasectl deploy "$place/first"
head -c 22000000 /dev/zero >"$place/tree/shared/of-others"
fails releasectl deploy "$place/large"
fails releasectl deploy --resume
rm "$place/tree/shared/of-others"
"#;
    on_a_small_disk(&tree, script);
}

#[test]
fn p15_a_disk_that_fills_while_files_are_carried_is_one_error_and_clean_frees_it() {
    if !as_root_or_left_out("a full disk while files are carried") {
        return;
    }
    let tree = Sandbox::new();
    with_small(&tree);
    tree.code("carries", "[shared]\ncarry = ['node_modules']\n", &[("version", "carries")]);
    let script = r#"
releasectl deploy "$place/first"
mkdir "$place/tree/current/node_modules"
for at in 1 2 3 4 5 6 7; do cp "$place/noise" "$place/tree/current/node_modules/$at"; done
fails releasectl deploy "$place/carries"
grep -q 'node_modules' "$place/err"
rm -r "$place/tree/current/node_modules"
"#;
    fs::write(tree.beside("noise"), noise(5 << 20)).unwrap();
    on_a_small_disk(&tree, script);
}

#[test]
fn p15_what_will_not_fit_is_not_begun() {
    if !as_root_or_left_out("a disk too small for another release") {
        return;
    }
    let tree = Sandbox::new();
    with_small(&tree);
    fs::create_dir(tree.beside("large")).unwrap();
    (0..35).for_each(|at| fs::write(tree.beside(&format!("large/blob-{at}")), vec![at; 1 << 20]).unwrap());
    let script = r#"
releasectl deploy "$place/large"
before=$(ls "$place/tree/releases")
code=0
releasectl deploy "$place/large" 2>"$place/err" || code=$?
test "$code" = 3
grep -q 'there is not room for another release' "$place/err"
test "$(ls "$place/tree/releases")" = "$before"
rm "$place/tree/current"/blob-*
"#;
    on_a_small_disk(&tree, script);
}

#[test]
fn p15_on_a_full_disk_rollback_still_works_and_clean_brings_the_ballast_back() {
    if !as_root_or_left_out("a full disk") {
        return;
    }
    // Full of blocks, then full of inodes.
    for (size, fill) in [
        ("size=12m,nr_inodes=0", r#"cat /dev/zero > "$root/filler" 2>/dev/null || true"#),
        (
            "size=64m,nr_inodes=150",
            r#"mkdir "$root/filler" || true; n=0; while true > "$root/filler/$n"; do n=$((n+1)); done 2>/dev/null || true"#,
        ),
    ] {
        let tree = Sandbox::new();
        let (root, source) = (tree.root(), tree.source("x"));
        fs::create_dir(&root).unwrap();
        let again = fill.replace("filler", "filler-2");
        let script = format!(
            r#"program=$1; root=$2; source=$3
            run() {{ "$program" --root "$root" --json "$@" 2>/dev/null || true; }}
            mount -t tmpfs -o {size} none "$root"
            for id in A B C; do run create "$source" --id $id; run activate $id; done >/dev/null
            {fill}
            run rollback
            test -e "$root/.releasectl/ballast" && echo true || echo false
            run rollback
            {again}
            run create "$source" --id D
            run status
            rm -rf "$root/filler" "$root/filler-2"
            run clean --keep 0
            test -e "$root/.releasectl/ballast" && echo true || echo false
            run activate C
            run create "$source" --id E"#
        );
        let output = in_mount_namespace(&tree, &script, &[&root, &source]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, ballast, second, create, status, clean, restored, activate, again] = &answers[..] else {
            panic!("{said}{}", String::from_utf8_lossy(&output.stderr))
        };
        assert_eq!((&first["ok"], &first["to"]), (&true.into(), &"B".into()), "{size}: {said}");
        assert_eq!(*ballast, false, "{size}: it was given up");
        assert_eq!((&second["ok"], &second["to"]), (&true.into(), &"A".into()), "{size}: {said}");
        assert_eq!(create["ok"], false, "{size}: {said}");
        assert!(create["error"]["hint"].is_string(), "{size}: {said}");
        assert_eq!(status["current"], "A", "{size}: {said}");
        assert_eq!(gone(clean), ["B", "C"], "{size}: {said}");
        assert_eq!(*restored, true, "{size}: {said}");
        assert_eq!(activate["error"]["kind"], "refused", "{size}: C is gone: {said}");
        assert_eq!(again["ok"], true, "{size}: {said}");
    }
}

#[test]
fn p15_marks_that_a_full_disk_kept_from_being_written_are_written_later() {
    if !as_root_or_left_out("a full disk") {
        return;
    }
    let tree = Sandbox::new();
    let (root, source) = (tree.root(), tree.source("x"));
    fs::create_dir(&root).unwrap();
    // Without a ballast there is room for the history's next lines, and for nothing else.
    let script = r#"program=$1; root=$2; source=$3
        run() { "$program" --root "$root" "$@"; }
        full() { rm -f "$root/.releasectl/ballast"; cat /dev/zero > "$root/filler" 2>/dev/null || true; }
        mount -t tmpfs -o size=8m none "$root"
        for id in A B; do run create "$source" --id $id; run activate $id; done >/dev/null
        full
        run rollback 2>&1 | grep -q 'warning: release B could not be marked'
        run list | grep -q '^  B  *ready'
        rm "$root/filler"
        run pin A --forever >/dev/null
        run list | grep -q '^  B  *bad'
        full
        run activate B 2>&1 | grep -q 'warning: release B could not be marked'
        run list | grep -q '^[*] B  *bad'
        rm "$root/filler"
        run unpin A >/dev/null
        run list | grep -q '^[*] B  *ready'
        run rollback >/dev/null
        run remove B >/dev/null
        run create "$source" --id B >/dev/null
        run list | grep -q '^  B  *ready'"#;
    let output = in_mount_namespace(&tree, &format!("set -x; {script}"), &[&root, &source]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! The host's file: what it may say, who may have written it, and whom a root run becomes.

use crate::lab::{as_root_or_left_out, gone, in_mount_namespace, json};
use crate::sandbox::{Answer, PROGRAM, Sandbox, picture};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host file with these lines after the root's.
fn host_file(tree: &Sandbox, lines: &str) -> PathBuf {
    let directory = tree.beside("etc");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("production.toml");
    fs::write(&file, format!("root = {:?}\n{lines}", tree.root())).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    file
}

/// The program with nothing but `arguments`.
fn bare(tree: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = tree.clean(PROGRAM);
    command.args(arguments);
    command
}

/// Runs it with this host file; it must end with `code`. Returns what it said.
#[track_caller]
fn ends(tree: &Sandbox, code: i32, file: &Path, arguments: &[&str]) -> String {
    let output = bare(tree, arguments).arg("--config").arg(file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(code == 0 || said.contains("hint: "), "{said}");
    said
}

#[test]
fn the_host_file_says_where_the_tree_is_and_how_much_is_kept() {
    let tree = Sandbox::with_releases(&["A", "B", "C"]);
    let file = host_file(&tree, "[clean]\nkeep = 1\n");
    let said = ends(&tree, 0, &file, &["list", "--json"]);
    assert!(said.contains(r#""env":"production""#), "{said}");
    let told: serde_json::Value =
        serde_json::from_str(&ends(&tree, 0, &file, &["clean", "--dry-run", "--json"])).unwrap();
    assert_eq!(gone(&told), ["A", "B"]);
    let told: serde_json::Value =
        serde_json::from_str(&ends(&tree, 0, &file, &["clean", "--dry-run", "--json", "--keep", "2"])).unwrap();
    assert_eq!(gone(&told), ["A"], "the command line wins");
    let other = Sandbox::laid_out();
    let elsewhere = ends(&tree, 0, &file, &["list", "--json", "--root", other.root().to_str().unwrap()]);
    assert!(elsewhere.contains(r#""releases":[]"#), "{elsewhere}");
}

#[test]
fn the_environment_names_the_tree_too() {
    let tree = Sandbox::with_releases(&["A"]);
    let output = bare(&tree, &["list"]).env("RELEASECTL_ROOT", tree.root()).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains('A'));
    let output = bare(&tree, &["list"]).env("RELEASECTL_ENV", "no-such-environment").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("/etc/releasectl/no-such-environment.toml") && said.contains("hint: "), "{said}");
    // With a root of its own it needs no file, unless it is not known whether there is one.
    let words = ["--env", "no-such-environment", "list"];
    tree.done(&words);
    let mut strace = tree.clean("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-P", "/etc/releasectl/no-such-environment.toml"]);
    strace.args(["-e", "inject=statx,newfstatat:error=EIO", PROGRAM, "--root"]).arg(tree.root()).args(words);
    assert_eq!(strace.output().unwrap().status.code(), Some(7));
    let output = bare(&tree, &["list"]).env("RELEASECTL_ENV", "../../etc/passwd").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // An empty one is some script's mistake: no other tree is taken for it.
    let output = bare(&tree, &["list"]).env("RELEASECTL_ROOT", "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("RELEASECTL_ROOT") && said.contains("hint: "), "{said}");
}

#[test]
fn of_several_environments_one_must_be_named_and_the_only_one_need_not() {
    if !as_root_or_left_out("an /etc of one's own") {
        return;
    }
    let tree = Sandbox::with_releases(&["A"]);
    let script = r#"root=$2
        mkdir "$3/etc"; cp /etc/passwd /etc/group /etc/nsswitch.conf "$3/etc"; mkdir "$3/etc/releasectl"
        mount --bind "$3/etc" /etc
        set +e
        "$1" list; echo "ended $?"
        echo "root = \"$root\"" > /etc/releasectl/one.toml
        "$1" list; echo "ended $?"
        cp /etc/releasectl/one.toml /etc/releasectl/.ansible_tmp-one.toml
        "$1" list; echo "ended $?"
        cp /etc/releasectl/one.toml /etc/releasectl/two.toml
        "$1" list; echo "ended $?"
        "$1" list --env two; echo "ended $?""#;
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &tree.beside("")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let ends: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ended ")).collect();
    assert_eq!(ends, ["7", "0", "0", "2", "0"], "{said}");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("name one with --env: one, two"), "{errors}");
}

#[test]
fn whoever_names_another_environment_means_its_tree_whatever_variables_say_of_where_he_is() {
    if !as_root_or_left_out("an /etc of one's own") {
        return;
    }
    let (tree, other) = (Sandbox::with_live(&["A"]), Sandbox::with_live(&["B"]));
    let script = r#"here=$2 there=$3
        mkdir "$4/etc"; cp /etc/passwd /etc/group /etc/nsswitch.conf "$4/etc"; mkdir "$4/etc/releasectl"
        mount --bind "$4/etc" /etc
        echo "root = \"$here\"" > /etc/releasectl/one.toml
        echo "root = \"$there\"" > /etc/releasectl/two.toml
        set +e
        "$1" -e one exec -- sh -c '
            "$0" path; "$0" -e one path; "$0" -e two path; "$0" path --env two; "$0" -e one --root "$1" path
            "$0" --config /etc/releasectl/two.toml path; "$0" -e tow path; echo $?' "$1" "$there"
        "$1" -e one exec -- "$1" --config /etc/releasectl/two.toml --json path | grep -o '"env":"[a-z]*"'
        export RELEASECTL_ROOT="$here"
        "$1" path; "$1" -e two path; "$1" -e of-no-file path; "$1" -e two --root "$here" path
        "$1" -e two exec -- "$1" -e one path"#;
    let output = in_mount_namespace(&tree, script, &[&tree.root(), &other.root(), &tree.beside("")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let live: Vec<&str> = said.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
    assert_eq!(
        live,
        ["A", "A", "B", "B", "B", "B", "7", "\"env\":\"two\"", "A", "B", "A", "A", "A"],
        "{said}{output:?}"
    );
}

#[test]
fn a_mistake_is_named_with_its_line_and_what_was_probably_meant() {
    let tree = Sandbox::laid_out();
    for (lines, line, named) in [
        ("usr = \"app\"\n", 2, "`user`"),
        ("\n[clean]\nkep = 3\n", 4, "`keep`"),
        ("[source]\nsubmodule = true\n", 3, "`submodules`"),
        ("[helth]\n", 2, "`health`"),
        ("[[step]]\nname = \"a\"\nrunn = \"true\"\n", 4, "`run`"),
        ("[clean]\nkeep = \"three\"\n", 3, "expected a number"),
        ("roles = \"web\"\n", 2, "expected a list"),
        ("[[step]]\nname = \"a\"\nrun = \"true\"\nretry = \"5m\"\n", 5, "expected a table such as { for"),
        ("[supervisor]\nconfig = \"supervisord.conf\"\n", 3, "not an absolute path"),
        ("[supervisor]\ntemplates = \"/srv/templates\"\n", 3, "must lie in the release"),
        ("[[supervisor.program]]\ncount = 2\n", 2, "`template`"),
        ("[clean]\nmin_free = \"lots\"\n", 3, "is not a size"),
        ("[clean]\nkeep_for = \"a while\"\n", 3, "is not a duration"),
        ("[clean\n", 2, ""),
        ("root = \"/twice\"\n", 2, "duplicate key"),
    ] {
        let file = host_file(&tree, lines);
        let said = ends(&tree, 7, &file, &["list"]);
        assert!(said.contains(&format!("line {line}: ")) && said.contains(named), "{lines}: {said}");
        assert!(said.contains(&format!("correct {}", file.display())), "{said}");
    }
    let file = host_file(&tree, "[[step]]\nname = \"a\"\nrun = \"true\"\n[[step]]\nname = \"a\"\nrun = \"true\"\n");
    assert!(ends(&tree, 7, &file, &["list"]).contains("two steps are named"));
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(ends(&tree, 7, &file, &["list"]).contains("not UTF-8"));
    // Where it leads would depend on where the command was given.
    fs::write(&file, "root = \"srv/app\"\n").unwrap();
    assert!(ends(&tree, 7, &file, &["init"]).contains("line 1: `root`: \"srv/app\" is not an absolute path"));
    fs::write(&file, "user = \"x\"\n").unwrap();
    assert!(ends(&tree, 7, &file, &["list"]).contains("where the tree is"));
    ends(&tree, 7, &tree.beside("etc/none.toml"), &["list"]);
    ends(&tree, 7, &tree.beside("none/production.toml"), &["list"]);
    for no_file in [&tree.beside("etc"), Path::new("/dev/null")] {
        let said = ends(&tree, 7, no_file, &["list"]);
        assert!(said.contains("it is not a regular file") && !said.contains("chmod"), "{said}");
    }
}

#[test]
fn p16_a_host_file_that_others_could_have_written_is_refused() {
    let tree = Sandbox::laid_out();
    let before = tree.picture();
    let file = host_file(&tree, "");
    let directory = file.parent().unwrap();
    for (path, mode) in [(&*file, 0o664), (&file, 0o646), (directory, 0o775), (directory, 0o757)] {
        let proper = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let said = ends(&tree, 7, &file, &["init"]);
        assert!(said.contains(&path.display().to_string()) && said.contains(&format!("{mode:04o}")), "{said}");
        assert!(said.contains("chmod go-w"), "{said}");
        fs::set_permissions(path, proper).unwrap();
    }
    if as_root_or_left_out("a host file that is somebody else's") {
        for path in [&*file, directory] {
            chown(path, Some(65534), None).unwrap();
            assert!(ends(&tree, 7, &file, &["init"]).contains("belongs to uid 65534"));
            chown(path, Some(0), None).unwrap();
        }
    }
    let link = tree.beside("link.toml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let said = ends(&tree, 7, &link, &["init"]);
    assert!(said.contains("is a link") && !said.contains("chmod"), "{said}");
    assert_eq!(tree.picture(), before);
    ends(&tree, 0, &file, &["init"]);
}

#[test]
fn p16_a_root_that_its_user_may_not_make_is_told_with_the_way_to_make_it() {
    if !as_root_or_left_out("a root run that becomes a user") {
        return;
    }
    let tree = Sandbox::new();
    fs::set_permissions(tree.beside(""), Permissions::from_mode(0o755)).unwrap();
    let file = host_file(&tree, "user = \"nobody\"\n");
    let said = ends(&tree, 1, &file, &["init"]);
    let mend = said.split('`').nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(tree.clean("sh").args(["-c", mend]).status().unwrap().success(), "{said}");
    ends(&tree, 0, &file, &["init"]);
    assert_eq!(of_root(&tree), Vec::<PathBuf>::new());
}

/// Everything in the tree that is root's.
fn of_root(tree: &Sandbox) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(tree.root()).into_iter().map(Result::unwrap);
    all.filter(|entry| entry.metadata().unwrap().uid() == 0).map(walkdir::DirEntry::into_path).collect()
}

/// Does something of everything that writes.
fn work(run: &dyn Fn(&[&str]), source: &str) {
    run(&["init"]);
    for id in ["A", "B", "C"] {
        run(&["create", source, "--id", id, "--keep-days", "1"]);
        run(&["activate", id]);
    }
    run(&["rollback"]);
    run(&["unpin", "C"]);
    run(&["pin", "B", "--forever"]);
    run(&["remove", "C"]);
    run(&["clean"]);
    run(&["deploy", source]);
    run(&["doctor"]);
}

#[test]
fn p16_started_as_root_with_a_user_no_file_of_roots_is_made_in_the_tree() {
    if !as_root_or_left_out("a root run that becomes a user") {
        return;
    }
    let tree = Sandbox::new();
    fs::create_dir(tree.root()).unwrap();
    tree.give_to_nobody(&tree.root());
    let file = host_file(&tree, "user = \"nobody\"\n");
    let source = tree.source("x");
    work(&|arguments| drop(ends(&tree, 0, &file, arguments)), source.to_str().unwrap());
    assert_eq!(of_root(&tree), Vec::<PathBuf>::new());
    assert!(
        fs::read_to_string(tree.at(".releasectl/journal.jsonl")).unwrap().contains(r#""by":"root""#),
        "who asked is known"
    );
    let secret = tree.beside("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
    let said = ends(&tree, 1, &file, &["create", secret.to_str().unwrap()]);
    assert!(said.contains("Permission denied"), "what the user may not read, root does not read for him: {said}");
    assert!(said.contains("`namei -l`"), "that it must be run as the owner is not all that a root run is told: {said}");
    let said = ends(&tree, 3, &file, &["hotfix", "--patch", secret.join("fix.diff").to_str().unwrap()]);
    assert!(said.contains("Permission denied") && said.contains("hint: the tree's user reads it"), "{said}");
}

#[test]
fn p16_over_a_tree_of_somebody_elses_a_root_run_becomes_that_user() {
    if !as_root_or_left_out("a root run over a tree of somebody else's") {
        return;
    }
    let tree = Sandbox::new();
    fs::create_dir(tree.root()).unwrap();
    fs::set_permissions(tree.beside(""), Permissions::from_mode(0o755)).unwrap();
    // A number without a name will do.
    chown(tree.root(), Some(54321), Some(54321)).unwrap();
    let source = tree.source("x");
    work(&|arguments| drop(tree.done(arguments)), source.to_str().unwrap());
    assert_eq!(of_root(&tree), Vec::<PathBuf>::new());
}

#[test]
fn p16_a_user_that_is_not_there_is_a_mistake_in_the_configuration() {
    if !as_root_or_left_out("a root run that becomes a user") {
        return;
    }
    let tree = Sandbox::new();
    let file = host_file(&tree, "user = \"no-such-user\"\n");
    assert!(ends(&tree, 7, &file, &["init"]).contains("no-such-user"));
    assert!(!tree.root().exists());
}

#[test]
fn p16_a_tree_of_roots_below_a_directory_that_others_may_change_is_refused() {
    if !as_root_or_left_out("a root run in somebody else's directory") {
        return;
    }
    let tree = Sandbox::with_live(&["A", "B"]);
    let way = tree.beside("");
    for (uid, mode, mend) in [(65534, 0o755, "chown root"), (0, 0o777, "chmod go-w"), (0, 0o775, "chmod go-w")] {
        chown(&way, Some(uid), None).unwrap();
        fs::set_permissions(&way, Permissions::from_mode(mode)).unwrap();
        let before = tree.picture();
        for arguments in [&["rollback"][..], &["clean"], &["list"]] {
            let said = tree.refused(arguments);
            assert!(said.contains(mend) && said.contains(way.to_str().unwrap().trim_end_matches('/')), "{said}");
        }
        assert_eq!(tree.picture(), before);
    }
    chown(&way, Some(0), None).unwrap();
    fs::set_permissions(&way, Permissions::from_mode(0o755)).unwrap();
    tree.done(&["rollback"]);
}

#[test]
fn p16_a_root_that_may_not_become_the_trees_user_says_what_it_lacks() {
    if !as_root_or_left_out("a root without capabilities") {
        return;
    }
    let tree = Sandbox::with_live(&["A"]);
    tree.give_to_nobody(&tree.root());
    let mut bare = tree.clean("setpriv");
    bare.args(["--bounding-set", "-all", PROGRAM, "--root"]).arg(tree.root());
    let answer = Answer::from(bare.args(["deactivate", "--yes"]).output().unwrap());
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("cannot become user nobody") && answer.stderr.contains("CAP_SETUID"), "{answer:?}");
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn no_tree_is_laid_out_in_the_releases_of_another_or_in_what_is_its_own() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let fabric = tree.beside("fabric");
    fs::create_dir_all(fabric.join("releases/1")).unwrap();
    std::os::unix::fs::symlink("releases/1", fabric.join("current")).unwrap();
    std::os::unix::fs::symlink(tree.release("A"), tree.beside("elsewhere")).unwrap();
    let (source, before) = (tree.source("x"), picture(&tree.beside("")));
    let source = source.to_str().unwrap();
    let within = ["current", "releases", "releases/new", "releases/A/app", ".releasectl", ".releasectl/trash/new"];
    let within = within.map(|path| (tree.at(path), tree.root())).into_iter();
    let others = [(fabric.join("current"), fabric.clone()), (tree.beside("elsewhere"), tree.root())];
    for (root, around) in within.chain(others) {
        let root = root.to_str().unwrap();
        for arguments in [&["init"][..], &["create", source], &["deploy", source], &["list"]] {
            let answer: Answer = bare(&tree, &[&["--root", root], arguments].concat()).output().unwrap().into();
            assert_eq!(answer.code, 2, "{answer:?}");
            let said = answer.stderr;
            assert!(said.contains("lies within another tree"), "{root}: {said}");
            assert!(said.contains(&format!("--root {}\n", around.display())), "{root}: {said}");
        }
    }
    assert_eq!(picture(&tree.beside("")), before);
}

#[test]
fn a_root_that_can_be_none_is_the_fault_of_whoever_named_it() {
    let tree = Sandbox::new();
    let file = tree.beside("host.toml").display().to_string();
    fs::write(&file, "root = '/'\n").unwrap();
    let document = json(&bare(&tree, &["--config", &file, "--json", "list"]).output().unwrap());
    assert_eq!(
        (&document["error"]["kind"], &document["error"]["exit"]),
        (&"configuration".into(), &7.into()),
        "{document}"
    );
    assert_eq!(bare(&tree, &["--root", "/", "list"]).output().unwrap().status.code(), Some(2));
}

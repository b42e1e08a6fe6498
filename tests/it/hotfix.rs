//! `hotfix`: the live release with only its code changed, live in its turn.

use crate::code::read;
use crate::packages::wheelhouse;
use crate::sandbox::{PROGRAM, Sandbox, is_root};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const RECIPE: &str = "[[step]]\nname = 'generate'\nphase = 'create'\nrun = 'echo generated $$ >made'\n";

/// A repository whose first commit is live, with something that a step made; its second commit says 2.
fn live_from_git(tree: &Sandbox) -> PathBuf {
    let repository = tree.repository("code.git");
    fs::write(repository.join("releasectl.toml"), RECIPE).unwrap();
    fs::write(repository.join("gone-in-two"), "x\n").unwrap();
    tree.commit(&repository, "with a recipe");
    tree.done(&["deploy", repository.to_str().unwrap()]);
    fs::write(repository.join("version"), "2\n").unwrap();
    fs::remove_file(repository.join("gone-in-two")).unwrap();
    tree.commit(&repository, "two");
    repository
}

/// Writes the difference between the two commits to a file.
fn patch(tree: &Sandbox, repository: &std::path::Path) -> String {
    let text = tree.git(repository, &["diff", "HEAD~1", "HEAD"]) + "\n";
    let file = tree.beside("fix.patch");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_hotfix_to_a_ref_changes_the_code_alone_and_is_rolled_back_like_any_other() {
    let tree = Sandbox::new();
    let repository = live_from_git(&tree);
    let (first, made) = (tree.live().unwrap(), read(tree.at("current/made")));
    let hash = tree.git(&repository, &["rev-parse", "HEAD"]);
    let document = tree.json(&["hotfix", "--ref", "master"]);
    assert_eq!((&document["ok"], &document["from"]), (&true.into(), &first.clone().into()), "{document}");
    let second = tree.live().unwrap();
    assert_eq!(read(tree.at("current/version")), "2");
    assert!(!tree.at("current/gone-in-two").exists());
    assert_eq!(read(tree.at("current/made")), made, "no step was run again");
    assert_eq!(tree.json(&["show"])["release"]["revision"], hash.as_str());
    assert_eq!(tree.json(&["verify"])["ok"], true);
    assert_eq!(read(tree.release(&first).join("version")), "1", "the release it came from is as it was");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().unwrap(), first);
    tree.done(&["activate", &second]);
    let history = tree.json(&["history"]).to_string();
    assert!(history.contains("\"cause\":\"hotfix\""), "{history}");
}

#[test]
fn a_hotfix_to_a_ref_fetches_what_is_in_no_mirror_any_more() {
    let tree = Sandbox::new();
    let part = tree.repository("part");
    fs::write(part.join("gone-in-two"), "x\n").unwrap();
    tree.commit(&part, "with a file");
    let code = tree.repository("code.git");
    let allowed = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", part.to_str().unwrap(), "part"];
    tree.git(&code, &allowed);
    tree.commit(&code, "with a part");
    tree.done(&["deploy", code.to_str().unwrap()]);
    fs::remove_file(part.join("gone-in-two")).unwrap();
    let two = tree.commit(&part, "without a file");
    tree.git(&code.join("part"), &["-c", "protocol.file.allow=always", "fetch", "--quiet"]);
    tree.git(&code.join("part"), &["checkout", "--quiet", &two]);
    tree.commit(&code, "with a newer part");
    fs::remove_dir_all(tree.at(".releasectl/mirror")).unwrap();
    tree.done(&["hotfix", "--ref", "master"]);
    assert!(tree.at("current/part/version").exists() && !tree.at("current/part/gone-in-two").exists());
}

#[test]
fn a_patch_is_applied_and_undone_as_releases_of_their_own() {
    let tree = Sandbox::new();
    let repository = live_from_git(&tree);
    let patch = patch(&tree, &repository);
    let first = tree.live().unwrap();
    tree.done(&["hotfix", "--patch", &patch]);
    let second = tree.live().unwrap();
    assert_eq!(read(tree.at("current/version")), "2");
    assert!(!tree.at("current/gone-in-two").exists());
    tree.done(&["hotfix", "--patch", &patch, "--reverse"]);
    let third = tree.live().unwrap();
    assert_eq!(read(tree.at("current/version")), "1");
    assert_eq!(read(tree.at("current/gone-in-two")), "x");
    assert!(first < second && second < third, "{first} {second} {third}");
    // There is nothing to undo about a ref.
    tree.ends(2, &["hotfix", "--ref", "main", "--reverse"]);
    assert_eq!(tree.live().unwrap(), third);
    tree.done(&["rollback"]);
    assert_eq!(tree.live().unwrap(), second);
}

#[test]
fn a_patch_that_does_not_fit_leaves_an_incomplete_release_that_clean_removes() {
    let tree = Sandbox::new();
    let repository = live_from_git(&tree);
    let patch = patch(&tree, &repository);
    tree.done(&["hotfix", "--patch", &patch]);
    let (live, before) = (tree.live(), tree.states());
    let answer = tree.ends(1, &["hotfix", "--patch", &patch]);
    assert!(answer.stderr.contains("patch does not") && answer.stderr.contains("hint: "), "{}", answer.stderr);
    assert_eq!(tree.live(), live);
    let after = tree.states();
    let fresh: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).collect();
    assert!(matches!(fresh[..], [(_, state)] if state == "incomplete"), "{after:?}");
    let (id, _) = fresh[0];
    tree.ends(3, &["activate", id]);
    // What it copies without the patch is no release with it.
    assert!(tree.refused(&["create", "--resume", id]).contains("begun by a hotfix with a patch"));
    tree.refused(&["create", "--resume"]);
    assert_eq!(tree.states(), after);
    tree.done(&["clean"]);
    assert_eq!(tree.states(), before);
    tree.refused(&["hotfix", "--patch", "no-such-file"]);
    assert_eq!(tree.states(), before, "what cannot be read reserves nothing");
}

#[test]
fn a_patch_that_leads_out_of_the_release_changes_nothing_there() {
    let tree = Sandbox::with_live(&["A"]);
    fs::write(tree.beside("victim"), "mine\n").unwrap();
    let text = "--- a/../../../victim\n+++ b/../../../victim\n@@ -1 +1 @@\n-mine\n+yours\n";
    fs::write(tree.beside("fix.patch"), text).unwrap();
    tree.ends(1, &["hotfix", "--patch", tree.beside("fix.patch").to_str().unwrap()]);
    assert_eq!(read(tree.beside("victim")), "mine");
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn a_patch_is_bytes_as_the_code_is() {
    let tree = Sandbox::with_live(&["A"]);
    let text = b"--- a/version\n+++ b/version\n@@ -1 +1 @@\n-A\n\\ No newline at end of file\n+caf\xe9\n";
    fs::write(tree.beside("fix.patch"), text).unwrap();
    tree.done(&["hotfix", "--patch", tree.beside("fix.patch").to_str().unwrap()]);
    assert_eq!(fs::read(tree.at("current/version")).unwrap(), b"caf\xe9\n");
}

#[test]
fn what_a_patch_changes_is_shown_to_whoever_saw_it_before_and_to_nobody_else() {
    let tree = Sandbox::new();
    let source = tree.code("code", "", &[("version", "A\n"), ("settings", "A\n"), ("tool", "A\n"), ("plain", "A\n")]);
    let modes = [("version", 0o644), ("settings", 0o600), ("tool", 0o750), ("plain", 0o640)];
    for (name, mode) in modes {
        fs::set_permissions(Path::new(&source).join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    tree.done(&["deploy", &source]);
    let change = |(name, _): (&str, u32)| format!("--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-A\n+B\n");
    let may_run = "diff --git a/plain b/plain\nold mode 100644\nnew mode 100755\n";
    let new = "diff --git a/new/deep/er b/new/deep/er\nnew file mode 100644\n--- /dev/null\n+++ b/new/deep/er\n@@ -0,0 +1 @@\n+B\n";
    let text: String = modes[..3].iter().copied().map(change).chain([may_run.into(), new.into()]).collect();
    fs::write(tree.beside("fix.patch"), text).unwrap();
    for umask in ["077", "000"] {
        let mut hotfix = tree.clean("sh");
        let script = format!("umask {umask}; exec \"$@\"");
        hotfix.args(["-c", &script, "sh", PROGRAM, "--root"]).arg(tree.root());
        hotfix.args(["hotfix", "--patch"]).arg(tree.beside("fix.patch"));
        let output = hotfix.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode = |name: &str| fs::metadata(tree.at("current").join(name)).unwrap().mode() & 0o777;
        assert_eq!(read(tree.at("current/settings")), "B");
        for (name, before) in &modes[..3] {
            assert_eq!(mode(name), *before, "{name} with umask {umask}");
        }
        assert_eq!(mode("plain"), 0o750, "with umask {umask}");
        let made = if is_root() { 0 } else { u32::from_str_radix(umask, 8).unwrap() | 0o002 };
        assert_eq!((mode("new"), mode("new/deep")), (0o775 & !made, 0o775 & !made), "with umask {umask}");
        assert_eq!(mode("new/deep/er"), 0o664 & !made, "with umask {umask}");
        tree.done(&["rollback"]);
    }
}

#[test]
fn where_processes_meet_in_the_live_release_is_no_part_of_what_is_copied_carried_or_handed_over() {
    let tree = Sandbox::new();
    let source = tree.code("code", "[shared]\ncarry = ['run']\n", &[("version", "A\n")]);
    tree.done(&["deploy", &source]);
    fs::create_dir(tree.at("current/run")).unwrap();
    fs::write(tree.at("current/run/pid"), "1\n").unwrap();
    nix::unistd::mkfifo(&tree.at("current/run/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A socket's own name may not be long.
    let bound = "import os, socket\nos.chdir('current/run')\nsocket.socket(socket.AF_UNIX).bind('socket')";
    assert!(tree.clean("python3").args(["-c", bound]).current_dir(tree.root()).status().unwrap().success());
    let tar = tree.command(&["export"]).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    fs::write(tree.beside("fix.patch"), "--- a/version\n+++ b/version\n@@ -1 +1 @@\n-A\n+B\n").unwrap();
    tree.done(&["hotfix", "--patch", tree.beside("fix.patch").to_str().unwrap()]);
    assert_eq!(fs::read_dir(tree.at("current/run")).unwrap().count(), 1);
    assert_eq!(read(tree.at("current/version")), "B");
    tree.done(&["rollback"]);
    tree.done(&["deploy", &source]);
    assert_eq!(fs::read_dir(tree.at("current/run")).unwrap().count(), 1);
}

#[test]
fn what_was_not_built_from_git_takes_patches_but_no_ref() {
    let tree = Sandbox::with_live(&["A"]);
    let before = tree.states();
    let said = tree.refused(&["hotfix", "--ref", "master"]);
    assert!(said.contains("was not built from git") && said.contains("`deploy` builds one"), "{said}");
    assert_eq!(tree.states(), before);
    let empty = Sandbox::laid_out();
    empty.refused(&["hotfix", "--ref", "master"]);
}

#[test]
fn the_python_env_of_a_hotfix_is_right_at_its_new_path() {
    let tree = Sandbox::new();
    let source = tree.code("code", "[python]\nwheelhouse = 'wheelhouse'\n", &[("requirements.txt", "six\n")]);
    wheelhouse(&["six"], &tree.beside("code/wheelhouse"));
    fs::write(tree.beside("code/version"), "1\n").unwrap();
    tree.done(&["deploy", &source]);
    fs::write(tree.beside("fix.patch"), "--- a/version\n+++ b/version\n@@ -1 +1 @@\n-1\n+2\n").unwrap();
    let first = tree.live().unwrap();
    tree.done(&["hotfix", "--patch", tree.beside("fix.patch").to_str().unwrap()]);
    let release = tree.release(&tree.live().unwrap());
    let where_from = "import six, sys; print(six.__file__, sys.prefix)";
    let said = tree.done(&["exec", "--", "python", "-c", where_from]);
    let places: Vec<PathBuf> = said.split_whitespace().map(PathBuf::from).collect();
    assert!(places.len() == 2 && places.iter().all(|place| place.starts_with(&release)), "{said}");
    assert_eq!(read(tree.at("current/version")), "2");
    let pip = tree.done(&["exec", "--", "pip", "--version"]);
    assert!(pip.contains(release.to_str().unwrap()), "{pip}");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().unwrap(), first);
}

#[test]
fn a_hotfix_to_a_ref_leaves_no_empty_directory_and_links_what_is_shared_from_then_on() {
    let tree = Sandbox::new();
    let repository = tree.repository("code.git");
    tree.code(
        "code.git",
        "[shared]\ndirs = ['media']\n",
        &[("gone/deep/x.py", ""), ("made/x.py", ""), ("app/x.py", ""), ("turned/x.py", "")],
    );
    tree.commit(&repository, "with directories");
    tree.done(&["deploy", repository.to_str().unwrap()]);
    for path in ["made/generated", "app/generated"] {
        fs::write(tree.at("current").join(path), "").unwrap();
    }
    tree.git(&repository, &["rm", "-r", "--quiet", "gone", "made", "app/x.py", "turned"]);
    tree.code("code.git", "[shared]\ndirs = ['media', 'uploads']\n", &[("turned", "a file now")]);
    tree.commit(&repository, "without them");
    tree.done(&["hotfix", "--ref", "master"]);
    assert!(!tree.at("current/gone").exists(), "Python would take it for a package");
    assert!(tree.at("current/turned").is_file());
    assert!(tree.at("current/made/generated").exists() && tree.at("current/app/generated").exists());
    for name in ["media", "uploads"] {
        assert_eq!(fs::read_link(tree.at("current").join(name)).unwrap(), PathBuf::from("../../shared").join(name));
    }
    assert_eq!(tree.json(&["verify"])["ok"], true);
    assert!(tree.done(&["doctor"]).contains("ok   shared"));
}

#[test]
fn new_code_in_the_place_of_what_a_build_made_is_told_with_another_way() {
    let tree = Sandbox::new();
    let repository = live_from_git(&tree);
    let live = tree.live();
    fs::write(repository.join("made"), "code").unwrap();
    tree.commit(&repository, "three");
    let said = tree.ends(1, &["hotfix", "--ref", "master"]).stderr;
    assert!(said.contains("\"made\" of the new code") && said.contains("hint: `deploy` builds"), "{said}");
    assert_eq!(tree.live(), live);
}

#[test]
fn a_patch_is_taken_byte_for_byte_whatever_it_is_written_in() {
    let tree = Sandbox::with_live(&["A"]);
    fs::write(tree.release("A").join("version"), b"caf\xe9\r\n").unwrap();
    let patch = tree.beside("fix.patch");
    fs::write(&patch, b"--- a/version\n+++ b/version\n@@ -1 +1 @@\n-caf\xe9\r\n+th\xe9\r\n").unwrap();
    tree.done(&["hotfix", "--patch", patch.to_str().unwrap()]);
    assert_eq!(fs::read(tree.at("current/version")).unwrap(), b"th\xe9\r\n");
}

/// A tree with a release that another tool made, with a virtual environment and these files, live and taken over; and a
/// patch for it.
fn taken_over(tree: &Sandbox, files: &[&str]) -> String {
    let release = tree.release("2026-11-01_10.00");
    fs::create_dir_all(release.join("python_env/bin")).unwrap();
    fs::write(release.join("python_env/pyvenv.cfg"), "").unwrap();
    fs::write(release.join("python_env/bin/tool"), format!("#!{}/python_env/bin/python\n", release.display())).unwrap();
    fs::write(release.join("version"), "1\n").unwrap();
    for file in files {
        let status = tree.clean("cp").arg("-r").arg(tree.beside("code").join(file)).arg(&release).status().unwrap();
        assert!(status.success());
    }
    std::os::unix::fs::symlink("releases/2026-11-01_10.00", tree.at("current")).unwrap();
    fs::write(tree.at("RELEASES.txt"), format!("{}\n", release.display())).unwrap();
    tree.done(&["init"]);
    fs::write(tree.beside("fix.patch"), "--- a/version\n+++ b/version\n@@ -1 +1 @@\n-1\n+2\n").unwrap();
    tree.beside("fix.patch").to_str().unwrap().to_owned()
}

#[test]
fn p20_an_environment_that_another_tool_made_is_never_copied() {
    let tree = Sandbox::new();
    let patch = taken_over(&tree, &[]);
    let before = tree.states();
    let said = tree.refused(&["hotfix", "--patch", &patch]);
    assert!(said.contains("virtual environment in python_env") && said.contains("`deploy`"), "{said}");
    assert_eq!(tree.states(), before);
    // Where it is known what it holds it is made at its new path.
    let tree = Sandbox::new();
    tree.code("code", "[python]\nwheelhouse = 'wheelhouse'\n", &[("requirements.txt", "six\n")]);
    wheelhouse(&["six"], &tree.beside("code/wheelhouse"));
    let patch = taken_over(&tree, &["releasectl.toml", "requirements.txt", "wheelhouse"]);
    tree.done(&["hotfix", "--patch", &patch]);
    assert!(!tree.at("current/python_env/bin/tool").exists());
    let said = tree.done(&["exec", "--", "python", "-c", "import six, sys; print(sys.prefix)"]);
    assert_eq!(said.trim(), tree.release(&tree.live().unwrap()).join("python_env").to_str().unwrap());
}

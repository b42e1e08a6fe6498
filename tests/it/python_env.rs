//! python_env through the program: with uv and without, with no network at all, and never from what its hash disowns.

use crate::code::{NOBODY, read};
use crate::lab::as_root_or_left_out;
use crate::packages::{uv, wheelhouse};
use crate::sandbox::{Answer, Sandbox};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const RECIPE: &str = "[python]\nwheelhouse = 'wheelhouse'\n";

/// Code that asks for `six` with its hash, and has its wheel.
fn pinned(tree: &Sandbox, version: &str) -> String {
    let source = tree.code("code", RECIPE, &[("version", version)]);
    let wheel = wheelhouse(&["six"], &tree.beside("code/wheelhouse")).remove(0);
    let sum: String = Sha256::digest(fs::read(&wheel).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let named = wheel.file_name().unwrap().to_str().unwrap().split('-').nth(1).unwrap().to_owned();
    fs::write(tree.beside("code/requirements.txt"), format!("six=={named} --hash=sha256:{sum}\n")).unwrap();
    source
}

/// Runs the program without any network. Only root, or who may make a user namespace, can take it away.
fn cut_off(tree: &Sandbox, arguments: &[&str]) -> Answer {
    let mut command = tree.clean("unshare");
    command.arg("--net").arg(crate::sandbox::PROGRAM).arg("--root").arg(tree.root()).args(arguments);
    command.output().unwrap().into()
}

#[test]
fn what_path_could_not_lead_to_gets_no_environment() {
    let tree = Sandbox::new();
    let recipe = "[python]\ndirectory = 'env:1'\nrequirements = ['requirements.txt']\n";
    let source = tree.code("code", recipe, &[("requirements.txt", "")]);
    let said = tree.ends(1, &["create", &source, "--id", "A"]).stderr;
    assert!(said.contains("releases/A/env:1 cannot be on PATH") && said.contains("without a colon"), "{said}");
    assert!(!tree.release("A").join("env:1").exists());
}

fn imports(tree: &Sandbox) {
    let said = tree.done(&["exec", "--", "python", "-c", "import six; print(six.__file__)"]);
    let environment = tree.release(&tree.live().unwrap()).join("python_env");
    assert!(Path::new(said.trim()).starts_with(&environment), "{said}");
}

#[test]
fn a_wheelhouse_and_right_hashes_need_no_network_and_a_wrong_hash_is_refused() {
    if !as_root_or_left_out("a build with the network cut off") {
        return;
    }
    let tree = Sandbox::new();
    let source = pinned(&tree, "1");
    let answer = cut_off(&tree, &["deploy", &source]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    imports(&tree);
    let live = tree.live();
    let list = tree.beside("code/requirements.txt");
    let wrong = read(&list).replace("sha256:", "sha256:0").chars().collect::<String>();
    fs::write(&list, &wrong[..wrong.len() - 1]).unwrap();
    let answer = cut_off(&tree, &["deploy", &source]);
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    let said = answer.stderr.to_lowercase();
    assert!(said.contains("hash") && said.contains("six"), "{}", answer.stderr);
    assert_eq!(tree.live(), live);
    imports(&tree);
    tree.done(&["clean"]);
    assert_eq!(tree.states().len(), 1);
    // Without the wheel there is nothing to build from, and no way out.
    fs::remove_dir_all(tree.beside("code/wheelhouse")).unwrap();
    fs::write(tree.beside("code/releasectl.toml"), "").unwrap();
    fs::write(&list, "six\nvine\n").unwrap();
    assert_eq!(cut_off(&tree, &["deploy", &source]).code, 1);
    assert_eq!(tree.live(), live);
}

#[test]
fn an_offline_deploy_comes_through_a_pipe_with_all_it_needs() {
    if !as_root_or_left_out("a deploy through a pipe with the network cut off") {
        return;
    }
    let tree = Sandbox::new();
    pinned(&tree, "1");
    let script = format!(
        "tar --create --directory=code . | unshare --net {} --root {} deploy -",
        crate::sandbox::PROGRAM,
        tree.root().display()
    );
    let output = tree.clean("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    imports(&tree);
}

/// Runs a command as somebody who is not root, and who owns the sandbox.
fn by_an_ordinary_user(tree: &Sandbox, command: &mut Command) -> Answer {
    if crate::sandbox::is_root() {
        tree.give_all_to_nobody();
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap().into()
}

#[test]
fn uv_builds_if_it_is_there_and_pip_if_not() {
    // A root run looks for programs in fixed places only: uv is found on an ordinary user's PATH.
    for with_uv in [true, false] {
        let tree = Sandbox::new();
        let source = pinned(&tree, "1");
        let mut path = std::ffi::OsString::from(if with_uv { uv().as_os_str() } else { "/usr/bin".as_ref() });
        path.push(":/usr/bin:/bin");
        fs::create_dir(tree.root()).unwrap();
        for version in ["1", "2"] {
            fs::write(tree.beside("code/version"), version).unwrap();
            let answer = by_an_ordinary_user(&tree, tree.command(&["deploy", &source]).env("PATH", &path));
            assert_eq!(answer.code, 0, "{}", answer.stderr);
            imports(&tree);
        }
        let log =
            fs::read_to_string(tree.release(&tree.states().into_keys().next().unwrap()).join(".releasectl/build.log"));
        let log = log.unwrap();
        let installer = if with_uv { "by Uv" } else { "by Pip" };
        assert!(log.contains("Built") && log.contains(installer), "{log}");
        assert!(tree.log().contains("Linked"), "the second is the first's: {}", tree.log());
        tree.done(&["rollback"]);
        imports(&tree);
    }
}

#[test]
fn p15_a_file_that_pip_may_not_write_is_not_taken_for_a_missing_venv() {
    let tree = Sandbox::new();
    let source = pinned(&tree, "1");
    // The wheel of pip is larger, and venv does not tell what ensurepip said of it.
    let answer = Answer::from(limited(&tree, &["create", &source]).output().unwrap());
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert!(answer.stderr.contains("error: python ensurepip failed: "), "{}", answer.stderr);
    assert!(answer.stderr.contains("File too large") && !answer.stderr.contains("apt install"), "{}", answer.stderr);
}

/// The program, with pip alone, where no file may become larger than this.
fn limited(tree: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = tree.clean("prlimit");
    command.args(["--fsize=1500000", crate::sandbox::PROGRAM, "--root"]).arg(tree.root()).args(arguments);
    command.env("PATH", "/usr/bin:/bin");
    command
}

/// A wheel whose one module has more bytecode than text: each of its lines is two bytes long and costs seven.
const WIDE: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/wide-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("wide.py", "a\n" * 400000)
    wheel.writestr("wide-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: wide\nVersion: 1\n")
    wheel.writestr("wide-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("wide-1.dist-info/RECORD", "")
"#;

#[test]
fn p15_bytecode_that_cannot_be_written_is_told_with_its_path() {
    let tree = Sandbox::new();
    let source = tree.code("code", RECIPE, &[("requirements.txt", "wide==1\n"), ("wheelhouse/kept", "")]);
    let house = tree.beside("code/wheelhouse");
    assert!(Command::new("/usr/bin/python3").args(["-c", WIDE]).arg(&house).status().unwrap().success());
    fs::create_dir(tree.root()).unwrap();
    let mut create = limited(&tree, &["create", &source]);
    let answer = by_an_ordinary_user(&tree, create.env("PATH", format!("{}:/usr/bin:/bin", uv().display())));
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    let id = tree.states().into_keys().next().unwrap();
    let told = format!("cannot compile {}", tree.release(&id).join("python_env/lib").display());
    assert!(answer.stderr.contains(&told) && answer.stderr.contains("error: python failed: "), "{}", answer.stderr);
}

/// Bytes of disk of everything in a release but our records.
fn bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let counted = entries.filter(|entry| entry.file_name() != ".releasectl").map(|entry| {
        let own = entry.metadata().unwrap();
        own.blocks() * 512 + if own.is_dir() { bytes(&entry.path()) } else { 0 }
    });
    counted.sum()
}

#[test]
fn what_was_seen_while_an_environment_was_made_is_what_is_there() {
    for (directory, step) in [("python_env", ""), ("deep/./er", ""), ("python_env", "[[step]]\nname='x'\nrun='true'\n")]
    {
        let tree = Sandbox::new();
        pinned(&tree, "1");
        let repository = tree.beside("code");
        let recipe = format!("{step}{RECIPE}directory = '{directory}'\n").replace("'x'", "'x'\nphase='create'");
        fs::write(repository.join("releasectl.toml"), recipe).unwrap();
        tree.git(&repository, &["init", "--quiet"]);
        tree.commit(&repository, "all");
        for (id, how) in [("A", "Built"), ("B", "Linked")] {
            let document = tree.json(&["create", repository.to_str().unwrap(), "--id", id]);
            let log = read(tree.release(id).join(".releasectl/build.log"));
            assert!(log.contains(how), "{log}");
            let verified = tree.json(&["verify", id]);
            for kind in ["changed", "missing", "added"] {
                assert_eq!(verified[kind], serde_json::json!([]), "{directory} {id}");
            }
            assert_eq!(document["release"]["bytes"], bytes(&tree.release(id)), "{directory} {id}");
        }
        fs::remove_file(tree.release("B").join(directory).join("pyvenv.cfg")).unwrap();
        fs::write(tree.release("B").join(directory).join("left"), "").unwrap();
        let answer = tree.ends(1, &["verify", "B"]);
        assert!(answer.stdout.contains("pyvenv.cfg") && answer.stdout.contains("left"), "{}", answer.stdout);
    }
}

#[test]
fn no_python_builds_none() {
    let tree = Sandbox::new();
    let source = pinned(&tree, "1");
    tree.done(&["deploy", "--no-python", &source]);
    assert!(!tree.at("current/python_env").exists());
    assert_eq!(read(tree.at("current/version")), "1");
}

#[test]
fn a_dead_environment_is_told_before_anybody_needs_it() {
    let tree = Sandbox::new();
    let source = pinned(&tree, "1");
    let mark = "[[step]]\nname = 'mark'\nrun = 'touch $RELEASECTL_ROOT/log/mark'\n";
    let recipe = format!("{RECIPE}{mark}[task.greet]\nrun = 'python -V'\n");
    fs::write(tree.beside("code/releasectl.toml"), recipe).unwrap();
    tree.done(&["deploy", &source]);
    let first = tree.live().unwrap();
    tree.done(&["deploy", &source]);
    let second = tree.live().unwrap();
    assert!(tree.run(&["doctor"]).stdout.contains(&format!("a rollback would go to {first}")));
    fs::remove_file(tree.release(&first).join("python_env/bin/python")).unwrap();
    fs::remove_file(tree.at("log/mark")).unwrap();
    for words in [&["rollback", "--dry-run"][..], &["rollback"], &["deploy", "--release", &first, "--keep-days", "9"]] {
        let answer = tree.run(words);
        assert_eq!(answer.code, 3, "{words:?}: {}", answer.stderr);
        assert!(!tree.at("log/mark").exists(), "{words:?}");
        assert!(tree.json(&["show", &first])["release"]["keep_until"].is_null(), "{words:?}");
        for word in ["has a dead python_env", "or name another"] {
            assert!(answer.stderr.contains(word), "{words:?}: {}", answer.stderr);
        }
    }
    let python = tree.release(&second).join("python_env/bin/python");
    fs::remove_file(&python).unwrap();
    std::os::unix::fs::symlink("/no/such/python", &python).unwrap();
    let answer = tree.run(&["doctor"]);
    assert_eq!(answer.code, 6);
    for id in [first, second] {
        assert!(answer.stdout.contains(&format!("release {id} has a dead python_env")), "{}", answer.stdout);
    }
    // A shell would go on to the host's Python.
    for words in [&["manage", "check"][..], &["task", "greet"]] {
        let said = tree.ends(127, words).stderr;
        assert!(said.contains("has a dead python_env") && said.contains("it was made with"), "{words:?}: {said}");
    }
}

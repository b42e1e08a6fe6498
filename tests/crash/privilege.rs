//! P16: a run as root works as the tree's user and with nothing of its caller's: no file of root's is left in the tree,
//! nothing that others could have written is read or run, and no variable of the caller's changes what is done.

use crate::lab::as_root_or_left_out;
use crate::sandbox::{Answer, PROGRAM, Sandbox, picture};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whom a root run becomes in these tests.
const USER: &str = "nobody";

/// Writes a file that only its owner may write to, in a directory of the same kind.
fn write(path: &Path, text: &str, mode: u32) {
    let directory = path.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A tree of nobody's whose host file has these lines, and code with steps in each phase, a task and a python_env.
fn world(lines: &str) -> (Sandbox, PathBuf) {
    let tree = Sandbox::new();
    fs::create_dir(tree.root()).unwrap();
    tree.give_to_nobody(&tree.root());
    let file = tree.beside("etc/production.toml");
    write(&file, &format!("root = {:?}\nuser = {USER:?}\n{lines}", tree.root()), 0o644);
    let code = tree.beside("code");
    write(&code.join("version"), "1\n", 0o644);
    write(&code.join("requirements.txt"), "", 0o644);
    let recipe = r#"
[shared]
dirs = ["media"]
carry = ["carried"]
[[step]]
name = "during"
phase = "create"
run = "mkdir -p carried && id -un > carried/who && env > environment"
[[step]]
name = "before"
run = "id -un > before"
[[step]]
name = "after"
phase = "finish"
run = "touch after ../../shared/media/after"
[task.touch]
run = "touch touched"
"#;
    write(&code.join("releasectl.toml"), recipe, 0o644);
    (tree, file)
}

/// The program with that host file.
fn command(tree: &Sandbox, file: &Path, arguments: &[&str]) -> Command {
    let mut command = tree.clean(PROGRAM);
    command.arg("--config").arg(file).args(arguments);
    command
}

#[track_caller]
fn ends(code: i32, mut command: Command) -> Answer {
    let answer: Answer = command.output().unwrap().into();
    assert_eq!(answer.code, code, "{command:?}\n{}{}", answer.stdout, answer.stderr);
    answer
}

/// What is root's in the tree.
fn of_root(tree: &Sandbox) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(tree.root()).into_iter().map(Result::unwrap);
    all.filter(|entry| entry.metadata().unwrap().uid() == 0).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn p16_after_every_verb_nothing_in_the_tree_is_roots() {
    if !as_root_or_left_out("every verb as a root run that becomes a user") {
        return;
    }
    let hooks = "[hooks]\non_start = \"touch started\"\non_success = \"id -un > hook-success\"\n\
                 on_failure = \"touch hook-failure\"\non_rollback = \"touch hook-rollback\"\n";
    let (tree, file) = world(hooks);
    let code = tree.beside("code").display().to_string();
    let patch = tree.beside("fix.diff");
    write(&patch, "--- a/version\n+++ b/version\n@@ -1 +1 @@\n-1\n+2\n", 0o644);
    let verbs: &[&[&str]] = &[
        &["init"],
        &["create", &code, "--id", "A", "--keep-days", "2"],
        &["activate", "A"],
        &["deploy", &code],
        &["exec", "--", "touch", "executed"],
        &["task", "touch"],
        &["hotfix", "--patch", patch.to_str().unwrap()],
        &["rollback"],
        &["pin", "A", "--forever"],
        &["unpin", "A"],
        &["create", &code, "--id", "B"],
        &["remove", "B"],
        &["verify", "A"],
        &["doctor"],
        &["clean", "--keep", "1"],
        &["deactivate", "--yes"],
        &["activate"],
    ];
    for verb in verbs {
        ends(0, command(&tree, &file, verb));
        assert_eq!(of_root(&tree), Vec::<PathBuf>::new(), "after {verb:?}");
    }
    // One that fails on the way, and goes on.
    write(&tree.beside("code/releasectl.toml"), "[[step]]\nname = \"a\"\nrun = \"touch tried; test -e go\"\n", 0o644);
    ends(1, command(&tree, &file, &["deploy", &code]));
    assert_eq!(of_root(&tree), Vec::<PathBuf>::new());
    assert!(tree.at("hook-failure").exists() && tree.at("hook-rollback").exists() && tree.at("started").exists());
    let who = |path: &str| fs::read_to_string(tree.at(path)).unwrap();
    assert_eq!(who("hook-success"), format!("{USER}\n"));
    let live = tree.live().unwrap();
    assert_eq!(who(&format!("releases/{live}/carried/who")), format!("{USER}\n"));
    assert!(tree.release(&live).join("python_env/bin/python").exists(), "there is an environment");
}

#[test]
fn p16_a_hook_that_others_could_have_written_is_refused_before_anything() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let hook = tree.beside("hooks/hook");
    write(&hook, "#!/bin/sh\ntouch ran\n", 0o755);
    let file = tree.beside("etc/production.toml");
    let said = |hook: &str| format!("root = {:?}\n[hooks]\non_rollback = {hook:?}\n", tree.root());
    let path = hook.display().to_string();
    let ways = [path.clone(), format!("exec {path} now"), format!("if sh '{path}'; then :; fi"), format!("x=1 {path}")];
    for (way, spoilt) in ways.iter().flat_map(|way| [&*hook, hook.parent().unwrap()].map(|spoilt| (way, spoilt))) {
        write(&file, &said(way), 0o644);
        let proper = fs::metadata(spoilt).unwrap().permissions();
        for mode in [0o775, 0o757] {
            fs::set_permissions(spoilt, Permissions::from_mode(mode)).unwrap();
            let before = tree.picture();
            for verb in [&["rollback"][..], &["clean"], &["list"]] {
                let answer = ends(7, command(&tree, &file, verb));
                let told = answer.stderr.contains(spoilt.to_str().unwrap()) && answer.stderr.contains("chmod go-w");
                assert!(told, "{}", answer.stderr);
            }
            assert_eq!(tree.picture(), before);
        }
        fs::set_permissions(spoilt, proper).unwrap();
    }
    // What is only written to, or is not there, is no program of the hook's.
    let log = tree.beside("log");
    write(&log, "", 0o666);
    write(&file, &said(&format!("{path}; echo >>{}; test ! -e /nowhere/x", log.display())), 0o644);
    ends(0, command(&tree, &file, &["rollback"]));
    assert!(tree.at("ran").exists());
    if as_root_or_left_out("a hook that is somebody else's") {
        std::os::unix::fs::chown(&hook, Some(65534), None).unwrap();
        let answer = ends(7, command(&tree, &file, &["activate", "B"]));
        assert!(answer.stderr.contains("belongs to uid 65534"), "{}", answer.stderr);
    }
}

/// Programs that a run needs or might look for, each of which tells that it was run.
fn planted(tree: &Sandbox, names: &[&str]) -> PathBuf {
    let place = tree.beside("planted");
    for name in names {
        let script = format!("#!/bin/sh\necho {name} >> {}\nexit 1\n", tree.beside("was-run").display());
        write(&place.join(name), &script, 0o755);
    }
    place
}

#[test]
fn p16_a_poisoned_environment_changes_nothing_and_reaches_nobody() {
    if !as_root_or_left_out("a root run in a poisoned environment") {
        return;
    }
    let build = |poison: &dyn Fn(&Sandbox, &mut Command)| {
        let (tree, file) = world("");
        let repository = tree.beside("code");
        tree.git(&repository, &["init", "--quiet", "--initial-branch=master"]);
        tree.commit(&repository, "one");
        tree.give_to_nobody(&repository);
        for arguments in [&["init"][..], &["deploy", repository.to_str().unwrap()], &["list"], &["doctor"]] {
            let mut command = command(&tree, &file, arguments);
            poison(&tree, &mut command);
            let answer: Answer = command.output().unwrap().into();
            assert_eq!(answer.code, 0, "{arguments:?}: {}{}", answer.stdout, answer.stderr);
        }
        assert!(!tree.beside("was-run").exists(), "{}", fs::read_to_string(tree.beside("was-run")).unwrap_or_default());
        let release = tree.release(&tree.live().unwrap());
        let environment = fs::read_to_string(release.join("environment")).unwrap();
        let mut names: Vec<String> = picture(&release).into_keys().map(|path| path.display().to_string()).collect();
        names.retain(|name| !name.starts_with("python_env") && !name.starts_with(".releasectl"));
        (environment, names, release.join("python_env/bin/python").exists())
    };
    let (_, clean, _) = build(&|_, _| {});
    let (environment, names, python) = build(&|tree, command| {
        let names = ["git", "uv", "python3", "python", "sh", "bash", "getent", "supervisorctl", "pip", "env", "mkdir"];
        let place = planted(tree, &names);
        let bait = place.join("sh").display().to_string();
        command.env("PATH", &place).env("BASH_ENV", &bait).env("ENV", &bait).env("IFS", "/");
        // The debug program is dynamic: the linker looks at it first, and finds nothing there.
        command.env("LD_PRELOAD", place.join("nothing.so")).env("LD_LIBRARY_PATH", &place);
        for name in ["GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_EXEC_PATH", "GIT_DIR", "GIT_TEMPLATE_DIR", "GIT_SSH"]
        {
            command.env(name, &bait);
        }
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "core.fsmonitor").env("GIT_CONFIG_VALUE_0", &bait);
        for name in [
            "PYTHONHOME",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PIP_CONFIG_FILE",
            "PIP_INDEX_URL",
            "UV_PYTHON",
            "VIRTUAL_ENV",
        ] {
            command.env(name, &place);
        }
        command.env("PERL5LIB", &place).env("SHELLOPTS", "xtrace").env("CDPATH", "/").env("PYTHONINSPECT", "1");
    });
    assert_eq!(names, clean, "the same release is built");
    assert!(python);
    for word in
        ["planted", "BASH_ENV", "\nENV=", "LD_", "GIT_SSH", "PYTHONHOME", "PIP_", "SHELLOPTS", "CDPATH", "IFS=/"]
    {
        assert!(!environment.contains(word), "{word} reached a step:\n{environment}");
    }
}

//! Steps and hooks that do not behave: bounded, told, and nothing live is lost.

use crate::code::{read, step};
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox, Started};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A live release A, and a deploy of code whose one step runs `run`, with `more` on the step. Returns what it said.
fn deploy_with(tree: &Sandbox, code: i32, run: &str, more: &str) -> String {
    let source = tree.code("code", &(step("unruly", "prepare", run) + more), &[("version", "B")]);
    let answer = tree.ends(code, &["deploy", &source]);
    let live = tree.live().unwrap();
    assert_eq!(live == "A", code != 0, "{}", answer.stderr);
    assert!(tree.release("A").join("version").exists());
    answer.stderr
}

fn is_alive(pid: &str) -> bool {
    // A dead one that nobody has waited for yet does not count.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_step_that_fails_when_the_release_is_live_already_leaves_it_so_and_is_not_a_failure_without_effect() {
    let tree = Sandbox::with_live(&["A"]);
    let run = step("tell", "finish", "test -e \"$place/mended\"\n");
    let source = tree.code("code", &run, &[("version", "B")]);
    let said = tree.ends(5, &["deploy", &source]).stderr;
    let live = tree.live().unwrap();
    assert!(live != "A" && said.contains(&format!("release {live} is live, but step tell")), "{said}");
    assert_eq!(tree.states()[&live], "ready");
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(tree.live().unwrap(), live);
}

#[test]
fn p04_what_is_gone_back_from_while_its_last_steps_run_stays_bad_and_its_deploy_says_what_is_live() {
    let tree = Sandbox::with_live(&["A", "C"]);
    let run = step("tell", "finish", "gate within\n");
    let source = tree.code("code", &run, &[("version", "B")]);
    let deploy = tree.run_to("within", &["deploy", &source]);
    let id = tree.live().unwrap();
    tree.done(&["rollback"]);
    // What the last flip says of a release is written again where it is missing; this is not the last one any more.
    tree.done(&["activate", "A"]);
    tree.open_gate();
    let answer = deploy.answer();
    assert_eq!(answer.code, 5, "{}", answer.stderr);
    assert!(answer.stderr.contains("deployed to its end, but A is live") && answer.stdout.is_empty(), "{answer:?}");
    assert_eq!(tree.states()[&id], "bad");
    let steps = tree.json(&["show", &id])["steps"].to_string();
    assert!(steps.contains("tell"), "{steps}");
    // There is nothing to go on with.
    tree.refused(&["deploy", "--resume"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p04_a_deploy_says_what_is_live_by_now_though_somebody_has_the_lock_or_its_last_step_failed() {
    for (last, told) in [("", "but A is live"), ("false\n", "A is now, and step tell")] {
        let tree = Sandbox::with_live(&["A"]);
        let source = tree.code("code", &step("tell", "finish", &format!("gate within\n{last}")), &[("version", "B")]);
        let deploy = tree.run_to("within", &["deploy", &source, "--wait=1s"]);
        tree.done(&["rollback"]);
        let lock = File::open(tree.at(".releasectl/lock")).unwrap();
        lock.try_lock().unwrap();
        tree.open_gate();
        let answer = deploy.answer();
        assert_eq!(answer.code, 5, "{answer:?}");
        assert!(answer.stderr.contains(told) && answer.stderr.contains("releasectl history"), "{answer:?}");
    }
}

#[test]
fn a_step_that_hangs_is_ended_when_its_time_is_up() {
    let tree = Sandbox::with_live(&["A"]);
    let said = deploy_with(&tree, 1, "echo $$ >\"$place/pid\"\nsleep 1000 & wait\n", "timeout = '1s'\n");
    assert!(said.contains("did not end within 1 s and was killed"), "{said}");
    let pid = read(tree.beside("pid"));
    eventually("its end", || !is_alive(&pid));
    let history = tree.json(&["history"]).to_string();
    assert!(history.contains("did not end within 1 s"), "{history}");
}

#[test]
fn a_step_that_ignores_the_polite_signal_is_killed_with_its_children() {
    let tree = Sandbox::with_live(&["A"]);
    let run = "trap '' TERM HUP INT\necho $$ >\"$place/pid\"\n(trap '' TERM; exec sleep 1000) &\n\
               echo $! >\"$place/child\"\nwhile :; do sleep 1; done\n";
    let said = deploy_with(&tree, 1, run, "timeout = '1s'\n");
    assert!(said.contains("did not end within 1 s"), "{said}");
    for pid in ["pid", "child"].map(|name| read(tree.beside(name))) {
        eventually("its end", || !is_alive(&pid));
    }
}

#[test]
fn a_daemon_that_a_step_leaves_is_told_holds_no_lock_and_delays_nobody() {
    let tree = Sandbox::with_live(&["A"]);
    let run = "cd /; sh -c 'echo $$ >\"$0/pid\"; read -r _ <\"$0/daemon\"' \"$place\" &\n";
    nix::unistd::mkfifo(&tree.beside("daemon"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let said = deploy_with(&tree, 0, run, "");
    let pid = read(tree.beside("pid"));
    assert!(said.contains("left processes behind") && said.contains(&pid), "{said}");
    assert!(is_alive(&pid), "it is left alone");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let held: Vec<_> = descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(!held.iter().any(|path| path.starts_with(tree.root())), "{held:?}");
    tree.done(&["rollback"]);
    tree.done(&["deploy", tree.source("C").to_str().unwrap()]);
    fs::write(tree.beside("daemon"), "\n").unwrap();
    eventually("its end", || !is_alive(&pid));
}

#[test]
fn a_daemon_that_never_stops_talking_delays_nobody_either() {
    let tree = Sandbox::with_live(&["A"]);
    // There it is when the step ends, and has filled the pipe.
    let run = "yes &\nhead -c 100000 /dev/zero\n";
    let source = tree.code("code", &step("unruly", "prepare", run), &[]);
    let mut deploy = Started::new(tree.command(&["deploy", &source]));
    let mut slowly_read = deploy.0.stderr.take().unwrap();
    eventually("its end", || {
        let _ = slowly_read.read(&mut [0; 512]).unwrap();
        deploy.0.try_wait().unwrap().is_some_and(|status| status.success())
    });
}

/// More than a gigabyte of lines that are counted: the log takes sixteen megabytes, memory a few.
#[test]
fn a_step_that_prints_a_gigabyte_fills_neither_the_log_nor_the_memory_and_its_end_is_kept() {
    let tree = Sandbox::with_live(&["A"]);
    let run = "echo the beginning\nyes 0123456789abcde | head -n 67108864\necho the end; exit 3\n";
    let source = tree.code("code", &step("unruly", "create", run), &[]);
    let mut command = tree.clean("prlimit");
    command.arg("--as=268435456").arg(PROGRAM).arg("--root").arg(tree.root()).args(["create", &source, "--id", "B"]);
    let answer: crate::sandbox::Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 1, "{}", &answer.stderr[answer.stderr.len().saturating_sub(5000)..]);
    let log = fs::read_to_string(tree.release("B").join(".releasectl/build.log")).unwrap();
    let cut = "\nreleasectl: it prints more than 15 MiB; of the rest the last MiB follows\n";
    assert!(answer.stderr.contains(cut) && answer.stderr.len() < 17 << 20, "{}", answer.stderr.len());
    let (first, rest) = log.split_once("step unruly\n").unwrap().1.split_once(cut).unwrap();
    let (left_out, last) = rest.split_once(" bytes are left out here\n").unwrap();
    let (last, _) = last.split_once("releasectl: failed: ").unwrap();
    assert_eq!((first.len(), last.len()), (15 << 20, 1 << 20));
    assert!(first.starts_with("the beginning\n0123456789abcde\n") && last.ends_with("\n0123456789abcde\nthe end\n"));
    let printed = (1 << 30) + "the beginning\nthe end\n".len();
    assert_eq!(left_out, format!("\nreleasectl: {}", printed - (16 << 20)));
    assert_eq!(tree.live().as_deref(), Some("A"));
}

#[test]
fn a_condition_that_gave_no_answer_fails_its_step() {
    for condition in ["no-such-program", "kill -9 $$", "sh -c 'kill -9 $$'; exit $?", "/etc/passwd"] {
        let tree = Sandbox::with_live(&["A"]);
        let answer = deploy_with(&tree, 1, "touch ran", &format!("only_if = \"{condition}\""));
        assert!(answer.contains("step unruly: "), "{condition}: {answer}");
        assert_eq!(tree.live().as_deref(), Some("A"), "{condition}");
    }
    for status in [1, 125, 255] {
        let tree = Sandbox::with_live(&["A"]);
        deploy_with(&tree, 0, "touch ran", &format!("only_if = \"exit {status}\""));
        assert!(!tree.at("current/ran").exists(), "{status}");
    }
}

#[test]
fn a_step_that_reads_its_input_finds_nothing_there() {
    let tree = Sandbox::with_live(&["A"]);
    deploy_with(&tree, 0, "cat >input\ntest ! -t 0\n", "");
    assert_eq!(read(tree.at("current/input")), "");
}

#[test]
fn what_follows_a_step_that_ends_within_a_line_begins_another() {
    let tree = Sandbox::laid_out();
    let recipe = step("one", "create", "printf first\n") + &step("two", "create", "printf second; exit 9\n");
    let answer = tree.ends(1, &["create", &tree.code("code", &recipe, &[]), "--id", "A"]);
    assert!(
        answer.stderr.contains("first\nstep two") && answer.stderr.contains("second\nerror: "),
        "{}",
        answer.stderr
    );
    let log = tree.done(&["log", "A"]);
    assert!(log.contains("first\nreleasectl: step two\nsecond\nreleasectl: failed: "), "{log}");
}

#[test]
fn a_step_that_removes_its_own_release_loses_nothing_that_is_live() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("code", &step("unruly", "prepare", "rm -rf \"$RELEASECTL_RELEASE_PATH\"\n"), &[]);
    let answer = tree.run(&["deploy", &source]);
    assert!([1, 3, 6].contains(&answer.code), "{}: {}", answer.code, answer.stderr);
    assert!(answer.stderr.contains("error: "), "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("A"));
    assert_eq!(tree.done(&["exec", "--", "cat", "version"]), "A");
    tree.done(&["clean"]);
    tree.done(&["deploy", tree.source("C").to_str().unwrap()]);
}

#[test]
fn a_step_or_hook_that_changes_the_tree_itself_is_refused_at_once() {
    let tree = Sandbox::with_live(&["A"]);
    for words in ["deploy /tmp", "activate A", "rollback", "clean", "create /tmp", "remove A"] {
        let run = format!("env -u RELEASECTL_ENV {PROGRAM} {words}; test $? = 3\n{PROGRAM} {words}; test $? = 3\n");
        let said = deploy_with(&tree, 0, &run, "");
        assert!(said.contains("from a step or hook of `deploy`"), "{words}: {said}");
        tree.done(&["activate", "A"]);
    }
    let looks = format!("{PROGRAM} status\n{PROGRAM} list\n{PROGRAM} history\n");
    deploy_with(&tree, 0, &looks, "");
    let host = tree.host(&format!("[hooks]\non_start = '{PROGRAM} clean'\n"));
    let before = tree.states();
    let answer = tree.ends(1, &["--config", &host, "deploy", tree.source("C").to_str().unwrap()]);
    assert!(answer.stderr.contains("from a step or hook"), "{}", answer.stderr);
    assert_eq!(tree.states(), before);
}

/// What the hooks around a program are told they are a part of: the verb, or what is done to the programs.
#[test]
fn a_hook_around_a_program_that_changes_the_tree_is_refused_too_and_what_an_operator_runs_is_not() {
    let tree = Sandbox::with_live(&["A"]);
    let clean = |operation: &str| {
        let mut command = tree.command(&["clean"]);
        command.env("RELEASECTL_OPERATION", operation).env("RELEASECTL_ROOT", tree.root());
        command.output().unwrap()
    };
    for operation in ["restart", "programs", "step", "deploy", "hotfix"] {
        let output = clean(operation);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{operation}: {said}");
        assert!(said.contains(&format!("from a step or hook of `{operation}`")), "{said}");
    }
    for operation in ["exec", "manage", "task"] {
        assert!(clean(operation).status.success(), "{operation}");
    }
}

/// A host's file whose hooks keep what they were told, each beside the tree under its name.
fn telling_hooks(tree: &Sandbox) -> String {
    let names = ["on_start", "on_success", "on_failure", "on_rollback"];
    let hook = |name: &str| {
        let to = tree.beside(name);
        let to = to.display();
        format!("{name} = 'cat >{to}; env | grep ^RELEASECTL_ | sort >{to}.env; pwd >{to}.pwd'\n")
    };
    tree.host(&format!("[hooks]\n{}", names.map(hook).concat()))
}

fn document(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

#[test]
fn every_hook_is_told_by_a_document_and_by_variables() {
    let tree = Sandbox::with_live(&["A"]);
    let host = telling_hooks(&tree);
    tree.done(&["--config", &host, "deploy", tree.source("B").to_str().unwrap()]);
    let new = tree.live().unwrap();
    let start = document(&tree.beside("on_start"));
    assert_eq!((&start["hook"], &start["operation"]), (&"on_start".into(), &"deploy".into()), "{start}");
    assert_eq!((&start["from"], &start["to"], &start["error"]), (&"A".into(), &Value::Null, &Value::Null));
    assert_eq!((&start["schema"], &start["env"]), (&1.into(), &"host".into()));
    assert_eq!(start["root"], tree.root().to_str().unwrap());
    let success = document(&tree.beside("on_success"));
    assert_eq!((&success["from"], &success["to"]), (&"A".into(), &new.clone().into()), "{success}");
    let variables = read(tree.beside("on_success.env"));
    for line in [
        format!("RELEASECTL_RELEASE={new}"),
        format!("RELEASECTL_RELEASE_PATH={}", tree.release(&new).display()),
        "RELEASECTL_PREVIOUS=A".to_owned(),
        "RELEASECTL_OPERATION=deploy".to_owned(),
        "RELEASECTL_ENV=host".to_owned(),
        format!("RELEASECTL_ROOT={}", tree.root().display()),
    ] {
        assert!(variables.lines().any(|variable| variable == line), "{line}: {variables}");
    }
    assert_eq!(read(tree.beside("on_success.pwd")), tree.root().to_str().unwrap());
    assert!(!tree.beside("on_failure").exists() && !tree.beside("on_rollback").exists());
    tree.done(&["--config", &host, "rollback"]);
    let rollback = document(&tree.beside("on_rollback"));
    assert_eq!((&rollback["from"], &rollback["to"]), (&new.clone().into(), &"A".into()), "{rollback}");
    let source = tree.code("code", &step("fails", "prepare", "echo why; exit 9\n"), &[]);
    tree.ends(1, &["--config", &host, "deploy", &source]);
    let failure = document(&tree.beside("on_failure"));
    assert!(failure["error"].as_str().unwrap().contains("step fails"), "{failure}");
    let failed = failure["to"].as_str().unwrap();
    assert!(failed > new.as_str() && tree.states().contains_key(failed) && failure["from"] == "A", "{failure}");
}

#[test]
fn a_hook_whose_file_others_may_write_is_run_by_no_interpreter() {
    let tree = Sandbox::laid_out();
    let file = tree.beside("hook");
    fs::write(&file, "true\n").unwrap();
    for hands in ["sh", "/bin/sh", "sh -e -u", "python3.11 -I", "cd / && exec bash --norc", ".", "env python3 -B"] {
        let host = tree.host(&format!("[hooks]\non_start = '{hands} {}'\n", file.display()));
        let ends = |mode, said: &str| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let answer = tree.run(&["--config", &host, "list"]);
            assert_eq!(
                (answer.code, answer.stderr.contains("chmod go-w")),
                (said.parse().unwrap(), said != "0"),
                "{hands}"
            );
        };
        ends(0o646, "7");
        ends(0o644, "0");
    }
}

#[test]
fn a_first_hook_that_fails_stops_the_deploy_before_anything_and_the_others_stop_nothing() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.source("B");
    let before = (tree.states(), tree.live());
    let host = tree.host("[hooks]\non_start = 'echo not today; exit 4'\n");
    let answer = tree.ends(1, &["--config", &host, "deploy", source.to_str().unwrap()]);
    assert!(answer.stderr.contains("hook on_start") && answer.stderr.contains("not today"), "{}", answer.stderr);
    assert!(answer.stderr.contains("hint: what it printed"), "{}", answer.stderr);
    assert_eq!((tree.states(), tree.live()), before);
    let host = tree.host("[hooks]\non_success = 'exit 4'\non_failure = 'exit 5'\non_rollback = 'kill -9 $$'\n");
    let answer = tree.ends(0, &["--config", &host, "deploy", source.to_str().unwrap()]);
    assert!(answer.stderr.contains("hook on_success"), "{}", answer.stderr);
    let answer = tree.ends(0, &["--config", &host, "rollback"]);
    assert!(answer.stderr.contains("hook on_rollback"), "{}", answer.stderr);
    assert_eq!(tree.live(), before.1);
}

#[test]
fn a_hook_that_leaves_a_daemon_or_does_not_read_delays_nobody() {
    let tree = Sandbox::with_live(&["A"]);
    nix::unistd::mkfifo(&tree.beside("daemon"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let place = tree.beside("");
    let daemon = format!("cd {}; (echo x >pid; read -r _ <daemon; echo x >over) &", place.display());
    let host = tree.host(&format!("[hooks]\non_start = '{daemon}'\non_success = 'exec <&-; true'\n"));
    tree.ends(0, &["--config", &host, "deploy", tree.source("B").to_str().unwrap()]);
    tree.done(&["rollback"]);
    eventually("the daemon", || tree.beside("pid").exists());
    fs::write(tree.beside("daemon"), "\n").unwrap();
    eventually("its end", || tree.beside("over").exists());
}

#[test]
fn a_hook_that_hangs_is_ended_when_its_time_is_up_and_nothing_live_is_lost() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.source("B");
    let before = (tree.states(), tree.live());
    // The politest and the rudest: one that ends when it is asked to, one that must be killed with its child.
    let rude = "trap \"\" TERM; (trap \"\" TERM; exec sleep 1000) & echo $$ $! >PLACE/pids; while :; do sleep 1; done";
    let rude = rude.replace("PLACE", tree.beside("").to_str().unwrap());
    let host = tree.host(&format!("[hooks]\ntimeout = '1s'\non_start = '{rude}'\n"));
    let answer = tree.ends(1, &["--config", &host, "deploy", source.to_str().unwrap()]);
    assert!(
        answer.stderr.contains("hook on_start") && answer.stderr.contains("did not end within 1 s"),
        "{}",
        answer.stderr
    );
    assert_eq!((tree.states(), tree.live()), before);
    for pid in read(tree.beside("pids")).split(' ') {
        eventually("its end", || !is_alive(pid));
    }
    let hangs = "exec sleep 1000";
    let host = tree.host(&format!("[hooks]\ntimeout = '1s'\non_success = '{hangs}'\non_rollback = '{hangs}'\n"));
    let answer = tree.ends(0, &["--config", &host, "deploy", source.to_str().unwrap()]);
    assert!(
        answer.stderr.contains("hook on_success") && answer.stderr.contains("did not end within 1 s"),
        "{}",
        answer.stderr
    );
    assert_ne!(tree.live().as_deref(), Some("A"));
    let answer = tree.ends(0, &["--config", &host, "rollback"]);
    assert!(answer.stderr.contains("hook on_rollback"), "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

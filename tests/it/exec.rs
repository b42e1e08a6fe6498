//! `exec`, `manage`, `task`: the release stays for as long as anything of it runs, and the answer is the command's own.

use crate::code::{read, step};
use crate::lab::{assert_kept, gone};
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox};
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// Leaves a grandchild in a session of its own, which waits in / for the FIFO $1, and ends with 7.
const LEAVES_A_DAEMON: &str = "import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir('/')
        null = os.open('/dev/null', os.O_RDWR)
        for standard in 0, 1, 2:
            os.dup2(null, standard)
        with open(sys.argv[1] + '.pid', 'w') as file:
            file.write(str(os.getpid()))
        open(sys.argv[1]).read()
    os._exit(0)
os.wait()
sys.exit(7)";

#[test]
fn p11_a_release_stays_while_a_double_forked_child_of_a_command_in_it_lives() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    let fifo = tree.beside("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let words = ["exec", "--release", "A", "--", "python3", "-c", LEAVES_A_DAEMON, fifo.to_str().unwrap()];
    tree.ends(7, &words);
    let pid = fifo.with_extension("pid");
    eventually("the daemon", || fs::read_to_string(&pid).is_ok_and(|text| !text.is_empty()));
    let cleaned = tree.json(&["clean", "--keep", "0"]);
    assert_kept(&cleaned, "A", "leased");
    assert_eq!(tree.json(&["clean", "--keep", "0", "--dry-run"])["kept"], cleaned["kept"]);
    let refused = tree.refused(&["remove", "A"]);
    assert!(refused.contains("leased"), "{refused}");
    assert!(refused.contains(&read(&pid)), "it says which process: {refused}");
    assert_eq!(tree.states()["A"], "ready");
    // Others may work in it too, and what changes no release is not held up.
    tree.done(&["exec", "--release", "A", "--", "true"]);
    tree.done(&["rollback"]);
    tree.done(&["activate", "C"]);
    fs::write(&fifo, "").unwrap();
    eventually("its end", || gone(&tree.json(&["clean", "--keep", "0"])).contains(&"A".to_owned()));
}

#[test]
fn p11_what_is_deployed_is_used_by_others_meanwhile_and_cleaned_by_nobody() {
    let tree = Sandbox::with_live(&["A"]);
    let exec = format!("{PROGRAM} exec --release \"$RELEASECTL_RELEASE\" -- cat version\n");
    let clean = format!("env -u RELEASECTL_OPERATION {PROGRAM} clean --keep 0\ntest -e version\n");
    let steps = ["prepare", "finish"].map(|phase| step(phase, phase, &format!("{clean}{exec}")));
    let source = tree.code("code", &steps.concat(), &[("version", "B")]);
    tree.done(&["deploy", &source]);
    assert_eq!(read(tree.at("current/version")), "B");
}

#[test]
fn the_exit_status_is_the_commands_own() {
    let tree = Sandbox::with_live(&["A"]);
    for code in [0, 1, 3, 4, 42, 255] {
        tree.ends(code, &["exec", "--", "sh", "-c", &format!("exit {code}")]);
    }
    fs::write(tree.release("A").join("app/plain"), "no program").unwrap();
    let missing = tree.ends(127, &["exec", "--", "no-such-command"]);
    assert!(missing.stderr.contains("cannot run no-such-command in release A"), "{}", missing.stderr);
    tree.ends(126, &["exec", "--", "./app/plain"]);
    assert!(tree.ends(2, &["exec", "--", "", "x"]).stderr.contains("has no name"));
    tree.ends(3, &["exec", "--release", "Z", "--", "true"]);
    let killed = tree.run(&["exec", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, -1, "the command was killed, and whoever waits sees that");
}

#[test]
fn a_command_runs_in_the_release_with_its_environment_and_the_callers_streams() {
    let tree = Sandbox::laid_out();
    let tool = "#!/bin/sh\necho \"$VIRTUAL_ENV $RELEASECTL_RELEASE $RELEASECTL_OPERATION $RELEASECTL_ROOT\"\n";
    let source = tree.code("code", "", &[("python_env/bin/tool", tool)]);
    std::process::Command::new("chmod").arg("+x").arg(tree.beside("code/python_env/bin/tool")).status().unwrap();
    tree.done(&["create", &source, "--id", "A"]);
    tree.done(&["activate", "A"]);
    let release = tree.release("A");
    let (root, path) = (tree.root(), release.display());
    let said = tree.done(&["exec", "--", "tool"]);
    assert_eq!(said, format!("{path}/python_env A exec {}\n", root.display()));
    assert_eq!(tree.done(&["exec", "--", "pwd"]), format!("{path}\n"));
    let mut child = tree.command(&["exec", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
    // Nothing of the caller's environment that could lead it astray.
    let mut poisoned = tree.command(&["exec", "--", "env"]);
    let said = poisoned.env("PYTHONPATH", "/tmp").env("LD_PRELOAD", "").env("SECRET", "x").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(!said.contains("PYTHONPATH") && !said.contains("SECRET"), "{said}");
}

#[test]
fn a_program_of_a_dead_environment_is_not_the_hosts_and_is_told_as_what_it_is() {
    let tree = Sandbox::laid_out();
    let source = tree.code("code", "", &[("python_env/bin/serve", "#!/no/such/python\n")]);
    std::process::Command::new("chmod").arg("+x").arg(tree.beside("code/python_env/bin/serve")).status().unwrap();
    std::os::unix::fs::symlink("/no/such/python", tree.beside("code/python_env/bin/sh")).unwrap();
    tree.done(&["create", &source, "--id", "A"]);
    tree.done(&["activate", "A"]);
    for name in ["serve", "sh"] {
        let said = tree.ends(127, &["exec", "--", name]).stderr;
        assert!(said.contains(&format!("python_env/bin/{name} in release A")), "{said}");
        assert!(said.contains("it is there, but not what it leads to or its first line names"), "{said}");
    }
}

#[test]
fn manage_and_task_run_what_the_recipe_says() {
    let tree = Sandbox::laid_out();
    let recipe = "manage = \"sh manage.sh\"\n[task.greet]\nrun = 'echo \"hello from $RELEASECTL_RELEASE\"; exit 9'\n";
    let script = "for word in \"$@\"; do echo \"<$word>\"; done; exit 5\n";
    let source = tree.code("code", recipe, &[("manage.sh", script)]);
    tree.done(&["create", &source, "--id", "A"]);
    tree.done(&["create", &source, "--id", "B"]);
    tree.done(&["activate", "B"]);
    let managed = tree.ends(5, &["manage", "migrate", "--plan", "two words", "$HOME"]);
    assert_eq!(managed.stdout, "<migrate>\n<--plan>\n<two words>\n<$HOME>\n");
    assert_eq!(tree.ends(9, &["task", "greet"]).stdout, "hello from B\n");
    assert_eq!(tree.ends(9, &["task", "greet", "--release", "A"]).stdout, "hello from A\n");
    assert!(tree.refused(&["task", "great"]).contains("it has greet"));
}

#[test]
fn a_command_in_a_release_may_change_the_tree_it_is_an_operators_own() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let root = tree.root();
    tree.done(&["exec", "--", PROGRAM, "--root", root.to_str().unwrap(), "rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
}

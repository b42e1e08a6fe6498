//! P14: a deploy driven over a real ssh, whose connection is cut at one moment after the other, ends by itself, and its log
//! and the history tell how.

use crate::code::step;
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox};
use crate::sshd::Host;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

/// `ssh host releasectl …`, with a terminal or without.
fn ssh(host: &Host, tree: &Sandbox, terminal: bool, words: &str) -> Command {
    let mut command = host.client(tree, &["-tt"][..usize::from(terminal)]);
    command.arg(format!("{PROGRAM} --root {} {words}", tree.root().display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The steps at which the connection is cut, each before and within it.
const STEPS: [(&str, &str); 5] =
    [("compile", "create"), ("bundle", "create"), ("migrate", "prepare"), ("warm", "prepare"), ("announce", "finish")];

fn recipe() -> String {
    let one = |(name, phase): (&str, &str)| {
        let run = format!("echo {name} begins\ngate {name}\necho {name} goes on\necho {name} ends >&2\ntell {name}\n");
        let condition = format!("only_if = '. \"$RELEASECTL_ROOT/../shell\"; gate before {name}; true'\n");
        step(name, phase, &run) + &condition
    };
    STEPS.into_iter().map(one).collect()
}

fn cut_off_at_ten_moments(terminal: bool) {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("code", &recipe(), &[]);
    let Some(host) = Host::start(&tree, "") else { return };
    let moments = STEPS.iter().flat_map(|(name, _)| [format!("before {name}"), (*name).to_owned()]);
    for moment in moments {
        let _ = fs::remove_file(tree.beside("told"));
        tree.stop_at(&moment);
        let before = tree.states();
        let mut client = ssh(&host, &tree, terminal, &format!("deploy {source}")).spawn().unwrap();
        eventually(&moment, || tree.beside("reached").exists());
        fs::remove_file(tree.beside("stop")).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        tree.open_gate();
        let over = || {
            let history = tree.json(&["history", "-n", "50"]);
            let entries = history["entries"].as_array().unwrap();
            let last = entries.iter().rev().find(|entry| entry["operation"] == "deploy");
            last.map(|entry| (entry["to"].clone(), entry["outcome"].clone()))
        };
        let is_new = |id: &serde_json::Value| id.as_str().is_some_and(|id| !before.contains_key(id));
        eventually(&moment, || over().is_some_and(|(to, outcome)| is_new(&to) && outcome == "done"));
        let (to, _) = over().unwrap();
        assert_eq!(tree.live().as_deref(), to.as_str(), "{moment}");
        assert_eq!(tree.told(), STEPS.map(|(name, _)| name), "{moment}");
        let log = tree.done(&["log", to.as_str().unwrap()]);
        for (name, _) in STEPS {
            assert!(
                log.contains(&format!("{name} goes on")) && log.contains(&format!("{name} ends")),
                "{moment}: {log}"
            );
        }
        // It is over, and the next is not held up by anything it left.
        eventually("the turn", || tree.run(&["deploy", "--release", to.as_str().unwrap()]).code == 0);
    }
}

#[test]
fn p14_a_deploy_whose_connection_is_cut_ends_by_itself() {
    cut_off_at_ten_moments(false);
}

#[test]
fn p14_a_deploy_whose_terminal_is_gone_ends_by_itself() {
    cut_off_at_ten_moments(true);
}

#[test]
fn p14_a_deploy_that_fails_after_its_connection_was_cut_tells_so_in_log_and_history() {
    let tree = Sandbox::with_live(&["A"]);
    let recipe = step("fails", "prepare", "gate fails\necho the reason >&2\nexit 3\n");
    let source = tree.code("code", &recipe, &[]);
    let Some(host) = Host::start(&tree, "") else { return };
    for terminal in [false, true] {
        tree.stop_at("fails");
        let mut client = ssh(&host, &tree, terminal, &format!("deploy {source}")).spawn().unwrap();
        eventually("the step", || tree.beside("reached").exists());
        fs::remove_file(tree.beside("stop")).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        tree.open_gate();
        let entries = || tree.json(&["history"])["entries"].as_array().unwrap().clone();
        let failed = || entries().iter().filter(|e| e["operation"] == "deploy" && e["outcome"] == "failed").count();
        eventually("its end", || failed() == 1 + usize::from(terminal));
        assert!(tree.log().contains("the reason"), "{}", tree.log());
        assert_eq!(tree.live().as_deref(), Some("A"));
    }
}

#[test]
fn p14_a_reader_that_goes_away_is_no_failure_over_ssh_either() {
    let tree = Sandbox::with_live(&["A"]);
    let Some(host) = Host::start(&tree, "") else { return };
    let answer = ssh(&host, &tree, false, "list; echo $?").output().unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).ends_with("0\n"));
    let answer = ssh(&host, &tree, false, "rollback").output().unwrap();
    assert_eq!(answer.status.code(), Some(3), "the exit status comes through");
}

#[test]
fn p14_a_client_that_is_there_and_takes_nothing_does_not_hold_up_a_deploy() {
    let tree = Sandbox::with_live(&["A"]);
    let chatter = step("chatter", "prepare", "head -c 1000000 /dev/zero | tr '\\0' x\n");
    let recipe = chatter + &step("last", "finish", "gate within\necho hello\n");
    let source = tree.code("code", &recipe, &[("version", "B")]);
    // It comes so far though nobody reads what it says.
    let mut run = tree.run_to("within", &["deploy", &source]);
    assert_ne!(tree.live().as_deref(), Some("A"));
    let mut stderr = run.child().stderr.take().unwrap();
    let mut said = vec![0; 60_000];
    stderr.read_exact(&mut said).unwrap();
    tree.open_gate();
    stderr.read_to_end(&mut said).unwrap();
    assert_eq!(run.answer().code, 0);
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.len() < 100_000 && said.contains("nobody took") && said.contains("hello"),
        "{}",
        said.replace('x', "")
    );
    assert!(tree.log().contains(&"x".repeat(1_000_000)));
}

//! `gate`: what an ssh key may ask for, asked through a real sshd, and two hundred lines that ask for more.

use crate::lab::tar_of;
use crate::sandbox::{Answer, PROGRAM, Sandbox, picture};
use crate::sshd::Host;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const ALLOWED: &str = "create,activate,rollback,list,status,history";

/// A tree with a live release and a host file, and another tree that is nobody's business.
fn guarded() -> Sandbox {
    let tree = Sandbox::with_live(&["A"]);
    let etc = tree.beside("etc");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, root) in [("production", tree.root()), ("other", tree.beside("other"))] {
        fs::write(etc.join(format!("{name}.toml")), format!("root = {root:?}\n")).unwrap();
        fs::set_permissions(etc.join(format!("{name}.toml")), fs::Permissions::from_mode(0o644)).unwrap();
    }
    tree
}

/// The words of the forced command.
fn forced(tree: &Sandbox, allowed: &str) -> Vec<String> {
    let file = tree.beside("etc/production.toml").display().to_string();
    let words = [PROGRAM, "gate", "-e", "production", "--config", &file, "--allow", allowed, "--key", "ci"];
    words.map(str::to_owned).to_vec()
}

fn restriction(tree: &Sandbox) -> String {
    format!("restrict,command=\"{}\"", forced(tree, ALLOWED).join(" "))
}

/// The gate as sshd calls it, without the way over the network.
fn gate(tree: &Sandbox, allowed: &str, asked: &OsStr) -> Command {
    let words = forced(tree, allowed);
    let mut command = tree.clean(&words[0]);
    command.args(&words[1..]).env("SSH_ORIGINAL_COMMAND", asked);
    command
}

#[track_caller]
fn admitted(answer: Answer) -> String {
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    answer.stdout
}

#[track_caller]
fn assert_refused(asked: &str, answer: &Answer) {
    assert_eq!((answer.code, answer.stdout.as_str()), (3, ""), "{asked:?}: {}", answer.stderr);
    let line = answer.stderr.strip_suffix('\n').unwrap_or_default();
    assert!(line.starts_with("error: the gate: ") && line.len() < 400, "{asked:?}: {line}");
    assert!(!line.contains(char::is_control), "{asked:?}: {line:?}");
}

/// What comes after a verb to have something else done.
const TAILS: [&str; 32] = [
    "; touch CANARY",
    ";touch${IFS}CANARY",
    ";touch\tCANARY",
    " && touch CANARY",
    " || touch CANARY",
    " | touch CANARY",
    " & touch CANARY",
    "\ntouch CANARY",
    "\r\ntouch CANARY",
    " \\\n; touch CANARY",
    " $(touch CANARY)",
    " `touch CANARY`",
    " \"$(touch CANARY)\"",
    " \"`touch CANARY`\"",
    " \"a\\\\$(touch CANARY)\"",
    " > CANARY",
    " >> CANARY",
    " 2> CANARY",
    " >| CANARY",
    " < /etc/passwd > CANARY",
    " ; { touch CANARY; }",
    " ; (touch CANARY)",
    " ${X:-$(touch CANARY)}",
    " $((`touch CANARY; echo 1`))",
    "; eval 'touch CANARY'",
    "; exec touch CANARY",
    "; . /dev/stdin <<X\ntouch CANARY\nX\n",
    "; sh -c 'touch CANARY'",
    "; if :; then touch CANARY; fi",
    " # \ntouch CANARY",
    " <<X\nX\ntouch CANARY",
    "' '; touch CANARY; '",
];

/// Lines that want another tree, another file, another verb, or to be misread.
const OTHERS: [&str; 76] = [
    "",
    "   ",
    "list --root OTHER",
    "list --root=OTHER",
    "--root OTHER list",
    "--root=/ list",
    "'--root' OTHER list",
    "\"--root=OTHER\" list",
    "--ro''ot OTHER list",
    "-\\-root OTHER list",
    "--roo OTHER list",
    "list --root",
    "list -- --root OTHER",
    "list --no-root",
    "-e other list",
    "-eother list",
    "-e=other list",
    "list -e other",
    "list -qe other",
    "-qeother list",
    "list -vqe other",
    "list -e production -e other",
    "list --env other",
    "--env=other list",
    "list --env ''",
    "list --en production",
    "list --config ETC/other.toml",
    "--config=ETC/other.toml list",
    "--conf ETC/other.toml list",
    "-c ETC/other.toml list",
    "create OTHER",
    "create -- OTHER",
    "create ./code",
    "create /etc",
    "create ../../etc",
    "create ~/code",
    "create ''",
    "create https://example.org/code.git",
    "create git@example.org:code.git",
    "create - --id ../../x",
    "create - --id /etc",
    "create - --as path",
    "create - -",
    "create -x",
    "create - --keep-days $(touch CANARY)",
    "activate ../../etc",
    "activate /etc",
    "activate 'A; touch CANARY'",
    "activate A --expect-current '$(touch CANARY)'",
    "rollback --to ../A",
    "deploy -",
    "hotfix --ref master",
    "hotfix --patch /etc/passwd",
    "exec -- touch CANARY",
    "exec touch CANARY",
    "manage shell",
    "task x",
    "supervisorctl shutdown",
    "init",
    "remove A",
    "deactivate --yes",
    "completions bash",
    "gate --allow exec",
    "releasectl gate --allow exec -e other",
    "releasectl releasectl list",
    "releasectl",
    "sudo releasectl list",
    "X=1 releasectl list",
    "env touch CANARY",
    "/bin/touch CANARY",
    "sh -c 'touch CANARY'",
    "scp -t CANARY",
    "rsync --server . CANARY",
    "LIST",
    "list list",
    "list --help",
];

fn hostile(tree: &Sandbox) -> Vec<OsString> {
    let heads = ["list", "releasectl status", "/usr/bin/releasectl activate A", "create -"];
    let tails = heads.iter().flat_map(|head| TAILS.map(|tail| format!("{head}{tail}")));
    let texts = tails.chain(OTHERS.map(str::to_owned)).map(|line| {
        let line = line.replace("CANARY", tree.beside("canary").to_str().unwrap());
        let line = line.replace("OTHER", tree.beside("other").to_str().unwrap());
        line.replace("ETC", tree.beside("etc").to_str().unwrap())
    });
    let bytes: [Vec<u8>; 8] = [
        b"list \xff".to_vec(),
        b"\xfflist".to_vec(),
        b"list \xc3\x28; touch x".to_vec(),
        "list\u{a0}--root\u{a0}/".into(),
        "l\u{131}st".into(),
        b"list \x1b[2J\x1b]0;x\x07".to_vec(),
        format!("list {}", "x ".repeat(40_000)).into(),
        format!("activate {}", "A".repeat(100_000)).into(),
    ];
    texts.map(OsString::from).chain(bytes.map(OsString::from_vec)).collect()
}

#[test]
fn of_two_hundred_hostile_lines_none_runs_anything() {
    let tree = guarded();
    let other = Sandbox::with_live(&["Z"]);
    std::os::unix::fs::symlink(other.root(), tree.beside("other")).unwrap();
    let (lines, canary) = (hostile(&tree), tree.beside("canary"));
    assert!(lines.len() >= 200, "{}", lines.len());
    let place = |tree: &Sandbox| picture(&tree.beside(""));
    let before = (place(&tree), place(&other));
    for line in &lines {
        let answer = Answer::from(gate(&tree, ALLOWED, line).output().unwrap());
        assert_refused(&line.to_string_lossy(), &answer);
    }
    assert_eq!((place(&tree), place(&other)), before);
    // A shell in its place would have done it: the lines are what they seem to be.
    let fell_for = |line: &&OsString| {
        let mut shell = tree.clean("sh");
        let _ = shell.arg("-c").arg(line).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let fell = canary.exists();
        let _ = fs::remove_file(&canary);
        fell
    };
    let shell = lines.iter().take(4 * TAILS.len()).filter(fell_for).count();
    assert!(shell > 100, "only {shell} of them mean anything to a shell");
}

#[test]
fn a_key_asked_for_nothing_says_that_it_wants_a_command() {
    let tree = guarded();
    for asked in ["", " ", "releasectl", "/usr/bin/releasectl  "] {
        let answer = Answer::from(gate(&tree, ALLOWED, OsStr::new(asked)).output().unwrap()).stderr;
        assert!(answer.contains("name a command"), "{asked:?}: {answer}");
    }
}

#[test]
fn hostile_lines_are_refused_through_sshd_too() {
    let tree = guarded();
    let Some(host) = Host::start(&tree, &restriction(&tree)) else { return };
    let before = picture(&tree.root());
    let shared = format!("ControlPath={}", tree.beside("master").display());
    let options = ["-o", "ControlMaster=auto", "-o", &shared, "-o", "ControlPersist=60"];
    let lines = hostile(&tree);
    // An empty line asks for a shell, which is asked for below; a long one does not fit into an environment.
    for line in lines.iter().filter(|line| !line.is_empty() && line.len() < 90_000).step_by(3) {
        let answer = host.client(&tree, &options).arg("--").arg(line).stderr(Stdio::piped()).output().unwrap();
        assert_refused(&line.to_string_lossy(), &Answer::from(answer));
    }
    for wanted in ["-tt", "-T"] {
        let answer = host.client(&tree, &[&options[..], &[wanted]].concat()).output().unwrap();
        assert_refused(wanted, &Answer::from(answer));
    }
    // sshd shows no subsystem's standard error.
    let files = Answer::from(host.client(&tree, &[&options[..], &["-s"]].concat()).arg("sftp").output().unwrap());
    assert_eq!((files.code, files.stdout.as_str()), (3, ""), "{}", files.stderr);
    let end = host.client(&tree, &[&options[..], &["-O", "exit"]].concat()).stderr(Stdio::null()).status().unwrap();
    assert!(end.success());
    let mut after = picture(&tree.root());
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);
    assert!(!tree.beside("canary").exists());
}

#[test]
fn what_a_key_may_do_it_does_through_sshd_and_the_history_names_it() {
    let tree = guarded();
    let Some(host) = Host::start(&tree, &restriction(&tree)) else { return };
    let ask = |line: &str, input: &[u8]| {
        let mut client = host.client(&tree, &[]);
        let client = client.arg(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        client.stdin.take().unwrap().write_all(input).unwrap();
        Answer::from(client.wait_with_output().unwrap())
    };
    let code = tar_of(&[("version", b"handed in")]);
    let path = admitted(ask("releasectl -e production create - --id B --keep-days 3", &code));
    assert_eq!(path, format!("{}\n", tree.release("B").display()));
    assert_eq!(fs::read_to_string(tree.release("B").join("version")).unwrap(), "handed in");
    admitted(ask("/usr/bin/releasectl activate \"B\" --expect-current 'A'", b""));
    assert_eq!(ask("activate A --expect-current A", b"").code, 3, "the verb's own refusal");
    admitted(ask("rollback", b""));
    assert_eq!(tree.live().as_deref(), Some("A"));
    let listing: serde_json::Value = serde_json::from_str(&admitted(ask("list --json", b""))).unwrap();
    assert_eq!((&listing["current"], &listing["env"]), (&"A".into(), &"production".into()));
    let history: serde_json::Value = serde_json::from_str(&admitted(ask("history --json", b""))).unwrap();
    let by = |operation: &str| {
        let entries = history["entries"].as_array().unwrap();
        entries.iter().rev().find(|e| e["operation"] == operation).unwrap()["by"].as_str().unwrap().to_owned()
    };
    for operation in ["create", "activate", "rollback"] {
        assert!(by(operation).ends_with(" (ci)"), "{}", by(operation));
    }
}

#[test]
fn only_the_forced_command_says_which_tree_and_which_verbs() {
    let tree = guarded();
    let ask = |allowed: &str, line: &str| Answer::from(gate(&tree, allowed, line.as_ref()).output().unwrap());
    assert_refused("list", &ask("status", "list"));
    assert_eq!(admitted(ask("exec", "exec -- echo '$HOME' \"a  b\"")), "$HOME a  b\n");
    assert_refused("exec", &ask("exec", "exec --root /etc -- echo x"));
    assert_refused("hotfix", &ask("hotfix", "hotfix --patch /etc/passwd"));
    for line in ["supervisorctl", "supervisorctl -c /etc/passwd status", "supervisorctl -- -i"] {
        assert_refused(line, &ask("supervisorctl", line));
    }
    let document = ask("list", "remove A --json");
    assert_eq!((document.code, document.stderr.as_str()), (3, ""));
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["error"]["kind"], "refused");
    let missing = ask("pin", "pin A --json");
    let missing: serde_json::Value = serde_json::from_str(&missing.stdout).unwrap();
    assert!(missing["error"]["message"].as_str().unwrap().contains("--days <N>|--until <TIME>"), "{missing}");
    // Whoever set the key up may want documents, whatever is asked for.
    let mut command = gate(&tree, "list", "remove A".as_ref());
    let refusal = Answer::from(command.arg("--json").output().unwrap());
    assert_eq!((refusal.code, refusal.stderr.as_str(), refusal.stdout.lines().count()), (3, "", 1));
    // What a client may be able to send as variables counts for nothing.
    let other = Sandbox::with_live(&["Z"]);
    let mut command = gate(&tree, "list", "list --json".as_ref());
    command.env("RELEASECTL_ROOT", other.root()).env("RELEASECTL_ENV", "other");
    let listing = admitted(command.output().unwrap().into());
    assert!(listing.contains(r#""current":"A""#) && listing.contains(r#""env":"production""#), "{listing}");
    let no_verb = tree.run(&["gate", "--allow", "list,sh"]);
    assert_eq!(no_verb.code, 2, "{}", no_verb.stderr);
    for verb in ["gate", "completions"] {
        assert_eq!(tree.run(&["gate", "--allow", verb]).code, 2);
    }
    assert_eq!(tree.run(&["gate", "--allow", "list", "--key", "a\nb"]).code, 2);
    assert_refused("nothing", &tree.run(&["gate", "--allow", "list"]));
}

#[test]
fn a_key_without_a_name_is_named_by_where_its_client_is() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let mut command = tree.command(&["gate", "--allow", "rollback"]);
    command.env("SSH_ORIGINAL_COMMAND", "rollback").env("SSH_CONNECTION", "192.0.2.7 4711 192.0.2.1 22");
    admitted(command.output().unwrap().into());
    let by = tree.json(&["history"])["entries"].as_array().unwrap().last().unwrap()["by"].clone();
    assert!(by.as_str().unwrap().ends_with(" (192.0.2.7)"), "{by}");
}

#[test]
fn a_forced_command_that_waits_does_so_for_a_client_that_says_nothing_of_it() {
    let tree = guarded();
    let lock = fs::File::open(tree.at(".releasectl/lock")).unwrap();
    lock.lock().unwrap();
    let asks = |asked: &str, forced: &str| {
        let mut command = gate(&tree, "pin", OsStr::new(asked));
        command.arg(forced).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut waiting = asks("pin A --days 1", "--wait");
    // Those come and go while it waits.
    for (asked, forced) in [("pin A --days 1 --wait=0s", "--wait"), ("pin A --days 1", "--quiet")].repeat(3) {
        assert_eq!(asks(asked, forced).wait().unwrap().code(), Some(4), "{asked}");
    }
    lock.unlock().unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

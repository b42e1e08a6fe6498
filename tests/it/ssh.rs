//! P14: a deploy driven over a real ssh, whose connection is cut at one moment after the other, ends by itself, and its log
//! and the history tell how.

use crate::code::step;
use crate::lab::{eventually, left_out};
use crate::sandbox::{PROGRAM, Sandbox};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Started by root, sshd wants a directory below /run; it gets a /run of its own, so that nothing is left there.
const OWN_RUN: &str = "mount -t tmpfs none /run; mkdir -m 755 /run/sshd; exec \"$@\"";

/// An sshd on loopback with a configuration and keys of its own. It ends with the test.
struct Host {
    sshd: Child,
    options: Vec<String>,
}

impl Host {
    fn start(tree: &Sandbox) -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let Some(sshd) = sshd else {
            left_out("a deploy over ssh", "sshd is not installed");
            return None;
        };
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap();
        let Some(user) = user.filter(|user| !["nologin", "false"].iter().any(|no| user.shell.ends_with(no))) else {
            left_out("a deploy over ssh", "this user cannot log in");
            return None;
        };
        let dir = tree.beside("ssh");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        for key in ["host", "client"] {
            let mut keygen = tree.clean("ssh-keygen");
            let keygen = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
            assert!(keygen.status().unwrap().success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = dir.display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {shown}/host\nPidFile none\nAuthorizedKeysFile {shown}/client.pub\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = if crate::sandbox::is_root() {
            let mut command = tree.clean("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-ec", OWN_RUN, "sh", sshd]);
            command
        } else {
            tree.clean(sshd)
        };
        let sshd = command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stderr(log).spawn().unwrap();
        let words = format!(
            "-F none -q -p {port} -i {shown}/client -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {}@127.0.0.1",
            user.name
        );
        let host = Self { sshd, options: words.split(' ').map(str::to_owned).collect() };
        eventually("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(host)
    }

    /// `ssh host releasectl …`, with a terminal or without.
    fn ssh(&self, tree: &Sandbox, terminal: bool, words: &str) -> Command {
        let mut command = tree.clean("ssh");
        command.args(terminal.then_some("-tt")).args(&self.options);
        command.arg(format!("{PROGRAM} --root {} {words}", tree.root().display()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
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
    let Some(host) = Host::start(&tree) else { return };
    let moments = STEPS.iter().flat_map(|(name, _)| [format!("before {name}"), (*name).to_owned()]);
    for moment in moments {
        let _ = fs::remove_file(tree.beside("told"));
        tree.stop_at(&moment);
        let before = tree.states();
        let mut client = host.ssh(&tree, terminal, &format!("deploy {source}")).spawn().unwrap();
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
    let Some(host) = Host::start(&tree) else { return };
    for terminal in [false, true] {
        tree.stop_at("fails");
        let mut client = host.ssh(&tree, terminal, &format!("deploy {source}")).spawn().unwrap();
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
    let Some(host) = Host::start(&tree) else { return };
    let answer = host.ssh(&tree, false, "list; echo $?").output().unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).ends_with("0\n"));
    let answer = host.ssh(&tree, false, "rollback").output().unwrap();
    assert_eq!(answer.status.code(), Some(3), "the exit status comes through");
}

//! Locks belong to the kernel, name their holder, and are never held longer than a change of the tree takes.

use crate::code::step;
use crate::patience::eventually;
use crate::sandbox::{Answer, Sandbox, Started};
use releasectl::clock::{Clock, Timestamp};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The program, stopped in the middle of its work.
pub struct Holder {
    pid: u32,
    strace: Option<Started>,
}

impl Holder {
    /// Stopped while it holds the tree lock.
    fn of(tree: &Sandbox, arguments: &[&str]) -> Self {
        let holder = Self::after(tree, "syncfs:1", arguments);
        let note = fs::read_to_string(tree.at(".releasectl/lock")).unwrap();
        assert!(note.contains(&format!("\"pid\":{},", holder.pid)), "{note}");
        holder
    }

    /// Stopped when it has made a call for the how manieth time, `fsync:1`.
    pub fn after(tree: &Sandbox, point: &str, arguments: &[&str]) -> Self {
        let (call, when) = point.split_once(':').unwrap();
        let strace = Started::new(tree.faulty(&format!("{call}:signal=SIGSTOP:when={when}"), arguments));
        // strace stops its child at other calls too, but only for a moment.
        let (mut pid, mut seen) = (0, 0);
        eventually("it is stopped", || {
            pid = children(strace.pid()).first().copied().unwrap_or_default();
            let still = state(pid) == Some('t') && state(strace.pid()) == Some('S');
            seen = if still { seen + 1 } else { 0 };
            seen == 5
        });
        Self { pid, strace: Some(strace) }
    }

    /// Lets it go on to its end.
    pub fn go_on(mut self) -> Answer {
        self.signal("SIGCONT");
        self.strace.take().unwrap().answer()
    }

    fn signal(&self, name: &str) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap());
        nix::sys::signal::kill(pid, name.parse::<nix::sys::signal::Signal>().unwrap()).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // strace dies with what it traces, but not the other way round.
        if self.strace.as_ref().is_some_and(|strace| children(strace.pid()).contains(&self.pid)) {
            self.signal("SIGKILL");
        }
    }
}

fn children(of: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn state(pid: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}

fn open_files(pid: u32) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
}

fn user() -> String {
    let uid = nix::unistd::Uid::current();
    nix::unistd::User::from_uid(uid).unwrap().map_or(uid.to_string(), |user| user.name)
}

#[test]
fn p06_busy_names_the_holders_pid_user_and_command() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let holder = Holder::of(&tree, &["activate", "A"]);
    let before = tree.picture();
    for words in [&["activate", "A"][..], &["rollback"], &["clean"], &["remove", "A"], &["pin", "A", "--forever"]] {
        let said = tree.ends(4, words).stderr;
        for part in ["error: busy", "hint: ", &holder.pid.to_string(), &user(), "activate A`"] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        let document = tree.json(words);
        assert_eq!(document["error"]["kind"], "busy");
        assert_eq!(document["error"]["exit"], 4);
        assert_eq!(document["error"]["holder"]["pid"], holder.pid);
        assert_eq!(document["error"]["holder"]["user"], user());
        assert!(document["error"]["holder"]["command"].as_str().unwrap().ends_with("activate A"));
        assert!(document["error"]["holder"]["since"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(tree.picture(), before);
    // Looking needs no lock.
    assert_eq!(tree.json(&["status"])["lock"]["pid"], holder.pid);
    for words in [&["list"][..], &["show", "A"], &["history"], &["path"], &["ps"], &["log"], &["verify"], &["doctor"]] {
        tree.done(words);
    }
}

#[test]
fn p06_a_killed_holder_leaves_no_lock() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let holder = Holder::of(&tree, &["activate", "A"]);
    holder.signal("SIGKILL");
    eventually("it is dead", || !Path::new(&format!("/proc/{}", holder.pid)).exists());
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("A"));
    assert_eq!(tree.json(&["status"])["lock"], serde_json::Value::Null);
}

#[test]
fn p06_busy_never_names_a_holder_that_is_dead() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.killed("syncfs:signal=SIGKILL:when=1", &["activate", "A"]);
    let note = fs::read_to_string(tree.at(".releasectl/lock")).unwrap();
    assert!(note.contains("activate A"), "the killed one left its note: {note:?}");
    let mut command = tree.clean("flock");
    command.arg(tree.at(".releasectl/lock")).args(["sh", "-c", "echo held; exec cat"]).stdin(Stdio::piped());
    let mut other = Started::new(command);
    std::io::Read::read_exact(other.0.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let document = tree.json(&["activate", "A"]);
    assert_eq!(document["error"]["kind"], "busy");
    assert_eq!(document["error"]["holder"]["pid"], other.pid(), "{document}");
    let checked = tree.done(&["doctor"]);
    assert!(checked.contains("held by") && checked.contains(&format!("(pid {}, `flock", other.pid())), "{checked}");
    drop(other.0.stdin.take());
    other.0.wait().unwrap();
    tree.done(&["activate", "A"]);
}

#[test]
fn p06_who_waits_for_anothers_fetch_says_for_whom() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    let source = repository.to_str().unwrap();
    tree.done(&["create", source]);
    let mirror = fs::read_dir(tree.at(".releasectl/mirror")).unwrap().next().unwrap().unwrap().path();
    let mut command = tree.clean("flock");
    command.arg(mirror).args(["sh", "-c", "echo held; exec cat"]).stdin(Stdio::piped());
    let mut other = Started::new(command);
    std::io::Read::read_exact(other.0.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let mut waiting = Started::new(tree.command(&["create", source]));
    let line = format!("wait until process {} is done with the mirror", other.pid());
    let mut said = vec![0; line.len()];
    std::io::Read::read_exact(waiting.0.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), line);
    drop(other.0.stdin.take());
    other.0.wait().unwrap();
    assert_eq!(waiting.answer().code, 0);
}

#[test]
fn p06_wait_waits_until_the_lock_is_free() {
    for wait in ["--wait=60s", "--wait"] {
        let tree = Sandbox::with_live(&["A", "B"]);
        let holder = Holder::of(&tree, &["activate", "A"]);
        tree.ends(4, &["activate", "B", "--wait=0s"]);
        let mut waiting = Started::new(tree.command(&["rollback", "--expect-current", "A", "--to", "B", wait]));
        let lock = tree.at(".releasectl/lock");
        eventually("it tries the lock", || open_files(waiting.pid()).contains(&lock));
        assert!(waiting.0.try_wait().unwrap().is_none(), "it waits");
        holder.signal("SIGCONT");
        let answer = waiting.answer();
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        assert_eq!(tree.live().as_deref(), Some("B"));
    }
}

#[test]
fn p08_what_is_used_only_while_a_clean_waits_for_the_lock_is_in_use() {
    for words in [&["clean", "--keep", "0", "--wait"][..], &["remove", "A", "--wait"]] {
        let tree = Sandbox::with_live(&["A", "B", "C", "D"]);
        let holder = Holder::of(&tree, &["rollback", "--to", "C"]);
        let waiting = Started::new(tree.command(words));
        let lock = tree.at(".releasectl/lock");
        eventually("it tries the lock", || open_files(waiting.pid()).contains(&lock));
        let mut sleep = tree.clean("sleep");
        sleep.arg("1000").current_dir(tree.release("A"));
        let _user = Started::new(sleep);
        holder.signal("SIGCONT");
        let answer = waiting.answer();
        assert_eq!(answer.code, if words[0] == "clean" { 0 } else { 3 }, "{}", answer.stderr);
        assert!(tree.release("A").exists(), "{}", answer.stdout);
    }
}

#[test]
fn p06_wait_waits_for_a_deploy_too() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.source("B");
    let mut command = tree.command(&["deploy", "-"]);
    command.stdin(Stdio::piped());
    let mut other = Started::new(command);
    let turn = format!(":{} ", fs::metadata(tree.at(".releasectl")).unwrap().ino());
    eventually("the other deploys", || fs::read_to_string("/proc/locks").unwrap().contains(&turn));
    let waiting = Started::new(tree.command(&["deploy", source.to_str().unwrap(), "--wait"]));
    eventually("it tries", || open_files(waiting.pid()).contains(&tree.at(".releasectl")));
    drop(other.0.stdin.take());
    assert_eq!(waiting.answer().code, 0);
    assert_eq!(other.answer().code, 1);
}

#[test]
fn p06_a_wait_that_is_over_is_busy() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let holder = Holder::of(&tree, &["activate", "A"]);
    let said = tree.ends(4, &["activate", "B", "--wait=1s"]).stderr;
    assert!(said.contains(&holder.pid.to_string()), "{said}");
}

/// A build that goes on until its standard input ends.
fn build(tree: &Sandbox, id: &str) -> Started {
    let mut command = tree.command(&["create", "-", "--id", id]);
    command.stdin(Stdio::piped());
    let mut build = Started::new(command);
    build.0.stdin.as_mut().unwrap().write_all(&tar(&tree.source(id))[..1024]).unwrap();
    tree.until_building(id);
    build
}

fn tar(directory: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", directory).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn what_is_said_of_a_release_that_is_being_built_or_is_complete_is_true_of_it() {
    let tree = Sandbox::with_live(&["A"]);
    let mut building = build(&tree, "B");
    tree.until_building("B");
    let said = tree.refused(&["activate", "B"]);
    assert!(said.contains("still being built") && said.contains("wait for its end"), "{said}");
    building.kill();
    assert!(tree.refused(&["activate", "B"]).contains("`clean` removes it"));
    let said = tree.refused(&["create", "--resume", "A"]);
    assert!(said.contains("nothing to resume") && !said.contains("`clean`"), "{said}");
}

#[test]
fn p07_a_build_never_blocks_what_others_do() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    let mut build = build(&tree, "D");
    tree.done(&["rollback"]);
    assert_eq!(tree.live().as_deref(), Some("B"));
    tree.done(&["activate", "C"]);
    tree.create("E");
    tree.done(&["pin", "A", "--days", "3"]);
    tree.done(&["clean", "--keep", "1"]);
    // Nobody touches what is being built.
    tree.refused(&["remove", "D"]);
    tree.refused(&["activate", "D"]);
    for words in [&["create", "-", "--resume", "D"][..], &["create", "--resume", "D"]] {
        let said = tree.ends(4, words).stderr;
        assert!(said.contains("busy") && said.contains(&format!("(pid {})", build.pid())), "{said}");
    }
    build.0.stdin.as_mut().unwrap().write_all(&tar(&tree.source("D"))[1024..]).unwrap();
    let answer = build.answer();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    tree.done(&["activate", "D"]);
    assert_eq!(fs::read_to_string(tree.at("current/version")).unwrap(), "D");
}

#[test]
fn p06_a_killed_build_frees_its_release_at_once() {
    let tree = Sandbox::laid_out();
    build(&tree, "A").kill();
    let mut command = tree.command(&["create", "-", "--resume", "A"]);
    let tar = tree.beside("source.tar");
    fs::write(&tar, self::tar(&tree.source("A"))).unwrap();
    let answer: Answer = command.stdin(fs::File::open(&tar).unwrap()).output().unwrap().into();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert_eq!(tree.states()["A"], "ready");
}

#[test]
fn p06_a_daemon_that_a_hook_leaves_behind_holds_no_lock_and_delays_nobody() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    // git runs this hook of the operator's own while it fetches into the mirror; the daemon stays for good.
    let (hooks, pid) = (tree.beside("hooks"), tree.beside("pid"));
    fs::create_dir(&hooks).unwrap();
    let script =
        format!("#!/bin/sh\ncat >/dev/null\n[ -e {0} ] || {{ sleep 100000 & echo $! >{0}; }}\n", pid.display());
    fs::write(hooks.join("reference-transaction"), script).unwrap();
    fs::set_permissions(hooks.join("reference-transaction"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.beside("home/.gitconfig"), format!("[core]\nhooksPath = {}\n", hooks.display())).unwrap();
    tree.done(&["create", repository.to_str().unwrap(), "--id", "A"]);
    let daemon: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let daemon = nix::unistd::Pid::from_raw(daemon);
    let held = open_files(daemon.as_raw().cast_unsigned());
    tree.done(&["activate", "A"]);
    // The second one needs the same mirror.
    tree.done(&["create", repository.to_str().unwrap(), "--id", "B"]);
    tree.done(&["deploy", repository.to_str().unwrap()]);
    let alive = nix::sys::signal::kill(daemon, None).is_ok();
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(alive, "the daemon was there all the time");
    assert!(!held.iter().any(|path| path.starts_with(tree.root())), "{held:?}");
}

#[test]
fn p06_the_lock_file_is_never_replaced_and_only_its_owners() {
    use std::os::unix::fs::MetadataExt;
    let tree = Sandbox::with_live(&["A", "B"]);
    let before = fs::metadata(tree.at(".releasectl/lock")).unwrap();
    assert_eq!(before.mode() & 0o7777, 0o600);
    tree.done(&["rollback"]);
    tree.killed("syncfs:signal=SIGKILL:when=1", &["activate", "B"]);
    tree.done(&["clean"]);
    assert_eq!(fs::metadata(tree.at(".releasectl/lock")).unwrap().ino(), before.ino());
    // A link in its place is not followed, and what it leads to not written.
    fs::remove_file(tree.at(".releasectl/lock")).unwrap();
    fs::write(tree.beside("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(tree.beside("precious"), tree.at(".releasectl/lock")).unwrap();
    tree.ends(6, &["activate", "A"]);
    assert_eq!(fs::read_to_string(tree.beside("precious")).unwrap(), "precious");
}

#[test]
fn p06_who_builds_a_release_is_named_since_when_it_was_started_and_its_steps_are_nobody_elses() {
    let tree = Sandbox::laid_out();
    let source = tree.code("code", &step("one", "create", "gate within\n"), &[]);
    let begun = Clock::System.now();
    let run = tree.run_to("within", &["create", &source, "--id", "A"]);
    let reached = Clock::System.now();
    // When somebody first looked at it would be later.
    eventually("a look from afar", || Clock::System.now().unix() > reached.unix() + 3);
    for words in [&["create", "--resume", "A"][..], &["create", "--resume"], &["create", "--resume", "anyway"]] {
        let error = tree.json(words)["error"].clone();
        assert_eq!((&error["exit"], &error["holder"]["pid"]), (&4.into(), &run.pid().into()), "{error}");
        let since = Timestamp::parse(error["holder"]["since"].as_str().unwrap()).unwrap().unix();
        assert!((begun.unix() - 2..=reached.unix() + 1).contains(&since), "{begun} to {reached}: {error}");
    }
    tree.open_gate();
    assert_eq!(run.answer().code, 0);
}

//! Faults and foreign processes, made and taken away again.

use crate::sandbox::Sandbox;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Says on standard error, past the test harness, that a part of a test cannot be run here, and why.
pub fn left_out(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {what}: {why}");
}

/// Whether this runs as root; if not, says what is left out for it.
pub fn as_root_or_left_out(what: &str) -> bool {
    let root = crate::sandbox::is_root();
    if !root {
        left_out(what, "only root may do it");
    }
    root
}

/// A process that has said "ready" and then waits until its standard input is closed, which happens with the test.
pub struct Waiting(Child);

impl Waiting {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let waiting = Self(child);
        assert_eq!(line, "ready\n", "{command:?}");
        waiting
    }

    /// A shell that runs `script` and waits; `words` are its arguments.
    #[track_caller]
    pub fn shell(tree: &Sandbox, directory: &Path, script: &str, words: &[&Path]) -> Self {
        let script = format!("{script}; echo ready; cat >/dev/null; :");
        Self::start(tree.clean("sh").current_dir(directory).arg("-c").arg(script).arg("sh").args(words))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Runs `script` with `words` as a shell's arguments, in a mount namespace of its own that ends with it.
pub fn in_mount_namespace(tree: &Sandbox, script: &str, words: &[&Path]) -> Output {
    let mut command = tree.clean("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]);
    command.arg(crate::sandbox::PROGRAM).args(words).output().unwrap()
}

/// The one JSON document that a run printed.
#[track_caller]
pub fn json(output: &Output) -> Value {
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said()))
}

/// Runs the program under strace and returns the calls it made, threads' numbers left out, descriptors with their paths.
#[track_caller]
pub fn strace(tree: &Sandbox, options: &[&str], arguments: &[&str]) -> Vec<String> {
    let log = tree.beside("strace");
    let mut command = tree.clean("strace");
    command.args(["-f", "-y", "-o"]).arg(&log).args(options).arg(crate::sandbox::PROGRAM);
    let output = command.arg("--root").arg(tree.root()).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("strace: "), "{said}");
    let lines = std::fs::read_to_string(log).unwrap();
    lines.lines().filter_map(|line| Some(line.split_once(' ')?.1.trim_start().to_owned())).collect()
}

/// What `clean` or `remove` judged: name → whether it goes, and why.
pub fn verdicts(document: &Value) -> BTreeMap<String, (bool, Vec<String>)> {
    let one = |goes: bool| {
        let list = document[if goes { "removed" } else { "kept" }].as_array().cloned().unwrap_or_default();
        list.into_iter().map(move |judged| {
            let reasons =
                judged["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned());
            (judged["id"].as_str().unwrap().to_owned(), (goes, reasons.collect()))
        })
    };
    one(true).chain(one(false)).collect()
}

/// The names of those that go.
pub fn gone(document: &Value) -> Vec<String> {
    verdicts(document).into_iter().filter(|(_, (goes, _))| *goes).map(|(name, _)| name).collect()
}

/// The entry `id` stays, for this reason among others.
#[track_caller]
pub fn assert_kept(document: &Value, id: &str, reason: &str) {
    let verdict = verdicts(document).remove(id);
    assert!(matches!(&verdict, Some((false, reasons)) if reasons.iter().any(|r| r == reason)), "{id}: {document}");
}

/// A tar of `files`, as bytes.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

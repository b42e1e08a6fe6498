//! What comes out: one document with --json whatever happens, nothing lost when it cannot be written, no escape codes
//! without a terminal.

use crate::sandbox::{Answer, PROGRAM, Sandbox};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// Takes out of a document what is another's at every run: places, people, times, numbers of the machine.
fn redact(tree: &Sandbox, value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| redact(tree, value)),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                let word = match name.as_str() {
                    "by" | "user" | "host" | "pid" | "seconds" | "bytes" | "free_bytes" | "free_inodes"
                    | "freed_bytes" => {
                        format!("[{name}]")
                    }
                    "at" | "since" | "created_at" | "activated_at" => "[time]".to_owned(),
                    // What doctor measures differs from host to host.
                    "message" if fields_are_measured(value) => "[message]".to_owned(),
                    _ => {
                        redact(tree, value);
                        continue;
                    }
                };
                if !value.is_null() {
                    *value = Value::String(word);
                }
            }
        }
        Value::String(text) => {
            let place = tree.beside("");
            *text = text.replace(place.to_str().unwrap().trim_end_matches('/'), "[place]");
            *text = without_times(text);
        }
        _ => {}
    }
}

fn fields_are_measured(value: &Value) -> bool {
    ["inodes are free", "git is /", "pid "].iter().any(|part| value.as_str().is_some_and(|text| text.contains(part)))
}

/// `2026-11-22T23:40:17Z` becomes `[time]`, wherever it stands.
fn without_times(text: &str) -> String {
    let is_time = |word: &[u8]| {
        word.iter().zip(b"0000-00-00T00:00:00Z").all(|(have, want)| match want {
            b'0' => have.is_ascii_digit(),
            other => have == other,
        })
    };
    let mut text = text.to_owned();
    while let Some(at) = text.as_bytes().windows(20).position(is_time) {
        text.replace_range(at..at + 20, "[time]");
    }
    text
}

/// The one document of a run, as it may be compared with the next run's.
fn document(tree: &Sandbox, words: &[&str]) -> Value {
    let mut document = tree.json(words);
    redact(tree, &mut document);
    document
}

/// A tree with a history: A, B and C were live, C was rolled back from, D failed, E is pinned, one entry is not ours.
fn lived_in() -> Sandbox {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    tree.done(&["rollback"]);
    fs::write(tree.beside("bad.tar"), [b'x'; 1024]).unwrap();
    tree.ends(1, &["create", "bad.tar", "--id", "D"]);
    tree.create("E");
    tree.done(&["pin", "E", "--until", "2099-12-02_23.40"]);
    fs::write(tree.release("README"), "").unwrap();
    tree
}

macro_rules! snapshot {
    ($name:literal, $tree:expr, $words:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_json_snapshot!($name, document(&$tree, &$words));
        });
    };
}

#[test]
fn p18_the_documents_of_what_only_looks() {
    let tree = lived_in();
    snapshot!("list", tree, ["list"]);
    snapshot!("status", tree, ["status"]);
    snapshot!("show", tree, ["show"]);
    snapshot!("show_bad", tree, ["show", "C"]);
    snapshot!("show_incomplete", tree, ["show", "D"]);
    snapshot!("history", tree, ["history"]);
    snapshot!("log", tree, ["log", "A"]);
    snapshot!("path", tree, ["path", "previous"]);
    snapshot!("ps", tree, ["ps"]);
    snapshot!("verify", tree, ["verify"]);
    snapshot!("doctor", tree, ["doctor"]);
    snapshot!("clean_dry_run", tree, ["clean", "--keep", "1", "--dry-run"]);
    snapshot!("rollback_dry_run", tree, ["rollback", "--dry-run"]);
}

#[test]
fn p18_the_documents_of_what_changes_the_tree() {
    let tree = Sandbox::new();
    let source = tree.source("one").display().to_string();
    snapshot!("init", tree, ["init"]);
    snapshot!("create", tree, ["create", &source, "--id", "A"]);
    snapshot!("activate", tree, ["activate"]);
    snapshot!("activate_again", tree, ["activate", "A"]);
    tree.create("B");
    snapshot!("deploy", tree, ["deploy", "--release", "B"]);
    snapshot!("rollback", tree, ["rollback"]);
    snapshot!("pin", tree, ["pin", "B", "--forever"]);
    snapshot!("unpin", tree, ["unpin", "B"]);
    snapshot!("remove", tree, ["remove", "B"]);
    tree.create("C");
    snapshot!("clean", tree, ["clean", "--keep", "0"]);
    snapshot!("deactivate", tree, ["deactivate", "--yes"]);
}

#[test]
fn p18_the_documents_of_failures() {
    let nothing = Sandbox::new();
    snapshot!("no_tree", nothing, ["list"]);
    let tree = lived_in();
    snapshot!("usage", tree, ["create", "--id", "../x"]);
    snapshot!("usage_unknown", tree, ["activte"]);
    snapshot!("usage_missing", tree, ["pin", "A"]);
    snapshot!("refused_id", tree, ["create", tree.source("A").to_str().unwrap(), "--id", "A"]);
    snapshot!("refused_source", tree, ["create", "nothing-there"]);
    snapshot!("refused_expected", tree, ["activate", "A", "--expect-current", "none"]);
    snapshot!("refused_incomplete", tree, ["activate", "D"]);
    snapshot!("refused_remove", tree, ["remove", "B"]);
    snapshot!("refused_deactivate", tree, ["deactivate"]);
    snapshot!("failed_member", tree, ["create", "bad.tar", "--id", "F"]);
    fs::write(tree.release("B").join("version"), "changed").unwrap();
    fs::remove_file(tree.release("B").join("app/main.py")).unwrap();
    fs::write(tree.release("B").join("added"), "").unwrap();
    snapshot!("verify_changed", tree, ["verify"]);
    fs::write(tree.release("A").join(".releasectl/release.json"), "{}").unwrap();
    snapshot!("damaged", tree, ["show", "A"]);
    snapshot!("doctor_damaged", tree, ["doctor"]);
    fs::remove_file(tree.at("current")).unwrap();
    fs::create_dir(tree.at("current")).unwrap();
    snapshot!("current_is_a_directory", tree, ["status"]);
}

/// Every verb, with arguments it succeeds or fails with on a tree with A, B and C, where C is live.
const VERBS: [&[&str]; 29] = [
    &["init"],
    &["list"],
    &["status"],
    &["show"],
    &["show", "not-there"],
    &["history"],
    &["log"],
    &["path"],
    &["ps"],
    &["verify"],
    &["doctor"],
    &["completions", "bash"],
    &["pin", "A", "--days", "3"],
    &["unpin", "A"],
    &["create", "source-A"],
    &["create", "source-A", "--id", "D"],
    &["create", "nothing-there"],
    &["activate", "A"],
    &["activate", "not-there"],
    &["rollback"],
    &["rollback", "--dry-run"],
    &["clean", "--dry-run"],
    &["remove", "not-there"],
    &["clean", "--keep", "0"],
    &["deploy", "source-B"],
    &["deactivate"],
    &["deactivate", "--yes"],
    &["--no-such-option"],
    &["--help"],
];

/// Whether these words are about the command line itself; what they print is no document.
fn is_about_words(words: &[&str]) -> bool {
    matches!(words[0], "completions" | "--help")
}

#[test]
fn p18_what_is_not_utf8_costs_nobody_his_document() {
    let tree = Sandbox::with_live(&["A"]);
    let odd = OsStr::from_bytes(b"caf\xe9");
    let root = tree.beside("").join(odd);
    fs::rename(tree.root(), &root).unwrap();
    let answer: Answer = tree.clean(PROGRAM).arg("--root").arg(&root).args(["--json", "list"]).output().unwrap().into();
    let document: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(document["error"]["exit"], 2, "{document}");
    // What another tool's release links to, and no recipe could name.
    fs::create_dir_all(tree.at("shared").join(odd)).unwrap();
    fs::create_dir_all(tree.release("one")).unwrap();
    fs::write(tree.at("RELEASES.txt"), "releases/one\n").unwrap();
    symlink("releases/one", tree.at("current")).unwrap();
    symlink(Path::new("../../shared").join(odd), tree.release("one").join(odd)).unwrap();
    assert_eq!(tree.json(&["init"])["adopted"], serde_json::json!(["one"]));
}

#[test]
fn p18_every_verb_prints_exactly_one_document() {
    let tree = Sandbox::with_live(&["A", "B", "C"]);
    for words in VERBS.into_iter().filter(|words| !is_about_words(words)) {
        let answer = tree.run(&[&["--json"], words].concat());
        let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        assert_eq!(answer.stdout.lines().count(), 1, "{words:?}");
        assert_eq!(document["schema"], 1);
        assert_eq!(document["ok"], answer.code == 0, "{words:?}: {document}");
        if answer.code == 0 {
            assert_eq!(document["command"], words[0]);
            assert_eq!(document["root"], tree.root().to_str().unwrap());
            assert_eq!(document["error"], Value::Null);
        } else {
            assert_eq!(document["error"]["exit"], answer.code, "{words:?}");
            assert!(document["error"]["message"].is_string() && document["error"]["hint"].is_string(), "{document}");
        }
        assert!(!answer.stderr.contains("error: "), "told once: {words:?}: {}", answer.stderr);
    }
}

/// Everything about a tree that one could see was lost.
fn outcome(tree: &Sandbox) -> (Option<String>, usize, Vec<String>) {
    let names = ["create", "activate", "rollback", "clean", "pin", "unpin", "deactivate"];
    let done = |entry: &String| entry.ends_with(" done") && names.contains(&entry.split(' ').next().unwrap());
    let verbs = tree.history().into_iter().filter(done).map(|entry| entry.split(' ').next().unwrap().to_owned());
    (tree.live(), tree.states().len(), verbs.collect())
}

/// Runs every verb on two trees, once with its output kept and once as `deafen` says. Both trees must come out alike.
fn deaf(deafen: impl Fn(&mut Command), codes: impl Fn(i32) -> Vec<i32>) {
    for json in [&[][..], &["--json"]] {
        let (heard, unheard) = (Sandbox::with_live(&["A", "B", "C"]), Sandbox::with_live(&["A", "B", "C"]));
        for words in VERBS {
            let words = [json, words].concat();
            let expected = heard.run(&words).code;
            let mut command = unheard.command(&words);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            deafen(&mut command);
            let answer: Answer = command.output().unwrap().into();
            assert!(codes(expected).contains(&answer.code), "{words:?} ends with {}: {}", answer.code, answer.stderr);
            assert!(!answer.stderr.contains("panicked"), "{words:?}: {}", answer.stderr);
        }
        assert_eq!(outcome(&unheard), outcome(&heard));
    }
}

#[test]
fn p14_a_full_standard_output_loses_no_change_and_is_told() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let quiet_too = |code: i32| if code == 0 { vec![0, 1] } else { vec![code] };
    deaf(
        |command| {
            command.stdout(full());
        },
        quiet_too,
    );
    let tree = Sandbox::with_live(&["A"]);
    let answer: Answer = tree.command(&["list"]).stdout(full()).output().unwrap().into();
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("cannot write to standard output"), "{}", answer.stderr);
    let answer = tree.command(&["list"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(answer.code(), Some(1));
}

#[test]
fn p14_a_reader_that_went_away_is_a_quiet_end() {
    let gone = || std::io::pipe().unwrap().1;
    deaf(
        |command| {
            command.stdout(gone());
        },
        |code| vec![code],
    );
    deaf(
        |command| {
            command.stdout(gone()).stderr(gone());
        },
        |code| vec![code],
    );
}

#[test]
fn p14_closed_standard_streams_are_a_quiet_end() {
    let tree = Sandbox::with_live(&["A", "B"]);
    for (words, live) in [("activate A", "A"), ("rollback --to B", "B"), ("--json activate A", "A")] {
        let line = format!("exec {PROGRAM} --root {} {words} <&- >&- 2>&-", tree.root().display());
        assert_eq!(tree.clean("sh").args(["-c", &line]).status().unwrap().code(), Some(0), "{words}");
        assert_eq!(tree.live().as_deref(), Some(live));
    }
    // What takes the closed streams' numbers is no lock, and nothing was printed into it.
    assert_eq!(tree.json(&["history", "-n", "1"])["entries"][0]["outcome"], "done");
    tree.done(&["doctor"]);
}

/// What a terminal gets from these words.
fn on_terminal(tree: &Sandbox, words: &str, variables: &[(&str, &str)]) -> String {
    let line = format!("{PROGRAM} --root {} {words}", tree.root().display());
    let mut command = tree.clean("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
    let answer: Answer = command.envs(variables.iter().copied()).output().unwrap().into();
    answer.stdout
}

#[test]
fn p18_there_are_colours_on_a_terminal_only_and_no_color_is_honoured() {
    let tree = lived_in();
    for words in VERBS.into_iter().filter(|words| !is_about_words(words)) {
        let answer = tree.run(words);
        assert!(!(answer.stdout + &answer.stderr).contains('\x1b'), "{words:?}");
    }
    tree.done(&["activate", "B"]);
    for words in ["list", "status", "show", "doctor", "show not-there"] {
        assert!(on_terminal(&tree, words, &[]).contains("\x1b["), "{words}");
        assert!(on_terminal(&tree, words, &[("NO_COLOR", "")]).contains("\x1b["), "{words}: empty is not set");
        assert!(!on_terminal(&tree, words, &[("NO_COLOR", "1")]).contains('\x1b'), "{words}");
        assert!(!on_terminal(&tree, &format!("--color never {words}"), &[]).contains('\x1b'), "{words}");
        let json = on_terminal(&tree, &format!("--json {words}"), &[]);
        assert!(!json.contains('\x1b'), "{words}");
        let always = tree.run(&[&["--color", "always"], &words.split(' ').collect::<Vec<_>>()[..]].concat());
        assert!((always.stdout + &always.stderr).contains("\x1b["), "{words}");
    }
}

#[test]
fn p18_progress_is_a_bar_on_a_terminal_and_a_line_a_stage_elsewhere() {
    let tree = Sandbox::laid_out();
    let said = tree.ends(0, &["create", tree.source("one").to_str().unwrap()]).stderr;
    assert!(said.lines().any(|line| line == "copy …"), "{said}");
    let quiet = tree.ends(0, &["--quiet", "create", tree.source("one").to_str().unwrap()]).stderr;
    assert_eq!(quiet, "");
    let seen = on_terminal(&tree, &format!("create {}", tree.source("one").display()), &[]);
    assert!(seen.contains("copy") && seen.contains('\r'), "{seen:?}");
}

//! The oracle: what must hold of a tree whatever happened to the last command. It reads the disk itself, runs the program
//! anew as the next command, and compares the whole listing with what may be there. It complains and does not panic, so
//! that one enumeration shows everything it finds.

use crate::sandbox::{Answer, Sandbox};
use releasectl::release::Manifest;
use releasectl::sealed::unseal;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// How much is held back for a full disk.
const BALLAST: u64 = 1 << 20;
/// Operations that move `current`.
const FLIPS: [&str; 5] = ["activate", "rollback", "deactivate", "external", "init"];

/// The directories of a tree.
const LAID_OUT: [&str; 6] =
    ["releases", "shared", "log", ".releasectl/mirror", ".releasectl/cache", ".releasectl/trash"];

/// What a release holds beside its records and pins.
pub const CODE: [&str; 3] = ["version", "app", "app/main.py"];

/// What supervisord reads of a release that has programs.
const SERVICES: [&str; 4] =
    ["services", "services/supervisor", "services/supervisor/a.conf", "services/supervisor/b.conf"];

/// Complaints about one tree.
pub struct Checker<'t> {
    tree: &'t Sandbox,
    complaints: Vec<String>,
}

impl<'t> Checker<'t> {
    /// Of `tree`.
    pub fn new(tree: &'t Sandbox) -> Self {
        Self { tree, complaints: Vec::new() }
    }

    /// The tree.
    pub fn tree(&self) -> &'t Sandbox {
        self.tree
    }

    /// What was found wrong.
    pub fn complaints(self) -> Vec<String> {
        self.complaints
    }

    /// Complains unless it holds.
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.complaints.push(what());
        }
    }

    /// I: `current` leads to a complete release that is one of `allowed` (`None`: it is absent), and every release that
    /// says it is ready is whole. Nothing is run.
    pub fn current_is_one_of(&mut self, allowed: &[Option<String>]) {
        let live = self.tree.live();
        let absent = fs::symlink_metadata(self.tree.at("current")).is_err();
        self.must(absent || live.is_some(), || "current leads nowhere".to_owned());
        self.must(allowed.contains(&live), || format!("current leads to {live:?}, not to one of {allowed:?}"));
        for id in names(&self.tree.at("releases")) {
            let ready = manifest(self.tree, &id).is_some_and(|manifest| manifest.ready_at.is_some());
            let whole = is_whole(self.tree, &id);
            self.must(!ready || whole, || format!("release {id} says it is ready and is not whole"));
            self.must(ready || live.as_deref() != Some(&id), || format!("{id} is live and not ready"));
        }
    }

    /// II: the next command works, with no more ado.
    pub fn works<A: AsRef<std::ffi::OsStr>>(&mut self, arguments: &[A]) -> Answer {
        self.ends(&[0], arguments)
    }

    /// The same for one that may also be refused.
    pub fn ends<A: AsRef<std::ffi::OsStr>>(&mut self, codes: &[i32], arguments: &[A]) -> Answer {
        let answer = self.tree.run(arguments);
        let words =
            || arguments.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        self.must(codes.contains(&answer.code), || {
            format!("`{}` ends with {}: {}", words(), answer.code, answer.stderr)
        });
        answer
    }

    /// III: history agrees with `current`, and nothing in it is left open.
    pub fn history_agrees(&mut self) {
        let answer = self.works(&["--json", "history", "-n", "1000"]);
        let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let entries = document["entries"].as_array().cloned().unwrap_or_default();
        let live = self.tree.live();
        let flip = |entry: &&Value| FLIPS.iter().any(|flip| entry["operation"] == *flip) && entry["outcome"] == "done";
        let believed = entries.iter().rev().find(flip).and_then(|entry| entry["to"].as_str()).map(str::to_owned);
        self.must(believed == live, || format!("{live:?} is live and the history ends with {believed:?}"));
        for entry in entries.iter().filter(|entry| entry["outcome"].is_null()) {
            self.must(false, || format!("left open in the history: {entry}"));
        }
    }

    /// IV: nothing is there but what should be, after a `clean`.
    pub fn is_tidy(&mut self) {
        for (path, shape) in self.tree.picture() {
            let path = path.to_str().unwrap();
            self.must(belongs(path), || format!("left behind: {path} ({shape:.60})"));
        }
        for name in LAID_OUT {
            self.must(self.tree.at(name).is_dir(), || format!("{name} is not there"));
        }
        let ballast = fs::metadata(self.tree.at(".releasectl/ballast")).map(|m| m.len()).ok();
        self.must(ballast == Some(BALLAST), || format!("the ballast is {ballast:?}"));
        let note = fs::read_to_string(self.tree.at(".releasectl/lock")).unwrap_or_default();
        self.must(note.is_empty(), || format!("a note is left in the lock: {note}"));
        for id in names(&self.tree.at("releases")) {
            self.must(is_whole(self.tree, &id), || format!("release {id} is not whole"));
        }
    }

    /// All of it: I, then II by `clean` (after `init` where a tree is not laid out to the end), then III and IV.
    pub fn everything(&mut self, allowed: &[Option<String>]) {
        self.current_is_one_of(allowed);
        if LAID_OUT.iter().any(|name| !self.tree.at(name).exists()) {
            self.works(&["init"]);
        }
        let live = self.tree.live();
        self.works(&["clean"]);
        let still = self.tree.live();
        self.must(live == still, || format!("clean moved current from {live:?} to {still:?}"));
        self.current_is_one_of(allowed);
        self.history_agrees();
        self.is_tidy();
    }
}

/// The manifest of a release, if it has one that can be read.
fn manifest(tree: &Sandbox, id: &str) -> Option<Manifest> {
    unseal(&fs::read(tree.release(id).join(".releasectl/release.json")).ok()?)
}

/// Whether everything of the release's source is there, as [`Sandbox::source`] made it.
fn is_whole(tree: &Sandbox, id: &str) -> bool {
    let read = |name: &str| fs::read_to_string(tree.release(id).join(name)).unwrap_or_default();
    let word = read("version");
    // A release that has its id from the clock says of which source it is.
    let right = if id.len() == 1 { word == id } else { word.len() == 1 };
    right && read("app/main.py") == format!("print({word:?})\n")
}

/// The names in a directory; none if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Whether a path may be in a tree that was cleaned.
fn belongs(path: &str) -> bool {
    let fixed = ["current", "releases", "shared", "log", ".releasectl"];
    let own = ["journal.jsonl", "lock", "ballast", "mirror", "cache", "trash"];
    let record = |name: &str| ["release.json", "build.log", "inventory"].contains(&name);
    let of_release = |path: &str| {
        CODE.contains(&path)
            || path == ".releasectl"
            || path.starts_with("KEEP_UNTIL__")
            || SERVICES.contains(&path)
            || path.strip_prefix(".releasectl/").is_some_and(record)
    };
    if let Some(inside) = path.strip_prefix("releases/") {
        return inside.split_once('/').is_none_or(|(_, rest)| of_release(rest)) && !inside.starts_with('.');
    }
    if path.starts_with(".releasectl/mirror/") {
        // git's own; what a git that was killed left there is cleared by the next that works in it.
        return true;
    }
    fixed.contains(&path) || path.strip_prefix(".releasectl/").is_some_and(|name| own.contains(&name))
}

#[test]
fn the_checker_complains_of_what_it_should() {
    let tree = Sandbox::in_memory();
    tree.done(&["init"]);
    ["A", "B"].iter().for_each(|id| tree.create(id));
    tree.done(&["activate", "A"]);
    let of = |tree: &Sandbox, live: &str| {
        let mut checker = Checker::new(tree);
        checker.everything(&[Some(live.to_owned())]);
        checker.complaints().join("\n")
    };
    assert_eq!(of(&tree, "A"), "");
    assert!(of(&tree, "B").contains("not to one of"));
    fs::write(tree.at("releases/A/.releasectl/.release.json.tmp"), "").unwrap();
    fs::write(tree.at("releases/B/app/main.py"), "").unwrap();
    let found = of(&tree, "A");
    assert!(found.contains("B says it is ready and is not whole"), "{found}");
    fs::write(tree.at(".releasectl/odd"), "").unwrap();
    assert!(of(&tree, "A").contains("left behind: .releasectl/odd"));
    fs::remove_file(tree.at("current")).unwrap();
    std::os::unix::fs::symlink("releases/Z", tree.at("current")).unwrap();
    assert!(of(&tree, "A").contains("current leads nowhere"));
}

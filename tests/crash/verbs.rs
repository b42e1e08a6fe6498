//! The commands that change something, each with the states it is tried from.

use crate::lab::tar_of;
use crate::sandbox::Sandbox;
use crate::states::{ALL, Start, State};
use std::fs;
use std::path::PathBuf;

/// A command.
pub struct Verb {
    /// What it is called here.
    pub name: &'static str,
    /// From where it is tried.
    pub states: &'static [State],
    /// Its words for a copy of such a state. The first time it makes what it needs beside the tree.
    pub words: fn(&Start, &Sandbox) -> Vec<String>,
    /// Whether it may be refused where a run of it was cut off: its work is done, or there is none.
    pub is_refused: fn(&Sandbox) -> bool,
}

/// States with a release in them.
const WITH_RELEASES: &[State] = {
    use State::*;
    &[One, Three, Trash, UnfinishedBuild, UnfinishedDeploy, Staged, Flipped, Torn]
};

pub const INIT: Verb = Verb { name: "init", states: &ALL, words: |_, _| words(&["init"]), is_refused: never };
pub const CREATE: Verb = Verb {
    name: "create",
    states: &ALL,
    words: |start, _| create(start.made.beside("source-N")),
    is_refused: is_created,
};
pub const CREATE_TAR: Verb = Verb {
    name: "create of a tar",
    states: &[State::One],
    words: |start, _| {
        let tar = start.made.beside("N.tar");
        if !tar.exists() {
            let main = format!("print({:?})\n", "N");
            fs::write(&tar, tar_of(&[("version", b"N"), ("app/main.py", main.as_bytes())])).unwrap();
        }
        create(tar)
    },
    is_refused: is_created,
};
pub const CREATE_GIT: Verb = Verb {
    name: "create of a commit",
    states: &[State::Three],
    words: |start, _| {
        let source = start.made.beside("source-N");
        if !source.join(".git").exists() {
            start.made.git(&source, &["init", "--quiet", "--initial-branch=master"]);
            start.made.commit(&source, "one");
        }
        create(source)
    },
    is_refused: is_created,
};
pub const ACTIVATE: Verb =
    Verb { name: "activate", states: WITH_RELEASES, words: |_, _| words(&["activate", "A"]), is_refused: without_a };
pub const ROLLBACK: Verb =
    Verb { name: "rollback", states: WITH_RELEASES, words: |_, _| words(&["rollback"]), is_refused: always };
pub const CLEAN: Verb =
    Verb { name: "clean", states: WITH_RELEASES, words: |_, _| words(&["clean", "--keep", "1"]), is_refused: never };
pub const PIN: Verb = Verb {
    name: "pin",
    states: WITH_RELEASES,
    words: |_, _| words(&["pin", "A", "--days", "10"]),
    is_refused: without_a,
};
pub const REMOVE: Verb =
    Verb { name: "remove", states: WITH_RELEASES, words: |_, _| words(&["remove", "A"]), is_refused: without_a };
pub const RESUME: Verb = Verb {
    name: "deploy --resume",
    states: &[State::Three, State::UnfinishedDeploy],
    words: |_, _| words(&["deploy", "--resume"]),
    is_refused: without_deploy,
};
pub const WIRE: Verb = Verb {
    name: "supervisor wire",
    states: &[State::One, State::Three],
    words: |_, copy| wire(copy, "include"),
    is_refused: never,
};
/// What C reads takes the place of what a release before it did.
pub const WIRE_COPY: Verb = Verb {
    name: "supervisor wire by copies",
    states: &[State::Three, State::Torn],
    words: |_, copy| {
        let (files, copies) = (copy.release("C").join("services/supervisor"), etc(copy).join("conf.d"));
        if !copies.exists() {
            [&files, &copies].iter().for_each(|path| fs::create_dir_all(path).unwrap());
            ["a.conf", "b.conf"].iter().for_each(|name| fs::write(files.join(name), program(name)).unwrap());
            let before = ["releasectl-host@a.conf", "releasectl-host@old.conf", "other.conf"];
            before.iter().for_each(|name| fs::write(copies.join(name), program("old")).unwrap());
        }
        wire(copy, "copy")
    },
    is_refused: never,
};

/// One that changes little itself: what it does more is to settle what was left.
pub const SETTLE: Verb =
    Verb { name: "pin", states: &[], words: |_, _| words(&["pin", "C", "--forever"]), is_refused: never };

/// supervisord's file before it is wired.
pub const UNWIRED: &str = "[unix_http_server]\nfile=%(here)s/s.sock\n[supervisord]\nlogfile=%(here)s/log\n\
    [supervisorctl]\nserverurl=unix://%(here)s/s.sock\n[include]\nfiles = others/*.conf\n";

/// The directory of supervisord's file.
pub fn etc(tree: &Sandbox) -> PathBuf {
    tree.beside("etc")
}

/// A file with a program of this name.
pub fn program(name: &str) -> String {
    format!("[program:{name}]\ncommand = /bin/sleep 1000\n")
}

fn wire(tree: &Sandbox, wiring: &str) -> Vec<String> {
    let (etc, host) = (etc(tree), tree.beside("host.toml"));
    let config = etc.join("supervisord.conf");
    if !config.exists() {
        fs::create_dir_all(&etc).unwrap();
        fs::write(&config, UNWIRED).unwrap();
        fs::write(&host, format!("[supervisor]\nconfig = {config:?}\nwiring = {wiring:?}\n")).unwrap();
    }
    words(&["--config", host.to_str().unwrap(), "supervisor", "wire"])
}

fn never(_: &Sandbox) -> bool {
    false
}

fn always(_: &Sandbox) -> bool {
    true
}

fn without_a(tree: &Sandbox) -> bool {
    !tree.release("A").exists()
}

fn without_deploy(tree: &Sandbox) -> bool {
    !fs::read_to_string(tree.at(".releasectl/journal.jsonl")).unwrap().contains("deploy")
}

fn is_created(tree: &Sandbox) -> bool {
    tree.release("N").exists()
}

/// Words as a command line has them.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn create(source: PathBuf) -> Vec<String> {
    words(&["create", source.to_str().unwrap(), "--id", "N"])
}

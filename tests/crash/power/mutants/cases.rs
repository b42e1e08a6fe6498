//! Commands and trees that between them come to every sync, each where it is all that keeps what was promised.

use crate::sandbox::Sandbox;
use crate::states::{Start, State};
use crate::verbs::{self, Verb, words};
use std::fs;
use std::path::{Path, PathBuf};

/// A command on a tree.
pub struct Case {
    pub name: &'static str,
    pub state: State,
    /// Its words, for a copy of the state that is made ready for it.
    pub words: fn(&Start, &Sandbox) -> Vec<String>,
    /// What was written just before by somebody who did not sync it.
    pub unsynced: Option<Unsynced>,
    /// How it ends.
    pub ends: i32,
}

/// What a run finds that is not durable.
#[derive(Clone, Copy)]
pub enum Unsynced {
    /// The content of this file.
    Content(&'static str),
    /// This name in its directory.
    Name(&'static str),
}

impl Case {
    fn of(name: &'static str, state: State, words: fn(&Start, &Sandbox) -> Vec<String>) -> Self {
        Self { name, state, words, unsynced: None, ends: 0 }
    }

    /// The build of a release.
    pub fn create() -> Self {
        Self::verb(&verbs::CREATE, State::One)
    }

    fn verb(verb: &Verb, state: State) -> Self {
        Self::of(verb.name, state, verb.words)
    }
}

/// All of them.
pub fn all() -> Vec<Case> {
    use State::{Fresh, One, Three};
    vec![
        Case::verb(&verbs::INIT, Fresh),
        Case::of("init of what is missing", One, init_again),
        Case::of("init beside another's release", One, take_over),
        Case::create(),
        Case::of("create with a step", One, |start, _| create(&source(start, "made", MAKE))),
        Case { ends: 1, ..Case::of("create that fails", One, |start, _| create(&source(start, "fails", FAIL))) },
        Case::of("create anew", One, create_anew),
        Case::of("create under the name of what was taken over", One, create_again),
        Case { unsynced: Some(Unsynced::Content("/tree/releases/A/version")), ..Case::verb(&verbs::ACTIVATE, Three) },
        Case { unsynced: Some(Unsynced::Content("/tree/releases/B/version")), ..Case::verb(&verbs::ROLLBACK, Three) },
        Case::of("activate beside RELEASES.txt", Three, beside_releases_txt),
        Case::of("deactivate", Three, |_, _| words(&["deactivate", "--yes"])),
        Case::verb(&verbs::CLEAN, Three),
        Case::of("clean without ballast", Three, clean_without_ballast),
        Case::verb(&verbs::REMOVE, Three),
        Case::of("pin in place of another", Three, pin_again),
        Case::of("pin without a journal", Three, pin_without_journal),
        Case::of("pin beside a second name of the journal", Three, pin_beside_second_name),
        Case::of("pin with a damaged journal", Three, pin_with_damaged_journal),
        Case::of("supervisor render", Three, render),
        Case { unsynced: Some(Unsynced::Name(RENDERED)), ..Case::of("supervisor render again", Three, render_again) },
        Case::verb(&verbs::WIRE, One),
        Case::verb(&verbs::WIRE_COPY, Three),
    ]
}

const JOURNAL: &str = ".releasectl/journal.jsonl";
const MAKE: &str = "[[step]]\nname = \"made\"\nphase = \"create\"\nrun = \"echo made > made\"\n";
const FAIL: &str = "[[step]]\nname = \"fails\"\nphase = \"create\"\nrun = \"false\"\n";
const RENDERED: &str = "/tree/releases/C/services/supervisor/a.conf";
const TEMPLATES: &str = "[supervisor]\ntemplates = \"deploy\"\n[[supervisor.program]]\ntemplate = \"a.conf\"\n";

/// A source for N with this recipe.
fn source(start: &Start, name: &str, recipe: &str) -> PathBuf {
    let source = start.made.beside(name);
    if !source.exists() {
        fs::rename(start.made.source("N"), &source).unwrap();
        fs::write(source.join("releasectl.toml"), recipe).unwrap();
    }
    source
}

fn create(source: &Path) -> Vec<String> {
    words(&["create", source.to_str().unwrap(), "--id", "N"])
}

/// A build was killed when its code was there, and some of it is gone.
fn create_anew(start: &Start, tree: &Sandbox) -> Vec<String> {
    let source = source(start, "made", MAKE);
    tree.killed("syncfs:signal=SIGKILL:when=2", &create(&source));
    fs::remove_file(tree.release("N").join("releasectl.toml")).unwrap();
    words(&["create", source.to_str().unwrap(), "--resume", "N"])
}

/// N was another tool's, was taken over, and was removed by another hand.
fn create_again(start: &Start, tree: &Sandbox) -> Vec<String> {
    let source = source(start, "made", MAKE);
    fs::create_dir(tree.release("N")).unwrap();
    fs::write(tree.release("N").join("version"), "N").unwrap();
    tree.done(&["init"]);
    fs::remove_dir_all(tree.release("N")).unwrap();
    create(&source)
}

fn init_again(_: &Start, tree: &Sandbox) -> Vec<String> {
    fs::remove_dir(tree.at(".releasectl/mirror")).unwrap();
    words(&["init"])
}

fn take_over(start: &Start, tree: &Sandbox) -> Vec<String> {
    start.made.clean("cp").args(["-a"]).arg(start.made.source("X")).arg(tree.release("X")).status().unwrap();
    words(&["init"])
}

fn beside_releases_txt(_: &Start, tree: &Sandbox) -> Vec<String> {
    fs::write(tree.at("RELEASES.txt"), "A\nB\nC\n").unwrap();
    words(&["activate", "A"])
}

fn clean_without_ballast(_: &Start, tree: &Sandbox) -> Vec<String> {
    fs::remove_file(tree.at(".releasectl/ballast")).unwrap();
    words(&["clean", "--keep", "1"])
}

fn pin() -> Vec<String> {
    words(&["pin", "A", "--days", "10"])
}

fn pin_again(_: &Start, tree: &Sandbox) -> Vec<String> {
    tree.done(&["pin", "A", "--days", "3"]);
    pin()
}

fn pin_without_journal(_: &Start, tree: &Sandbox) -> Vec<String> {
    fs::remove_file(tree.at(JOURNAL)).unwrap();
    pin()
}

fn pin_beside_second_name(_: &Start, tree: &Sandbox) -> Vec<String> {
    fs::hard_link(tree.at(JOURNAL), tree.beside("second")).unwrap();
    pin()
}

fn pin_with_damaged_journal(_: &Start, tree: &Sandbox) -> Vec<String> {
    let journal = fs::read_to_string(tree.at(JOURNAL)).unwrap();
    let (first, rest) = journal.split_once('\n').unwrap();
    fs::write(tree.at(JOURNAL), format!("{first}\nno record\n{rest}")).unwrap();
    pin()
}

/// One file is written, and one that was rendered earlier goes.
fn render(_: &Start, tree: &Sandbox) -> Vec<String> {
    let code = tree.release("C");
    let (templates, rendered) = (code.join("deploy"), code.join("services/supervisor"));
    [&templates, &rendered].iter().for_each(|path| fs::create_dir_all(path).unwrap());
    fs::write(code.join("releasectl.toml"), TEMPLATES).unwrap();
    fs::write(templates.join("a.conf"), verbs::program("a")).unwrap();
    fs::write(rendered.join("old.conf"), format!("; rendered by releasectl from old\n{}", verbs::program("old")))
        .unwrap();
    words(&["supervisor", "render", "C"])
}

/// The one before was killed when all was written.
fn render_again(start: &Start, tree: &Sandbox) -> Vec<String> {
    let words = render(start, tree);
    tree.done(&words);
    words
}

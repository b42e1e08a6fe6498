//! The states that a command may find: made by the program itself, killed half-way where that is the point, and copied
//! for each crash.

use crate::sandbox::Sandbox;
use crate::trace;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A state of a tree. `Sandbox::source` gives the content of each of its releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is there yet.
    Fresh,
    /// A is ready; nothing is live.
    One,
    /// A, B and C were live in turn; C is.
    Three,
    /// The same, and a `clean` was killed while it deleted A.
    Trash,
    /// Three, and the build of D was killed before it was ready.
    UnfinishedBuild,
    /// Three, and a deploy of D, under an id of its own, was killed in its build.
    UnfinishedDeploy,
    /// Three, and an activation of B was killed before its commit: its intent and its temporary link are there.
    Staged,
    /// Three, and an activation of B was killed after its commit: it is live, and no outcome is on record.
    Flipped,
    /// Three, with the last line of the journal cut short.
    Torn,
}

/// All of them.
pub const ALL: [State; 9] = {
    use State::*;
    [Fresh, One, Three, Trash, UnfinishedBuild, UnfinishedDeploy, Staged, Flipped, Torn]
};

impl State {
    /// Makes it. What its sources were lies beside the tree as long as it is kept.
    pub fn build(self) -> Sandbox {
        let tree = Sandbox::in_memory();
        if self == Self::Fresh {
            return tree;
        }
        tree.done(&["init"]);
        tree.create("A");
        if self == Self::One {
            return tree;
        }
        ["B", "C"].iter().for_each(|id| tree.create(id));
        ["A", "B", "C"].iter().for_each(|id| drop(tree.done(&["activate", id])));
        match self {
            Self::Fresh | Self::One | Self::Three => {}
            Self::Trash => tree.killed("unlinkat:signal=SIGKILL:when=3", &["clean", "--keep", "1"]),
            Self::UnfinishedBuild => {
                let source = tree.source("D").display().to_string();
                tree.killed("syncfs:signal=SIGKILL:when=1", &["create", &source, "--id", "D"]);
            }
            Self::UnfinishedDeploy => {
                let source = tree.source("D").display().to_string();
                tree.killed("syncfs:signal=SIGKILL:when=1", &["deploy", &source]);
            }
            Self::Staged => tree.killed("renameat:signal=SIGKILL:when=1", &["activate", "B"]),
            Self::Flipped => tree.killed("fsync:signal=SIGKILL:when=3", &["activate", "B"]),
            Self::Torn => {
                let journal = tree.at(".releasectl/journal.jsonl");
                let length = fs::metadata(&journal).unwrap().len();
                fs::File::options().write(true).open(&journal).unwrap().set_len(length - 20).unwrap();
            }
        }
        tree
    }
}

/// A state, made once.
pub struct Start {
    /// As it was made. Sources and what else lies beside the tree stay here.
    pub made: Sandbox,
}

impl Start {
    /// Makes `state`, and a source for a release N.
    pub fn new(state: State) -> Self {
        let made = state.build();
        made.source("N");
        Self { made }
    }

    /// A copy of the tree alone, in a place of its own.
    pub fn copy(&self) -> Sandbox {
        let copy = Sandbox::in_memory();
        if self.made.root().exists() {
            copy_all(&self.made.root(), &copy.root());
        }
        copy
    }
}

/// Copies a directory, with modes and times, on the thread it is called on.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let (kind, source, target) = (entry.file_type().unwrap(), entry.path(), to.join(entry.file_name()));
        if kind.is_symlink() {
            symlink(fs::read_link(source).unwrap(), target).unwrap();
        } else if kind.is_dir() {
            copy_all(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            fs::File::open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

#[test]
fn every_state_is_what_its_name_says() {
    let complaints = trace::each(&ALL, |_, state| {
        let start = Start::new(*state);
        let tree = start.copy();
        let live = match state {
            State::Fresh | State::One => None,
            State::Flipped => Some("B".to_owned()),
            _ => Some("C".to_owned()),
        };
        let there = |path: &str| fs::symlink_metadata(tree.at(path)).is_ok();
        let lines = fs::read_to_string(tree.at(".releasectl/journal.jsonl")).unwrap_or_default();
        let open = lines.matches("\"event\":\"begin\"").count() - lines.matches("\"event\":\"done\"").count();
        let trash = tree.at(".releasectl/trash").read_dir().map_or(0, Iterator::count);
        let found =
            (tree.live(), there(".current.releasectl"), trash, there("releases/D"), lines.ends_with('\n'), open);
        let wanted = match state {
            State::Fresh => (live, false, 0, false, false, 0),
            State::One | State::Three => (live, false, 0, false, true, 0),
            State::Trash => (live, false, 1, false, true, 0),
            State::UnfinishedBuild => (live, false, 0, true, true, 1),
            State::UnfinishedDeploy => (live, false, 0, false, true, 1),
            State::Staged => (live, true, 0, false, true, 1),
            State::Flipped => (live, false, 0, false, true, 1),
            State::Torn => (live, false, 0, false, false, 0),
        };
        if found == wanted { Vec::new() } else { vec![format!("{state:?}: {found:?}, not {wanted:?}\n{lines}")] }
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

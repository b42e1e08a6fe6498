//! P9, P16: a process of the tree's user, or of one who may write to a part of a tree of root's, exchanges directories and
//! files for links while a run as root goes through them, slowed down at each of its calls that names a path. Nothing
//! outside the tree is ever changed, and nothing from there is ever copied into it. The same harness catches a program
//! that goes by paths.

use crate::lab::as_root_or_left_out;
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox, Started};
use crate::trace::{each_outside, full};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const NOBODY: u32 = 65534;
/// What must never be found inside the tree.
const SECRET: &str = "precious, and nobody's business";
/// Calls that name a path.
const CALLS: [&str; 10] = [
    "openat",
    "openat2",
    "newfstatat",
    "unlinkat",
    "renameat2",
    "mkdirat",
    "symlinkat",
    "readlinkat",
    "utimensat",
    "fchmodat",
];
/// Exchanges each of the pairs of names it is given, over and over, until its input ends. It holds the directories they
/// are in, so it follows a release that is renamed away. What is not there yet is tried again.
const ATTACKER: &str = r#"
import ctypes, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
pairs = [(a.encode(), b.encode()) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]
held = {}
def held_at(path):
    if path not in held:
        try: held[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError: return None
    return held[path]
print("ready", flush=True)
done = 0
while not select.select([0], [], [], 0)[0]:
    for a, b in pairs:
        at = held_at(os.path.dirname(a))
        if at is None: continue
        name, other = os.path.basename(a), os.path.basename(b)
        if libc.renameat2(at, name, at, other, 2) == 0: done += 1
        elif libc.renameat2(at, name, -100, b, 2) == 0: done += 1
print(done, flush=True)
"#;
/// Deletes a tree as it is often done: it looks at a path, and then goes by it.
const NAIVE: &str = r#"
import os, sys
def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path): remove(os.path.join(path, name))
        try: os.rmdir(path)
        except OSError: pass
    else:
        try: os.unlink(path)
        except OSError: pass
remove(sys.argv[1])
"#;

/// Whose the tree is, and so whom a root run works as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Root; a part of a release belongs to nobody.
    Root,
    /// Nobody, who owns what is outside too.
    Nobody,
}

/// A tree and an attack on it.
pub struct Attacked {
    pub tree: Sandbox,
    /// Pairs of names that are exchanged.
    pairs: Vec<PathBuf>,
}

impl Attacked {
    /// B is live, A was, C is not needed. In A, B and C, and in the source of D, some directories and files have a twin
    /// beside them that leads outside.
    pub fn new(owner: Owner) -> Self {
        let tree = Sandbox::in_memory();
        let outside = tree.beside("outside");
        fs::create_dir_all(outside.join("sub/deep")).unwrap();
        for path in ["file", "sub/file", "sub/deep/file"] {
            fs::write(outside.join(path), SECRET).unwrap();
        }
        tree.done(&["init"]);
        let mut attacked = Self { tree, pairs: Vec::new() };
        for id in ["A", "B", "C"] {
            let source = attacked.code(id);
            attacked.tree.done(&["create", source.to_str().unwrap(), "--id", id]);
        }
        ["A", "B"].iter().for_each(|id| drop(attacked.tree.done(&["activate", id])));
        let code = attacked.code("D");
        let places = ["A", "B", "C"].map(|id| attacked.tree.release(id));
        places.iter().chain([&code]).for_each(|place| attacked.plant(place));
        if owner == Owner::Nobody {
            [attacked.tree.root(), code, outside].iter().for_each(|path| attacked.tree.give_to_nobody(path));
            // What a build makes is attacked while it is made, and what the tree is managed by too.
            let twin = attacked.tree.at("twin");
            symlink(attacked.tree.beside("outside"), &twin).unwrap();
            std::os::unix::fs::lchown(&twin, Some(NOBODY), Some(NOBODY)).unwrap();
            attacked.pairs.extend([attacked.tree.release("D").join("app"), twin]);
        }
        attacked
    }

    /// Code with directories in it, and a recipe that carries one of them over.
    fn code(&self, id: &str) -> PathBuf {
        let source = self.tree.source(id);
        fs::create_dir_all(source.join("theirs/a/b/c")).unwrap();
        for path in ["theirs/1", "theirs/a/1", "theirs/a/b/1", "theirs/a/b/c/1", "theirs/a/b/c/2"] {
            fs::write(source.join(path), path).unwrap();
        }
        fs::create_dir_all(source.join("carried/x")).unwrap();
        fs::write(source.join("carried/x/1"), "1").unwrap();
        if id == "D" {
            fs::remove_dir_all(source.join("carried")).unwrap();
            fs::write(source.join("releasectl.toml"), "[shared]\ncarry = [\"carried\"]\n").unwrap();
        }
        source
    }

    /// Puts a twin that leads outside beside some names of `place`, and gives them to nobody.
    fn plant(&mut self, place: &Path) {
        let outside = self.tree.beside("outside");
        let twins = [("theirs/a", "."), ("theirs/a/b", "sub"), ("theirs/a/b/c", "sub/deep"), ("theirs/1", "file")];
        for (name, to) in twins.into_iter().chain([("carried/x", "sub"), ("carried/x/1", "file")]) {
            let path = place.join(name);
            if !path.exists() {
                continue;
            }
            let twin = path.with_file_name(format!("{}-twin", path.file_name().unwrap().to_str().unwrap()));
            symlink(outside.join(to), &twin).unwrap();
            self.pairs.extend([path, twin]);
        }
        for name in ["theirs", "carried"].map(|name| place.join(name)).iter().filter(|path| path.exists()) {
            self.tree.give_to_nobody(name);
        }
    }

    /// Begins to exchange, as nobody.
    fn begin(&self) -> Started {
        let mut command = self.tree.clean("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", ATTACKER]);
        command.args(&self.pairs).stdin(Stdio::piped()).current_dir("/");
        let mut attacker = Started::new(command);
        let mut ready = [0; 6];
        std::io::Read::read_exact(attacker.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        attacker
    }

    /// Everything outside: path → mode, owner, size, time and content.
    pub fn outside(&self) -> BTreeMap<PathBuf, String> {
        let all = walkdir::WalkDir::new(self.tree.beside("outside")).into_iter().map(Result::unwrap);
        let see = |entry: walkdir::DirEntry| {
            let stat = entry.metadata().unwrap();
            let content =
                if entry.file_type().is_file() { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
            let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
            let time = (stat.mtime(), stat.mtime_nsec());
            (entry.path().to_owned(), format!("{mode:o} {uid}:{gid} {} {time:?} {content:?}", stat.len()))
        };
        all.map(see).collect()
    }

    /// Files of the tree that hold what is outside.
    pub fn leaked(&self) -> Vec<PathBuf> {
        let all = walkdir::WalkDir::new(self.tree.root()).into_iter().flatten();
        let files = all.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
        files.filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(SECRET.as_bytes()))).collect()
    }

    /// A command that is held up for a while before each call of this name.
    fn slowed(&self, call: &str, program: &[&str]) -> Command {
        let mut command = self.tree.clean("timeout");
        let delay = if full() { 4000 } else { 1000 };
        command.args(["60", "strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:delay_enter={delay}:when=1+")]).args(program);
        command
    }

    /// Runs one verb under attack, slowed down at `call`. Returns how often something was exchanged, and complaints.
    fn survives(&self, verb: &[&str], call: &str) -> (usize, Vec<String>) {
        let mut complaints = Vec::new();
        let before = self.outside();
        let mut attacker = self.begin();
        let root = self.tree.root();
        let program = [&[PROGRAM, "--root", root.to_str().unwrap(), "--wait=0s"], verb].concat();
        let output = self.slowed(call, &program).output().unwrap();
        drop(attacker.0.stdin.take());
        let exchanged = attacker.answer().stdout.trim().parse().unwrap_or(0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0 | 1 | 3 | 6) if !said.contains("panicked") => {}
            code => complaints.push(format!("it ends with {code:?}: {said}")),
        }
        if self.outside() != before {
            complaints.push(format!("what is outside has changed: {:?}, not {before:?}\n{said}", self.outside()));
        }
        if self.leaked() != Vec::<PathBuf>::new() {
            complaints.push(format!("what is outside has been copied: {:?}", self.leaked()));
        }
        let listing = self.tree.run(&["list"]);
        if listing.code != 0 {
            complaints.push(format!("the tree cannot be looked at any more: {}", listing.stderr));
        }
        (exchanged, complaints)
    }
}

/// Every verb that goes through a release, at every call, over a tree of this owner's.
fn attacked_everywhere(owner: Owner) {
    if !as_root_or_left_out(&format!("races over a tree of {owner:?}'s")) {
        return;
    }
    let verbs: [(&str, &[&str]); 5] = [
        ("clean", &["clean", "--keep", "0"]),
        ("remove", &["remove", "C"]),
        ("create and carry", &["create", "CODE", "--id", "D"]),
        ("activate", &["activate", "A"]),
        ("verify", &["verify", "B"]),
    ];
    let all: Vec<_> = verbs.iter().flat_map(|verb| CALLS.iter().map(move |call| (*verb, *call))).collect();
    let exchanged = AtomicUsize::new(0);
    let complaints = each_outside(&all, |_, ((name, verb), call)| {
        let attacked = Attacked::new(owner);
        let code = attacked.tree.beside("source-D").display().to_string();
        let verb: Vec<&str> = verb.iter().map(|word| if *word == "CODE" { code.as_str() } else { word }).collect();
        let (times, found) = attacked.survives(&verb, call);
        exchanged.fetch_add(times, Ordering::Relaxed);
        found.into_iter().map(|complaint| format!("{name} slowed at {call}: {complaint}")).collect()
    });
    let exchanged = exchanged.into_inner();
    let _ = writeln!(
        std::io::stderr(),
        "races: a tree of {owner:?}'s: {} runs and {exchanged} exchanges seen, {} complaints",
        all.len(),
        complaints.len()
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(exchanged > 100 * all.len(), "only {exchanged} exchanges: there was no attack");
}

#[test]
fn p09_nothing_outside_changes_while_a_user_exchanges_parts_of_a_tree_of_roots() {
    attacked_everywhere(Owner::Root);
}

#[test]
fn p16_nothing_outside_changes_while_the_trees_own_user_exchanges_parts_of_it() {
    attacked_everywhere(Owner::Nobody);
}

#[test]
fn a_deleter_that_goes_by_paths_is_caught_by_the_same_attack() {
    if !as_root_or_left_out("the naive deleter") {
        return;
    }
    let mut tries = 0;
    eventually("the naive deleter is led outside", || {
        tries += 1;
        let attacked = Attacked::new(Owner::Root);
        let before = attacked.outside();
        let mut attacker = attacked.begin();
        let victim = attacked.tree.release("C");
        attacked.slowed("openat", &["/usr/bin/python3", "-S", "-c", NAIVE, victim.to_str().unwrap()]).output().unwrap();
        drop(attacker.0.stdin.take());
        attacker.answer();
        attacked.outside() != before
    });
    let _ = writeln!(std::io::stderr(), "races: the naive deleter was caught at try {tries}");
}

//! The house keeps its order: the floors of src/lib.rs, the single homes, and the sizes, checked by reading src.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;
const LONGEST_MAIN: usize = 40;

/// The verbs that may use another one, and which.
const COMPOSED: [(&str, &[&str]); 5] = [
    ("rollback", &["activate"]),
    ("deactivate", &["activate"]),
    ("deploy", &["create", "activate", "clean"]),
    ("hotfix", &["create", "activate"]),
    ("remove", &["clean"]),
];
/// Below commands/ and no verbs: what several of them share.
const SHARED: [&str; 11] = [
    "activation",
    "arrival",
    "assemble",
    "bring_up",
    "copies",
    "describe",
    "hooks",
    "inside",
    "programs",
    "tee",
    "way",
];

/// What only one place may do: words of the code, and the files that may hold them.
const HOMES: [(&str, &[&str], &[&str]); 7] = [
    ("programs are started", &["Command::new"], &["tools.rs"]),
    ("the wall clock is read", &["Utc::now", "SystemTime::now", "Local::now", "SystemTime::elapsed"], &["clock.rs"]),
    ("printing", &["print!", "println!", "eprint!", "eprintln!", "stdout()", "stderr()"], &["app.rs", "report/"]),
    ("the process ends", &["process::exit", "process::ExitCode", "libc::_exit"], &["main.rs"]),
    ("flock", &["try_lock_exclusive", "try_lock_shared", "lock_exclusive", "lock_shared", "fs2"], &["lock.rs"]),
    ("syncs", &["fsync", "fdatasync", "syncfs", "sync_all", "sync_data"], &["durable.rs"]),
    ("the lock's own file is written", &[".set_len("], &["lock.rs", "durable.rs"]),
];

/// What changes a file system. Only floor 1 may.
const MUTATIONS: &[&str] = &[
    "fs::write",
    "fs::rename",
    "fs::remove_",
    "fs::create_dir",
    "fs::copy",
    "fs::hard_link",
    "fs::set_permissions",
    "fs::symlink(",
    "fs::soft_link",
    "DirBuilder",
    "File::create",
    "OpenOptions",
    ".set_permissions(",
    ".set_times(",
    "fchmod",
    "chown",
    "unlink(",
    "unlinkat",
    "renameat",
    "mkdirat",
    "mkfifo",
    "mknod",
    "symlinkat",
    "linkat(",
    "utimensat",
    "futimens",
    "ftruncate",
    "fallocate",
    "setxattr",
    "removexattr",
    "nix::mount",
    "SYS_renameat2",
    "copy_file_range",
];
/// Methods of our own `Dir` that share a name with a system call.
const OWN_METHODS: [&str; 1] = [".unlink("];

#[test]
fn every_file_imports_only_from_below() {
    let house = House::read(&source("lib.rs"));
    let wrong: Vec<String> = files().iter().flat_map(|(file, text)| house.wrong_imports(file, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_made_up_upward_import_is_caught() {
    let house = House::read(&source("lib.rs"));
    let caught = |file: &str, text: &str| house.wrong_imports(Path::new(file), text).len();
    assert_eq!(caught("journal.rs", "use crate::durable::{append_line, sync_file};"), 0);
    assert_eq!(caught("durable.rs", "use crate::journal::Journal;"), 1, "a lower floor");
    assert_eq!(caught("lock.rs", "use crate::{clock::Clock, tree::{Tree, Live}};"), 1, "the same floor, from above");
    assert_eq!(caught("pin.rs", "fn f() { crate::commands::list::run() }"), 1, "without a use");
    assert_eq!(caught("tree/flip.rs", "use super::super::app;"), 1, "by way of the roof");
    assert_eq!(caught("pin.rs", "use super::tree;"), 1, "by way of the roof");
    assert_eq!(caught("commands/list.rs", "use super::{Context, clean::{Clean, sweep}};"), 1, "a verb by a verb");
    assert_eq!(caught("commands/list.rs", "fn f() { super::clean::run() }"), 1, "a verb by a verb");
    assert_eq!(caught("commands/list.rs", "use crate::commands::clean::Clean;"), 1, "a verb by a verb");
    assert_eq!(caught("commands/rollback.rs", "use super::activate::flip;"), 0);
    assert_eq!(caught("pin.rs", "// use crate::tree;\nconst A: &str = \"crate::tree\";"), 0, "only said");
    assert_eq!(caught("attic.rs", ""), 1, "not on the map");
}

#[test]
fn the_map_names_every_module_and_the_floors_in_order() {
    let house = House::read(&source("lib.rs"));
    assert_eq!(house.floors.iter().map(|(floor, _)| *floor).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    let on_map: BTreeSet<String> = house.floors.iter().flat_map(|(_, modules)| modules.clone()).collect();
    let beside = |file: &PathBuf| !["lib.rs", "main.rs"].iter().any(|name| file == Path::new(name));
    let on_disk: BTreeSet<String> =
        files().iter().map(|(file, _)| file).filter(|f| beside(f)).map(|f| top(f)).collect();
    assert_eq!(on_map, on_disk);
}

#[test]
fn what_has_a_single_home_stays_there() {
    let house = House::read(&source("lib.rs"));
    for (file, text) in files() {
        let code = code_of(&text);
        let shown = file.display().to_string();
        for (what, words, homes) in HOMES {
            let here = words.iter().find(|word| code.contains(*word));
            let home = homes.iter().any(|home| shown == *home || home.ends_with('/') && shown.starts_with(home));
            assert!(here.is_none() || home, "{shown}: {what} only in {homes:?}, not by {here:?}");
        }
        if house.floor(&top(&file)) != Some(1) {
            let calls = OWN_METHODS.iter().fold(code, |code, own| code.replace(own, ""));
            let here = MUTATIONS.iter().find(|word| calls.contains(*word));
            assert!(here.is_none(), "{shown}: only floor 1 changes the file system, not {here:?}");
        }
    }
}

#[test]
fn nouns_and_ground_know_nothing_of_the_world() {
    let house = House::read(&source("lib.rs"));
    for (file, text) in files().into_iter().filter(|(file, _)| house.floor(&top(file)) == Some(2)) {
        let code = code_of(&text);
        for word in ["std::fs", "std::io", "std::env", "std::process", "std::thread", "nix::", "Clock", "Instant"] {
            assert!(!code.contains(word), "{}: a noun is pure, without {word}", file.display());
        }
    }
}

#[test]
fn files_and_functions_stay_small_and_finished() {
    for (file, text) in files() {
        let shown = file.display();
        let lines = text.lines().count();
        let most = if file == Path::new("main.rs") { LONGEST_MAIN } else { LONGEST_FILE - 1 };
        assert!(lines <= most, "{shown} has {lines} lines, not at most {most}");
        for (name, lines) in functions(&code_of(&text)) {
            assert!(lines < LONGEST_FUNCTION, "{shown}: fn {name} has {lines} lines");
        }
        for word in ["TODO", "FIXME", "XXX", "todo!", "unimplemented!"] {
            assert!(!text.contains(word), "{shown} holds a {word}");
        }
        let stem = file.file_stem().unwrap().to_str().unwrap();
        for word in ["util", "helper", "manager", "misc", "data", "info"] {
            assert!(!stem.split('_').any(|part| part.trim_end_matches('s') == word), "{shown}: what is a {word}?");
        }
    }
}

#[test]
fn the_reader_of_code_sees_neither_comments_nor_texts_nor_unit_tests() {
    let code =
        code_of("a /* b /* c */ d */ e // f\n\"g \\\" h\" i r#\"j \" k\"# l '\"' m 'n' <'o> \"p\"\n#[cfg(test)]\nq");
    let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    assert_eq!(words, ["a", "e", "i", "l", "m", "o"]);
    assert_eq!(functions("fn a() {\n{\n}\n}\nfn b();\nfn c() {}\n"), [("a".to_owned(), 4), ("c".to_owned(), 1)]);
}

/// The map of src/lib.rs.
struct House {
    floors: Vec<(u8, Vec<String>)>,
}

impl House {
    /// Reads `// 5 — words` and the modules under it, from the top of the house to the bottom.
    fn read(map: &str) -> Self {
        let mut floors: Vec<(u8, Vec<String>)> = Vec::new();
        for line in map.lines() {
            if let Some((floor, _)) = line.strip_prefix("// ").and_then(|line| line.split_once(" — ")) {
                floors.push((floor.parse().unwrap(), Vec::new()));
            } else if let Some(name) = line.strip_prefix("pub mod ") {
                let (_, modules) = floors.last_mut().unwrap();
                modules.push(name.trim_end_matches(';').to_owned());
            }
        }
        Self { floors }
    }

    fn floor(&self, module: &str) -> Option<u8> {
        self.floors.iter().find(|(_, modules)| modules.iter().any(|name| name == module)).map(|(floor, _)| *floor)
    }

    /// How far down a module stands, counted from the roof.
    fn depth(&self, module: &str) -> Option<usize> {
        self.floors.iter().flat_map(|(_, modules)| modules).position(|name| name == module)
    }

    /// What `file` (relative to src) imports and may not.
    fn wrong_imports(&self, file: &Path, text: &str) -> Vec<String> {
        if file == Path::new("main.rs") || file == Path::new("lib.rs") {
            return Vec::new();
        }
        let (own, code, shown) = (top(file), code_of(text), file.display());
        let Some(depth) = self.depth(&own) else { return vec![format!("{shown} is not on the map of src/lib.rs")] };
        let mut wrong = Vec::new();
        for other in named_after("crate::", &code).into_iter().filter(|other| *other != own) {
            match self.depth(&other) {
                Some(at) if at > depth => {}
                Some(_) => wrong.push(format!("{shown} imports {other}, which stands above it")),
                None => wrong.push(format!("{shown} imports {other}, which is not on the map")),
            }
        }
        let at_top = file.parent() == Some(Path::new(""));
        if code.contains("super::super::") || at_top && code.contains("super::") {
            wrong.push(format!("{shown} goes by way of the roof: write crate::"));
        }
        if own == "commands" && !at_top {
            wrong.extend(wrong_verbs(file, &code));
        }
        wrong
    }
}

/// The other verbs that one verb uses and may not.
fn wrong_verbs(file: &Path, code: &str) -> Vec<String> {
    let verb = file.file_stem().unwrap().to_str().unwrap();
    let allowed = COMPOSED.iter().find(|(name, _)| *name == verb).map_or(&[][..], |(_, used)| *used);
    let verbs = |name: &String| source_root().join("commands").join(format!("{name}.rs")).exists();
    let named = named_after("super::", code).into_iter().chain(named_after("crate::commands::", code));
    let named = named.filter(verbs).filter(|name| name != verb);
    let wrong = named.filter(|name| !allowed.contains(&name.as_str()) && !SHARED.contains(&name.as_str()));
    wrong.map(|name| format!("commands/{verb}.rs uses the verb {name}")).collect()
}

/// The names that follow `root` in paths: `crate::a::b` and `crate::{a::b, c::{d, e}}` name a and c.
fn named_after(root: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let rest = &code[at + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first_word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (here, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(first_word(&group[start..here]));
                    start = here + 1;
                }
                _ => {}
            }
            if c == '}' && depth == 0 && start == here + 1 {
                break;
            }
        }
    }
    names.remove("");
    names
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The lines of each function that has a body, its signature included.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| *at == 0 || !code[..*at].ends_with(char::is_alphanumeric))
    {
        let (mut depth, mut lines) = (0, 1);
        for c in code[at..].chars() {
            match c {
                '\n' => lines += 1,
                ';' if depth == 0 => break,
                '{' | '[' | '(' => depth += 1,
                '}' | ']' | ')' => depth -= 1,
                _ => {}
            }
            if c == '}' && depth == 0 {
                found.push((first_word(&code[at + 3..]), lines));
                break;
            }
        }
    }
    found.retain(|(name, _)| !name.is_empty());
    found
}

/// The code alone: unit tests, comments and the content of texts are left out, line ends are kept.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skipped(rest);
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        if skipped == 0 {
            code.push(c);
        }
        // A raw text is begun only where a word begins.
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let taken = if skipped > 0 { skipped } else { word.max(c.len_utf8()) };
        code.push_str(if skipped > 0 { "" } else { &rest[c.len_utf8()..taken] });
        rest = &rest[taken..];
    }
    code
}

/// How long the comment or text is that `code` begins with; zero if it begins with neither.
fn skipped(code: &str) -> usize {
    let until = |from: usize, end: &str| code[from..].find(end).map_or(code.len(), |at| from + at + end.len());
    if code.starts_with("//") {
        return until(0, "\n") - 1;
    }
    if code.starts_with("/*") {
        let mut depth = 0;
        for (at, pair) in code.as_bytes().windows(2).enumerate() {
            depth += i32::from(pair == b"/*") - i32::from(pair == b"*/");
            if depth == 0 {
                return at + 2;
            }
        }
        return code.len();
    }
    if let Some(raw) = code.strip_prefix('r').filter(|rest| rest.trim_start_matches('#').starts_with('"')) {
        let hashes = &raw[..raw.find('"').unwrap()];
        return until(2 + hashes.len(), &format!("\"{hashes}"));
    }
    let quoted = |quote: char| {
        let mut escaped = true;
        code.find(|c: char| {
            let end = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            end
        })
    };
    match code.chars().next() {
        Some('"') => quoted('"').map_or(code.len(), |at| at + 1),
        // A letter in quotes, not a lifetime.
        Some('\'') if code[1..].starts_with('\\') || code.chars().nth(2) == Some('\'') => {
            quoted('\'').map_or(0, |at| at + 1)
        }
        _ => 0,
    }
}

/// The module of the map that a file belongs to.
fn top(file: &Path) -> String {
    let first = file.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn source(name: &str) -> String {
    fs::read_to_string(source_root().join(name)).unwrap()
}

/// Every file of src: its path there, and its text.
fn files() -> Vec<(PathBuf, String)> {
    let walk = walkdir::WalkDir::new(source_root()).into_iter().map(Result::unwrap);
    let code = walk.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "rs"));
    code.map(|entry| {
        let path = entry.path().strip_prefix(source_root()).unwrap().to_owned();
        (path, fs::read_to_string(entry.path()).unwrap())
    })
    .collect()
}

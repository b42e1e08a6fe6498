//! What a commit holds: its directories and the files in them, as `git ls-tree` tells.

use super::{Result, refuse_own};
use crate::tree::{Blob, parse_blob};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    Plain,
    /// One that may be run.
    Executable,
    /// A link; its content is its target.
    Link,
}

/// A file or link.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: OsString,
    pub(super) kind: Kind,
    pub(super) blob: Blob,
}

/// A directory and the files in it.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// The number of the one it is in.
    pub(super) above: usize,
    /// The names of those in it.
    pub(super) below: Vec<OsString>,
    pub(super) files: Vec<File>,
}

/// Everything in a commit, submodules as empty directories. A directory comes before those in it; the root is the first.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) folders: Vec<Folder>,
    /// Whether submodules are among them.
    pub(super) has_submodules: bool,
}

impl Contents {
    /// Reads what `git ls-tree -r -t -z` says, to its end; `None` if there is anything that git itself might not check
    /// out, or that is not what git writes.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Result<Option<Self>>> {
        let mut reading = Reading::default();
        let (mut line, mut told) = (Vec::new(), Ok(Some(())));
        while from.read_until(0, &mut line)? > 0 {
            if matches!(told, Ok(Some(()))) {
                told = reading.line(line.strip_suffix(b"\0").unwrap_or(&line));
            }
            line.clear();
        }
        Ok(told.map(|told| told.map(|()| reading.contents)))
    }

    /// The folders' numbers by their paths.
    pub(super) fn numbers(&self) -> HashMap<&OsStr, usize> {
        self.folders.iter().enumerate().map(|(number, folder)| (folder.path.as_os_str(), number)).collect()
    }

    /// Every file with this name.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &File> {
        self.folders.iter().flat_map(|folder| &folder.files).filter(move |file| file.name == name)
    }
}

/// Contents as far as they have been read.
struct Reading {
    contents: Contents,
    /// The folders' numbers.
    by_path: HashMap<Vec<u8>, usize>,
}

impl Default for Reading {
    fn default() -> Self {
        let contents = Contents { folders: vec![Folder::default()], has_submodules: false };
        Self { contents, by_path: HashMap::from([(Vec::new(), 0)]) }
    }
}

impl Reading {
    /// Takes in one line; `None` if it is git's to judge.
    fn line(&mut self, line: &[u8]) -> Result<Option<()>> {
        let fields = fields(line).filter(|(_, _, path)| !path.is_empty());
        let Some((mode, hash, path)) = fields else { return Ok(None) };
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = slash.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let above = self.by_path.get(above).copied();
        let Some(above) = above.filter(|_| path[0] != b'/' && is_plain(name, mode)) else { return Ok(None) };
        if above == 0 {
            refuse_own(OsStr::from_bytes(name))?;
        }
        let folders = &mut self.contents.folders;
        let kind = match mode {
            0o040_000 | 0o160_000 => {
                self.contents.has_submodules |= mode == 0o160_000;
                folders[above].below.push(OsStr::from_bytes(name).to_owned());
                let number = folders.len();
                folders.push(Folder { path: OsStr::from_bytes(path).into(), above, ..Folder::default() });
                return Ok(self.by_path.insert(path.to_owned(), number).is_none().then_some(()));
            }
            0o120_000 => Kind::Link,
            0o100_000..=0o100_777 if mode & 0o100 != 0 => Kind::Executable,
            0o100_000..=0o100_777 => Kind::Plain,
            _ => return Ok(None),
        };
        let Some(blob) = parse_blob(hash) else { return Ok(None) };
        folders[above].files.push(File { name: OsStr::from_bytes(name).to_owned(), kind, blob });
        Ok(Some(()))
    }
}

/// `mode type hash\tpath`
fn fields(line: &[u8]) -> Option<(u32, &str, &[u8])> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let mut words = std::str::from_utf8(&line[..at]).ok()?.split(' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    Some((mode, words.nth(1)?, &line[at + 1..]))
}

/// Whether git takes this name for an ordinary one on every system. What it does with others it decides itself.
fn is_plain(name: &[u8], mode: u32) -> bool {
    let lower = name.to_ascii_lowercase();
    let own = lower.strip_prefix(b".git").is_some_and(|rest| rest.first().is_none_or(|b| b" .:\\".contains(b)));
    let short = lower.starts_with(b"git~");
    let link = mode == 0o120_000 && (lower.starts_with(b".git") || lower.starts_with(b"gi"));
    !(name.is_empty() || name == b"." || name == b".." || own || short || link)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789012345678901234567890123456789";

    fn parsed(lines: &[&str]) -> Result<Option<Contents>> {
        let listed = lines.iter().map(|line| line.replace('#', HASH) + "\0").collect::<String>();
        Contents::read(&mut listed.as_bytes()).unwrap()
    }

    #[test]
    fn files_are_found_in_their_directories() {
        let lines = ["040000 tree #\ta", "100755 blob #\ta/run", "120000 blob #\ta/x", "160000 commit #\tlib"];
        let contents = parsed(&lines).unwrap().unwrap();
        let paths: Vec<_> = contents.folders.iter().map(|folder| folder.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["", "a", "lib"]);
        let kinds: Vec<_> = contents.folders[1].files.iter().map(|file| file.kind).collect();
        assert_eq!(kinds, [Kind::Executable, Kind::Link]);
        assert_eq!(contents.named("run").count(), 1);
        assert!(contents.has_submodules && !parsed(&lines[..3]).unwrap().unwrap().has_submodules);
    }

    #[test]
    fn p17_what_only_git_can_judge_is_left_to_it() {
        for name in ["..", ".", ".git", ".GIT", ".git ", ".git.", ".git::$DATA", "git~1", "GIT~1", "/x"] {
            assert!(parsed(&[&format!("100644 blob #\t{name}")]).unwrap().is_none(), "{name:?}");
        }
        for name in [".gitignore", ".gitmodules", ".github", "gitk", ".gi", "...", "a b"] {
            assert!(parsed(&[&format!("100644 blob #\t{name}")]).unwrap().is_some(), "{name:?}");
        }
        for lines in [&["100644 blob #\ta/b"][..], &["040000 tree #\ta", "040000 tree #\ta"], &["nonsense"]] {
            assert!(parsed(lines).unwrap().is_none(), "{lines:?}");
        }
        assert!(parsed(&["120000 blob #\t.gitmodules"]).unwrap().is_none());
        assert!(parsed(&["040000 tree #\t.releasectl"]).is_err());
        assert!(parsed(&["100644 blob #\tKEEP_UNTIL__forever"]).is_err());
    }
}

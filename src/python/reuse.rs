//! An earlier release's environment, linked into the next one.
//!
//! Every file of it becomes a hard link (a copy where the file system cannot), so a live release's files are shared:
//! nothing here ever writes to a file that exists. What names the old release is written anew, with the old mode and
//! time; bytecode of such files is left out and compiled again. Links that name it are made with the new target.
//! That the earlier environment is what was built then is known by its seal, which is taken while linking; that the new
//! one works, by running it. Whatever does not hold makes it unfit, and the environment is built afresh.

use super::bytecode::{self, CACHE};
use super::interpreter::{self, Interpreter};
use super::record::Record;
use super::rewrite::{Rewrite, spellings};
use super::seal::{self, Part, Seal};
use super::{Made, Order, PythonError, Sink, make_parent, name_of, path_of, split};
use crate::directory::{Dir, PathError};
use crate::transfer::copy_entry;
use crate::tree::{Item, Listing, Seen};
use crate::walk::{Visit, walk};
use nix::errno::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The longest file that is written anew.
const LONGEST: u64 = 64 << 20;
/// The longest first line that every kernel accepts after `#!`; installers write a detour for longer ones.
const SHEBANG: usize = 127;

/// Why an environment was not linked.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It does not fit; another one may be built.
    Unfit(String),
    /// Nothing more can be done here.
    Failed(PythonError),
}

impl From<PathError> for Obstacle {
    fn from(error: PathError) -> Self {
        if error.is_full() { Self::Failed(error.into()) } else { Self::Unfit(error.to_string()) }
    }
}

impl From<PythonError> for Obstacle {
    fn from(error: PythonError) -> Self {
        match error {
            PythonError::Path(error) => error.into(),
            PythonError::Dead { .. } => Self::Unfit(error.to_string()),
            error => Self::Failed(error),
        }
    }
}

pub(super) fn unfit<T>(why: impl Into<String>) -> Result<T, Obstacle> {
    Err(Obstacle::Unfit(why.into()))
}

/// Makes the environment `order` asks for out of the one of `previous`, and returns what is to be recorded, and what is in
/// it.
pub(super) fn link(
    order: &Order<'_>,
    interpreter: &Interpreter,
    previous: &Dir,
    sink: &mut Sink<'_>,
) -> Result<(Record, Listing), Obstacle> {
    let (record, sealed) = fitting(order, interpreter, previous)?;
    let old = previous.open_below(&order.plan.directory)?;
    let (_, name) = split(&order.plan.directory)?;
    let new = make_parent(order)?.make_dir(name, 0o700)?;
    let (Some(from), Some(to)) = (spellings(previous)?, spellings(order.release)?) else {
        return unfit("a path has characters that are written differently in different files");
    };
    let linking = Linking::new(&old, &new, Rewrite::new(from, to), &sealed);
    let parts = walk(|path, above| linking.directory(path, above))?;
    let digest = seal::total(parts.iter().map(|(path, linked)| (path.as_path(), linked.part)));
    let rewritten: Vec<PathBuf> = parts.iter().flat_map(|(_, linked)| linked.rewritten.iter().cloned()).collect();
    if digest != sealed.digest || rewritten.len() != sealed.naming.len() {
        return unfit("its environment has been changed since it was made");
    }
    let mut sources: Vec<PathBuf> = parts.iter().flat_map(|(_, linked)| linked.uncompiled.iter().cloned()).collect();
    sources.sort_unstable();
    sources.dedup();
    bytecode::compile(order.tools, &new, &sources, sink)?;
    let seen = interpreter::look_around(order.tools, &path_of(order))?;
    if seen.distributions.len() != record.environment.packages {
        return unfit(format!(
            "linked, it shows {} packages and not {}",
            seen.distributions.len(),
            record.environment.packages
        ));
    }
    let (digest, listing) = seen_again(&new, parts)?;
    let seal = Some(Seal { digest, naming: sealed.naming });
    let mut environment = record.environment;
    environment.made = Made::Linked;
    environment.from = Some(name_of(previous));
    environment.because = None;
    Ok((Record { finished: true, release: order.release.path().to_owned(), environment, seal }, listing))
}

/// The earlier environment's record and seal, if it is what is asked for now.
fn fitting(order: &Order<'_>, interpreter: &Interpreter, previous: &Dir) -> Result<(Record, Seal), Obstacle> {
    if let Some(why) = &order.plan.bound {
        return unfit(why);
    }
    let Some(record) = Record::read(previous)? else { return unfit("it has no environment of ours") };
    if let Some(why) = record.unlike(order.plan, interpreter) {
        return unfit(why);
    }
    if !record.is_of(previous) {
        return unfit(format!("it was made at {}", record.release.display()));
    }
    match record.seal.clone() {
        Some(sealed) => Ok((record, sealed)),
        None => unfit("its environment cannot be shared"),
    }
}

/// One environment being linked from another.
struct Linking<'a> {
    old: &'a Dir,
    new: &'a Dir,
    rewrite: Rewrite,
    /// By directory, the names of the files that name their release.
    naming: HashMap<&'a Path, Vec<&'a OsStr>>,
}

/// What became of one directory.
struct Linked {
    /// Its part of the old environment's seal.
    part: [u8; 32],
    /// What is in the old directory, which is what is in the new one unless something was made anew.
    items: Vec<Item>,
    /// The files that were written anew.
    rewritten: Vec<PathBuf>,
    /// The files of which bytecode was left out.
    uncompiled: Vec<PathBuf>,
    /// Whether something in it is no other name of the old file.
    anew: bool,
}

/// An old directory and the new one that corresponds to it.
type Pair = (Dir, Dir);

/// The digest of the new environment and what is in it. Both are as in the old one but for the directories in which
/// something was made anew, and for their bytecode: links share everything that is looked at, and copies keep it.
fn seen_again(new: &Dir, parts: Vec<(PathBuf, Linked)>) -> Result<(String, Listing), Obstacle> {
    let anew: HashSet<PathBuf> = parts.iter().filter(|(_, linked)| linked.anew).map(|(path, _)| path.clone()).collect();
    let is_anew = |path: &Path| {
        anew.contains(path) || (path.ends_with(CACHE) && path.parent().is_some_and(|above| anew.contains(above)))
    };
    let (mut digests, mut listing) = (Vec::with_capacity(parts.len()), Listing::with_capacity(parts.len()));
    for (path, linked) in parts {
        let again = if is_anew(&path) { Some(seal::again(new, &path)?) } else { None };
        let (part, items) = again.map_or((linked.part, linked.items), |again| (again.part, again.items));
        digests.push(part);
        listing.push((path, items));
    }
    let digest = seal::total(listing.iter().map(|(path, _)| path.as_path()).zip(digests));
    Ok((digest, listing))
}

impl<'a> Linking<'a> {
    fn new(old: &'a Dir, new: &'a Dir, rewrite: Rewrite, sealed: &'a Seal) -> Self {
        let mut naming: HashMap<&Path, Vec<&OsStr>> = HashMap::new();
        for (above, name) in sealed.naming.iter().filter_map(|path| path.parent().zip(path.file_name())) {
            naming.entry(above).or_default().push(name);
        }
        Self { old, new, rewrite, naming }
    }

    /// Makes one directory and links what is in it.
    fn directory(&self, path: &Path, above: Option<&Pair>) -> Result<Visit<Pair, Linked>, Obstacle> {
        let old = seal::open(self.old, path, above.map(|(old, _)| old))?;
        let mode = old.own_stat()?.st_mode & 0o777;
        let new = match (above, path.file_name()) {
            (Some((_, above)), Some(name)) => above.make_dir(name, mode)?,
            (None, Some(name)) => self.new.open_below(path.parent().unwrap_or(path))?.make_dir(name, mode)?,
            (_, None) => self.new.duplicate()?,
        };
        if new.own_stat()?.st_mode & 0o777 != mode {
            new.set_mode(mode)?;
        }
        let (mut below, mut rewritten, mut uncompiled) = (Vec::new(), Vec::new(), Vec::new());
        let (items, mut part, mut anew) = (seal::entries(&old)?, Part::default(), false);
        let naming = self.naming.get(path);
        for item in &items {
            let Item { name, seen, target, .. } = item;
            part.add(item);
            if seen.is_dir() {
                below.push(name.clone());
            } else if !seen.is_file() {
                new.symlink(name, &OsString::from_vec(self.rewrite.apply(target.as_bytes())))?;
                anew = true;
            } else if naming.is_some_and(|naming| naming.contains(&name.as_os_str())) {
                put(&new, name, &renamed(&self.rewrite, &old, name)?, seen)?;
                rewritten.push(path.join(name));
                anew = true;
            } else if let Some(source) = self.outdated(path, name) {
                uncompiled.push(source);
            } else {
                share(&old, &new, name)?;
            }
        }
        let linked = Linked { part: part.end(), items, rewritten, uncompiled, anew };
        Ok(Visit { handle: (old, new), below, found: linked })
    }

    /// The source that is written anew, if the file is bytecode of one.
    fn outdated(&self, path: &Path, name: &OsStr) -> Option<PathBuf> {
        let above = path.parent().filter(|_| path.ends_with(CACHE))?;
        let mut source = bytecode::stem(name)?;
        source.push(".py");
        self.naming.get(above)?.contains(&source.as_os_str()).then(|| above.join(source))
    }
}

/// What the file says with the new path in place of the old one.
pub(super) fn renamed(rewrite: &Rewrite, dir: &Dir, name: &OsStr) -> Result<Vec<u8>, Obstacle> {
    let Some(text) = dir.read_file(name, LONGEST)? else { return unfit("a file has just been removed") };
    let path = || dir.path().join(name).display().to_string();
    if text.contains(&0) && !rewrite.keeps_lengths() {
        return unfit(format!("{} names its release and is no text", path()));
    }
    let made = rewrite.apply(&text);
    if shebang(&made) > SHEBANG && shebang(&text) <= SHEBANG {
        return unfit(format!("the first line of {} would become too long", path()));
    }
    Ok(made)
}

/// Writes a new file with the mode and time of the one it stands for.
pub(super) fn put(dir: &Dir, name: &OsStr, text: &[u8], like: &Seen) -> Result<(), Obstacle> {
    let mut file = dir.create_file(name, 0o600)?;
    file.write_all(text).map_err(|cause| PathError::new("write", dir.path().join(name), cause))?;
    dir.set_file_mode(&file, name, like.mode & 0o777)?;
    Ok(dir.set_mtime(name, like.changed.0, like.changed.1)?)
}

/// The length of the line that names a script's interpreter; 0 if there is none.
fn shebang(text: &[u8]) -> usize {
    if text.starts_with(b"#!") { text.iter().take_while(|byte| **byte != b'\n').count() } else { 0 }
}

/// Links a file, or copies it where that cannot be: another file system, one without links, too many of this one.
fn share(old: &Dir, new: &Dir, name: &OsStr) -> Result<(), Obstacle> {
    let Err(error) = old.hard_link(name, new) else { return Ok(()) };
    let cannot = [Errno::EXDEV, Errno::EMLINK, Errno::EPERM, Errno::EOPNOTSUPP];
    if !cannot.into_iter().any(|errno| error.is(errno)) {
        return Err(error.into());
    }
    copy_entry(old, name, new, &|_| {})?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_line_with_an_interpreter_counts() {
        assert_eq!(shebang(b"#!/bin/sh\necho\n"), 9);
        assert_eq!(shebang(b"echo\n#!/bin/sh\n"), 0);
    }
}

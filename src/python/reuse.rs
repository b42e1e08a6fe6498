//! An earlier release's environment, linked into the next one.
//!
//! Every file of it becomes a hard link (a copy where the file system cannot), so a live release's files are shared:
//! nothing here ever writes to a file that exists. What names the old release is written anew, with the old mode and
//! time; bytecode of such files is left out and compiled again. Links that name it are made with the new target.
//! That the earlier environment is what was built then is known by its seal, which is taken while linking; that the new
//! one works, by running it. Whatever does not hold makes it unfit, and the environment is built afresh.

use super::interpreter::{self, Interpreter};
use super::record::Record;
use super::rewrite::{Rewrite, spellings};
use super::seal::{self, Entry, Part, Seal};
use super::walk::{Visit, walk};
use super::{Made, Order, PythonError, Sink, bytecode, make_parent, name_of, path_of, split};
use crate::directory::{Dir, PathError};
use crate::transfer::copy_entry;
use nix::errno::Errno;
use nix::sys::stat::FileStat;
use std::collections::HashSet;
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

fn unfit<T>(why: impl Into<String>) -> Result<T, Obstacle> {
    Err(Obstacle::Unfit(why.into()))
}

/// Makes the environment `order` asks for out of the one of `previous`, and returns what is to be recorded.
pub(super) fn link(
    order: &Order<'_>,
    interpreter: &Interpreter,
    previous: &Dir,
    sink: &mut Sink<'_>,
) -> Result<Record, Obstacle> {
    let (record, sealed) = fitting(order, interpreter, previous)?;
    let old = previous.open_below(&order.plan.directory)?;
    let (_, name) = split(&order.plan.directory)?;
    let new = make_parent(order)?.make_dir(name, 0o700)?;
    new.set_mode(old.own_stat()?.st_mode & 0o777)?;
    let (Some(from), Some(to)) = (spellings(previous)?, spellings(order.release)?) else {
        return unfit("a path has characters that are written differently in different files");
    };
    let linking = Linking::new(&old, &new, Rewrite::new(from, to), &sealed);
    let parts = walk(|path| linking.directory(path))?;
    let digest = seal::total(parts.iter().map(|(path, (part, _))| (path.as_path(), *part)));
    let rewritten: Vec<PathBuf> = parts.into_iter().flat_map(|(_, (_, rewritten))| rewritten).collect();
    if digest != sealed.digest || rewritten.len() != sealed.naming.len() {
        return unfit("its environment has been changed since it was made");
    }
    let sources: Vec<PathBuf> =
        rewritten.iter().filter(|path| path.extension() == Some(OsStr::new("py"))).cloned().collect();
    bytecode::compile(order.tools, &new, &sources, sink)?;
    let seen = interpreter::look_around(order.tools, &path_of(order))?;
    if seen.distributions.len() != record.environment.packages {
        return unfit(format!(
            "linked, it shows {} packages and not {}",
            seen.distributions.len(),
            record.environment.packages
        ));
    }
    let seal = Some(seal::take_again(&new, &sealed.naming)?);
    let mut environment = record.environment;
    environment.made = Made::Linked;
    environment.from = Some(name_of(previous));
    environment.because = None;
    Ok(Record { finished: true, release: order.release.path().to_owned(), environment, seal })
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
    naming: HashSet<&'a Path>,
}

/// A directory's part of the old environment's seal, and the files that were written anew.
type Linked = ([u8; 32], Vec<PathBuf>);

impl<'a> Linking<'a> {
    fn new(old: &'a Dir, new: &'a Dir, rewrite: Rewrite, sealed: &'a Seal) -> Self {
        Self { old, new, rewrite, naming: sealed.naming.iter().map(PathBuf::as_path).collect() }
    }

    /// Links one directory's entries.
    fn directory(&self, path: &Path) -> Result<Visit<Linked>, Obstacle> {
        let (old, new) = (self.old.open_below(path)?, self.new.open_below(path)?);
        let (mut below, mut rewritten, mut part) = (Vec::new(), Vec::new(), Part::default());
        for (name, stat, entry) in seal::entries(&old)? {
            part.add(&name, &stat, &entry);
            match entry {
                Entry::Directory => {
                    new.make_dir(&name, 0o700)?.set_mode(stat.st_mode & 0o777)?;
                    below.push(name);
                }
                Entry::Link(target) => {
                    let target = OsString::from_vec(self.rewrite.apply(target.as_bytes()));
                    new.symlink(&name, &target)?;
                }
                Entry::File if self.naming.contains(path.join(&name).as_path()) => {
                    self.write_anew(&old, &new, &name, &stat)?;
                    rewritten.push(path.join(&name));
                }
                Entry::File if self.is_stale(path, &name) => {}
                Entry::File => share(&old, &new, &name)?,
            }
        }
        Ok((below, (part.end(), rewritten)))
    }

    /// Whether a file is the bytecode of one that is written anew.
    fn is_stale(&self, path: &Path, name: &OsStr) -> bool {
        let Some(above) = path.parent().filter(|_| path.ends_with("__pycache__")) else { return false };
        bytecode::stem(name).is_some_and(|mut stem| {
            stem.push(".py");
            self.naming.contains(above.join(stem).as_path())
        })
    }

    /// Writes a new file that names the new release where the old one named the old.
    fn write_anew(&self, old: &Dir, new: &Dir, name: &OsStr, stat: &FileStat) -> Result<(), Obstacle> {
        let Some(text) = old.read_file(name, LONGEST)? else { return unfit("a file has just been removed") };
        let path = || old.path().join(name).display().to_string();
        if text.contains(&0) && !self.rewrite.keeps_lengths() {
            return unfit(format!("{} names its release and is no text", path()));
        }
        let made = self.rewrite.apply(&text);
        if shebang(&made) > SHEBANG && shebang(&text) <= SHEBANG {
            return unfit(format!("the first line of {} would become too long", path()));
        }
        let mut file = new.create_file(name, 0o600)?;
        file.write_all(&made).map_err(|cause| PathError::new("write", new.path().join(name), cause))?;
        new.set_file_mode(&file, name, stat.st_mode & 0o777)?;
        Ok(new.set_mtime(name, stat.st_mtime, stat.st_mtime_nsec)?)
    }
}

/// The length of the line that names a script's interpreter; 0 if there is none.
fn shebang(text: &[u8]) -> usize {
    if text.starts_with(b"#!") { text.iter().take_while(|byte| **byte != b'\n').count() } else { 0 }
}

/// Links a file, or copies it where that cannot be: another file system, one without links, too many of this one.
fn share(old: &Dir, new: &Dir, name: &OsStr) -> Result<(), Obstacle> {
    let Err(error) = old.hard_link(name, new) else { return Ok(()) };
    let errno = error.cause.raw_os_error();
    let cannot = [Errno::EXDEV, Errno::EMLINK, Errno::EPERM, Errno::EOPNOTSUPP];
    if !cannot.iter().any(|known| errno == Some(*known as i32)) {
        return Err(error.into());
    }
    copy_entry(old, name, new, &mut |_| {})?;
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

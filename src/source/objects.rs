//! Files written straight from a repository's objects: `git cat-file --batch` reads them, a half for each of two writers.

use super::contents::{Contents, File, Kind};
use super::mirror::Mirror;
use super::{Result, SourceError};
use crate::directory::{Dir, PathError};
use crate::recipe::Link;
use crate::tools::{Streaming, ToolError};
use crate::transfer::{Look, finish};
use crate::tree::{Blob, Item, Seen, write_blob};
use crate::walk::{with_exact_modes, writers};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// What is read of git's output at once.
const BUFFER: usize = 256 * 1024;
/// Fewer files than this are written by one writer: another git would cost more.
const WORTH_TWO: usize = 200;
/// The longest target a link can have.
const LONGEST_TARGET: u64 = 4096;
/// Objects from this size on are read piece by piece, not into git's memory at once; and what it may keep of others.
const FRUGAL: [&str; 4] = ["-c", "core.bigFileThreshold=1m", "-c", "core.deltaBaseCacheLimit=8m"];

/// What files are to look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    /// Seconds since 1970.
    pub(super) time: i64,
    /// Permission bits that no file may have.
    pub(super) masked: u32,
    /// Bits that no directory may have.
    pub(super) masked_dirs: u32,
}

impl Looks {
    /// What `git archive` and `tar x` would give a file of this kind.
    pub(super) fn of(self, kind: Kind) -> Look {
        let mode = if kind == Kind::Executable { 0o775 } else { 0o664 };
        Look { mode: mode & !self.masked, time: (self.time, 0) }
    }

    /// The permission bits of directories. One that could not be entered could not be filled.
    pub(super) fn of_dirs(self) -> u32 {
        0o775 & !self.masked_dirs | 0o700
    }
}

/// A file of a commit: the number of its folder, and its own there.
pub(super) type Place = (usize, usize);

/// Files that are made, each with the number of its folder.
pub(super) type Made = Vec<(usize, Item)>;

/// What is to be made where.
pub(super) struct Order<'a> {
    pub(super) contents: &'a Contents,
    /// The directory it is made in.
    pub(super) into: &'a Dir,
    /// The path of that directory in the release.
    pub(super) prefix: &'a Path,
    /// How files come from an earlier release.
    pub(super) how: Link,
    pub(super) looks: Looks,
    /// Hears of each file.
    pub(super) tell: &'a (dyn Fn() + Sync),
}

/// Writes the files at `places`, whose directories are there and which are not. Not durable on return.
pub(super) fn write(mirror: &Mirror<'_>, order: &Order<'_>, places: &[Place]) -> Result<Made> {
    let writers = if places.len() < WORTH_TWO { 1 } else { writers() };
    let share = places.len().div_ceil(writers).max(1);
    let parts = places.chunks(share).map(|places| Ok((places, read(mirror, order.contents, places)?)));
    let parts: Mutex<Vec<_>> = Mutex::new(parts.collect::<Result<_>>()?);
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut made = Made::new();
        while let Some((places, git)) = next() {
            made.extend(Writer { order, folder: None }.run(git, places)?);
        }
        Ok(made)
    };
    let start = || {
        with_exact_modes();
        work()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..writers).filter_map(|_| Builder::new().spawn_scoped(scope, start).ok()).collect();
        // None can be had: slower, on this one, whose umask belongs to others.
        if running.is_empty() {
            return work();
        }
        let mut made = Made::with_capacity(places.len());
        let mut outcome = Ok(());
        for writer in running {
            match writer.join().unwrap_or_else(|_| Err(broken(order.into))) {
                Ok(part) => made.extend(part),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| made)
    })
}

/// A git that prints the objects of these files one after the other.
fn read(mirror: &Mirror<'_>, contents: &Contents, places: &[Place]) -> Result<Streaming> {
    let mut list = Vec::with_capacity(places.len() * 41);
    places.iter().for_each(|(folder, file)| add(&mut list, &contents.folders[*folder].files[*file].blob));
    start(mirror, &list)
}

/// A git that prints the objects of a list, one on each line.
fn start(mirror: &Mirror<'_>, list: &[u8]) -> Result<Streaming> {
    let program = mirror.git(FRUGAL).args(["cat-file", "--batch", "--buffer"]);
    let program = program.input(list);
    Ok(program.map_err(|cause| PathError::new("list objects of", mirror.dir().path(), cause))?.stream()?)
}

fn add(list: &mut Vec<u8>, blob: &Blob) {
    write_blob(blob, list);
    list.push(b'\n');
}

/// The commit `hash` and these blobs, which must be short.
pub(super) fn read_short<'b>(
    mirror: &Mirror<'_>,
    hash: &str,
    blobs: impl Iterator<Item = &'b File>,
    longest: u64,
) -> Result<Vec<Vec<u8>>> {
    let mut list = format!("{hash}\n").into_bytes();
    blobs.for_each(|file| add(&mut list, &file.blob));
    let mut git = start(mirror, &list)?;
    let mut reader = BufReader::new(&mut git.output);
    let mut texts = Vec::new();
    let outcome = list.split_inclusive(|byte| *byte == b'\n').try_for_each(|_| {
        let size = header(&mut reader)?;
        let mut text = Vec::new();
        (&mut reader).take(size.min(longest)).read_to_end(&mut text)?;
        io::copy(&mut (&mut reader).take(size - size.min(longest) + 1), &mut io::sink())?;
        texts.push(text);
        Ok(())
    });
    drop(reader);
    git.finish(outcome)?;
    Ok(texts)
}

/// One of the writers.
struct Writer<'a> {
    order: &'a Order<'a>,
    folder: Option<(usize, Dir)>,
}

impl Writer<'_> {
    fn run(mut self, mut git: Streaming, places: &[Place]) -> Result<Made> {
        let mut reader = BufReader::with_capacity(BUFFER, &mut git.output);
        let mut made = Made::with_capacity(places.len());
        let mut outcome = Ok(());
        for place in places {
            match self.one(&mut reader, *place) {
                Ok(item) => made.push((place.0, item)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            (self.order.tell)();
        }
        drop(reader);
        // git's own words explain a broken repository better; what went wrong here is told as it is.
        let read = outcome.as_ref().map(drop).map_err(|error| io::Error::other(error.to_string()));
        match git.finish(read) {
            Err(ToolError::Output { .. }) | Ok(()) => outcome.map(|()| made),
            Err(error) => Err(error.into()),
        }
    }

    fn one(&mut self, from: &mut impl BufRead, (folder, file): Place) -> Result<Item> {
        let looks = self.order.looks;
        let at = &self.order.contents.folders[folder];
        let File { name, kind, blob } = &at.files[file];
        let dir = match self.folder.take() {
            Some((open, dir)) if open == folder => dir,
            _ => self.order.into.open_below(&at.path)?,
        };
        let dir = &self.folder.insert((folder, dir)).1;
        let lost = |cause| PathError::new("read what belongs to", dir.path().join(name), cause);
        let size = header(from).map_err(lost)?;
        let (seen, target) = match kind {
            Kind::Link => {
                let mut target = Vec::new();
                from.take(size.min(LONGEST_TARGET)).read_to_end(&mut target).map_err(lost)?;
                if target.is_empty() || target.contains(&0) || size > LONGEST_TARGET {
                    return Err(super::tar::refuse(&at.path.join(name), "it is a link to nothing"));
                }
                let target = OsString::from_vec(target);
                (
                    link(dir, name, &target, looks.time)
                        .map_err(|error| super::tar::taken(&at.path.join(name), error))?,
                    target,
                )
            }
            Kind::Plain | Kind::Executable => {
                let look = looks.of(*kind);
                let taken = |error| super::tar::taken(&at.path.join(name), error);
                let mut out = dir.create_file(name, look.mode).map_err(taken)?;
                pour(from, &mut out, size).map_err(|error| error.about(dir, name))?;
                (Seen::from(&finish(dir, name, &out, look)?), OsString::new())
            }
        };
        // The line end behind each object.
        let end = from.fill_buf().map_err(lost)?.len().min(1);
        from.consume(end);
        Ok(Item { name: name.clone(), seen, target, blob: Some(*blob) })
    }
}

/// Makes a link with the time of its commit.
pub(super) fn link(dir: &Dir, name: &OsStr, target: &OsStr, time: i64) -> std::result::Result<Seen, PathError> {
    dir.symlink(name, target)?;
    dir.set_mtime(name, time, 0)?;
    let stat =
        dir.stat(name)?.ok_or_else(|| PathError::new("look at", dir.path().join(name), nix::errno::Errno::ENOENT))?;
    Ok(Seen::from(&stat))
}

/// Which side of a copy failed.
enum Poured {
    Read(io::Error),
    Write(io::Error),
}

impl Poured {
    fn about(self, dir: &Dir, name: &OsStr) -> PathError {
        let (action, cause) = match self {
            Self::Read(cause) => ("read what belongs to", cause),
            Self::Write(cause) => ("write", cause),
        };
        PathError::new(action, dir.path().join(name), cause)
    }
}

/// Writes the next `size` bytes of `from`.
fn pour(from: &mut impl BufRead, into: &mut std::fs::File, size: u64) -> std::result::Result<(), Poured> {
    let mut left = size;
    while left > 0 {
        let ready = from.fill_buf().map_err(Poured::Read)?;
        if ready.is_empty() {
            return Err(Poured::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let taken = ready.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        into.write_all(&ready[..taken]).map_err(Poured::Write)?;
        from.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

/// The size of the object that follows: `hash kind size`.
fn header(from: &mut impl BufRead) -> io::Result<u64> {
    let mut line = Vec::new();
    from.take(200).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let size = line.trim_end().rsplit_once(' ').and_then(|(_, size)| size.parse().ok());
    size.ok_or_else(|| io::Error::other(format!("git cat-file says {:?}", line.trim_end())))
}

fn broken(into: &Dir) -> SourceError {
    PathError::new("write", into.path(), io::Error::other("a writer has died")).into()
}

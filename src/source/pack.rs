//! A release packed for another host: its papers first, then its files by name, with nothing of this host in them. What
//! every host has for itself is left out: our records, pins, sockets, and links to what releases share.

use super::tar::leads_out;
use super::{Result, SourceError};
use crate::directory::{Dir, PathError};
use crate::export::{Export, MEMBER};
use crate::layout::is_code;
use crate::recipe::SharedTable;
use crate::stage::Stages;
use serde::Serialize;
use std::collections::HashSet;
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// What was packed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Packed {
    /// Files, links and directories.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// The links in the environment `directory` of `release` that lead out of the release: to its interpreter. An import
/// makes them anew.
pub fn links_out(release: &Dir, directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut links = Vec::new();
    for entry in walk(release, &release.path().join(directory)) {
        let (path, _) = entry?;
        if let Some(target) = link(release, &path)?.filter(|target| leads_out(&path, target)) {
            links.push((path, target));
        }
    }
    Ok(links)
}

/// What releases share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Its directory, by its path.
    pub place: &'a Path,
    /// What is linked to it on every host.
    pub table: &'a SharedTable,
}

/// Writes the tar of `release` to `out`. After an error it has no end mark, so that nobody takes what was written for a
/// whole release.
pub fn pack(
    release: &Dir,
    export: &Export,
    shared: Shared<'_>,
    out: &mut dyn Write,
    stages: &dyn Stages,
) -> Result<Packed> {
    let tar: Tar<'_> = ManuallyDrop::new(Builder::new(out));
    let (packed, seen) = (Packed::default(), HashSet::new());
    let mut packing = Packing { release, shared, export, tar, stages, packed, seen };
    packing.papers()?;
    for entry in walk(release, release.path()) {
        let (path, metadata) = entry?;
        packing.add(&path, &metadata)?;
        stages.advance(packing.packed.entries);
    }
    let out = ManuallyDrop::into_inner(packing.tar).into_inner().map_err(unwritten)?;
    out.flush().map_err(unwritten)?;
    Ok(packing.packed)
}

/// Everything below `from` that is code of the release, by name, on its own file system.
fn walk<'a>(release: &'a Dir, from: &Path) -> impl Iterator<Item = Result<(PathBuf, Metadata)>> + 'a {
    let root = release.path();
    let walk = walkdir::WalkDir::new(from).min_depth(1).same_file_system(true).sort_by_file_name().into_iter();
    let ours = move |path: &Path| {
        !is_code(path.strip_prefix(root).ok().and_then(|path| path.iter().next()).unwrap_or_default())
    };
    walk.filter_entry(move |entry| !ours(entry.path())).map(move |entry| {
        let fail = |error: walkdir::Error| {
            let path = error.path().unwrap_or(root).to_owned();
            SourceError::from(PathError::new("look at", path, error))
        };
        let entry = entry.map_err(fail)?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
        Ok((path, entry.metadata().map_err(fail)?))
    })
}

fn link(release: &Dir, path: &Path) -> Result<Option<PathBuf>> {
    let whole = release.path().join(path);
    if !whole.is_symlink() {
        return Ok(None);
    }
    Ok(Some(std::fs::read_link(&whole).map_err(|cause| PathError::new("read the link", whole, cause))?))
}

/// That nobody reads on is a failure like any other: what was read is not whole.
fn unwritten(cause: io::Error) -> SourceError {
    PathError::new("write", "standard output", cause).into()
}

/// Not dropped after an error: dropping a builder writes the end mark.
type Tar<'a> = ManuallyDrop<Builder<&'a mut dyn Write>>;

struct Packing<'a> {
    release: &'a Dir,
    shared: Shared<'a>,
    export: &'a Export,
    tar: Tar<'a>,
    stages: &'a dyn Stages,
    packed: Packed,
    /// Names in lower case.
    seen: HashSet<Vec<u8>>,
}

impl Packing<'_> {
    fn papers(&mut self) -> Result<()> {
        let text = serde_json::to_vec(self.export).map_err(|error| unwritten(error.into()))?;
        let mut header = header(EntryType::Regular, 0o644, self.export.created_at.unix());
        header.set_size(text.len() as u64);
        self.tar.append_data(&mut header, MEMBER, text.as_slice()).map_err(unwritten)
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        let refuse = |why: String| SourceError::Unfit { member: path.display().to_string(), why };
        if path == Path::new(MEMBER) {
            return Err(refuse("that name is releasectl's own".to_owned()));
        }
        if !self.seen.insert(path.as_os_str().as_bytes().to_ascii_lowercase()) {
            return Err(refuse("another name is the same but for upper and lower case".to_owned()));
        }
        let time = metadata.mtime();
        if metadata.is_dir() {
            let mut header = header(EntryType::Directory, metadata.mode(), time);
            self.tar.append_data(&mut header, path, io::empty()).map_err(unwritten)?;
        } else if metadata.is_symlink() {
            let Some(target) = link(self.release, path)? else { return Ok(()) };
            if leads_out(path, &target) {
                return if self.is_left_out(path, &target) {
                    Ok(())
                } else {
                    Err(refuse(format!("it links to {}, out of the release", target.display())))
                };
            }
            let mut header = header(EntryType::Symlink, 0o777, time);
            self.tar.append_link(&mut header, path, &target).map_err(unwritten)?;
        } else if metadata.is_file() {
            self.file(path, metadata)?;
        } else if metadata.file_type().is_socket() || metadata.file_type().is_fifo() {
            // Where processes meet: nobody would answer at it there.
            return Ok(());
        } else {
            return Err(refuse("it is neither a file, a directory nor a link".to_owned()));
        }
        self.packed.entries += 1;
        Ok(())
    }

    /// Whether a link is one that the other host makes for itself. One to what is shared does not travel either if that
    /// is not so, which is told: what it leads to there, that host alone knows.
    fn is_left_out(&self, path: &Path, target: &Path) -> bool {
        let luggage = self.export.python.as_ref();
        if luggage.is_some_and(|luggage| luggage.links.iter().any(|(link, _)| link == path)) {
            return true;
        }
        let above = self.release.path().join(path.parent().unwrap_or(Path::new("")));
        let Shared { place, table } = self.shared;
        let shared = plain(&above.join(target)).starts_with(place);
        if shared && !table.dirs.iter().chain(&table.files).any(|named| plain(named) == path) {
            let path = path.display();
            self.stages.warn(&format!(
                "{path} links to shared/ and is left out: nothing makes it there unless [shared] names it"
            ));
        }
        shared
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        let whole = self.release.path().join(path);
        let unread = |cause| SourceError::from(PathError::new("read", &whole, cause));
        let parent = self.release.open_below(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().unwrap_or_default();
        let Some(file) = parent.open_file(name)? else { return Err(unread(io::ErrorKind::NotFound.into())) };
        let size = file.metadata().map_err(unread)?.len();
        let mut header = header(EntryType::Regular, metadata.mode(), metadata.mtime());
        header.set_size(size);
        let mut content = Exactly { inner: file, left: size };
        self.tar.append_data(&mut header, path, &mut content).map_err(|cause| {
            if content.left > 0 && cause.kind() == io::ErrorKind::UnexpectedEof {
                unread(cause)
            } else {
                unwritten(cause)
            }
        })?;
        self.packed.bytes += size;
        Ok(())
    }
}

/// As many bytes as the header says, or an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&mut self.inner).take(self.left).read(buffer)?;
        self.left -= read as u64;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

/// A header that tells nothing of this host.
fn header(kind: EntryType, mode: u32, time: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    header.set_mtime(u64::try_from(time).unwrap_or(0));
    header.set_size(0);
    header
}

/// A path without `.` and `..`, by its letters alone.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        plain
    })
}

//! The inventory of a release: kind, mode, size, time and link target of everything in it when it became ready, and what
//! has changed since.

use crate::directory::{Dir, PathError, Result};
use crate::layout::{INVENTORY, STATE};
use crate::pin::PREFIX;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The largest inventory that is read: some ten million files.
const LARGEST: u64 = 1 << 30;

/// What a release holds in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// How a release differs from what it was when it became ready. Paths are relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// There, but not as recorded.
    pub changed: Vec<String>,
    /// Recorded, but not there.
    pub missing: Vec<String>,
    /// There, but not recorded.
    pub added: Vec<String>,
}

impl Difference {
    /// Whether everything that was recorded is still there as it was, whatever has come since.
    pub fn keeps_what_was(&self) -> bool {
        self.changed.is_empty() && self.missing.is_empty()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.missing.is_empty() && self.added.is_empty()
    }
}

/// Whether a name at the top of a release is part of it, not our record or a pin.
pub(super) fn is_code(name: &OsStr) -> bool {
    name != STATE && !name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// Writes the inventory of the release `dir` into its state directory. Not durable on return.
pub(super) fn write(dir: &Dir, state: &Dir, name: &str) -> Result<Total> {
    state.unlink(name)?;
    let path = state.path().join(name);
    let fail = |cause| PathError::new("write", &path, cause);
    let mut out = BufWriter::new(state.create_file(name, 0o600)?);
    let mut total = Total::default();
    walk(dir, &mut |relative, metadata, target| {
        total.entries += 1;
        total.bytes += metadata.blocks() * 512;
        out.write_all(&line(relative, metadata, target)).map_err(fail)
    })?;
    out.flush().map_err(fail)?;
    Ok(total)
}

/// Brings the inventory of the release `dir` up to date for what it holds already; what has come since stays out of it.
/// Nothing is written if nothing it holds has changed.
pub(super) fn renew(dir: &Dir, state: &Dir, name: &str) -> Result<()> {
    let Some(bytes) = state.read_file(name, LARGEST)? else { return Ok(()) };
    let Some(recorded) = parse(&bytes) else { return Ok(()) };
    let mut renewed = Vec::with_capacity(bytes.len());
    walk(dir, &mut |relative, metadata, target| {
        if recorded.contains_key(relative.as_os_str().as_bytes()) {
            renewed.extend_from_slice(&line(relative, metadata, target));
        }
        Ok(())
    })?;
    if renewed == bytes { Ok(()) } else { state.write_file(name, &renewed, 0o600) }
}

fn line(relative: &Path, metadata: &Metadata, target: &Path) -> Vec<u8> {
    let mut line = describe(metadata).into_bytes();
    line.push(b'\0');
    line.extend_from_slice(relative.as_os_str().as_bytes());
    line.push(b'\0');
    line.extend_from_slice(target.as_os_str().as_bytes());
    line.extend_from_slice(b"\0\n");
    line
}

/// Compares the release `dir` with its inventory; `None` if it has none that can be read.
pub fn compare(dir: &Dir) -> Result<Option<Difference>> {
    let Some(bytes) = dir.open_dir(STATE).and_then(|state| state.read_file(INVENTORY, LARGEST))? else {
        return Ok(None);
    };
    let Some(mut recorded) = parse(&bytes) else { return Ok(None) };
    let mut difference = Difference::default();
    walk(dir, &mut |relative, metadata, target| {
        match recorded.remove(relative.as_os_str().as_bytes()) {
            None => difference.added.push(relative.display().to_string()),
            Some(was) if was != (describe(metadata), target.as_os_str().as_bytes().to_vec()) => {
                difference.changed.push(relative.display().to_string());
            }
            Some(_) => {}
        }
        Ok(())
    })?;
    difference.missing = recorded.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Ok(Some(difference))
}

/// Those of `paths` that the inventory of the release `dir` holds; none if it cannot be read.
pub fn recorded(dir: &Dir, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let bytes = dir.open_dir(STATE).and_then(|state| state.read_file(INVENTORY, LARGEST))?;
    let recorded = bytes.as_deref().and_then(parse).unwrap_or_default();
    let plain = |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
    let held = paths.iter().filter(|path| recorded.contains_key(plain(path).as_os_str().as_bytes()));
    Ok(held.cloned().collect())
}

/// Path → (description, link target).
type Recorded = BTreeMap<Vec<u8>, (String, Vec<u8>)>;

fn parse(bytes: &[u8]) -> Option<Recorded> {
    let mut recorded = Recorded::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut fields = rest.splitn(4, |byte| *byte == 0);
        let (what, path, target) = (fields.next()?, fields.next()?, fields.next()?);
        rest = fields.next()?.strip_prefix(b"\n")?;
        recorded.insert(path.to_vec(), (String::from_utf8(what.to_vec()).ok()?, target.to_vec()));
    }
    Some(recorded)
}

/// `mode size seconds.nanoseconds`. A directory's size and time say nothing: using it changes them.
fn describe(metadata: &Metadata) -> String {
    if metadata.is_dir() {
        return format!("{:o}", metadata.mode());
    }
    format!("{:o} {} {}.{:09}", metadata.mode(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

/// Everything in a release in a fixed order, on its own file system, our records and pins left out.
fn walk(dir: &Dir, see: &mut dyn FnMut(&Path, &Metadata, &Path) -> Result<()>) -> Result<()> {
    let root = dir.path();
    let walk = walkdir::WalkDir::new(root).min_depth(1).same_file_system(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(|entry| entry.depth() != 1 || is_code(entry.file_name())) {
        let entry = entry.map_err(|e| PathError::new("look at", e.path().unwrap_or(root).to_owned(), e))?;
        let fail = |e: walkdir::Error| PathError::new("look at", entry.path(), e);
        let metadata = entry.metadata().map_err(fail)?;
        let target = if entry.path_is_symlink() { std::fs::read_link(entry.path()) } else { Ok(PathBuf::new()) };
        let target = target.map_err(|e| PathError::new("read the link", entry.path(), e))?;
        see(entry.path().strip_prefix(root).unwrap_or(entry.path()), &metadata, &target)?;
    }
    Ok(())
}

//! The inventory of a release: kind, mode, size, time and link target of everything in it when it became ready, and what
//! has changed since. Of files that came from a git repository it says which blob they hold, so that the next release
//! can have them from here.

mod listing;

pub use listing::{Blob, Item, Line, Lines, Listing, Seen, parse_blob, write_blob};

use crate::directory::{Dir, PathError, Result};
use crate::layout::{INVENTORY, STATE};
pub(super) use listing::add;
use listing::{in_order, look, look_again, parse, plain, write_line};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The largest inventory that is read: some ten million files.
const LARGEST: u64 = 1 << 30;
/// How much of it is written at once.
const BUFFER: usize = 128 * 1024;

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

/// A recorded inventory.
#[derive(Debug)]
pub struct Inventory(Vec<u8>);

impl Inventory {
    /// Reads the inventory of the release `dir`; `None` if it has none, as one that another tool has made.
    pub fn read(dir: &Dir) -> Result<Option<Self>> {
        let state = match dir.open_dir(STATE) {
            Err(error) if error.cause.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        Ok(state.read_file(INVENTORY, LARGEST)?.map(Self))
    }

    /// What it says of each path; `None` if it is damaged.
    pub fn lines(&self) -> Option<Lines<'_>> {
        parse(&self.0)
    }
}

/// Writes the inventory of the release `dir` into its state directory. Not durable on return.
pub(super) fn write(dir: &Dir, state: &Dir) -> Result<Total> {
    let before = Inventory::read(dir)?;
    let lines = before.as_ref().and_then(Inventory::lines).unwrap_or_default();
    write_listing(state, look(dir, &lines)?)
}

/// Writes what `listing` says, which was seen when it was made.
pub(super) fn write_listing(state: &Dir, listing: Listing) -> Result<Total> {
    write_after(&[], &Lines::new(), state, listing)
}

/// Adds to the inventory of the release `dir` what has been made at `at` since it was taken, as it was seen then, and returns
/// what that comes to. `None` if it has something there already or cannot be read. Not durable on return.
pub(super) fn extend(dir: &Dir, state: &Dir, at: &Path, made: Listing) -> Result<Option<Total>> {
    let (at, before) = (plain(at), Inventory::read(dir)?);
    let Some((before, lines)) = before.as_ref().and_then(|before| Some((before, before.lines()?))) else {
        return Ok(None);
    };
    if lines.contains_key(at.as_os_str().as_bytes()) {
        return Ok(None);
    }
    let mut listing = Listing::with_capacity(made.len() + 1);
    add(&mut listing, dir, &[&at])?;
    listing.extend(made.into_iter().map(|(path, items)| (plain(&at.join(path)), items)));
    write_after(&before.0, &lines, state, listing).map(Some)
}

/// Writes what is there `before`, and what `listing` says of other paths. Returns what those come to.
fn write_after(before: &[u8], lines: &Lines<'_>, state: &Dir, listing: Listing) -> Result<Total> {
    state.unlink(INVENTORY)?;
    let fail = |cause| PathError::new("write", state.path().join(INVENTORY), cause);
    let (mut file, mut text) = (state.create_file(INVENTORY, 0o600)?, Vec::with_capacity(2 * BUFFER));
    let mut total = Total::default();
    let written = file.write_all(before).and_then(|()| {
        in_order(listing, |path, item| {
            if lines.contains_key(path.as_os_str().as_bytes()) {
                return Ok(());
            }
            total.entries += 1;
            total.bytes += item.seen.disk;
            write_line(&mut text, path, item);
            if text.len() < BUFFER {
                return Ok(());
            }
            file.write_all(&text)?;
            text.clear();
            Ok(())
        })
    });
    written.and_then(|()| file.write_all(&text)).map_err(fail)?;
    Ok(total)
}

/// Brings the inventory of the release `dir` up to date for what it holds already; what has come since stays out of it.
/// Nothing is written if nothing it holds has changed. Whole at every moment; not durable on return.
pub(super) fn renew(dir: &Dir, state: &Dir) -> Result<()> {
    let Some(before) = Inventory::read(dir)? else { return Ok(()) };
    let Some(lines) = before.lines() else { return Ok(()) };
    let mut renewed = Vec::with_capacity(before.0.len());
    let written = in_order(look_again(dir, &lines)?, |path, item| {
        if lines.contains_key(path.as_os_str().as_bytes()) {
            write_line(&mut renewed, path, item);
        }
        Ok(())
    });
    written.map_err(|cause| PathError::new("write", state.path().join(INVENTORY), cause))?;
    if renewed == before.0 { Ok(()) } else { state.put_file(INVENTORY, &renewed, 0o600) }
}

/// Compares the release `dir` with its inventory; `None` if it has none that can be read.
pub fn compare(dir: &Dir) -> Result<Option<Difference>> {
    let Some(inventory) = Inventory::read(dir)? else { return Ok(None) };
    let Some(mut recorded) = inventory.lines() else { return Ok(None) };
    let mut difference = Difference::default();
    let seen = in_order(look(dir, &Lines::new())?, |path, item| {
        match recorded.remove(path.as_os_str().as_bytes()) {
            None => difference.added.push(path.display().to_string()),
            Some(line) if !line.describes(item) => difference.changed.push(path.display().to_string()),
            Some(_) => {}
        }
        Ok(())
    });
    seen.map_err(|cause| PathError::new("look at", dir.path(), cause))?;
    difference.missing = recorded.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    difference.missing.sort_unstable();
    Ok(Some(difference))
}

/// Those of `paths` that the inventory of the release `dir` holds; none if it cannot be read.
pub fn recorded(dir: &Dir, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let inventory = Inventory::read(dir)?;
    let recorded = inventory.as_ref().and_then(Inventory::lines).unwrap_or_default();
    let held = paths.iter().filter(|path| recorded.contains_key(plain(path).as_os_str().as_bytes()));
    Ok(held.cloned().collect())
}

//! What is in a release, seen entry by entry, and the lines that are written of it.

use crate::directory::{Dir, PathError, Result, kind};
use crate::layout::is_code;
use crate::walk::{Visit, walk};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The name of a blob in a git repository: SHA-1 of its content.
pub type Blob = [u8; 20];

/// What the system says of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Kind and permission bits.
    pub mode: u32,
    /// Names it has.
    pub links: u32,
    /// Bytes of content.
    pub size: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last change of content.
    pub changed: (i64, i64),
    /// Time of the last change of anything.
    pub touched: (i64, i64),
}

impl From<&FileStat> for Seen {
    fn from(stat: &FileStat) -> Self {
        Self {
            mode: stat.st_mode,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            size: stat.st_size.cast_unsigned(),
            disk: stat.st_blocks.cast_unsigned() * 512,
            inode: stat.st_ino,
            changed: (stat.st_mtime, stat.st_mtime_nsec),
            touched: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Seen {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == SFlag::S_IFREG
    }

    fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.mode & SFlag::S_IFMT.bits())
    }

    /// `mode size seconds.nanoseconds`. A directory's size and time say nothing: using it changes them.
    fn describe(&self, out: &mut Vec<u8>) {
        number::<8>(out, u64::from(self.mode), 1);
        if !self.is_dir() {
            out.push(b' ');
            number::<10>(out, self.size, 1);
            time(out, self.changed);
        }
    }

    /// `inode seconds.nanoseconds`; without the time if the file has several names: giving it another changes that.
    fn identify(&self, out: &mut Vec<u8>) {
        number::<10>(out, self.inode, 1);
        if self.links <= 1 {
            time(out, self.touched);
        }
    }
}

/// Whether `write` writes `text`.
fn says(write: impl FnOnce(&mut Vec<u8>), text: &str) -> bool {
    let mut written = Vec::with_capacity(64);
    write(&mut written);
    written == text.as_bytes()
}

/// Appends a number with at least so many digits. The standard library's way takes as long as the system's call for the
/// file, and there are five numbers for each.
fn number<const BASE: u64>(out: &mut Vec<u8>, mut value: u64, least: usize) {
    let mut digits = [b'0'; 22];
    let mut first = digits.len();
    while value > 0 || digits.len() - first < least {
        first -= 1;
        digits[first] += (value % BASE) as u8;
        value /= BASE;
    }
    out.extend_from_slice(&digits[first..]);
}

/// Appends ` seconds.nanoseconds`.
fn time(out: &mut Vec<u8>, (seconds, nanoseconds): (i64, i64)) {
    out.extend_from_slice(if seconds < 0 { b" -" } else { b" " });
    number::<10>(out, seconds.unsigned_abs(), 1);
    out.push(b'.');
    number::<10>(out, nanoseconds.unsigned_abs(), 9);
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name there.
    pub name: OsString,
    /// What it is.
    pub seen: Seen,
    /// Where it leads, if it is a link.
    pub target: OsString,
    /// The blob it holds, if it came from a git repository as it is there.
    pub blob: Option<Blob>,
}

/// Directories, each by its path in the release, and what is in them. Sorted by path.
pub type Listing = Vec<(PathBuf, Vec<Item>)>;

/// Looks at everything in a release, on its own file system, our records and pins left out. Files that are still what
/// `before` says hold the blob it names.
pub(super) fn look(release: &Dir, before: &Lines<'_>) -> Result<Listing> {
    look_in(release, before, &|_| true)
}

/// The same of what `before` has, and of what lies beside it: not of the directories that have come since.
pub(super) fn look_again(release: &Dir, before: &Lines<'_>) -> Result<Listing> {
    look_in(release, before, &|path| before.contains_key(path.as_os_str().as_bytes()))
}

fn look_in(release: &Dir, before: &Lines<'_>, enter: &(dyn Fn(&Path) -> bool + Sync)) -> Result<Listing> {
    let device = release.identity()?.device;
    walk(|path, above: Option<&Dir>| {
        let dir = match (above, path.file_name()) {
            (Some(above), Some(name)) => above.open_dir(name)?,
            _ => release.open_below(path)?,
        };
        let (mut below, mut items) = (Vec::new(), Vec::new());
        let top = path.as_os_str().is_empty();
        let known = top || before.contains_key(path.as_os_str().as_bytes());
        for name in dir.names()? {
            if top && !is_code(&name) {
                continue;
            }
            let Some((stat, mut item)) = look_at(&dir, &name)? else { continue };
            if known {
                let line = before.get(path.join(&name).as_os_str().as_bytes());
                item.blob = line.and_then(|line| line.still(&item.seen));
            }
            if item.seen.is_dir() && stat.st_dev == device && enter(&path.join(&name)) {
                below.push(name);
            }
            items.push(item);
        }
        Ok::<_, PathError>(Visit { handle: dir, below, found: items })
    })
}

/// One entry of a directory; which blob it holds is not known.
fn look_at(dir: &Dir, name: &OsStr) -> Result<Option<(FileStat, Item)>> {
    let Some(stat) = dir.stat(name)? else { return Ok(None) };
    let is_link = kind(&stat) == SFlag::S_IFLNK;
    let target = if is_link { dir.read_link(name)?.unwrap_or_default() } else { OsString::new() };
    Ok(Some((stat, Item { name: name.to_owned(), seen: Seen::from(&stat), target, blob: None })))
}

/// Brings a listing up to date for what has been made at these paths in the release, and for the way there. Empty
/// directories may have been in their place.
pub fn add(listing: &mut Listing, release: &Dir, paths: &[&Path]) -> Result<()> {
    for path in paths.iter().map(|path| plain(path)) {
        listing.retain(|(at, _)| !at.starts_with(&path));
        for part in path.ancestors() {
            let (Some(above), Some(name)) = (part.parent(), part.file_name()) else { continue };
            let at = listing.iter().position(|(at, _)| at == above).unwrap_or_else(|| {
                listing.push((above.to_owned(), Vec::new()));
                listing.len() - 1
            });
            let items = &mut listing[at].1;
            items.retain(|item| item.name != name);
            items.extend(look_at(&release.open_below(above)?, name)?.map(|(_, item)| item));
        }
    }
    Ok(())
}

/// The path as a listing has it: without `.`.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Calls `see` with every entry and its path: a directory before what is in it, its entries by name.
pub(super) fn in_order(mut listing: Listing, mut see: impl FnMut(&Path, &Item) -> io::Result<()>) -> io::Result<()> {
    for (_, items) in &mut listing {
        items.sort_unstable_by(|a, b| b.name.cmp(&a.name));
    }
    let directories = listing.into_iter().map(|(path, items)| (path.into_os_string(), items));
    let mut directories: HashMap<OsString, Vec<Item>> = directories.collect();
    let mut open: Vec<Vec<Item>> = directories.remove(OsStr::new("")).into_iter().collect();
    let mut path = PathBuf::new();
    while let Some(items) = open.last_mut() {
        let Some(item) = items.pop() else {
            open.pop();
            path.pop();
            continue;
        };
        path.push(&item.name);
        see(&path, &item)?;
        match item.seen.is_dir().then(|| directories.remove(path.as_os_str())).flatten() {
            Some(below) => open.push(below),
            None => drop(path.pop()),
        }
    }
    Ok(())
}

/// Appends one line: what it is, path, target, and for what came from git the blob and the file it is in.
pub(super) fn write_line(out: &mut Vec<u8>, path: &Path, item: &Item) {
    item.seen.describe(out);
    for text in [path.as_os_str(), &item.target] {
        out.push(0);
        out.extend_from_slice(text.as_bytes());
    }
    out.push(0);
    if let Some(blob) = &item.blob {
        write_blob(blob, out);
        out.push(b' ');
        item.seen.identify(out);
    }
    out.push(b'\n');
}

/// What an inventory says of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    what: &'a str,
    /// Where it leads, if it is a link.
    pub target: &'a OsStr,
    origin: &'a str,
}

/// Path → line.
pub type Lines<'a> = HashMap<&'a [u8], Line<'a>>;

impl Line<'_> {
    /// Whether this is what was recorded, `target` its target if it is a link.
    pub(super) fn describes(&self, item: &Item) -> bool {
        self.target == item.target && says(|out| item.seen.describe(out), self.what)
    }

    /// The blob that was recorded.
    pub fn blob(&self) -> Option<Blob> {
        parse_blob(self.origin.split(' ').next()?)
    }

    /// The blob that the file `seen` holds: none if it is not the file that was recorded, or not as it was then.
    pub fn still(&self, seen: &Seen) -> Option<Blob> {
        let file = self.origin.split_once(' ')?.1;
        let timed = file.contains(' ') && seen.links == 1;
        self.still_linked(seen).filter(|_| !timed || says(|out| seen.identify(out), file))
    }

    /// The same of a file that was given other names, or lost some, since it was recorded: that changes the time of the
    /// last change of anything, which says nothing then.
    pub fn still_linked(&self, seen: &Seen) -> Option<Blob> {
        let (blob, file) = self.origin.split_once(' ')?;
        let inode = file.split(' ').next()?;
        let same = inode.parse() == Ok(seen.inode) && says(|out| seen.describe(out), self.what);
        parse_blob(blob).filter(|_| same)
    }
}

/// Reads forty hexadecimal digits.
pub fn parse_blob(text: &str) -> Option<Blob> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let digits: &[u8; 40] = text.as_bytes().try_into().ok()?;
    let mut blob = Blob::default();
    for (byte, pair) in blob.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(blob)
}

/// Appends forty hexadecimal digits.
pub fn write_blob(blob: &Blob, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(blob.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

/// Reads a whole inventory; `None` if it is none.
pub(super) fn parse(bytes: &[u8]) -> Option<Lines<'_>> {
    let mut lines = Lines::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut fields = rest.splitn(4, |byte| *byte == 0);
        let (what, path, target) = (fields.next()?, fields.next()?, fields.next()?);
        let end = fields.next()?;
        let (origin, next) = end.split_at(end.iter().position(|byte| *byte == b'\n')?);
        rest = &next[1..];
        let text = |bytes| std::str::from_utf8(bytes).ok();
        lines.insert(path, Line { what: text(what)?, target: OsStr::from_bytes(target), origin: text(origin)? });
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_always_were() {
        for (mode, size, seconds, nanoseconds) in
            [(0o100_644, 0, 0, 0), (0o120_777, u64::MAX, -1, 5), (0o100_755, 10, i64::MAX, 999_999_999)]
        {
            let times = ((seconds, nanoseconds), (nanoseconds, 7));
            let seen = Seen { mode, links: 1, size, disk: 0, inode: size, changed: times.0, touched: times.1 };
            assert!(says(|out| seen.describe(out), &format!("{mode:o} {size} {seconds}.{nanoseconds:09}")));
            assert!(says(|out| seen.identify(out), &format!("{size} {nanoseconds}.{:09}", 7)));
            assert!(says(|out| Seen { links: 2, ..seen }.identify(out), &size.to_string()));
        }
        let directory =
            Seen { mode: 0o040_755, links: 2, size: 1, disk: 0, inode: 1, changed: (1, 1), touched: (1, 1) };
        assert!(says(|out| directory.describe(out), "40755"));
    }
}

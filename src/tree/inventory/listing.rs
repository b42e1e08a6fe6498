//! What is in a release, seen entry by entry, and the lines that are written of it.

use crate::directory::{Dir, PathError, Result, kind};
use crate::layout::STATE;
use crate::pin::PREFIX;
use crate::walk::{Visit, walk};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    fn is_dir(&self) -> bool {
        SFlag::from_bits_truncate(self.mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
    }

    /// `mode size seconds.nanoseconds`. A directory's size and time say nothing: using it changes them.
    fn describe(&self) -> String {
        if self.is_dir() {
            return format!("{:o}", self.mode);
        }
        format!("{:o} {} {}.{:09}", self.mode, self.size, self.changed.0, self.changed.1)
    }

    /// `inode seconds.nanoseconds`; without the time if the file has several names: giving it another changes that.
    fn identify(&self) -> String {
        if self.links > 1 {
            return self.inode.to_string();
        }
        format!("{} {}.{:09}", self.inode, self.touched.0, self.touched.1)
    }
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

/// Whether a name at the top of a release is part of it, not our record or a pin.
pub fn is_code(name: &OsStr) -> bool {
    name != STATE && !name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// Looks at everything in a release, on its own file system, our records and pins left out. Files that are still what
/// `before` says hold the blob it names.
pub(super) fn look(release: &Dir, before: &Lines<'_>) -> Result<Listing> {
    let device = release.identity()?.device;
    walk(|path, above: Option<&Dir>| {
        let dir = match (above, path.file_name()) {
            (Some(above), Some(name)) => above.open_dir(name)?,
            _ => release.open_below(path)?,
        };
        let (mut below, mut items) = (Vec::new(), Vec::new());
        for name in dir.names()? {
            if path.as_os_str().is_empty() && !is_code(&name) {
                continue;
            }
            let Some(stat) = dir.stat(&name)? else { continue };
            let is_link = kind(&stat) == SFlag::S_IFLNK;
            let target = if is_link { dir.read_link(&name)?.unwrap_or_default() } else { OsString::new() };
            if kind(&stat) == SFlag::S_IFDIR && stat.st_dev == device {
                below.push(name.clone());
            }
            let seen = Seen::from(&stat);
            let line = if before.is_empty() { None } else { before.get(path.join(&name).as_os_str().as_bytes()) };
            let blob = line.and_then(|line| line.still(&seen));
            items.push(Item { name, seen, target, blob });
        }
        Ok::<_, PathError>(Visit { handle: dir, below, found: items })
    })
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
    out.extend_from_slice(item.seen.describe().as_bytes());
    for text in [path.as_os_str(), &item.target] {
        out.push(0);
        out.extend_from_slice(text.as_bytes());
    }
    out.push(0);
    if let Some(blob) = &item.blob {
        write_blob(blob, out);
        out.push(b' ');
        out.extend_from_slice(item.seen.identify().as_bytes());
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
        self.target == item.target && self.what == item.seen.describe()
    }

    /// The blob that was recorded.
    pub fn blob(&self) -> Option<Blob> {
        parse_blob(self.origin.split(' ').next()?)
    }

    /// The blob that the file `seen` holds: none if it is not the file that was recorded, or not as it was then.
    pub fn still(&self, seen: &Seen) -> Option<Blob> {
        let file = self.origin.split_once(' ')?.1;
        let timed = file.contains(' ') && seen.links == 1;
        self.still_linked(seen).filter(|_| !timed || file == seen.identify())
    }

    /// The same of a file that was given other names, or lost some, since it was recorded: that changes the time of the
    /// last change of anything, which says nothing then.
    pub fn still_linked(&self, seen: &Seen) -> Option<Blob> {
        let (blob, file) = self.origin.split_once(' ')?;
        let inode = file.split(' ').next()?;
        let same = inode.parse() == Ok(seen.inode) && self.what == seen.describe();
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

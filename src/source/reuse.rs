//! Files that the new release has in common with an earlier one: linked to it, or copied from it, where they are still
//! what was recorded there.
//!
//! What a file holds is known by its blob, which names its content; that it still holds it, by its inode, size, mode and
//! times. Whatever is not exactly as recorded is left to be written afresh, and so is what the system does not let be
//! shared. The earlier release is never written to.

use super::contents::{Contents, File, Kind};
use super::objects::{Looks, Made, Place, link};
use super::{Earlier, Result};
use crate::directory::{Dir, PathError, kind};
use crate::recipe::Link;
use crate::transfer::Copier;
use crate::tree::{Item, Line, Lines, Seen};
use crate::walk::{with_exact_modes, workers};
use nix::sys::stat::SFlag;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes what can be had from `earlier` in the directory `into`, which lies at `prefix` of its release and whose
/// directories are there. Returns what was made and the places that are left. Not durable on return.
pub(super) fn reuse(
    earlier: &Earlier,
    contents: &Contents,
    (into, prefix): (&Dir, &std::path::Path),
    (how, looks): (Link, Looks),
    tell: &(dyn Fn() + Sync),
) -> Result<(Made, Vec<Place>)> {
    let lines = earlier.inventory.lines().unwrap_or_default();
    let owner = nix::unistd::geteuid().as_raw();
    let reuse = Reuse { earlier, lines, prefix, contents, into, how, looks, owner, copier: Copier::default(), tell };
    let next = AtomicUsize::new(0);
    let parts = std::thread::scope(|scope| {
        let work = || {
            with_exact_modes();
            reuse.work(&next)
        };
        let running: Vec<_> = (0..workers()).map(|_| scope.spawn(work)).collect();
        let dead = || Err(PathError::new("write", into.path(), std::io::Error::other("a writer has died")));
        running.into_iter().map(|worker| worker.join().unwrap_or_else(|_| dead())).collect::<Vec<_>>()
    });
    let (mut made, mut left) = (Made::new(), Vec::new());
    for part in parts {
        let part = part?;
        made.extend(part.0);
        left.extend(part.1);
    }
    left.sort_unstable();
    Ok((made, left))
}

struct Reuse<'a> {
    earlier: &'a Earlier,
    lines: Lines<'a>,
    prefix: &'a std::path::Path,
    contents: &'a Contents,
    into: &'a Dir,
    how: Link,
    looks: Looks,
    owner: u32,
    copier: Copier,
    tell: &'a (dyn Fn() + Sync),
}

impl Reuse<'_> {
    /// Takes one folder after the other until there is none left.
    fn work(&self, next: &AtomicUsize) -> Result<(Made, Vec<Place>), PathError> {
        let (mut made, mut left) = (Made::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.contents.folders.len() {
                return Ok((made, left));
            }
            self.folder(number, &mut made, &mut left)?;
        }
    }

    fn folder(&self, number: usize, made: &mut Made, left: &mut Vec<Place>) -> Result<(), PathError> {
        let folder = &self.contents.folders[number];
        let path = self.prefix.join(&folder.path);
        let mut key = path.as_os_str().as_bytes().to_vec();
        if !key.is_empty() {
            key.push(b'/');
        }
        let length = key.len();
        let mut dirs: Option<Option<(Dir, Dir)>> = None;
        for (at, file) in folder.files.iter().enumerate() {
            key.truncate(length);
            key.extend_from_slice(file.name.as_bytes());
            let line = self.lines.get(key.as_slice()).filter(|line| line.blob() == Some(file.blob));
            let item = match line {
                None => None,
                Some(line) => {
                    let open = || {
                        let old = self.earlier.dir.open_below(&path).ok();
                        old.map(|old| Ok((old, self.into.open_below(&folder.path)?))).transpose()
                    };
                    let dirs = match &dirs {
                        Some(dirs) => dirs,
                        None => dirs.insert(open()?),
                    };
                    dirs.as_ref().map(|(old, new)| self.one(old, new, file, line)).transpose()?.flatten()
                }
            };
            match item {
                Some(item) => {
                    made.push((number, item));
                    (self.tell)();
                }
                None => left.push((number, at)),
            }
        }
        Ok(())
    }

    /// Makes one file; `None` if it has to be written.
    fn one(&self, old: &Dir, new: &Dir, file: &File, line: &Line<'_>) -> Result<Option<Item>, PathError> {
        let (seen, target) = match (file.kind, self.how) {
            (Kind::Link, _) if line.target.is_empty() => return Ok(None),
            (Kind::Link, _) => (Some(link(new, &file.name, line.target, self.looks.time)?), line.target.to_owned()),
            (_, Link::Hardlink) => (self.share(old, new, file, line)?, OsString::new()),
            (_, Link::Copy) => (self.copy(old, new, file, line)?, OsString::new()),
        };
        Ok(seen.map(|seen| Item { name: file.name.clone(), seen, target, blob: Some(file.blob) }))
    }

    /// Gives the earlier file a second name. It is looked at under the new one, so that nobody can exchange it meanwhile.
    fn share(&self, old: &Dir, new: &Dir, file: &File, line: &Line<'_>) -> Result<Option<Seen>, PathError> {
        if old.hard_link(&file.name, new).is_err() {
            return Ok(None);
        }
        let stat = new.stat(&file.name)?;
        let wanted = self.looks.of(file.kind).mode | SFlag::S_IFREG.bits();
        let fits =
            stat.filter(|stat| stat.st_mode == wanted && stat.st_uid == self.owner).map(|stat| Seen::from(&stat));
        let fits = fits.filter(|seen| line.still(seen) == Some(file.blob));
        if fits.is_none() {
            new.unlink(&file.name)?;
        }
        Ok(fits)
    }

    /// Copies the earlier file; its blocks are shared where the file system can.
    fn copy(&self, old: &Dir, new: &Dir, file: &File, line: &Line<'_>) -> Result<Option<Seen>, PathError> {
        let Ok(Some((mut from, stat))) = old.open_seen(&file.name) else { return Ok(None) };
        if kind(&stat) != SFlag::S_IFREG || line.still(&Seen::from(&stat)) != Some(file.blob) {
            return Ok(None);
        }
        let size = stat.st_size.cast_unsigned();
        let made = self.copier.copy(&mut from, size, new, &file.name, self.looks.of(file.kind))?;
        Ok(Some(Seen::from(&made)))
    }
}

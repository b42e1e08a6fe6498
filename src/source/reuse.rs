//! The directories of a commit, and the files in them that the new release has in common with an earlier one: linked to
//! it, or copied from it, where they are still what was recorded there.
//!
//! What a file holds is known by its blob, which names its content; that it still holds it, by its inode, size, mode and
//! times. Whatever is not exactly as recorded is left to be written afresh, and so is what the system does not let be
//! shared. The earlier release is never written to.

use super::contents::{File, Folder, Kind};
use super::objects::{Order, Place, link};
use super::{Earlier, Result, tar};
use crate::directory::{Dir, PathError, kind};
use crate::recipe::Link;
use crate::transfer::Copier;
use crate::tree::{Inventory, Item, Line, Lines, Seen};
use crate::walk::{Visit, walk_making};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One directory that is made.
pub(super) struct Laid {
    /// Its number.
    pub(super) number: usize,
    /// What it looks like.
    pub(super) own: Seen,
    /// The files in it that are made.
    pub(super) items: Vec<Item>,
    /// The numbers of those that are not.
    left: Vec<usize>,
}

/// Makes the directories `order` asks for, and what can be had from `earlier` in them. Returns that, and the places that
/// are left. Not durable on return.
pub(super) fn lay_out(order: &Order<'_>, earlier: Option<&Earlier>) -> Result<(Vec<Laid>, Vec<Place>)> {
    let lines = earlier.map(|earlier| &earlier.inventory).and_then(Inventory::lines).unwrap_or_default();
    let earlier = earlier.map(|earlier| &earlier.dir);
    let (numbers, owner) = (order.contents.numbers(), nix::unistd::geteuid().as_raw());
    let laying = Laying { order, earlier, lines, numbers, owner, copier: Copier::default() };
    let laid = walk_making(|path, above| laying.directory(path, above))?;
    let laid: Vec<Laid> = laid.into_iter().map(|(_, laid)| laid).collect();
    let left = laid.iter().flat_map(|laid| laid.left.iter().map(|file| (laid.number, *file)));
    let mut left: Vec<Place> = left.collect();
    left.sort_unstable();
    Ok((laid, left))
}

struct Laying<'a> {
    order: &'a Order<'a>,
    earlier: Option<&'a Dir>,
    lines: Lines<'a>,
    numbers: HashMap<&'a OsStr, usize>,
    owner: u32,
    copier: Copier,
}

impl Laying<'_> {
    fn directory(&self, path: &Path, above: Option<&Dir>) -> Result<Visit<Dir, Laid>> {
        let unknown = || self.order.into.fail("make", path)(Errno::ENOENT);
        let number = self.numbers.get(path.as_os_str()).copied().ok_or_else(unknown)?;
        let folder = &self.order.contents.folders[number];
        let taken = |error| tar::taken(path, error);
        let dir = match (above, path.file_name()) {
            (Some(above), Some(name)) => above.open_dir(name).map_err(taken)?,
            _ => self.order.into.open_below(path).map_err(taken)?,
        };
        let mode = self.order.looks.of_dirs();
        for name in &folder.below {
            match dir.add_dir(name, mode) {
                Err(error) if error.is(Errno::EEXIST) => {}
                made => made?,
            }
        }
        let (items, left) = self.files(folder, &dir)?;
        let mut own = dir.own_stat()?;
        if number > 0 && own.st_mode & 0o777 != mode {
            dir.set_mode(mode)?;
            own = dir.own_stat()?;
        }
        let found = Laid { number, own: Seen::from(&own), items, left };
        Ok(Visit { handle: dir, below: folder.below.clone(), found })
    }

    /// The files of one directory: what is made, and the numbers of what is left.
    fn files(&self, folder: &Folder, new: &Dir) -> Result<(Vec<Item>, Vec<usize>), PathError> {
        let mut left: Vec<usize> = (0..folder.files.len()).collect();
        let Some(earlier) = self.earlier.filter(|_| !left.is_empty()) else { return Ok((Vec::new(), left)) };
        let path = self.order.prefix.join(&folder.path);
        let Ok(old) = earlier.open_below(&path) else { return Ok((Vec::new(), left)) };
        let mut made = Vec::with_capacity(left.len());
        let mut unmade = Ok(());
        left.retain(|number| {
            let file = &folder.files[*number];
            let line = self.lines.get(path.join(&file.name).as_os_str().as_bytes());
            let line = line.filter(|line| line.blob() == Some(file.blob) && unmade.is_ok());
            match line.map(|line| self.one(&old, new, file, line)) {
                Some(Ok(Some(item))) => made.push(item),
                Some(Err(error)) => unmade = Err(error),
                _ => return true,
            }
            (self.order.tell)();
            false
        });
        unmade.map(|()| (made, left))
    }

    /// Makes one file; `None` if it has to be written.
    fn one(&self, old: &Dir, new: &Dir, file: &File, line: &Line<'_>) -> Result<Option<Item>, PathError> {
        let (seen, target) = match (file.kind, self.order.how) {
            (Kind::Link, _) if line.target.is_empty() => return Ok(None),
            (Kind::Link, _) => {
                let time = self.order.looks.time;
                (Some(link(new, &file.name, line.target, time)?), line.target.to_owned())
            }
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
        let wanted = self.order.looks.of(file.kind).mode | SFlag::S_IFREG.bits();
        let fits = |stat: &FileStat| stat.st_mode == wanted && stat.st_uid == self.owner;
        let seen = new.stat(&file.name)?.filter(fits).map(|stat| Seen::from(&stat));
        let still = seen.filter(|seen| line.still_linked(seen) == Some(file.blob));
        if still.is_none() {
            new.unlink(&file.name)?;
        }
        Ok(still)
    }

    /// Copies the earlier file; its blocks are shared where the file system can.
    fn copy(&self, old: &Dir, new: &Dir, file: &File, line: &Line<'_>) -> Result<Option<Seen>, PathError> {
        let Ok(Some((mut from, stat))) = old.open_seen(&file.name) else { return Ok(None) };
        if kind(&stat) != SFlag::S_IFREG || line.still(&Seen::from(&stat)) != Some(file.blob) {
            return Ok(None);
        }
        let look = self.order.looks.of(file.kind);
        let made = self.copier.copy(&mut from, &stat, new, &file.name, look)?;
        Ok(Some(Seen::from(&made)))
    }
}

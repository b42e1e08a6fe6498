//! What an environment looked like when it was finished: a digest over the kind, name, mode, size, time and link target
//! of everything in it. While it still looks like that, nobody has changed it, and it may be linked into another release.

use super::local::hex;
use super::rewrite::{mentions, spellings};
use super::{PythonError, Result};
use crate::directory::{Dir, PathError, kind};
use crate::tree::{Item, Listing, Seen};
use crate::walk::{Visit, walk};
use memchr::memmem::Finder;
use nix::sys::stat::SFlag;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The seal of one environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Over everything in it.
    pub(super) digest: String,
    /// The files that name the release's path, which differ from release to release. Bytecode is not among them: the
    /// import system puts the real path into what it loads, wherever that was compiled.
    pub(super) naming: Vec<PathBuf>,
}

/// What cannot be done to files that only their own environment may have.
const SHARE: &str = "share";

fn is_unshared(error: &PathError) -> bool {
    error.action == SHARE
}

/// The entries of a directory by name: directories, links and files. An error about what cannot be shared between releases:
/// files of another owner, setuid ones, devices and the like.
pub(super) fn entries(dir: &Dir) -> Result<Vec<Item>, PathError> {
    let mut names = dir.names()?;
    names.sort_unstable();
    let owner = geteuid().as_raw();
    let entry = |name: OsString| {
        let unshared = |why| PathError::new(SHARE, dir.path().join(&name), io::Error::other(why));
        let stat = dir.stat(&name)?.ok_or_else(|| unshared("it has just been removed"))?;
        if stat.st_uid != owner {
            return Err(unshared("it belongs to another user"));
        }
        let target = match kind(&stat) {
            SFlag::S_IFLNK => dir.read_link(&name)?.unwrap_or_default(),
            SFlag::S_IFDIR => OsString::new(),
            SFlag::S_IFREG if stat.st_mode & 0o6000 == 0 => OsString::new(),
            _ => return Err(unshared("it is neither a file, a directory nor a link")),
        };
        Ok(Item { seen: Seen::from(&stat), name, target, blob: None })
    };
    names.into_iter().map(entry).collect()
}

/// One directory's part of the digest, as its entries come by.
#[derive(Default)]
pub(super) struct Part(Sha256);

impl Part {
    /// Takes in one entry. Directories count by name and mode, links by target, files by mode, size and time.
    pub(super) fn add(&mut self, item: &Item) {
        let seen = &item.seen;
        let (size, time) = if seen.is_file() { (seen.size.cast_signed(), seen.changed) } else { (0, (0, 0)) };
        for number in [i64::from(seen.mode), size, time.0, time.1] {
            self.0.update(number.to_le_bytes());
        }
        for text in [&item.name, &item.target] {
            self.0.update(text.as_bytes());
            self.0.update([0]);
        }
    }

    /// What it comes to.
    pub(super) fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The digest of all directories, sorted by path as [`walk`] returns them.
pub(super) fn total<'p>(parts: impl Iterator<Item = (&'p Path, [u8; 32])>) -> String {
    let mut hash = Sha256::new_with_prefix(b"releasectl environment 1\0");
    for (path, part) in parts {
        hash.update(path.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Seals a finished environment and finds the files that name its release, and returns what is in it, too; `None` if it can
/// never be shared. If `cached`, files with several links come from an installer's cache, which knows nothing of releases,
/// and need not be read.
pub(super) fn take(environment: &Dir, release: &Dir, cached: bool) -> Result<Option<(Seal, Listing)>> {
    let Some(names) = spellings(release)? else { return Ok(None) };
    let names: Vec<_> = names.iter().map(Finder::new).collect();
    let unknown = |seen: &Seen| seen.links == 1 || !cached;
    let visited = walk(|path, above| {
        let dir = open(environment, path, above)?;
        let (below, found) = look(&dir, path, &unknown, &names)?;
        Ok(Visit { handle: dir, below, found })
    });
    let seen = match visited {
        Ok(seen) => seen,
        Err(error) if is_unshared(&error) => return Ok(None),
        Err(error) => return Err(PythonError::Path(error)),
    };
    let digest = total(seen.iter().map(|(path, found)| (path.as_path(), found.part)));
    let (mut naming, mut listing) = (Vec::new(), Listing::with_capacity(seen.len()));
    for (path, found) in seen {
        naming.extend(found.naming);
        listing.push((path, found.items));
    }
    Ok(Some((Seal { digest, naming }, listing)))
}

/// One directory as it is now.
pub(super) fn again(environment: &Dir, path: &Path) -> Result<Found, PathError> {
    Ok(look(&environment.open_below(path)?, path, &|_| false, &[])?.1)
}

/// Opens a directory of the walk: the root itself, or by its name in the one above.
pub(super) fn open(root: &Dir, path: &Path, above: Option<&Dir>) -> Result<Dir, PathError> {
    match (above, path.file_name()) {
        (Some(above), Some(name)) => above.open_dir(name),
        _ => root.open_below(path),
    }
}

/// What was seen of a directory.
pub(super) struct Found {
    /// Its part of the digest.
    pub(super) part: [u8; 32],
    /// What is in it.
    pub(super) items: Vec<Item>,
    /// Those of its files that name the release.
    naming: Vec<PathBuf>,
}

/// Looks at one directory; files that are `unknown` are searched for `names`.
fn look(
    dir: &Dir,
    path: &Path,
    unknown: &dyn Fn(&Seen) -> bool,
    names: &[Finder<'_>],
) -> Result<(Vec<OsString>, Found), PathError> {
    let (items, mut below, mut naming, mut part) = (entries(dir)?, Vec::new(), Vec::new(), Part::default());
    for item in &items {
        part.add(item);
        let Item { name, seen, .. } = item;
        if seen.is_dir() {
            below.push(name.clone());
        } else if seen.is_file() && unknown(seen) && !name.as_bytes().ends_with(b".pyc") {
            let Some(mut file) = dir.open_file(name)? else { continue };
            let read = |cause| PathError::new("read", dir.path().join(name), cause);
            if mentions(&mut file, names).map_err(read)? {
                naming.push(path.join(name));
            }
        }
    }
    Ok((below, Found { part: part.end(), items, naming }))
}

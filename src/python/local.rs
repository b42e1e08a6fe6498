//! Files of the release that an environment is made from: found without leaving the release, and taken into the digest.

use super::{PythonError, Result, lockfile};
use crate::directory::{Dir, PathError, kind};
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The longest requirements or lock file that is read.
const LONGEST: u64 = 64 << 20;
/// Links followed for one path.
const LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To this path in the release, no part of which is a link.
    Inside(PathBuf),
    /// Out of the release, by `..`, an absolute path or a link.
    Outside,
    /// To nothing.
    Absent,
}

/// Follows `path`, relative to the release, as far as it stays in it. Links are followed inside only.
pub(super) fn locate(release: &Dir, path: &Path) -> Result<Place> {
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    if !queue(&mut ahead, path) {
        return Ok(Place::Outside);
    }
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if !at.pop() {
                return Ok(Place::Outside);
            }
            continue;
        }
        let dir = match release.open_below(&at) {
            Err(error) if is_not_dir(&error) => return Ok(Place::Absent),
            opened => opened?,
        };
        let Some(stat) = dir.stat(&name)? else { return Ok(Place::Absent) };
        if kind(&stat) != SFlag::S_IFLNK {
            at.push(name);
            continue;
        }
        links += 1;
        let Some(target) = dir.read_link(&name)? else { return Ok(Place::Absent) };
        if links > LINKS || !queue(&mut ahead, Path::new(&target)) {
            return Ok(Place::Outside);
        }
    }
    Ok(Place::Inside(at))
}

/// Puts the parts of `path` before what is still ahead; `false` if it is absolute.
fn queue(ahead: &mut VecDeque<OsString>, path: &Path) -> bool {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::CurDir => {}
            _ => return false,
        }
    }
    true
}

fn is_not_dir(error: &PathError) -> bool {
    error.is(Errno::ENOTDIR) || error.is(Errno::ENOENT)
}

/// Whether a located path is a directory.
pub(super) fn is_dir(release: &Dir, path: &Path) -> Result<bool> {
    match release.open_below(path) {
        Ok(_) => Ok(true),
        Err(error) if is_not_dir(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The whole of a located file; `None` if there is none.
pub(super) fn read(release: &Dir, path: &Path) -> Result<Option<Vec<u8>>> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    Ok(release.open_below(above)?.read_file(name, LONGEST)?)
}

/// Everything that is asked for, as it is taken in.
pub(super) struct Asked<'a> {
    /// The release the files are in.
    pub(super) release: &'a Dir,
    /// Whether a requirement carries a hash.
    pub(super) hashed: bool,
    /// Whether code of the release is installed.
    pub(super) local: bool,
    bound: Option<String>,
    entered: BTreeSet<PathBuf>,
    hash: Sha256,
}

impl<'a> Asked<'a> {
    pub(super) fn new(release: &'a Dir) -> Self {
        let hash = Sha256::new_with_prefix(b"releasectl python 1\0");
        Self { release, hashed: false, local: false, bound: None, entered: BTreeSet::new(), hash }
    }

    /// The digest, and why the environment can serve no other release.
    pub(super) fn finish(self) -> (String, Option<String>) {
        (format!("sha256:{}", hex(&self.hash.finalize())), self.bound)
    }

    /// Says that the digest does not cover everything. The first reason is kept.
    pub(super) fn bind(&mut self, why: String) {
        self.bound.get_or_insert(why);
    }

    /// Whether the file has not been taken in before.
    pub(super) fn enter(&mut self, path: &Path) -> bool {
        self.entered.insert(path.to_owned())
    }

    /// Takes in one named piece. Lengths keep pieces apart.
    pub(super) fn piece(&mut self, what: &str, path: &Path, bytes: &[u8]) {
        for part in [what.as_bytes(), path.as_os_str().as_bytes(), bytes] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    /// Takes in a located file and returns it.
    pub(super) fn file(&mut self, what: &str, path: &Path) -> Result<Vec<u8>> {
        let missing = || PythonError::Missing { path: path.to_owned(), named_by: None };
        let bytes = read(self.release, path)?.ok_or_else(missing)?;
        self.piece(what, path, &bytes);
        Ok(bytes)
    }

    /// Takes in every file of a located directory of wheels, be it a link: its name and its content, since a wheel that
    /// was built again may have kept its name.
    pub(super) fn wheels(&mut self, path: &Path) -> Result<()> {
        let dir = self.release.open_below(path)?;
        let mut names = dir.names()?;
        names.sort_unstable();
        for name in names {
            let Some(stat) = dir.stat(&name)? else { continue };
            match kind(&stat) {
                SFlag::S_IFREG => self.content(&dir, Path::new(&name))?,
                SFlag::S_IFLNK => {
                    self.piece("link", Path::new(&name), b"");
                    self.local(&path.join(&name), false, path)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in a file of any size.
    fn content(&mut self, dir: &Dir, name: &Path) -> Result<()> {
        let Some(mut file) = dir.open_file(name)? else { return Ok(()) };
        let fail = |cause| PathError::new("read", dir.path().join(name), cause);
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 * 1024]);
        loop {
            let read = file.read(&mut buffer).map_err(fail)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        self.piece("content", name, &hash.finalize());
        Ok(())
    }

    /// Takes in a path that `named_by` asks to be installed. An editable project counts by its `pyproject.toml`, if
    /// that says everything about it; any other directory binds the environment to the release.
    pub(super) fn local(&mut self, target: &Path, editable: bool, named_by: &Path) -> Result<()> {
        self.local = true;
        let says = |what: &str| format!("{} installs {}, {what}", named_by.display(), target.display());
        let path = match locate(self.release, target)? {
            Place::Inside(path) => path,
            Place::Outside => {
                self.bind(says("which is outside the release"));
                return Ok(());
            }
            Place::Absent => {
                self.bind(says("which is not found in it"));
                return Ok(());
            }
        };
        if !is_dir(self.release, &path)? {
            let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            let dir = self.release.open_below(above)?;
            return self.content(&dir, Path::new(name));
        }
        if !editable {
            self.bind(says("a directory of code"));
        } else if !lockfile::says_everything(self, &path)? {
            self.bind(says("whose build depends on more than pyproject.toml"));
        }
        Ok(())
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}

//! The names of the releases: what is mounted a second time, by a bind mount or in a container, has another path there.

use crate::release::ReleaseId;
use memchr::memmem::Finder;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the paths of releases, or of one of them, begin with.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    prefix: Vec<u8>,
    /// The one release that all of it belongs to; otherwise an id follows.
    release: Option<ReleaseId>,
}

impl Name {
    /// The name of `releases`, the directory that has them.
    pub fn of(releases: &Path) -> Self {
        let path = releases.as_os_str().as_bytes();
        Self { prefix: [path.strip_suffix(b"/").unwrap_or(path), b"/"].concat(), release: None }
    }

    /// The release that `path` lies in.
    pub fn release_at(&self, path: &[u8]) -> Option<ReleaseId> {
        let rest = path.strip_prefix(&self.prefix[..])?;
        let word = rest.split(|byte| !(byte.is_ascii_alphanumeric() || b"._+-".contains(byte))).next()?;
        match &self.release {
            Some(id) => (word.is_empty() || self.prefix.ends_with(b"/")).then(|| id.clone()),
            None => std::str::from_utf8(word).ok()?.parse().ok(),
        }
    }

    /// Adds every release whose path stands somewhere in `text`.
    pub fn mentioned(&self, text: &[u8], found: &mut BTreeSet<ReleaseId>) {
        let finder = Finder::new(&self.prefix);
        let mut rest = text;
        while let Some(at) = finder.find(rest) {
            found.extend(self.release_at(&rest[at..]));
            // One may begin in what another begins with: `/a/` stands twice in `/a/a/`.
            rest = rest.get(at + 1..).unwrap_or_default();
        }
    }
}

/// A line of `/proc/PID/mountinfo`: the file system, which directory of it is mounted, and where.
struct Mount {
    device: Vec<u8>,
    shown: PathBuf,
    at: PathBuf,
}

/// A directory as its file system has it, whatever is mounted where.
pub struct Home {
    device: Vec<u8>,
    path: PathBuf,
}

impl Home {
    /// The home of `dir`, by the mounts it is seen through.
    pub fn of(dir: &Path, mountinfo: &[u8]) -> Option<Self> {
        let mut mounts = mounts(mountinfo);
        mounts.retain(|mount| dir.starts_with(&mount.at));
        let mount = mounts.into_iter().max_by_key(|mount| mount.at.as_os_str().len())?;
        let path = mount.shown.join(dir.strip_prefix(&mount.at).ok()?);
        Some(Self { device: mount.device, path })
    }

    /// The names that this directory of releases, or a part of it, has by these mounts.
    pub fn names(&self, mountinfo: &[u8]) -> Vec<Name> {
        let mut names = Vec::new();
        for mount in mounts(mountinfo).into_iter().filter(|mount| mount.device == self.device) {
            if let Ok(rest) = self.path.strip_prefix(&mount.shown) {
                names.push(Name::of(&mount.at.join(rest)));
            } else if let Ok(part) = mount.shown.strip_prefix(&self.path) {
                let release = part.iter().next().and_then(|first| first.to_str()?.parse().ok());
                let prefix = mount.at.into_os_string().into_vec();
                names.extend(release.map(|id| Name { prefix, release: Some(id) }));
            }
        }
        names
    }
}

fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        if let (Some(device), Some(shown), Some(at)) = (fields.next(), fields.next(), fields.next()) {
            mounts.push(Mount { device: device.to_owned(), shown: path(shown), at: path(at) });
        }
    }
    mounts
}

/// A path without the kernel's escapes: a space is `\040`.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(&byte) = rest.next() {
        let octal = |code: u8, digit: &u8| (code << 3) | (digit & 7);
        bytes.push(if byte == b'\\' { rest.by_ref().take(3).fold(0, octal) } else { byte });
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /srv rw - ext4 /dev/sda2 rw\n";

    #[test]
    fn a_path_in_a_container_is_that_of_the_release() {
        let home = Home::of(Path::new("/srv/my app/releases"), HERE).unwrap();
        let there = b"9 0 0:40 / / rw - overlay overlay rw\n\
                      10 9 8:2 /my\\040app /app rw - ext4 /dev/sda2 rw\n\
                      11 9 8:2 /my\\040app/releases/B/sub /b rw - ext4 /dev/sda2 rw\n\
                      11 9 8:2 /my\\040app/releases /all rw - ext4 /dev/sda2 rw\n\
                      12 9 8:1 /my\\040app /other rw - ext4 /dev/sda1 rw\n\
                      13 9 8:2 /else /else rw - ext4 /dev/sda2 rw\n";
        let names = home.names(there);
        let found =
            |path: &str| names.iter().find_map(|name| name.release_at(path.as_bytes())).map(|id| id.to_string());
        assert_eq!(found("/app/releases/A/x").as_deref(), Some("A"));
        assert_eq!(found("/all/C").as_deref(), Some("C"));
        assert_eq!(found("/b").as_deref(), Some("B"));
        assert_eq!(found("/b/x").as_deref(), Some("B"));
        for path in ["/bin", "/other/releases/A", "/else", "/app/shared", "/"] {
            assert_eq!(found(path), None, "{path}");
        }
        let mut mentioned = BTreeSet::new();
        for name in &names {
            name.mentioned(b"python\0/app/releases/A/manage.py\0/b/x\0", &mut mentioned);
        }
        assert_eq!(mentioned.len(), 2);
    }

    #[test]
    fn a_name_that_begins_within_another_is_seen() {
        let mut mentioned = BTreeSet::new();
        Name::of(Path::new("/a")).mentioned(b"/a/a/B:/a/C", &mut mentioned);
        let ids: Vec<String> = mentioned.iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["B", "C", "a"]);
    }
}

//! Names on disk: where everything of a tree lies.

use crate::pin::PREFIX;
use crate::release::ReleaseId;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The link to the live release.
pub const CURRENT: &str = "current";
/// The directory of releases.
pub const RELEASES: &str = "releases";
/// What releases share.
pub const SHARED: &str = "shared";
/// Logs of the application.
pub const LOG: &str = "log";
/// Our own directory, in the tree and in each release.
pub const STATE: &str = ".releasectl";
/// The tree lock, in the state directory.
pub const LOCK: &str = "lock";
/// The history, in the state directory.
pub const JOURNAL: &str = "journal.jsonl";
/// Bytes given up on a full disk, in the state directory.
pub const BALLAST: &str = "ballast";
/// Bare git mirrors, in the state directory.
pub const MIRROR: &str = "mirror";
/// uv's cache, in the state directory.
pub const CACHE: &str = "cache";
/// Releases being deleted, in the state directory.
pub const TRASH: &str = "trash";
/// Manifests of releases that were there before us, in the state directory.
pub const ADOPTED: &str = "adopted";
/// A release's manifest, in its state directory.
pub const MANIFEST: &str = "release.json";
/// The same from the release's own directory.
pub const OWN_MANIFEST: &str = ".releasectl/release.json";
/// What a build printed, in a release's state directory.
pub const BUILD_LOG: &str = "build.log";
/// Fabric's list of the releases that went live, at the root.
pub const RELEASES_TXT: &str = "RELEASES.txt";
/// Names, modes, sizes and times of a ready release, in its state directory.
pub const INVENTORY: &str = "inventory";
/// The recipe, at the root of the code.
pub const RECIPE: &str = "releasectl.toml";

/// Whether a name at the top of a release is part of it, not our record or a pin.
pub fn is_code(name: &OsStr) -> bool {
    name != STATE && !name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// The paths of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The tree at `root`, an absolute path.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root of the outermost tree in whose releases, or in whose own directory, `path` lies. Where a directory has the
    /// name of theirs, `is_there` says what lies beside it.
    pub fn around(path: &Path, is_there: impl Fn(&Path) -> bool) -> Option<&Path> {
        let within = |part: &&Path| match (part.file_name(), part.parent()) {
            (Some(name), Some(root)) if name == RELEASES => {
                [STATE, CURRENT].iter().any(|own| is_there(&root.join(own)))
            }
            (name, _) => name.is_some_and(|name| name == STATE),
        };
        path.ancestors().filter(within).last()?.parent()
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The link to the live release.
    pub fn current(&self) -> PathBuf {
        self.root.join(CURRENT)
    }

    /// The directory of releases.
    pub fn releases(&self) -> PathBuf {
        self.root.join(RELEASES)
    }

    /// One release.
    pub fn release(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(id.as_str())
    }

    /// Our own directory.
    pub fn state(&self) -> PathBuf {
        self.root.join(STATE)
    }

    /// The history.
    pub fn journal(&self) -> PathBuf {
        self.state().join(JOURNAL)
    }

    /// The bare mirrors.
    pub fn mirrors(&self) -> PathBuf {
        self.state().join(MIRROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_within_a_tree_is_known_by_what_is_beside_its_releases() {
        let around = |path: &'static str, there: &[&str]| {
            Layout::around(Path::new(path), |path| there.iter().any(|one| path == Path::new(one)))
        };
        let tree = Some(Path::new("/srv/app"));
        assert_eq!(around("/srv/app/releases/A", &["/srv/app/current"]), tree);
        assert_eq!(around("/srv/app/releases", &["/srv/app/.releasectl"]), tree);
        assert_eq!(
            around("/srv/app/releases/A/releases/B", &["/srv/app/current", "/srv/app/releases/A/current"]),
            tree
        );
        assert_eq!(around("/srv/app/.releasectl/trash/A", &[]), tree);
        assert_eq!(around("/srv/releases/app", &["/srv/releases/app/.releasectl"]), None);
        assert_eq!(around("/srv/app/shared/app", &["/srv/app/current"]), None);
        assert_eq!(around("/", &["/current"]), None);
    }
}

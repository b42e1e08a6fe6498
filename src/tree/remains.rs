//! What an older tool left in a tree, gathered for [`crate::predecessor`]. Nothing is changed.

use super::{Result, Tree};
use crate::directory::{Dir, kind};
use crate::layout::{RELEASES_TXT, SHARED};
use crate::predecessor::{Mark, Remains, Remnant};
use crate::release::ReleaseId;
use nix::sys::stat::SFlag;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The largest record that is read.
const LARGEST: u64 = 16 << 20;
/// How deep in a release links to `shared/` are looked for.
const DEEPEST: usize = 4;
/// Files by which tools mark a release.
const MARKS: [(&str, Mark); 4] = [
    (".build-complete", Mark::BuildComplete),
    ("REVISION", Mark::Revision),
    ("BAD_RELEASE", Mark::Bad),
    ("DEPLOY_UNFINISHED", Mark::Unfinished),
];

/// What a release links to in `shared/`, by paths that are the same in both, as `[shared]` of a recipe names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedPaths {
    /// Directories.
    pub dirs: Vec<PathBuf>,
    /// Files.
    pub files: Vec<PathBuf>,
}

/// The records of the tree, and the marks of the directories `releases`.
pub(super) fn gather(tree: &Tree, releases: &[ReleaseId]) -> Result<Remains> {
    let root = tree.root();
    let marks = |id: &ReleaseId| -> Result<Remnant> {
        let dir = tree.open_release(id)?;
        let there = |name: &str| dir.stat(name).map(|stat| stat.is_some());
        let mut marks = Vec::new();
        for (name, mark) in MARKS {
            if there(name)? {
                marks.push(mark);
            }
        }
        Ok(Remnant { id: id.clone(), marks })
    };
    let releases = releases.iter().map(marks).collect::<Result<_>>()?;
    let under_way = root.read_link("release").unwrap_or_default();
    let under_way = under_way.and_then(|target| Path::new(&target).file_name()?.to_str()?.parse().ok());
    let releases_log = match root.stat(".dep")? {
        Some(stat) if kind(&stat) == SFlag::S_IFDIR => {
            let dep = root.open_dir(".dep")?;
            text(&dep, "releases_log")?.or(text(&dep, "releases")?)
        }
        _ => None,
    };
    Ok(Remains {
        releases,
        live: tree.live()?.id().cloned(),
        releases_txt: text(root, RELEASES_TXT)?,
        revisions_log: text(root, "revisions.log")?,
        releases_log,
        under_way,
        last_version: text(root, "last_version")?,
    })
}

/// What the file says, bytes that are no text left out.
pub(super) fn text(dir: &Dir, name: &str) -> Result<Option<String>> {
    let bytes = dir.read_file(name, LARGEST)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// What `release` has in `shared/`. What cannot be looked at is passed over.
pub fn shared_by(root: &Dir, release: &Dir) -> SharedPaths {
    let mut found = SharedPaths::default();
    let Ok(shared) = std::fs::canonicalize(root.path().join(SHARED)) else { return found };
    let walk = walkdir::WalkDir::new(release.path()).min_depth(1).max_depth(DEEPEST).sort_by_file_name();
    for link in walk.into_iter().flatten().filter(walkdir::DirEntry::path_is_symlink) {
        // A recipe is UTF-8, and names no other.
        let path = link.path().strip_prefix(release.path()).ok().filter(|path| path.to_str().is_some());
        let Some(path) = path else { continue };
        if std::fs::canonicalize(link.path()).is_ok_and(|target| target == shared.join(path)) {
            let paths = if link.path().is_dir() { &mut found.dirs } else { &mut found.files };
            paths.push(path.to_owned());
        }
    }
    found
}

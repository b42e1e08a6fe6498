//! Laying out a tree, and taking over one that is there.

use super::locked::write_ballast;
use super::remains::{SharedPaths, shared_by};
use super::{Actor, Result, Tree, TreeError};
use crate::directory::{Dir, kind};
use crate::layout::{BALLAST, CACHE, CURRENT, LOG, MIRROR, RELEASES, SHARED, STATE, TRASH};
use crate::lock::Wait;
use crate::predecessor::Account;
use nix::sys::stat::SFlag;
use std::ffi::OsString;

/// What laying out did.
#[derive(Debug)]
pub struct Laid {
    /// The tree.
    pub tree: Tree,
    /// Releases that were there and are ours to look after now, and what is known of them.
    pub account: Account,
    /// What the live release has in `shared/`; looked for only where something was taken over.
    pub shared: SharedPaths,
    /// Whether anything was made.
    pub changed: bool,
    /// What a person should hear.
    pub notices: Vec<String>,
}

/// The directories of a tree in the order in which they are made: with our own, the last, it is one.
const DIRECTORIES: [(&str, u32); 4] = [(RELEASES, 0o755), (SHARED, 0o755), (LOG, 0o755), (STATE, 0o700)];

/// Makes what is missing of the tree at `root`, and takes over the releases in it: nothing but our own directory is made
/// where releases are, nothing is moved or renamed, and without our directory everything is as it was. Done twice it
/// changes nothing.
pub fn lay_out(root: Dir, actor: &Actor, wait: Wait) -> Result<Laid> {
    refuse_odd_current(&root)?;
    let mut changed = false;
    let fresh = root.stat(RELEASES)?.is_none() || is_vacant(&root)?;
    for (name, mode) in DIRECTORIES {
        if root.stat(name)?.is_none() && (fresh || name == STATE) {
            if name == STATE && changed {
                // Found without the others it would be taken for a tree that has none.
                root.sync()?;
            }
            root.ensure_dir(name, mode)?;
            changed = true;
        }
    }
    let state = root.open_dir(STATE)?;
    for name in [MIRROR, CACHE, TRASH] {
        state.ensure_dir(name, 0o700)?;
    }
    state.sync()?;
    root.sync()?;
    let tree = Tree::open(root)?;
    let mut locked = tree.lock_unsettled(actor, wait)?;
    let account = locked.adopt()?;
    locked.settle()?;
    if tree.state().stat(BALLAST)?.is_none() {
        write_ballast(&tree)?;
    }
    let notices = locked.take_notices();
    drop(locked);
    changed |= !account.releases.is_empty();
    let live = account.tool.and(tree.live()?.id().cloned());
    let shared = match live {
        Some(live) => shared_by(tree.root(), &tree.open_release(&live)?),
        None => SharedPaths::default(),
    };
    Ok(Laid { tree, account, shared, changed, notices })
}

/// Whether a directory is empty but for what laying out or a file system makes, so that a first build may lay it out by
/// itself.
pub fn is_vacant(root: &Dir) -> Result<bool> {
    let made = |name: &OsString| [RELEASES, SHARED, LOG].iter().any(|own| name == own);
    let empty = |name: &OsString| root.open_dir(name).and_then(|dir| dir.names()).is_ok_and(|names| names.is_empty());
    Ok(root.names()?.iter().all(|name| name == "lost+found" || made(name) && empty(name)))
}

fn refuse_odd_current(root: &Dir) -> Result<()> {
    let Some(stat) = root.stat(CURRENT)? else { return Ok(()) };
    let what = match kind(&stat) {
        SFlag::S_IFLNK => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        _ => "a file",
    };
    Err(TreeError::CurrentIsNoLink { path: root.path().join(CURRENT), what })
}

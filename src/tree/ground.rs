//! What a tree lies on. On NFS neither a lock nor a rename is this machine's own: a lock may be lost with the server, a
//! rename may be done and reported as failed, and another client may see `current` gone for a moment.

use super::{Result, Tree, TreeError};
use crate::directory::{Dir, PathError};
use crate::layout::{CACHE, JOURNAL, LOCK, MANIFEST, MIRROR, STATE, TRASH};
use nix::errno::Errno;
use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, fstatfs};

/// Whether a file system of this type keeps what is promised.
fn keeps(kind: FsType) -> bool {
    kind != NFS_SUPER_MAGIC
}

/// Refuses a directory on a file system that does not keep what is promised.
pub fn refuse_unsafe(dir: &Dir) -> Result<()> {
    let kind = fstatfs(dir).map_err(|errno| PathError::new("measure", dir.path(), errno))?.filesystem_type();
    if keeps(kind) { Ok(()) } else { Err(TreeError::OnNfs(dir.path().to_owned())) }
}

impl Tree {
    /// The same for every directory of a tree that could lie on a file system of its own.
    pub fn refuse_unsafe_ground(&self) -> Result<()> {
        [&self.root, &self.releases, &self.state].into_iter().try_for_each(refuse_unsafe)
    }

    /// Refuses a tree in which a change would find something that may not be written to.
    pub fn refuse_unwritable(&self) -> Result<()> {
        [&self.root, &self.releases, &self.state].into_iter().try_for_each(|dir| dir.ensure_writable("."))?;
        [LOCK, JOURNAL].into_iter().try_for_each(|name| self.state.ensure_writable(name))?;
        [MIRROR, CACHE, TRASH].into_iter().try_for_each(|name| self.refuse_unwritable_in(name))?;
        // Of an ext4 that an error made read-only, and of what may only be appended to, only an opened file tells.
        let live =
            self.live().ok().and_then(|live| self.releases.open_dir(live.id()?.as_str()).ok()?.open_dir(STATE).ok());
        let opened =
            [Some((&self.state, LOCK)), Some((&self.state, JOURNAL)), live.as_ref().map(|state| (state, MANIFEST))];
        for (dir, name) in opened.into_iter().flatten() {
            if dir.stat(name)?.is_some() {
                dir.open_or_create(name, 0o600)?;
            }
        }
        Ok(())
    }

    /// The same for the directory `name` of ours, if it is there, and what lies in it.
    fn refuse_unwritable_in(&self, name: &str) -> Result<()> {
        self.state.ensure_writable(name)?;
        if self.state.stat(name)?.is_none() {
            return Ok(());
        }
        let dir = self.state.open_dir(name)?;
        for within in dir.names()? {
            match dir.ensure_writable(&within) {
                // Only a mode forbids it, which its owner changes before he deletes.
                Err(error) if name == TRASH && error.is(Errno::EACCES) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC};

    #[test]
    fn only_nfs_does_not_keep_what_is_promised() {
        for kind in [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC] {
            assert!(keeps(kind), "{kind:?}");
        }
        assert!(!keeps(FsType(0x6969)));
    }
}

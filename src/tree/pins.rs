//! Pins on disk.

use super::{LockedTree, Result, TreeError};
use crate::directory::{NotAFile, PathError, kind};
use crate::operation::{Begin, Operation, Outcome};
use crate::pin::{PREFIX, Pin};
use crate::release::ReleaseId;
use nix::sys::stat::SFlag;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

impl LockedTree<'_> {
    /// Pins `id`, in place of the pins it has; `None` takes them away. The new pin is durable before an old one goes.
    /// Returns whether anything changed.
    pub fn set_pin(&mut self, id: &ReleaseId, pin: Option<Pin>) -> Result<bool> {
        let started = Instant::now();
        let ours = self.tree.entry(id.as_str().as_ref())?.is_some_and(|entry| entry.id().is_some());
        if !ours {
            return Err(TreeError::NoRelease(id.to_string()));
        }
        let release = self.tree.open_release(id)?;
        let new = pin.and_then(Pin::name);
        let names = release.names()?;
        let old: Vec<_> = names.iter().filter(|name| name.as_bytes().starts_with(PREFIX.as_bytes())).collect();
        if old.iter().map(|name| name.to_str()).eq(new.as_deref().map(Some)) {
            return Ok(false);
        }
        // Before the intent: what cannot be done is not begun.
        for name in &old {
            if release.stat(name)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR) {
                let path = release.path().join(name);
                return Err(PathError::new("remove", path, std::io::Error::other(NotAFile)).into());
            }
        }
        let operation = if pin.is_some() { Operation::Pin } else { Operation::Unpin };
        let (to, cause) = (Some(id.clone()), new.clone());
        let begin = Begin { to, cause, ..Begin::of(operation, &self.actor.by) };
        let seq = self.begin(&begin)?;
        if let Some(name) = &new {
            release.open_or_create(name, 0o644)?;
            release.sync()?;
        }
        for name in old.into_iter().filter(|name| name.to_str() != new.as_deref()) {
            release.unlink(name)?;
        }
        release.sync()?;
        self.done(seq, Outcome::Done, started, None);
        Ok(true)
    }
}

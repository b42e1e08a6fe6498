//! Choosing among releases: what could not be looked into might be the one, so it is an error and never passed over.

use super::{Entry, Found, Result, Tree, TreeError};
use crate::release::{Manifest, ReleaseId};
use crate::standing::Standing;

impl Tree {
    /// The manifests of all releases, oldest first.
    pub fn choices(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for name in self.releases.names()? {
            match self.examine(&name)? {
                Some((_, Some(error))) => return Err(error),
                Some((Entry { found: Found::Release(manifest), .. }, None)) => manifests.push(*manifest),
                _ => {}
            }
        }
        manifests.sort_unstable_by_key(|manifest| manifest.sequence);
        Ok(manifests)
    }

    /// The release a rollback would go to: the newest of the chain that is ready.
    pub fn rollback_target(&self, standing: &Standing) -> Result<Option<ReleaseId>> {
        for id in standing.chain.candidates(standing.live.as_ref()) {
            match self.release(id) {
                Ok(manifest) if manifest.ready_at.is_some() && manifest.bad.is_none() => return Ok(Some(id.clone())),
                Err(TreeError::Foreign(_)) if self.is_awaited(standing, id) => return Ok(Some(id.clone())),
                Err(error @ TreeError::Path(_)) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Whether `id` is another tool's release that went live, or was recorded as good, unseen by us: the next change takes
    /// it over.
    pub fn is_awaited(&self, standing: &Standing, id: &ReleaseId) -> bool {
        let is_foreign = || matches!(self.release(id), Err(TreeError::Foreign(_)));
        standing.recorded.contains(id) && self.open_release(id).is_ok() && is_foreign()
    }
}

//! The copies of the live release's files beside supervisord's configuration, on a host that wants copies and no include.

use super::Context;
use super::programs::{configured, owner};
use crate::error::Result;
use crate::identity::as_root;
use crate::recipe::Wiring;
use crate::release::ReleaseId;
use crate::supervisor::conf::{files_of, wire};
use crate::tree::Tree;
use std::path::{Path, PathBuf};

/// What the path of each of this environment's copies begins with, if copies are made.
pub(super) fn prefix(context: &Context, config: &Path) -> Option<PathBuf> {
    let copied = context.config.settings.supervisor.wiring == Wiring::Copy;
    copied.then(|| wire::directory_of_copies(config).join(wire::name_of_copy(owner(context), "")))
}

/// Makes them those of the release `id`, if this host wants copies: what supervisord reads then is what is live.
pub(super) fn follow(context: &Context, tree: &Tree, id: &ReleaseId) -> Result<()> {
    match configured(context) {
        Some(config) if context.config.settings.supervisor.wiring == Wiring::Copy => {
            install(context, config, tree, id).map(drop)
        }
        _ => Ok(()),
    }
}

/// Makes them exactly those of the release `id`; whether that changed anything.
pub(super) fn install(context: &Context, config: &Path, tree: &Tree, id: &ReleaseId) -> Result<bool> {
    put(context, config, &files_of(&tree.open_release(id)?)?)
}

/// Removes them; whether there were any.
pub(super) fn remove(context: &Context, config: &Path) -> Result<bool> {
    if found(context, config).is_empty() { Ok(false) } else { put(context, config, &[]) }
}

fn put(context: &Context, config: &Path, files: &[(String, String)]) -> Result<bool> {
    let user = context.config.settings.user.as_deref();
    Ok(as_root(|| wire::install(&wire::directory_of_copies(config), owner(context), user, files))?)
}

/// Whether they are exactly those of the release `id`; or whether there are none, if there is no release.
pub(super) fn are_of(context: &Context, config: &Path, tree: &Tree, id: Option<&ReleaseId>) -> Result<bool> {
    let found = found(context, config);
    let Some(id) = id else { return Ok(found.is_empty()) };
    let user = context.config.settings.user.as_deref();
    let meant = wire::as_copies(owner(context), user, &files_of(&tree.open_release(id)?)?)?;
    let meant = meant.iter().map(|(name, text)| (name, Some(text.as_bytes())));
    Ok(found.iter().map(|(name, text)| (name, text.as_deref())).eq(meant))
}

/// Those that there are: name and content.
fn found(context: &Context, config: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let directory = wire::directory_of_copies(config);
    let prefix = wire::name_of_copy(owner(context), "");
    as_root(|| {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let read = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).ok())
        };
        let mut found: Vec<_> = own.map(read).collect();
        found.sort_unstable();
        found
    })
}

//! A release as a workplace: for the verbs that run something in it.

use super::activation::alive;
use super::{Context, Target};
use crate::error::{Error, Kind, Result};
use crate::lock::{Lease, LockError};
use crate::recipe::Settings;
use crate::release::{Manifest, ReleaseId};
use crate::tools::Program;
use crate::tree::Tree;
use crate::usage;
use crate::workplace::Workplace;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// How long a release that is being looked at for cleaning is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what an attempt before has left is waited for.
const DYING: Duration = Duration::from_secs(5);

/// The workplace of `manifest`'s release, for commands that are a part of `operation`.
pub(super) fn workplace(
    context: &Context,
    tree: &Tree,
    manifest: &Manifest,
    settings: &Settings,
    operation: &str,
) -> Result<Workplace> {
    let place = Workplace::new(&context.tools, &tree.layout().release(&manifest.id), Some(settings.python.place()));
    Ok(place
        .telling("ENV", context.config.environment.as_ref())
        .telling("ROOT", Some(tree.layout().root()))
        .telling("RELEASE", Some(manifest.id.as_str()))
        .telling("RELEASE_PATH", Some(tree.layout().release(&manifest.id)))
        .telling("PREVIOUS", previous(tree, &manifest.id)?.as_ref().map(ReleaseId::as_str))
        .telling("OPERATION", Some(operation))
        .telling("REVISION", manifest.origin.revision.as_ref()))
}

/// What is live, or was before this release was.
fn previous(tree: &Tree, id: &ReleaseId) -> Result<Option<ReleaseId>> {
    let standing = tree.standing()?;
    Ok(if standing.live.as_ref() == Some(id) { tree.rollback_target(&standing)? } else { standing.live })
}

/// A release that something is to run in.
pub(super) struct Room<'a> {
    context: &'a Context,
    tree: Tree,
    id: ReleaseId,
    /// What its recipe and the host say.
    pub(super) settings: Settings,
    /// Where it is.
    pub(super) place: Workplace,
}

impl Room<'_> {
    /// A shell command in it, with `arguments` as `$1`, …. Where the release's Python is gone there is none: the shell would
    /// go on to another.
    pub(super) fn shell<A: AsRef<OsStr>>(
        &self,
        command: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Program> {
        if self.place.is_dead() {
            let not_found = |error| Error { kind: Kind::NotFound, ..error };
            alive(self.context, &self.tree, &self.id).map_err(not_found)?;
        }
        Ok(self.place.shell(command, arguments))
    }
}

/// Becomes the program that `make` gives, in `target`'s release, whose lease lives as long as the program or any child of
/// it does. Returns only if that fails.
pub(super) fn become_program(
    context: &Context,
    target: &Target,
    operation: &str,
    make: impl FnOnce(&Room<'_>) -> Result<Program>,
) -> Result<Error> {
    let tree = context.tree()?;
    let id = target.resolve(&tree)?;
    let manifest = tree.activatable(&id)?;
    let release = tree.open_release(&id)?;
    let settings = context.config.with_recipe(&release)?;
    let place = workplace(context, &tree, &manifest, &settings, operation)?;
    let room = Room { context, tree, id, settings, place };
    let program = make(&room)?;
    let Room { tree, id, place, .. } = room;
    let lease = shared_lease(&tree, &id)?;
    lease.hand_down()?;
    let name = program.name();
    let cause = program.replace();
    let kind = if cause.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::NotExecutable };
    let is_there = name.contains('/') && place.directory().join(&name).symlink_metadata().is_ok();
    let hint = match kind {
        Kind::NotFound if is_there => {
            "it is there, but not what it leads to or its first line names: `releasectl doctor` knows a dead python_env"
        }
        _ => "it is looked for in python_env first, then on PATH",
    };
    Ok(Error::new(kind, format!("cannot run {name} in release {id}: {cause}")).hint(hint))
}

/// Refuses to go on with a release while a process runs yet that the attempt before has started: when we are killed only our
/// own children die with us, and the rest would work on the same files.
pub(super) fn refuse_leftovers(tree: &Tree, id: &ReleaseId, anyway: bool) -> Result<()> {
    let path = tree.layout().release(id);
    let started = Instant::now();
    loop {
        let left = usage::started_for(&path);
        if left.is_empty() || anyway {
            return Ok(());
        }
        if started.elapsed() > DYING {
            let each = left.iter().map(|process| format!("{} ({})", process.pid, process.command));
            let each = each.collect::<Vec<_>>().join(", ");
            let message = format!("of what was started for release {id} before, this runs on: {each}");
            return Err(
                Error::refused(message).hint("wait for its end or kill it; `--resume=anyway` goes on beside it")
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A shared lease on a release that is still there.
fn shared_lease(tree: &Tree, id: &ReleaseId) -> Result<Lease> {
    let started = Instant::now();
    loop {
        let release = tree.open_release(id)?;
        match Lease::try_shared(&release)? {
            // Whoever cleans renames a release away under its lease: the name must still lead to what we hold.
            Some(lease) if tree.open_release(id)?.identity()? == release.identity()? => return Ok(lease),
            None if started.elapsed() > PATIENCE => return Err(LockError::held(&release).into()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

//! `create`: builds a private release.

use super::assemble::{self, Manner};
use super::describe::{Release, Surroundings};
use super::inside::refuse_leftovers;
use super::tee::note;
use super::{Context, Outcome};
use crate::error::{Error, Result};
use crate::lock::LockError;
use crate::pin::Pin;
use crate::release::{Manifest, Origin, ReleaseId, SourceKind, StepRecord};
use crate::source::{self, Incoming, Ready, Source};
use crate::tree::{Build, Reservation, Tree, TreeError};
use crate::usage::Usage;
use serde::Serialize;

/// Bytes and inodes that must stay free beside what a release takes.
const MARGIN: u64 = 16 << 20;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Where the code comes from; the configuration says it if this does not.
    pub source: Option<String>,
    /// What the source is, whatever it looks like.
    pub kind: Option<SourceKind>,
    /// The ref to check out.
    pub reference: Option<String>,
    /// The new release's id.
    pub id: Option<ReleaseId>,
    /// Days it is kept.
    pub keep_days: Option<u64>,
    /// Go on with one that was not finished.
    pub resume: Option<Resume>,
    /// How it is built.
    pub manner: Manner,
}

/// Which unfinished release to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The newest.
    Newest,
    /// This one.
    Release(ReleaseId),
}

/// A release that was built.
#[derive(Debug, Serialize)]
pub struct Created {
    /// It.
    pub release: Release,
    /// What the build did.
    pub steps: Vec<StepRecord>,
}

/// Builds a release; nothing live changes.
pub fn run(context: &Context, wanted: &Create) -> Result<Outcome> {
    let tree = ground(context, wanted, wanted.resume.is_none())?;
    let build = build(context, &tree, wanted, "create")?;
    let (standing, usage) = (tree.standing()?, Usage::default());
    let entry = tree.entry(build.id().as_str().as_ref())?;
    let describe = |entry| Surroundings::new(&tree, &standing, &usage).map(|around| around.describe(&entry));
    let release = entry.map(describe).transpose()?.flatten();
    let release = release.ok_or_else(|| TreeError::NoRelease(build.id().to_string()))?;
    Ok(Outcome::Create(Created { release, steps: build.manifest.steps.clone() }))
}

/// The tree to build in. Where there is none it is laid out for what is built `anew`, if that can be begun.
pub(super) fn ground(context: &Context, wanted: &Create, anew: bool) -> Result<Tree> {
    let tree = context.tree();
    if tree.is_ok() || !anew {
        return tree;
    }
    refuse_lost_ref(&named_source(context, wanted)?, wanted.reference.as_deref())?;
    pin_of(context, wanted)?;
    context.tree_or_new()
}

fn pin_of(context: &Context, wanted: &Create) -> Result<Option<Pin>> {
    Ok(wanted.keep_days.map(|days| Pin::for_days(days, context.actor.clock.now())).transpose()?)
}

/// Builds a release and returns it with its lease still held.
pub(super) fn build(context: &Context, tree: &Tree, wanted: &Create, cause: &str) -> Result<Build> {
    let resumed = wanted.resume.as_ref().map(|resume| unfinished(tree, resume)).transpose()?;
    if let Some(manifest) = &resumed {
        // What its builder has started runs on with every right.
        if tree.is_building(&manifest.id) {
            return Err(LockError::held(&tree.open_release(&manifest.id)?).into());
        }
        refuse_leftovers(tree, &manifest.id, wanted.manner.anyway)?;
    }
    if let Some(id) = wanted.id.as_ref().filter(|id| tree.releases().stat(id.as_str()).is_ok_and(|s| s.is_some())) {
        return Err(TreeError::Exists(id.clone()).into());
    }
    if resumed.is_none() {
        preflight(tree)?;
    }
    let source = source_of(context, wanted, resumed.as_ref())?;
    refuse_lost_ref(&source, wanted.reference.as_deref())?;
    let pin = pin_of(context, wanted)?;
    let (ready, origin) = prepare(context, tree, &source, resumed.as_ref())?;
    // A name that nobody gave may stand in the tar. It may be long in coming, so that is before the lock; a given name is
    // reserved at once.
    let id = match &wanted.id {
        None if resumed.is_none() => suggested(tree, &ready)?,
        named => named.clone(),
    };
    let mut locked = context.lock_briefly(tree)?;
    let build = match &resumed {
        Some(manifest) => locked.resume(&manifest.id, Some(cause.to_owned())).and_then(|build| {
            pin.map_or(Ok(false), |pin| locked.set_pin(build.id(), Some(pin)))?;
            Ok(build)
        }),
        None => locked.reserve(Reservation { id, origin: origin.clone(), pin, cause: Some(cause.to_owned()) }),
    };
    context.tell(&mut locked);
    drop(locked);
    let mut build = build?;
    let outcome = by_its_papers(&ready, resumed.as_ref(), origin).and_then(|origin| {
        if !is_same_code(&build.manifest.origin, &origin) {
            // What was done was done to other code.
            build.forget(|_| true)?;
        }
        build.manifest.origin = origin;
        assemble::run(context, tree, &mut build, &ready, wanted.manner)
    });
    // What `create` would go on with would not go live.
    let outcome =
        outcome.map_err(|error| if cause == "deploy" { error.or_hint(|| going_on(build.id())) } else { error });
    conclude(context, tree, &mut build, outcome)?;
    Ok(build)
}

/// Whether what comes from both is the same: a commit is, wherever it comes from.
fn is_same_code(before: &Origin, now: &Origin) -> bool {
    before.revision == now.revision && (now.revision.is_some() || before.location == now.location)
}

/// Refuses to go on with a release that is built where other code than its own is asked for.
pub(super) fn refuse_other_code(manifest: &Manifest, wanted: &Create) -> Result<()> {
    let Origin { location, r#ref, revision, .. } = &manifest.origin;
    let elsewhere = match &wanted.source {
        Some(text) if text != location => Source::recognise(text, None, wanted.kind)?.origin().location != *location,
        _ => false,
    };
    let known = |asked: &String| {
        Some(asked) == r#ref.as_ref()
            || revision.as_ref().is_some_and(|hash| asked.len() > 6 && hash.starts_with(asked))
    };
    if !elsewhere && wanted.reference.as_ref().is_none_or(known) {
        return Ok(());
    }
    let at = r#ref.as_ref().or(revision.as_ref()).map_or(String::new(), |at| format!(" at {at}"));
    let message = format!("release {} is built already, from {location}{at} and nothing else", manifest.id);
    let hint = "leave out SOURCE and --ref to go on with it, or --resume to build another";
    Err(Error::refused(message).hint(hint))
}

/// What to do about a deploy that failed.
pub(super) fn going_on(id: &ReleaseId) -> String {
    format!("`releasectl deploy --resume` goes on where it stopped; `releasectl log {id}` tells more")
}

/// Where the code comes from, as the papers of an export say it.
fn by_its_papers(ready: &Ready, resumed: Option<&Manifest>, mut origin: Origin) -> Result<Origin> {
    if !matches!(ready, Ready::Tar(_)) {
        return Ok(origin);
    }
    match resumed.filter(|manifest| manifest.has_done("source") && manifest.origin.location == origin.location) {
        // It is there, and not read again unless somebody has damaged it since.
        Some(manifest) => Ok(manifest.origin.clone()),
        None => {
            let was = ready.export()?.map(|export| export.origin);
            (origin.r#ref, origin.revision) = was.map_or((None, None), |was| (was.r#ref, was.revision));
            Ok(origin)
        }
    }
}

/// What it is called on the host that handed it over, if that name is free here.
fn suggested(tree: &Tree, ready: &Ready) -> Result<Option<ReleaseId>> {
    let Some(export) = ready.export()? else { return Ok(None) };
    Ok(if tree.releases().stat(export.id.as_str())?.is_none() { Some(export.id) } else { None })
}

/// The manifest of the release to go on with.
fn unfinished(tree: &Tree, resume: &Resume) -> Result<Manifest> {
    // No directory has a ref: it is the name of a patch, which is not here.
    let begun_by = |manifest: &Manifest| match (manifest.origin.kind, &manifest.origin.r#ref) {
        (SourceKind::Adopted, _) => Some("another tool"),
        (SourceKind::Dir, Some(_)) => Some("a hotfix with a patch"),
        _ => None,
    };
    if let Resume::Release(id) = resume {
        let manifest = tree.release(id)?;
        if let (None, Some(other)) = (manifest.ready_at, begun_by(&manifest)) {
            let message = format!("release {id} was begun by {other}, which alone could go on with it");
            return Err(Error::refused(message).hint("build another: leave out --resume"));
        }
        return Ok(manifest);
    }
    let ours = |manifest: &Manifest| manifest.ready_at.is_none() && begun_by(manifest).is_none();
    let newest = tree.choices()?.into_iter().rfind(ours);
    newest.ok_or_else(|| Error::refused("there is no unfinished release to go on with").hint("leave out --resume"))
}

/// Where the code comes from: the command line, the release that is resumed, or the configuration.
fn source_of(context: &Context, wanted: &Create, resumed: Option<&Manifest>) -> Result<Source> {
    let Some(manifest) = resumed.filter(|_| wanted.source.is_none()) else { return named_source(context, wanted) };
    let origin = &manifest.origin;
    if origin.location == "-" && manifest.has_done("source") {
        // It is there, and not read again unless somebody has damaged it since.
        return Ok(Source::Stdin);
    } else if origin.location == "-" {
        return Err(Error::refused("its code came from standard input, which is gone")
            .hint("hand it in again: name `-` beside --resume"));
    }
    let reference = wanted.reference.clone().or_else(|| origin.revision.clone());
    let location = origin.fetched_from(context.config.settings.source.git.as_ref());
    Ok(Source::recognise(location, reference, Some(origin.kind))?)
}

/// Where new code comes from: the command line, or the configuration.
fn named_source(context: &Context, wanted: &Create) -> Result<Source> {
    if let Some(text) = &wanted.source {
        return Ok(Source::recognise(text, wanted.reference.clone(), wanted.kind)?);
    }
    let table = &context.config.settings.source;
    let Some(location) = &table.git else {
        return Err(
            Error::refused("no source was named").hint("name one, or write it into [source] of the host's file")
        );
    };
    let reference = wanted.reference.clone().or_else(|| table.r#ref.clone());
    Ok(Source::recognise(location, reference, Some(wanted.kind.unwrap_or(SourceKind::Git)))?)
}

/// Only a repository has refs: what was asked for by one is not built from something else.
fn refuse_lost_ref(source: &Source, reference: Option<&str>) -> Result<()> {
    match (source, reference) {
        (Source::Git { .. }, _) | (_, None) => Ok(()),
        (_, Some(reference)) => {
            let message = format!("{} is no git repository and has no {reference}", source.origin().location);
            Err(Error::refused(message).hint("name the repository, or leave out --ref"))
        }
    }
}

/// Fetches what can be fetched before a name is reserved: a wrong ref leaves nothing behind.
fn prepare(context: &Context, tree: &Tree, source: &Source, resumed: Option<&Manifest>) -> Result<(Ready, Origin)> {
    let mut origin = source.origin();
    let ready = match source {
        Source::Git { location, reference } => {
            let mirrors = tree.state().ensure_dir(crate::layout::MIRROR, 0o700)?;
            let submodules = context.config.settings.source.submodules.unwrap_or(true);
            let (tools, stages) = (&context.tools, &*context.stages);
            let commit = source::fetch(&mirrors, location, reference.as_deref(), submodules, tools, stages)?;
            origin.revision = Some(commit.hash.clone());
            if let Some(manifest) = resumed.filter(|manifest| manifest.origin.revision == origin.revision) {
                origin.r#ref.clone_from(&manifest.origin.r#ref);
            }
            Ready::Commit(commit)
        }
        Source::Dir(path) => {
            source::open_dir(path, &[tree.root().identity()?, tree.releases().identity()?])?;
            Ready::Dir(path.clone())
        }
        Source::Tar(path) => Ready::Tar(Incoming::new(Some(path.clone()))),
        Source::Stdin => Ready::Tar(Incoming::new(None)),
    };
    Ok((ready, origin))
}

/// Refuses to begin what would fill the disk: as much as the live release took must be free.
pub(super) fn preflight(tree: &Tree) -> Result<()> {
    let Some((bytes, entries)) = tree.last_size()? else { return Ok(()) };
    let space = tree.releases().space()?;
    let inodes_short = space.inodes.is_some_and(|left| left < entries);
    if space.bytes >= bytes + MARGIN.min(bytes) && !inodes_short {
        return Ok(());
    }
    let what = if inodes_short { format!("{entries} inodes") } else { format!("{} MiB", bytes.div_ceil(1 << 20)) };
    let message =
        format!("there is not room for another release below {}: it wants {what}", tree.releases().path().display());
    Err(Error::refused(message).hint("`releasectl clean --dry-run` shows what can go"))
}

/// Records how the build ended, in its manifest, its log and the history.
pub(super) fn conclude(context: &Context, tree: &Tree, build: &mut Build, outcome: Result<()>) -> Result<()> {
    let id = build.id().clone();
    if let Err(error) = &outcome {
        note(build, &format!("failed: {}", error.message));
        if let Err(unwritten) = build.failed(&error.message) {
            context.stages.warn(&unwritten.to_string());
        }
    } else {
        note(build, "ready");
    }
    context.record(tree, |locked| locked.build_ended(build));
    let hint = || format!("`releasectl create --resume {id}` tries again, `releasectl clean` removes what is there");
    outcome.map_err(|error| error.or_hint(hint))
}

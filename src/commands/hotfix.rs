//! `hotfix`: a release like the live one with only the code changed, made live.

use super::activation::alive;
use super::assemble::{commit, earlier_source, make_python, record_python, render};
use super::bring_up::{GoLive, go_live};
use super::create::{conclude, preflight};
use super::tee::note;
use super::{Context, Outcome, Target};
use crate::error::{Error, Kind, Result};
use crate::layout::MIRROR;
use crate::operation::Operation;
use crate::python;
use crate::release::{Manifest, Origin, ReleaseId, SourceKind, StepStatus};
use crate::sharing;
use crate::source::{self, Commit, Ready, Site, SourceError};
use crate::steps::record;
use crate::tree::{Build, Reservation, Tree};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a patch that git refuses means.
const UNFIT: &str = "the patch does not fit the live release; nothing live has changed";

/// How the code changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To what it is at a branch, tag or commit.
    Ref(String),
    /// By a patch.
    Patch {
        /// The file.
        file: PathBuf,
        /// Whether it is undone.
        reverse: bool,
    },
}

/// Makes the release and activates it. It is rolled back like any other.
pub fn run(context: &Context, change: &Change) -> Result<Outcome> {
    let tree = context.tree()?;
    let live = Target::Current.resolve(&tree)?;
    let base = tree.activatable(&live)?;
    let python = environment(context, &tree, &base)?;
    preflight(&tree)?;
    let (fix, origin) = prepare(context, &tree, &base, change)?;
    let mut locked = context.lock_briefly(&tree)?;
    let reserved = locked.reserve(Reservation { id: None, origin, pin: None, cause: Some("hotfix".to_owned()) });
    context.tell(&mut locked);
    drop(locked);
    let mut build = reserved?;
    let outcome = make(context, &tree, &mut build, &base, &fix, python.as_deref());
    let outcome = outcome.map_err(|error| error.or_hint(|| "`releasectl clean` removes what is there".to_owned()));
    conclude(context, &tree, &mut build, outcome)?;
    alive(context, &tree, build.id())?;
    let mut locked = context.lock_briefly(&tree)?;
    refuse_moved(&locked.standing().live, &live)?;
    let wanted = GoLive { operation: Operation::Activate, to: build.id(), cause: "hotfix", restart: true };
    let activation = go_live(context, &mut locked, &wanted)?;
    Ok(Outcome::Activate(super::activation::Activation { steps: build.manifest.steps.clone(), ..activation }))
}

/// A change that can be made.
enum Fix {
    /// The files of the first commit go, those of the second come.
    Commits(Commit, Commit),
    /// The whole of a patch, and whether it is undone.
    Patch(Vec<u8>, bool),
}

/// Fetches or reads what is needed before anything is made.
fn prepare(context: &Context, tree: &Tree, base: &Manifest, change: &Change) -> Result<(Fix, Origin)> {
    match change {
        Change::Ref(reference) => {
            let (SourceKind::Git, Some(hash)) = (base.origin.kind, &base.origin.revision) else {
                let message = format!("release {} was not built from git", base.id);
                return Err(Error::refused(message)
                    .hint("`hotfix --patch FILE` changes any release; `deploy` builds one from git"));
            };
            let configured = &context.config.settings.source;
            let location = base.origin.fetched_from(configured.git.as_ref());
            let submodules = configured.submodules.unwrap_or(true);
            let mirrors = tree.state().ensure_dir(MIRROR, 0o700)?;
            let (tools, stages) = (&context.tools, &*context.stages);
            let new = source::fetch(&mirrors, location, Some(reference), submodules, tools, stages)?;
            let old = Commit { location: location.to_owned(), hash: hash.clone(), submodules };
            let revision = Some(new.hash.clone());
            let origin = Origin { r#ref: Some(reference.clone()), revision, ..base.origin.clone() };
            Ok((Fix::Commits(old, new), origin))
        }
        Change::Patch { file, reverse } => {
            let unreadable = |cause: std::io::Error| {
                let hint = match cause.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "the tree's user reads it: put it where he may, in /tmp say"
                    }
                    _ => "name a file",
                };
                Error::refused(format!("cannot read the patch {}: {cause}", file.display())).hint(hint)
            };
            let text = std::fs::read(file).map_err(unreadable)?;
            let named = file.file_name().unwrap_or_default().to_string_lossy();
            let verb = if *reverse { "without" } else { "with" };
            let location = tree.layout().release(&base.id).display().to_string();
            let reference = Some(format!("{} {verb} {named}", base.id));
            let origin = Origin { kind: SourceKind::Dir, location, r#ref: reference, revision: None };
            Ok((Fix::Patch(text, *reverse), origin))
        }
    }
}

/// The live release's code and generated files, changed; a python_env that is right at its new path.
fn make(
    context: &Context,
    tree: &Tree,
    build: &mut Build,
    base: &Manifest,
    fix: &Fix,
    python: Option<&Path>,
) -> Result<()> {
    let started = Instant::now();
    let live = tree.open_release(&base.id)?;
    note(build, &format!("hotfix of {}", base.id));
    let tell = |done| context.stages.advance(done);
    context.stages.during("copy", || build.copy_from(&live, python, &tell))?;
    match fix {
        Fix::Commits(old, new) => {
            let mirrors = tree.state().ensure_dir(MIRROR, 0o700)?;
            let (release, tools, stages) = (build.dir(), &context.tools, &*context.stages);
            let (earlier, link) = (earlier_source(tree, build.id())?, context.config.settings.source.link);
            let (tree, earlier) = (tree.root().identity()?, earlier.as_ref());
            let site = Site { release, mirrors: &mirrors, tree, earlier, link, tools, stages };
            old.erase(&site)?;
            if let Some(made) = source::bring(&Ready::Commit(new.clone()), &site).map_err(in_the_way)? {
                // What is not from this commit is added when the build is committed.
                build.take_listing(made, &[])?;
            }
        }
        Fix::Patch(text, reverse) => {
            let link = context.config.settings.source.link;
            source::patch(build.dir(), text, *reverse, link, &context.tools).map_err(|error| match error {
                SourceError::Tool(_) => Error::from(error).hint(UNFIT),
                error => error.into(),
            })?;
        }
    }
    build.manifest.steps.push(record("source", StepStatus::Done, started));
    let settings = context.config.with_recipe(build.dir())?;
    sharing::link(&settings.shared, tree.root(), build.dir())?;
    if python.is_some()
        && let Some(python) = make_python(context, tree, build, &settings)?
    {
        record_python(build, python)?;
    }
    render(context, tree, build, &settings)?;
    commit(context, build, false)
}

/// What the live release has beside its code stands where the new code has something.
fn in_the_way(error: SourceError) -> Error {
    match error {
        SourceError::Member { member, why } => {
            let message = format!("{member:?} of the new code cannot be laid over what the live release has: {why}");
            Error::new(Kind::Failed, message).hint("`deploy` builds a release from the new code alone")
        }
        error => error.into(),
    }
}

/// Where the live release has a virtual environment, which is not copied but made: in a copy its programs would run the
/// other one's Python. One that another tool has made, and nothing tells what is in it, cannot be made.
fn environment(context: &Context, tree: &Tree, base: &Manifest) -> Result<Option<PathBuf>> {
    if let Some(python) = &base.python {
        return Ok(Some(python.directory.clone()));
    }
    let live = tree.open_release(&base.id)?;
    let is =
        |path: &Path| live.open_below(path).and_then(|dir| dir.stat("pyvenv.cfg")).is_ok_and(|file| file.is_some());
    let settings = context.config.with_recipe(&live)?;
    let planned = python::plan(&live, &settings.python)?.map(|plan| plan.directory);
    let names = live.names()?;
    let mut others = names.iter().map(Path::new).filter(|name| Some(*name) != planned.as_deref());
    if let Some(other) = others.find(|name| is(name)) {
        let message =
            format!("release {} has a virtual environment in {} that was made another way", base.id, other.display());
        return Err(Error::refused(message)
            .hint("a copy of it would run the old one's Python: `deploy` builds a release with its own"));
    }
    Ok(planned.filter(|directory| is(directory)))
}

/// A hotfix of what is not live any more would undo somebody else's work.
fn refuse_moved(live: &Option<ReleaseId>, base: &ReleaseId) -> Result<()> {
    if live.as_ref() == Some(base) {
        return Ok(());
    }
    let message = format!("another release than {base} went live while the hotfix was built; it was not activated");
    Err(Error::refused(message).hint("make the hotfix again, from what is live now"))
}

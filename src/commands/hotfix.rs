//! `hotfix`: a release like the live one with only the code changed, made live.

use super::activation::alive;
use super::assemble::{commit, earlier_source, make_python, record_python, render};
use super::bring_up::{GoLive, go_live};
use super::create::{conclude, preflight};
use super::tee::note;
use super::{Context, Outcome, Target};
use crate::directory::{Dir, PathError};
use crate::error::{Error, Kind, Result};
use crate::layout::MIRROR;
use crate::operation::Operation;
use crate::python;
use crate::recipe::Link;
use crate::release::{Manifest, Origin, ReleaseId, SourceKind, StepStatus};
use crate::sharing;
use crate::source::{self, Commit, Ready, Site, SourceError};
use crate::steps::record;
use crate::transfer::masked;
use crate::tree::{Build, Reservation, Tree};
use nix::sys::stat::SFlag;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest a patch may take.
const LIMIT: Duration = Duration::from_secs(300);

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
        Fix::Patch(text, reverse) => patch(context, build.dir(), text, *reverse)?,
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

/// Applies a patch whole or not at all. git must not take the release for a part of a repository around it.
fn patch(context: &Context, release: &Dir, text: &[u8], reverse: bool) -> Result<()> {
    let above = release.path().parent().unwrap_or(release.path());
    let apply = |manner: &[&str]| {
        let program = context.tools.program("git").dir(release.path());
        let program = program.limit(LIMIT).env("GIT_CEILING_DIRECTORIES", above);
        let program = program.args(["apply", "--whitespace=nowarn"]).args(manner).args(reverse.then_some("--reverse"));
        let program = program.args(["-"]).input(text);
        let program = program.map_err(|cause| Error::new(Kind::Failed, cause.to_string()))?;
        let unfit = "the patch does not fit the live release; nothing live has changed";
        program.capture().map_err(|error| Error::from(error).hint(unfit))
    };
    let mut before = BTreeMap::new();
    // Lines added, lines removed, and the path.
    for line in apply(&["--numstat", "-z"])?.split(|byte| *byte == 0) {
        let path = Path::new(OsStr::from_bytes(line.splitn(3, |byte| *byte == b'\t').nth(2).unwrap_or_default()));
        source::refuse_own(path.iter().next().unwrap_or_default())?;
        for path in path.ancestors().filter(|path| path.file_name().is_some()) {
            before.insert(path.to_owned(), mode(release, path)?);
        }
    }
    apply(&[])?;
    let read_only = context.config.settings.source.link == Link::Hardlink;
    let masked = masked() | if read_only { 0o222 } else { 0 };
    before.iter().try_for_each(|(path, before)| Ok(restore_mode(release, path, *before, masked)?))
}

/// Kind and permission bits of what is at `path`, if anything is.
fn mode(release: &Dir, path: &Path) -> Result<Option<u32>, PathError> {
    let Ok(parent) = release.open_below(path.parent().unwrap_or(Path::new(""))) else { return Ok(None) };
    Ok(parent.stat(path.file_name().unwrap_or_default())?.map(|stat| stat.st_mode))
}

/// git makes what it changes anew, for everybody to read or for nobody else, as the caller's umask has it: what was there
/// `before` gets its permissions again, what was not those that the code of a commit has. Whether a file may be run is what
/// the patch says.
fn restore_mode(release: &Dir, path: &Path, before: Option<u32>, masked: u32) -> Result<(), PathError> {
    let Some(now) = mode(release, path)? else { return Ok(()) };
    let is = |kind: SFlag| move |mode: &u32| mode & SFlag::S_IFMT.bits() == kind.bits();
    if is(SFlag::S_IFDIR)(&now) {
        return if before.is_some() { Ok(()) } else { release.open_below(path)?.set_mode(0o775 & !masked | 0o700) };
    }
    if !is(SFlag::S_IFREG)(&now) {
        return Ok(());
    }
    let plain = before.filter(is(SFlag::S_IFREG)).unwrap_or(0o664 & !masked);
    let wanted = match (now & 0o100 > 0, plain & 0o100 > 0) {
        (true, false) => plain | (plain & 0o444) >> 2,
        (false, true) => plain & !0o111,
        _ => plain,
    };
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let parent = release.open_below(parent)?;
    let Some(file) = parent.open_file(name)? else { return Ok(()) };
    parent.set_file_mode(&file, name, wanted & 0o777)
}

/// A hotfix of what is not live any more would undo somebody else's work.
fn refuse_moved(live: &Option<ReleaseId>, base: &ReleaseId) -> Result<()> {
    if live.as_ref() == Some(base) {
        return Ok(());
    }
    let message = format!("another release than {base} went live while the hotfix was built; it was not activated");
    Err(Error::refused(message).hint("make the hotfix again, from what is live now"))
}

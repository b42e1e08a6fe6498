//! A release's virtual environment: built at its final path with uv or pip, or linked from an earlier release that
//! asked for the same, and never half there: its record is written last.
//!
//! Reading order: `requirements` says what is asked for, `interpreter` with which Python, `uv` and `pip` build,
//! `bytecode` compiles, `seal` remembers what came out, `reuse` links it into the next release, `relocate` makes one from
//! another host right here.

mod bytecode;
mod error;
mod interpreter;
mod local;
mod lockfile;
mod pip;
mod record;
mod relocate;
mod requirements;
mod reuse;
mod rewrite;
mod seal;
mod uv;

pub use error::PythonError;
pub use requirements::{Kind, Plan, plan};

pub use crate::environment::{Environment, Installer, Made};

use crate::directory::{Dir, PathError, kind};
use crate::export::Luggage;
use crate::removal;
use crate::tools::{Sink, ToolError, Tools};
use crate::tree::Listing;
use interpreter::Interpreter;
use nix::sys::stat::SFlag;
use record::Record;
use reuse::Obstacle;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shorthand of this module.
pub type Result<T, E = PythonError> = std::result::Result<T, E>;

/// The longest that one program of a build may run.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// What an environment is built from and for.
#[derive(Debug)]
pub struct Order<'a> {
    /// What it is to hold.
    pub plan: &'a Plan,
    /// The release it is for, opened by its final path.
    pub release: &'a Dir,
    /// Releases whose environment may serve again, the best first.
    pub previous: &'a [Dir],
    /// A directory for the installers' caches; to be linked from it must lie on the release's file system.
    pub cache: &'a Path,
    /// What programs start with.
    pub tools: &'a Tools,
}

/// An environment that is there and whole.
#[derive(Debug)]
pub struct Built {
    record: Record,
    on_record: bool,
    listing: Option<Listing>,
}

impl Built {
    /// What the manifest tells of it.
    pub fn environment(&self) -> &Environment {
        &self.record.environment
    }

    /// What is in it, by paths relative to it; `None` if not all of it has been looked at, or if the code may have been
    /// changed while it was made.
    pub fn take_listing(&mut self) -> Option<Listing> {
        self.listing.take()
    }

    /// Puts it on record. It and the record are durable on return.
    pub fn finish(self, release: &Dir) -> Result<Environment> {
        if self.on_record { Ok(self.record.environment) } else { self.record.finish(release) }
    }

    /// The record that is still to be written into the release's state directory once the environment is durable: name and
    /// content.
    pub fn paper(&self) -> Result<Option<(&'static str, Vec<u8>)>> {
        if self.on_record { Ok(None) } else { self.record.paper().map(Some) }
    }
}

/// Makes the environment `order` asks for. One that is already there, finished for the same digest and interpreter, and
/// alive, is left as it is; an unfinished one is removed first. What is made is neither durable nor on record yet.
pub fn build(order: &Order<'_>, sink: &mut Sink<'_>) -> Result<Built> {
    let path = path_of(order);
    if path.as_os_str().as_bytes().contains(&b':') {
        // Steps would find the host's programs in place of its own.
        return Err(PythonError::Parted { path });
    }
    let interpreter = Interpreter::find(order.tools, order.plan.version.as_deref())?;
    let recorded = Record::read(order.release)?;
    if let Some(record) = recorded.as_ref().filter(|record| stands(order, &interpreter, record)) {
        return Ok(Built { record: record.clone(), on_record: true, listing: None });
    }
    clear(order, recorded.as_ref())?;
    Record::begin(order.release, order.plan)?;
    let mut unfit = Vec::new();
    for previous in order.previous {
        match reuse::link(order, &interpreter, previous, sink) {
            Ok((record, listing)) => return Ok(Built { record, on_record: false, listing: Some(listing) }),
            Err(Obstacle::Failed(error)) => return Err(error),
            Err(Obstacle::Unfit(why)) => {
                unfit.push(format!("{}: {why}", name_of(previous)));
                remove(order)?;
            }
        }
    }
    for why in &unfit {
        say(sink, &format!("{} is built afresh; {why}\n", order.plan.directory.display()))?;
    }
    let mut built = afresh(order, &interpreter, sink)?;
    built.record.environment.because = unfit.into_iter().next();
    Ok(built)
}

/// Makes the environment that came with the release from another host right at its new path, so that [`build`] finds it
/// whole. One that does not fit is removed, and why is returned; then it is built afresh.
pub fn take_over(order: &Order<'_>, luggage: &Luggage, sink: &mut Sink<'_>) -> Result<Option<String>> {
    let interpreter = Interpreter::find(order.tools, order.plan.version.as_deref())?;
    match relocate::settle(order, &interpreter, luggage, sink) {
        Ok(record) => record.finish(order.release).map(|_| None),
        Err(Obstacle::Failed(error)) => Err(error),
        Err(Obstacle::Unfit(why)) => {
            remove(order)?;
            Ok(Some(why))
        }
    }
}

/// Runs the environment's interpreter once, for ten seconds at most, and returns its version. An error if it does not
/// run, is not the one of this directory any more, or no longer sees the packages that are installed here.
pub fn alive(tools: &Tools, environment: &Path) -> Result<String> {
    interpreter::look_around(tools, environment).map(|seen| seen.version)
}

/// Whether what is recorded is what is asked for, and still there.
fn stands(order: &Order<'_>, interpreter: &Interpreter, record: &Record) -> bool {
    let asked = record.answers(order.plan, interpreter) && record.is_of(order.release);
    asked && alive(order.tools, &path_of(order)).is_ok()
}

/// Installs everything, compiles it and takes its seal.
fn afresh(order: &Order<'_>, interpreter: &Interpreter, sink: &mut Sink<'_>) -> Result<Built> {
    make_parent(order)?;
    let environment = path_of(order);
    let installer = match order.tools.find("uv") {
        Some(_) => {
            uv::install(order, interpreter, &environment, sink)?;
            Installer::Uv
        }
        None => {
            pip::install(order, interpreter, &environment, sink)?;
            Installer::Pip
        }
    };
    let dir = order.release.open_below(&order.plan.directory)?;
    let uncompiled = bytecode::adopt(&dir, interpreter, &earlier(order))?;
    bytecode::compile(order.tools, &dir, &uncompiled, sink)?;
    let seen = interpreter::look_around(order.tools, &environment)?;
    let (seal, listing) = match &order.plan.bound {
        None => seal::take(&dir, order.release, installer == Installer::Uv && !order.plan.local)?,
        Some(_) => None,
    }
    .unzip();
    // A package that is built where its code lies may leave something there.
    let listing = listing.filter(|_| !order.plan.local);
    let environment = Environment {
        directory: order.plan.directory.clone(),
        python: interpreter.version.clone(),
        interpreter: interpreter.file.clone(),
        digest: order.plan.digest.clone(),
        made: Made::Built,
        installer,
        from: None,
        because: None,
        packages: seen.distributions.len(),
    };
    let record = Record { finished: true, release: order.release.path().to_owned(), environment, seal };
    Ok(Built { record, on_record: false, listing })
}

/// The environments of the earlier releases that can be opened.
fn earlier(order: &Order<'_>) -> Vec<Dir> {
    order.previous.iter().filter_map(|release| release.open_below(&order.plan.directory).ok()).collect()
}

/// Removes what stands where the environment belongs, if it is a virtual environment or an unfinished one of ours.
fn clear(order: &Order<'_>, recorded: Option<&Record>) -> Result<()> {
    let (above, name) = split(&order.plan.directory)?;
    let Ok(parent) = order.release.open_below(above) else { return Ok(()) };
    let Some(stat) = parent.stat(name)? else { return Ok(()) };
    let ours = recorded.is_some_and(|record| record.environment.directory == order.plan.directory);
    let environment = kind(&stat) == SFlag::S_IFDIR && parent.open_dir(name)?.stat("pyvenv.cfg")?.is_some();
    if kind(&stat) != SFlag::S_IFDIR || !(ours || environment) {
        return Err(PythonError::Occupied { path: path_of(order) });
    }
    remove(order)
}

/// Removes the environment's directory, whatever it holds.
fn remove(order: &Order<'_>) -> Result<()> {
    let (above, name) = split(&order.plan.directory)?;
    let parent = match order.release.open_below(above) {
        // Nothing was made yet, nor what it is to lie in.
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    Ok(removal::delete_any(&parent, name, &|_| {}).whole()?)
}

/// Makes the directories above the environment.
fn make_parent(order: &Order<'_>) -> Result<Dir> {
    let (above, _) = split(&order.plan.directory)?;
    Ok(order.release.ensure_below(above, 0o755)?)
}

/// The environment's final path.
fn path_of(order: &Order<'_>) -> PathBuf {
    order.release.path().join(&order.plan.directory)
}

/// A relative path as the directory it is in and its name there.
fn split(path: &Path) -> Result<(&Path, &std::ffi::OsStr)> {
    let parts = path.parent().zip(path.file_name());
    parts.ok_or_else(|| PathError::new("open", path, io::Error::from(io::ErrorKind::InvalidInput)).into())
}

/// The name of a release, as messages give it.
fn name_of(release: &Dir) -> String {
    release.path().file_name().unwrap_or(release.path().as_os_str()).to_string_lossy().into_owned()
}

/// Says something of our own in between what the programs print.
fn say(sink: &mut Sink<'_>, text: &str) -> Result<()> {
    sink(text.as_bytes()).map_err(|cause| ToolError::Output { program: "the build".into(), cause }.into())
}

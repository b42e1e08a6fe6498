//! Bare mirrors of git repositories: fetched once, then updated. One process works on a mirror at a time.

use super::{Result, SourceError, git};
use crate::directory::{Dir, PathError};
use crate::lock::Lease;
use crate::stage::Stages;
use crate::tools::{Program, Tools};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest a fetch by another process is waited for.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Where git leaves the first thing a fetch asked for. A ref of our own would show in what `export-subst` writes.
pub(super) const FETCHED: &str = "FETCH_HEAD";

/// A mirror, ours alone while this lives.
#[derive(Debug)]
pub(super) struct Mirror<'a> {
    dir: Dir,
    location: &'a str,
    tools: &'a Tools,
    _lease: Lease,
}

impl<'a> Mirror<'a> {
    /// Opens the mirror of `location`, made empty if there is none, and waits for its turn.
    pub(super) fn open(mirrors: &Dir, location: &'a str, tools: &'a Tools) -> Result<Self> {
        let dir = mirrors.ensure_dir(name(location), 0o700)?;
        let started = Instant::now();
        let lease = loop {
            match Lease::try_exclusive(&dir)? {
                Some(lease) => break lease,
                None if started.elapsed() > PATIENCE => {
                    let cause = std::io::Error::other("another process has been fetching into it for half an hour");
                    return Err(PathError::new("lock", dir.path(), cause).into());
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let mirror = Self { dir, location, tools, _lease: lease };
        mirror.clear_leftovers()?;
        if !mirror.is_whole()? {
            mirror.dir.unlink("HEAD")?;
            mirror.git(["init", "--quiet", "--bare", "."]).capture()?;
        }
        Ok(mirror)
    }

    /// Whether git takes it for a repository. `git init` writes HEAD before or after the others, as its version has it, and
    /// may have been killed between them; a HEAD of no bytes is what a power cut leaves of one that was never synced.
    fn is_whole(&self) -> Result<bool> {
        for name in ["HEAD", "config", "objects", "refs"] {
            if self.dir.stat(name)?.is_none_or(|found| found.st_size == 0 && name == "HEAD") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The mirror itself.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// A git that works in this mirror, with nothing of the caller's environment and no questions asked.
    pub(super) fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Program {
        git::program(self.tools, self.dir.path()).args(arguments)
    }

    /// Brings everything that can be asked for by name: branches, tags and HEAD; of a local repository every ref.
    pub(super) fn update(&self, stages: &dyn Stages) -> Result<()> {
        stages.begin("fetch", None);
        let refs: &[&str] = if Path::new(self.location).is_absolute() {
            &["+refs/*:refs/*"]
        } else {
            &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        };
        let fetched = self.fetch(["HEAD"].iter().chain(refs).copied()).or_else(|error| {
            // A repository whose HEAD leads nowhere has branches all the same.
            self.fetch(refs.iter().copied()).map_err(|_| error)?;
            Ok(self.dir.unlink(FETCHED).map(drop)?)
        });
        stages.end();
        fetched
    }

    /// Brings one ref or commit by its full name; [`FETCHED`] names it then.
    pub(super) fn fetch_one(&self, reference: &str) -> Result<()> {
        // The colon with nothing behind it: to no ref here, whatever `reference` says.
        self.fetch([format!("+{reference}:").as_str()])
    }

    fn fetch<'r>(&self, refs: impl IntoIterator<Item = &'r str>) -> Result<()> {
        // Packs are synced by git, loose objects are not; and nothing may go on in the background.
        let options = ["-c", "fetch.unpackLimit=1", "-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false"];
        let verb = ["fetch", "--quiet", "--prune", "--no-tags", "--force", "--update-shallow", "--", self.location];
        let program = self.git(options).args(verb).args(refs);
        Ok(program.capture().map(drop)?)
    }

    /// The commit that `reference` names in this mirror, HEAD after an update only; `None` if it names none.
    pub(super) fn resolve(&self, reference: Option<&str>) -> Option<String> {
        let wanted = reference.unwrap_or("HEAD");
        let from_head = wanted.strip_prefix("HEAD").or_else(|| wanted.strip_prefix('@'));
        let from_head = from_head.filter(|rest| rest.is_empty() || rest.starts_with(['~', '^']));
        let wanted = from_head.map_or_else(|| wanted.to_owned(), |rest| format!("{FETCHED}{rest}"));
        let verb = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        let answer = self.git(verb).args([format!("{wanted}^{{commit}}")]).capture().ok()?;
        let text = String::from_utf8(answer).ok()?;
        Some(text.trim().to_owned()).filter(|hash| git::is_full_hash(hash))
    }

    /// Removes the lock files and half packs that a git which was killed left; nobody else is at work here.
    fn clear_leftovers(&self) -> Result<()> {
        let files = walkdir::WalkDir::new(self.dir.path()).into_iter();
        // All objects are in packs.
        let objects = self.dir.path().join("objects");
        let files = files.filter_entry(|entry| entry.path().parent() != Some(&objects) || entry.file_name() == "pack");
        for entry in files.flatten().filter(|entry| entry.file_type().is_file() && is_leftover(entry.path())) {
            let within = entry.path().strip_prefix(self.dir.path()).unwrap_or(entry.path());
            let parent = self.dir.open_below(within.parent().unwrap_or(Path::new("")))?;
            parent.unlink(entry.file_name())?;
        }
        Ok(())
    }
}

fn is_leftover(path: &Path) -> bool {
    let half = |name: &OsStr| name.as_encoded_bytes().starts_with(b"tmp_");
    let pack = path.parent().is_some_and(|parent| parent.ends_with("objects/pack"));
    path.extension() == Some(OsStr::new("lock")) || pack && path.file_name().is_some_and(half)
}

/// `commcare-hq-1a2b3c4d.git`: the end of the location, for people, and a sum of the whole, without a password in it.
fn name(location: &str) -> String {
    let location = git::without_password(location);
    let end = location.trim_end_matches('/').trim_end_matches(".git").rsplit(['/', ':']).next().unwrap_or_default();
    let plain: String = end.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(60).collect();
    format!("{plain}-{:08x}.git", crc32fast::hash(location.as_bytes()))
}

/// A URL, or an absolute path, as the error of a wrong one.
impl SourceError {
    pub(super) fn no_ref(location: &str, reference: Option<&str>) -> Self {
        let reference =
            reference.map_or_else(|| "commit yet".to_owned(), |reference| format!("ref or commit {reference:?}"));
        Self::NoRef { location: git::without_password(location), reference }
    }
}

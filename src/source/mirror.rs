//! Bare mirrors of git repositories: fetched once, then updated. One process works on a mirror at a time.

use super::{Result, SourceError, git};
use crate::directory::{Dir, PathError};
use crate::lock::{Lease, Wait, holder_of};
use crate::release::{password, without_password};
use crate::removal;
use crate::stage::Stages;
use crate::tools::{Program, ToolError, Tools};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// The longest another process at work on a mirror is waited for.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Where git leaves the first thing a fetch asked for. A ref of our own would show in what `export-subst` writes.
pub(super) const FETCHED: &str = "FETCH_HEAD";
/// From which size on a file is none to be held in memory.
const LARGE: &str = "core.bigFileThreshold=16m";
/// What names the objects of most repositories, and of the others.
const SHA1: &str = "sha1";
const SHA256: &str = "sha256";

/// What a repository offers: its HEAD, if that leads somewhere, and how it names its objects.
struct Offer {
    heads: &'static [&'static str],
    hash: &'static str,
}

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
    pub(super) fn open(mirrors: &Dir, location: &'a str, tools: &'a Tools, stages: &dyn Stages) -> Result<Self> {
        let dir = mirrors.ensure_dir(name(location), 0o700)?;
        let lease = match Lease::try_exclusive(&dir)? {
            Some(lease) => lease,
            None => wait(&dir, stages)?,
        };
        let mirror = Self { dir, location, tools, _lease: lease };
        mirror.clear_leftovers()?;
        if !mirror.is_whole()? {
            mirror.init(SHA1)?;
        }
        Ok(mirror)
    }

    /// Makes an empty one whose objects have the names that `hash` gives, and whose refs are in files, whatever git does by
    /// default here.
    fn init(&self, hash: &str) -> Result<()> {
        self.dir.unlink("HEAD")?;
        let init = self.git(["init", "--quiet", "--bare", "."]);
        let init = init.env("GIT_DEFAULT_HASH", hash).env("GIT_DEFAULT_REF_FORMAT", "files");
        Ok(init.capture().map(drop)?)
    }

    /// What names its objects.
    fn hash(&self) -> &'static str {
        let said = self.git(["config", "extensions.objectFormat"]).capture();
        if said.is_ok_and(|said| said.starts_with(SHA256.as_bytes())) { SHA256 } else { SHA1 }
    }

    /// Whether git takes it for a repository. `git init` writes HEAD before or after the others, as its version has it, and
    /// may have been killed between them; a file of no bytes is what a power cut leaves of one that was never synced.
    fn is_whole(&self) -> Result<bool> {
        for name in ["HEAD", "config", "objects", "refs"] {
            if self.dir.stat(name)?.is_none_or(|found| found.st_size == 0 && ["HEAD", "config"].contains(&name)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something in it is not as git wrote it. Reads all of it: for when git has failed.
    fn is_damaged(&self) -> bool {
        // What fsck has to say of the objects themselves is about whoever made them.
        let connected = self.git(["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]).capture().is_ok();
        let packs = self.dir.open_below(Path::new("objects/pack")).and_then(|packs| packs.names()).unwrap_or_default();
        let mut packs = packs.iter().map(Path::new).filter(|name| name.extension() == Some(OsStr::new("idx")));
        let is_right =
            |name: &Path| self.git(["verify-pack"]).args([Path::new("objects/pack").join(name)]).capture().is_ok();
        !(connected && packs.all(is_right))
    }

    /// Throws all of it away: whoever needs something of it fetches it anew.
    fn empty(&self, hash: &str) -> Result<()> {
        self.dir.unlink("HEAD")?;
        for name in self.dir.names()? {
            removal::delete_any(&self.dir, &name, &|_| {}).whole()?;
        }
        self.init(hash)
    }

    /// What git's failure to read from here comes from. A mirror that turns out to be damaged is empty afterwards, if what
    /// it held can be had again.
    pub(super) fn explain(&self, error: SourceError) -> SourceError {
        let SourceError::Tool(cause @ ToolError::Failed { .. }) = error else { return error };
        let offer = if self.is_damaged() { self.offered() } else { None };
        let Some(offer) = offer else { return cause.into() };
        match self.empty(offer.hash) {
            Ok(()) => SourceError::Mirror { path: self.dir.path().to_owned(), cause },
            Err(error) => error,
        }
    }

    /// The mirror itself.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// A git that works in this mirror, with nothing of the caller's environment and no questions asked.
    pub(super) fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Program {
        git::program(self.tools, self.dir.path()).args(arguments)
    }

    /// A git that writes the commit `hash` as a tar. A filter that fetches, as git-lfs does, is told where from.
    pub(super) fn archive(&self, hash: &str) -> Program {
        let origin = format!("remote.origin.url={}", self.location);
        git::remote(self.tools, self.dir.path()).args(["-c", &origin, "archive", "--format=tar", hash])
    }

    /// Brings everything that can be asked for by name: branches, tags and HEAD; of a local repository every ref. If
    /// that fails because the mirror was damaged, or because objects have other names there, it is made anew.
    pub(super) fn update(&self, stages: &dyn Stages) -> Result<()> {
        stages.during("fetch", || {
            self.bring(&["HEAD"]).or_else(|error| {
                let Some(Offer { heads, hash }) = self.offered() else { return Err(error) };
                // A repository whose HEAD leads nowhere has branches all the same.
                let fetched = if heads.is_empty() { self.bring(heads) } else { Err(error) };
                fetched.or_else(|error| {
                    if hash == self.hash() && !self.is_damaged() {
                        return Err(error);
                    }
                    self.empty(hash)?;
                    self.bring(heads)
                })
            })
        })
    }

    /// What the repository offers, whatever this mirror is like; `None` if nobody answers.
    fn offered(&self) -> Option<Offer> {
        let outside = git::remote(self.tools, self.dir.path().parent()?);
        let said = outside.args(["ls-remote", "--quiet", "--", self.location, "HEAD"]).capture().ok()?;
        let head = said.split(|byte| *byte == b'\n').find_map(|line| line.strip_suffix(b"\tHEAD"));
        Some(match head.map(<[u8]>::len) {
            Some(64) => Offer { heads: &["HEAD"], hash: SHA256 },
            Some(_) => Offer { heads: &["HEAD"], hash: SHA1 },
            None => Offer { heads: &[], hash: self.hash() },
        })
    }

    /// Brings these and every ref.
    fn bring(&self, heads: &[&str]) -> Result<()> {
        let refs: &[&str] = if Path::new(self.location).is_absolute() {
            &["+refs/*:refs/*"]
        } else {
            &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        };
        self.fetch(heads.iter().chain(refs).copied())?;
        if heads.is_empty() {
            self.dir.unlink(FETCHED)?;
        }
        Ok(())
    }

    /// Brings one ref or commit by its full name; [`FETCHED`] names it then.
    pub(super) fn fetch_one(&self, reference: &str) -> Result<()> {
        // The colon with nothing behind it: to no ref here, whatever `reference` says.
        self.fetch([format!("+{reference}:").as_str()])
    }

    fn fetch<'r>(&self, refs: impl IntoIterator<Item = &'r str>) -> Result<()> {
        // Packs are synced by git, loose objects are not; nothing may go on in the background; and a large file is taken in
        // piece by piece, where git would hold half a gigabyte in memory.
        let options = ["fetch.unpackLimit=1", "gc.autoDetach=false", "maintenance.autoDetach=false", LARGE];
        let options = options.iter().flat_map(|option| ["-c", *option]);
        let verb = ["fetch", "--quiet", "--prune", "--no-tags", "--force", "--update-shallow", "--", self.location];
        // What lies here needs no ssh, and no question which.
        let local = Path::new(self.location).is_absolute();
        let git = if local { git::program } else { git::remote };
        let program = git(self.tools, self.dir.path()).args(options).args(verb).args(refs);
        let failed = |cause: ToolError| {
            let cause = password(self.location).into_iter().fold(cause, ToolError::hiding);
            SourceError::Fetch { location: without_password(self.location), cause }
        };
        program.capture().map(drop).map_err(failed)
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

    /// Whether a branch and a tag are both called `name`; then git takes the tag.
    pub(super) fn has_twice(&self, name: &str) -> bool {
        let refs = ["heads", "tags"].map(|kind| format!("refs/{kind}/{name}"));
        self.git(["show-ref", "--verify", "--quiet"]).args(refs).capture().is_ok()
    }

    /// Removes the lock files and half packs that a git which was killed left, and the marks by which it keeps packs from
    /// being packed anew; nobody else is at work here.
    fn clear_leftovers(&self) -> Result<()> {
        let files = walkdir::WalkDir::new(self.dir.path()).into_iter();
        // All objects are in packs: what lies beside them by the two first digits of its name is left out.
        let objects = self.dir.path().join("objects");
        let files = files.filter_entry(|entry| entry.path().parent() != Some(&objects) || entry.file_name().len() > 2);
        for entry in files.flatten().filter(|entry| entry.file_type().is_file() && is_leftover(entry.path())) {
            let within = entry.path().strip_prefix(self.dir.path()).unwrap_or(entry.path());
            let parent = self.dir.open_below(within.parent().unwrap_or(Path::new("")))?;
            parent.unlink(entry.file_name())?;
        }
        Ok(())
    }
}

/// Waits for another process to be done with a mirror, and tells that.
fn wait(mirror: &Dir, stages: &dyn Stages) -> Result<Lease> {
    let holder = holder_of(mirror.own_stat()?.st_ino);
    let holder = holder.map_or_else(|| "another process".to_owned(), |holder| format!("process {}", holder.pid));
    let waiting = format!("wait until {holder} is done with the mirror");
    let had = stages.during(&waiting, || Lease::wait_exclusive(mirror, Wait::For(PATIENCE)));
    let cause = || std::io::Error::other(format!("{holder} has been at work on it for half an hour"));
    Ok(had?.ok_or_else(|| PathError::new("lock", mirror.path(), cause()))?)
}

fn is_leftover(path: &Path) -> bool {
    let half = |name: &OsStr| name.as_encoded_bytes().starts_with(b"tmp_");
    let pack = path.parent().is_some_and(|parent| parent.ends_with("objects/pack"));
    let ends = |end: &str| path.extension() == Some(OsStr::new(end));
    ends("lock") || pack && (ends("keep") || path.file_name().is_some_and(half))
}

/// `commcare-hq-1a2b3c4d.git`: the end of the location, for people, and a sum of the whole, without a password in it.
fn name(location: &str) -> String {
    let location = without_password(location);
    let end = location.trim_end_matches('/').trim_end_matches(".git").rsplit(['/', ':']).next().unwrap_or_default();
    let plain: String = end.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(60).collect();
    format!("{plain}-{:08x}.git", crc32fast::hash(location.as_bytes()))
}

/// A URL, or an absolute path, as the error of a wrong one.
impl SourceError {
    pub(super) fn no_ref(location: &str, reference: Option<&str>) -> Self {
        let reference =
            reference.map_or_else(|| "commit at its HEAD".to_owned(), |name| format!("ref or commit {name:?}"));
        Self::NoRef { location: without_password(location), reference }
    }
}

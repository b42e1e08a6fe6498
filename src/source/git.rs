//! Commits: found, fetched into a mirror, and taken out of a release again.

use super::check_out::DEEPEST;
use super::mirror::{FETCHED, Mirror};
use super::{Result, Site, SourceError};
use crate::directory::{Dir, kind};
use crate::release::without_password;
use crate::stage::Stages;
use crate::tools::{Program, Tools};
use nix::sys::stat::SFlag;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many seconds another host may keep silent before it counts as gone. A server that is still at work says so every
/// few seconds.
const SILENCE: u32 = 300;

/// A commit that is in a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The repository's URL or path.
    pub location: String,
    /// Its full hash.
    pub hash: String,
    /// Whether submodules belong to it.
    pub submodules: bool,
}

/// Fetches `reference` of the repository at `location` into its mirror. A full hash that is there already costs no
/// connection.
pub fn fetch(
    mirrors: &Dir,
    location: &str,
    reference: Option<&str>,
    submodules: bool,
    tools: &Tools,
    stages: &dyn Stages,
) -> Result<Commit> {
    let mirror = Mirror::open(mirrors, location, tools, stages)?;
    let hash = find(&mirror, location, reference, stages)?;
    Ok(Commit { location: location.to_owned(), hash, submodules })
}

fn find(mirror: &Mirror<'_>, location: &str, reference: Option<&str>, stages: &dyn Stages) -> Result<String> {
    let known = reference.filter(|text| is_full_hash(text)).and_then(|hash| mirror.resolve(Some(hash)));
    if let Some(hash) = known {
        return Ok(hash);
    }
    if reference.is_some_and(|text| text.is_empty() || text.starts_with('-') || text.contains(['\0', '\n'])) {
        return Err(SourceError::no_ref(location, reference));
    }
    if location.contains(":***@") {
        return Err(SourceError::NoPassword(location.to_owned()));
    }
    mirror.update(stages)?;
    if let Some(hash) = mirror.resolve(reference) {
        if let Some(name) = reference.filter(|name| mirror.has_twice(name)) {
            stages.warn(&format!("{name} is a tag and a branch: the tag is taken; refs/heads/{name} names the branch"));
        }
        return Ok(hash);
    }
    // Something that is no branch or tag: `refs/pull/1/head`, or a commit no ref leads to.
    let wanted = reference.ok_or_else(|| SourceError::no_ref(location, None))?;
    let fetched = mirror.fetch_one(wanted).ok().and_then(|()| mirror.resolve(Some(FETCHED)));
    fetched.ok_or_else(|| SourceError::no_ref(location, reference))
}

impl Commit {
    /// Removes every file of this commit, submodules included, from the release, and the directories in which nothing is
    /// left: Python would take them for packages. What else is there stays.
    pub fn erase(&self, site: &Site<'_>) -> Result<()> {
        let mut had = BTreeSet::new();
        self.erase_at(Path::new(""), site, 0, &mut had)?;
        // What is in a directory comes behind it.
        for path in had.iter().rev() {
            let Some((above, name)) = path.parent().zip(path.file_name()) else { continue };
            // One that is not empty stays.
            let _ = site.release.open_below(above).and_then(|parent| parent.remove_dir(name));
        }
        Ok(())
    }

    fn erase_at(&self, at: &Path, site: &Site<'_>, depth: usize, had: &mut BTreeSet<PathBuf>) -> Result<()> {
        let Ok(release) = site.release.open_below(at) else { return Ok(()) };
        // It came out of the mirror once; there it need not be any more.
        fetch(site.mirrors, &self.location, Some(&self.hash), self.submodules, site.tools, site.stages)?;
        let mirror = Mirror::open(site.mirrors, &self.location, site.tools, site.stages)?;
        let tree = mirror.git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &self.hash]).capture()?;
        let submodules = if self.submodules && depth < DEEPEST { self.submodules(&mirror)? } else { Vec::new() };
        drop(mirror);
        for (path, module) in submodules {
            module.erase_at(&at.join(path), site, depth + 1, had)?;
        }
        for name in tree.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let path = Path::new(OsStr::from_bytes(name));
            let above = path.parent().unwrap_or(Path::new(""));
            let Ok(parent) = release.open_below(above) else { continue };
            let name = path.file_name().unwrap_or_default();
            match parent.stat(name)?.as_ref().map(kind) {
                // A submodule's.
                Some(SFlag::S_IFDIR) => had.extend([at.join(path)]),
                Some(_) => drop(parent.unlink(name)?),
                None => {}
            }
            if !had.contains(&at.join(above)) {
                had.extend(at.join(above).ancestors().map(Path::to_owned));
            }
        }
        Ok(())
    }
}

/// A git that works in `directory` and asks nobody anything.
pub(super) fn program(tools: &Tools, directory: &Path) -> Program {
    let program = tools.program("git").dir(directory).env("GIT_TERMINAL_PROMPT", "0");
    program.env("GIT_DIR", ".").env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
}

/// The same for one that speaks with another host: by what the user's configuration says of ssh and of a connection that
/// brings nothing, or else by an ssh that asks nobody anything either, and for no longer than [`SILENCE`].
pub(super) fn remote(tools: &Tools, directory: &Path) -> Program {
    let names = ["--name-only", "--get-regexp", r"^core\.sshcommand$|^http\..*lowspeed"];
    let chosen = program(tools, directory).args(["config"]).args(names).capture().unwrap_or_default();
    let chosen = String::from_utf8_lossy(&chosen);
    let (ssh, http): (Vec<&str>, Vec<&str>) = chosen.lines().partition(|name| name.starts_with("core."));
    let mut program = program(tools, directory);
    if ssh.is_empty() {
        // A host that is gone answers none of three questions; one that does not even begin has as long.
        let ssh = format!("ssh -o BatchMode=yes -o ConnectTimeout={SILENCE} -o ServerAliveInterval={}", SILENCE / 3);
        program = program.env("GIT_SSH_COMMAND", ssh);
    }
    if http.is_empty() {
        program = program.env("GIT_HTTP_LOW_SPEED_LIMIT", "1").env("GIT_HTTP_LOW_SPEED_TIME", SILENCE.to_string());
    }
    program
}

/// Forty hexadecimal digits, or sixty-four.
pub(super) fn is_full_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the name of a transport is made of. An address of IPv6 has two colons too, behind something else.
fn is_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// A URL that git may be given: no option in disguise, no transport that runs a command.
pub(super) fn checked_url(text: &str) -> Result<String> {
    let why = if text.starts_with('-') {
        "it looks like an option"
    } else if text.split_once("::").is_some_and(|(transport, _)| transport.bytes().all(is_scheme)) {
        "transports that run a program are not used"
    } else if text.contains(char::is_control) {
        "it holds control characters"
    } else {
        return Ok(text.to_owned());
    };
    Err(SourceError::Refused { location: without_password(text), why })
}

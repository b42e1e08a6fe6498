//! Commits: found, fetched into a mirror, checked out as `git archive` gives them, submodules each from a mirror of their
//! own.

use super::mirror::{FETCHED, Mirror};
use super::{Result, Site, SourceError, tar};
use crate::directory::{Dir, kind};
use crate::stage::Stages;
use crate::tools::{Program, Tools};
use nix::sys::stat::SFlag;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How deep submodules may be nested.
const DEEPEST: usize = 16;

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
    let mirror = Mirror::open(mirrors, location, tools)?;
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
    mirror.update(stages)?;
    if let Some(hash) = mirror.resolve(reference) {
        return Ok(hash);
    }
    // Something that is no branch or tag: `refs/pull/1/head`, or a commit no ref leads to.
    let wanted = reference.ok_or_else(|| SourceError::no_ref(location, None))?;
    let fetched = mirror.fetch_one(wanted).ok().and_then(|()| mirror.resolve(Some(FETCHED)));
    fetched.ok_or_else(|| SourceError::no_ref(location, reference))
}

impl Commit {
    /// Checks it out into the release, submodules included.
    pub(super) fn check_out(&self, site: &Site<'_>) -> Result<()> {
        site.stages.begin("check out", None);
        let mut done = 0;
        let outcome = self.check_out_at(site.release, site, 0, &mut done);
        site.stages.end();
        outcome
    }

    fn check_out_at(&self, into: &Dir, site: &Site<'_>, depth: usize, done: &mut u64) -> Result<()> {
        let mirror = Mirror::open(site.mirrors, &self.location, site.tools)?;
        let mut archive = mirror.git(["archive", "--format=tar", &self.hash]).stream()?;
        let before = *done;
        let unpacked = tar::unpack_own(&mut archive.output, into, &mut |entries| {
            *done = before + entries;
            site.stages.advance(*done);
        });
        // git's own words explain a broken archive better than the archive does.
        let read = unpacked.as_ref().map(drop).map_err(|error| std::io::Error::other(error.to_string()));
        match archive.finish(read) {
            Err(crate::tools::ToolError::Output { .. }) | Ok(()) => unpacked?,
            Err(error) => return Err(error.into()),
        }
        let submodules = if self.submodules { self.submodules(&mirror)? } else { Vec::new() };
        drop(mirror);
        for (path, module) in submodules {
            if depth == DEEPEST {
                let why = format!("submodules are nested more than {DEEPEST} deep");
                return Err(SourceError::Submodule { path: path.display().to_string(), why });
            }
            let commit = fetch(site.mirrors, &module.location, Some(&module.hash), true, site.tools, site.stages)?;
            let into = tar::open_making(into, &path)?;
            commit.check_out_at(&into, site, depth + 1, done)?;
        }
        Ok(())
    }

    /// Removes every file of this commit, submodules included, from the release. What else is there stays, and so do
    /// directories that are not empty then.
    pub fn erase(&self, site: &Site<'_>) -> Result<()> {
        self.erase_at(site.release, site, 0)
    }

    fn erase_at(&self, release: &Dir, site: &Site<'_>, depth: usize) -> Result<()> {
        let mirror = Mirror::open(site.mirrors, &self.location, site.tools)?;
        let tree = mirror.git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &self.hash]).capture()?;
        let submodules = if self.submodules && depth < DEEPEST { self.submodules(&mirror)? } else { Vec::new() };
        drop(mirror);
        for (path, module) in submodules {
            if let Ok(inner) = release.open_below(&path) {
                module.erase_at(&inner, site, depth + 1)?;
            }
        }
        for name in tree.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let path = Path::new(OsStr::from_bytes(name));
            let Ok(parent) = release.open_below(path.parent().unwrap_or(Path::new(""))) else { continue };
            let name = path.file_name().unwrap_or_default();
            if parent.stat(name)?.is_some_and(|stat| kind(&stat) != SFlag::S_IFDIR) {
                parent.unlink(name)?;
            }
        }
        Ok(())
    }

    /// The submodules of this commit: where each belongs, and which commit of what it is.
    fn submodules(&self, mirror: &Mirror<'_>) -> Result<Vec<(PathBuf, Self)>> {
        let blob = format!("{}:.gitmodules", self.hash);
        if mirror.git(["cat-file", "-e", &blob]).capture().is_err() {
            return Ok(Vec::new());
        }
        let settings = mirror.git(["config", "--blob", &blob, "-z", "--list"]).capture()?;
        let urls = parse_modules(&String::from_utf8_lossy(&settings));
        let tree = mirror.git(["ls-tree", "-r", "-z", "--full-tree", &self.hash]).capture()?;
        let links = tree.split(|byte| *byte == 0).filter_map(gitlink);
        let module = |(hash, path): (String, PathBuf)| {
            let refuse = |why: &str| SourceError::Submodule { path: path.display().to_string(), why: why.to_owned() };
            let url = urls.get(&path).ok_or_else(|| refuse(".gitmodules gives no url for it"))?;
            let location =
                resolve_url(&self.location, url).ok_or_else(|| refuse("its url is not one to fetch from"))?;
            Ok((path, Self { location, hash, submodules: true }))
        };
        links.map(module).collect()
    }
}

/// A git that works in `directory` and asks nobody anything.
pub(super) fn program(tools: &Tools, directory: &Path) -> Program {
    let program = tools.program("git").dir(directory).env("GIT_TERMINAL_PROMPT", "0");
    program
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
        .env("GIT_DIR", ".")
        .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
}

/// Forty hexadecimal digits, or sixty-four.
pub(super) fn is_full_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A URL that git may be given: no option in disguise, no transport that runs a command.
pub(super) fn checked_url(text: &str) -> Result<String> {
    let why = if text.starts_with('-') {
        "it looks like an option"
    } else if text.contains("::") {
        "transports that run a program are not used"
    } else if text.contains(char::is_control) {
        "it holds control characters"
    } else {
        return Ok(text.to_owned());
    };
    Err(SourceError::Refused { location: without_password(text), why })
}

/// A URL as it may be shown: `https://user:secret@host/` loses the secret.
pub(super) fn without_password(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("://") else { return location.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            format!("{scheme}://{}:***@{host}{path}", user.split(':').next().unwrap_or_default())
        }
        _ => location.to_owned(),
    }
}

/// `160000 commit <hash>\t<path>`
fn gitlink(line: &[u8]) -> Option<(String, PathBuf)> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..at]).ok()?.split(' ');
    let path = Path::new(OsStr::from_bytes(&line[at + 1..])).to_owned();
    (fields.next() == Some("160000")).then(|| Some((fields.nth(1)?.to_owned(), path)))?
}

/// `submodule.NAME.KEY\nVALUE\0…` → path → url
fn parse_modules(settings: &str) -> BTreeMap<PathBuf, String> {
    let mut by_name: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (key, value) in settings.split('\0').filter_map(|entry| entry.split_once('\n')) {
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let module = by_name.entry(name).or_default();
        match key {
            "path" => module.0 = Some(value),
            "url" => module.1 = Some(value),
            _ => {}
        }
    }
    by_name.into_values().filter_map(|(path, url)| Some((PathBuf::from(path?), url?.to_owned()))).collect()
}

/// The URL of a submodule, a relative one taken from its parent's. A repository that came over the network may not name
/// one on this host.
fn resolve_url(parent: &str, url: &str) -> Option<String> {
    let local = |location: &str| location.starts_with('/') || location.starts_with("file:");
    let url =
        if url.starts_with("./") || url.starts_with("../") { join_url(parent, url)? } else { checked_url(url).ok()? };
    (local(parent) || !local(&url)).then_some(url).filter(|url| local(url) || super::is_url(url))
}

fn join_url(parent: &str, relative: &str) -> Option<String> {
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = relative;
    loop {
        if let Some(more) = rest.strip_prefix("../") {
            let cut = base.rfind(['/', ':'])?;
            // What is before a scheme's slashes, or a host, is no directory to leave.
            if cut == 0 || base[..cut].ends_with(['/', ':']) {
                return None;
            }
            base.truncate(cut + usize::from(base.as_bytes()[cut] == b':'));
            rest = more;
        } else if let Some(more) = rest.strip_prefix("./") {
            rest = more;
        } else {
            let joint = if base.ends_with(':') { "" } else { "/" };
            return Some(format!("{base}{joint}{}", rest.trim_end_matches('/')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submodules_relative_url_is_taken_from_its_parents() {
        let join = |parent: &str, url: &str| resolve_url(parent, url);
        assert_eq!(join("https://h/org/app.git", "../lib.git").as_deref(), Some("https://h/org/lib.git"));
        assert_eq!(join("git@h:org/app.git", "../lib.git").as_deref(), Some("git@h:org/lib.git"));
        assert_eq!(join("git@h:app.git", "../lib.git").as_deref(), Some("git@h:lib.git"));
        assert_eq!(join("/srv/git/app", "../lib").as_deref(), Some("/srv/git/lib"));
        assert_eq!(join("/srv/git/app", "./lib").as_deref(), Some("/srv/git/app/lib"));
        assert_eq!(join("https://h/app.git", "../../../x"), None);
    }

    #[test]
    fn p17_a_repository_from_the_network_names_no_other_transport() {
        for url in ["ext::sh -c touch% x", "/etc", "file:///etc", "--upload-pack=x", "-x:y"] {
            assert_eq!(resolve_url("https://h/app.git", url), None, "{url}");
        }
        assert!(checked_url("ext::sh -c id").is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("https://bob:s3cret@h/x"), "https://bob:***@h/x");
        assert_eq!(without_password("https://token@h/x"), "https://token@h/x");
        assert_eq!(without_password("git@h:x"), "git@h:x");
    }
}

//! Submodules: where each belongs, and which commit of what it is.

use super::git::{Commit, checked_url};
use super::mirror::Mirror;
use super::{Result, SourceError, is_url};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The submodules of a commit, each at its path in it.
pub(super) type Submodules = Vec<(PathBuf, Commit)>;

impl Commit {
    /// The submodules of this commit: where each belongs, and which commit of what it is.
    pub(super) fn submodules(&self, mirror: &Mirror<'_>) -> Result<Submodules> {
        let blob = format!("{}:.gitmodules", self.hash);
        if mirror.git(["cat-file", "-e", &blob]).capture().is_err() {
            return Ok(Vec::new());
        }
        let settings = mirror.git(["config", "--blob", &blob, "-z", "--list"]).capture()?;
        let settings = String::from_utf8_lossy(&settings);
        let modules = parse_modules(&settings);
        let tree = mirror.git(["ls-tree", "-r", "-z", "--full-tree", &self.hash]).capture()?;
        let links = tree.split(|byte| *byte == 0).filter_map(gitlink);
        let links = links.filter(|(_, path)| modules.get(path).is_none_or(|module| module.update != Some("none")));
        let module = |(hash, path): (String, PathBuf)| {
            let refuse = |why: &str| SourceError::Submodule { path: path.display().to_string(), why: why.to_owned() };
            let url = modules.get(&path).and_then(|module| module.url);
            let url = url.ok_or_else(|| refuse(".gitmodules gives no url for it"))?;
            let location =
                resolve_url(&self.location, url).ok_or_else(|| refuse("its url is not one to fetch from"))?;
            Ok((path, Self { location, hash, submodules: true }))
        };
        links.map(module).collect()
    }
}

/// `160000 commit <hash>\t<path>`
fn gitlink(line: &[u8]) -> Option<(String, PathBuf)> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..at]).ok()?.split(' ');
    let path = Path::new(OsStr::from_bytes(&line[at + 1..])).to_owned();
    (fields.next() == Some("160000")).then(|| Some((fields.nth(1)?.to_owned(), path)))?
}

/// What `.gitmodules` says of one.
#[derive(Default)]
struct Module<'t> {
    path: Option<&'t str>,
    url: Option<&'t str>,
    /// How it is brought up to date; with `none` git leaves it out.
    update: Option<&'t str>,
}

/// `submodule.NAME.KEY\nVALUE\0…`, by their paths.
fn parse_modules(settings: &str) -> BTreeMap<PathBuf, Module<'_>> {
    let mut by_name: BTreeMap<&str, Module<'_>> = BTreeMap::new();
    for (key, value) in settings.split('\0').filter_map(|entry| entry.split_once('\n')) {
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let module = by_name.entry(name).or_default();
        match key {
            "path" => module.path = Some(value),
            "url" => module.url = Some(value),
            "update" => module.update = Some(value),
            _ => {}
        }
    }
    by_name.into_values().filter_map(|module| Some((PathBuf::from(module.path?), module))).collect()
}

/// The URL of a submodule, a relative one taken from its parent's. A repository that came over the network may not name
/// one on this host.
fn resolve_url(parent: &str, url: &str) -> Option<String> {
    let local = |location: &str| location.starts_with('/') || location.starts_with("file:");
    let url =
        if url.starts_with("./") || url.starts_with("../") { join_url(parent, url)? } else { checked_url(url).ok()? };
    (local(parent) || !local(&url)).then_some(url).filter(|url| local(url) || is_url(url))
}

fn join_url(parent: &str, relative: &str) -> Option<String> {
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = relative;
    loop {
        if let Some(more) = rest.strip_prefix("../") {
            // What is above a root is no directory to go to.
            let cut = base.rfind(['/', ':']).filter(|_| !base.ends_with('/'))?;
            let above = &base[..cut];
            let is_root = above.is_empty() || above.ends_with(':') || above == "file://";
            let root = is_root && base[cut..].starts_with('/');
            // What is before a scheme's slashes, or a host, is none to leave.
            if above.ends_with(['/', ':']) && !root {
                return None;
            }
            base.truncate(cut + usize::from(root || base.as_bytes()[cut] == b':'));
            rest = more;
        } else if let Some(more) = rest.strip_prefix("./") {
            rest = more;
        } else {
            let joint = if base.ends_with([':', '/']) { "" } else { "/" };
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
        // What lies at the root has neighbours there.
        assert_eq!(join("git@h:/org/app.git", "../../lib.git").as_deref(), Some("git@h:/lib.git"));
        assert_eq!(join("/app", "../lib").as_deref(), Some("/lib"));
        assert_eq!(join("file:///app", "../lib").as_deref(), Some("file:///lib"));
        for parent in ["git@h:/app.git", "/app", "file:///app", "http://[fd00::1]/app"] {
            assert_eq!(join(parent, "../../x"), None, "{parent}");
            assert!(join(parent, "../x").is_some_and(|url| url.ends_with("/x")), "{parent}");
        }
    }

    #[test]
    fn an_address_of_ipv6_is_no_transport() {
        for url in ["ssh://git@[2001:db8::1]/app.git", "http://[::1]:8080/app.git", "git@[::1]:app.git"] {
            assert_eq!(resolve_url("https://h/app.git", url).as_deref(), Some(url));
        }
    }

    #[test]
    fn p17_a_repository_from_the_network_names_no_other_transport() {
        for url in ["ext::sh -c touch% x", "/etc", "file:///etc", "--upload-pack=x", "-x:y"] {
            assert_eq!(resolve_url("https://h/app.git", url), None, "{url}");
        }
        assert!(["ext::sh -c id", "::x", "fd::17", "a+b::http://[::1]/"].iter().all(|url| checked_url(url).is_err()));
    }
}

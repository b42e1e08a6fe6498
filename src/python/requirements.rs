//! What an environment is to hold: the files that say so, and the digest of everything they ask for.
//!
//! Looked for in this order when nothing is configured: `uv.lock`, `pylock.toml`, `requirements.txt`,
//! `requirements/prod-requirements.txt`; the first that is there is all that counts. Locks come first because they are
//! exact.
//!
//! The digest covers the files themselves, what they include by `-r` and `-c`, the wheels of the wheelhouse and local
//! files they name, but not the index: `Django>=5` is the same request tomorrow. What it cannot cover (a directory of
//! code that is copied into the environment, a file outside the release, an included URL, a branch of a repository) binds
//! the environment to its release: it is never linked into another one.

use super::local::{self, Asked, Place};
use super::{PythonError, Result, lockfile};
use crate::directory::Dir;
use crate::recipe::PythonTable;
use crate::release::without_password;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What is looked for if nothing is configured, the first found counts.
const KNOWN: [&str; 4] = ["uv.lock", "pylock.toml", "requirements.txt", "requirements/prod-requirements.txt"];

/// The format of the files that say what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// pip's, any number of them.
    Requirements,
    /// One lock file of a uv project.
    UvLock,
    /// One lock file as PEP 751 defines it.
    Pylock,
}

impl Kind {
    fn of(file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let pylock = name == "pylock.toml" || (name.starts_with("pylock.") && name.ends_with(".toml"));
        match &*name {
            "uv.lock" => Self::UvLock,
            _ if pylock => Self::Pylock,
            _ => Self::Requirements,
        }
    }
}

/// What an environment is to hold and where it is to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it lies, relative to the release.
    pub directory: PathBuf,
    /// The interpreter's version as configured; any `python3` if not.
    pub version: Option<String>,
    /// The format of `files`.
    pub kind: Kind,
    /// What says what is wanted, relative to the release.
    pub files: Vec<PathBuf>,
    /// The directory of wheels beside which nothing is used, relative to the release.
    pub wheelhouse: Option<PathBuf>,
    /// Whether requirements carry hashes; then all of them must.
    pub hashed: bool,
    /// Whether code of the release itself is installed.
    pub local: bool,
    /// Why the environment can serve no other release, if that is so.
    pub bound: Option<String>,
    /// The digest of all that is asked for, `sha256:…`.
    pub digest: String,
}

/// Reads what `table` and the code in `release` ask for. `None` if nothing is configured and nothing is found.
pub fn plan(release: &Dir, table: &PythonTable) -> Result<Option<Plan>> {
    let directory = table.place().to_owned();
    let files = files(release, table)?;
    let Some(first) = files.first() else { return Ok(None) };
    let kind = Kind::of(first);
    if let Some(lock) = files.iter().find(|file| files.len() > 1 && Kind::of(file) != Kind::Requirements) {
        return Err(PythonError::Alone { path: lock.clone() });
    }
    let mut asked = Asked::new(release);
    for file in &files {
        match kind {
            Kind::Requirements => include(&mut asked, file, None)?,
            Kind::UvLock => lockfile::uv_lock(&mut asked, file)?,
            Kind::Pylock => lockfile::pylock(&mut asked, file)?,
        }
    }
    lockfile::settings_of_uv(&mut asked)?;
    let wheelhouse = table.wheelhouse.clone();
    if let Some(house) = &wheelhouse {
        match local::locate(release, house)? {
            Place::Inside(path) if local::is_dir(release, &path)? => asked.wheels(&path)?,
            Place::Outside => return Err(PythonError::Outside { path: house.clone() }),
            _ => return Err(PythonError::Missing { path: house.clone(), named_by: None }),
        }
    }
    let Asked { hashed, local, .. } = asked;
    let (digest, bound) = asked.finish();
    Ok(Some(Plan { directory, version: table.version.clone(), kind, files, wheelhouse, hashed, local, bound, digest }))
}

/// The configured files, or the first known one there is.
fn files(release: &Dir, table: &PythonTable) -> Result<Vec<PathBuf>> {
    if !table.requirements.is_empty() {
        return Ok(table.requirements.clone());
    }
    for known in KNOWN {
        let known = PathBuf::from(known);
        if !matches!(local::locate(release, &known)?, Place::Absent) {
            return Ok(vec![known]);
        }
    }
    Ok(Vec::new())
}

/// Takes in a requirements file and everything it includes.
fn include(asked: &mut Asked<'_>, file: &Path, named_by: Option<&Path>) -> Result<()> {
    let missing = || PythonError::Missing { path: file.to_owned(), named_by: named_by.map(Path::to_owned) };
    let path = match (local::locate(asked.release, file)?, named_by) {
        (Place::Inside(path), _) => path,
        (Place::Absent, _) => return Err(missing()),
        (Place::Outside, None) => return Err(PythonError::Outside { path: file.to_owned() }),
        (Place::Outside, Some(by)) => {
            asked.bind(format!("{} includes {}, which is outside the release", by.display(), file.display()));
            return Ok(());
        }
    };
    if !asked.enter(&path) {
        return Ok(());
    }
    let bytes = asked.file("requirements", &path)?;
    let text = String::from_utf8_lossy(&bytes);
    if matches!(text, Cow::Owned(_)) {
        // pip knows other encodings; what such a file includes cannot be read here.
        asked.bind(format!("{} is not UTF-8", path.display()));
    }
    let above = path.parent().unwrap_or(Path::new("")).to_owned();
    for line in logical_lines(&text) {
        for part in parts(&line) {
            take(asked, &path, &above, part)?;
        }
    }
    Ok(())
}

/// A line's options, of which there may be several; or all of a requirement.
fn parts(line: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), line);
    let next = |rest: &str| rest.match_indices('-').map(|(at, _)| at).find(|at| rest[..*at].ends_with([' ', '\t']));
    while let Some(at) = next(rest).filter(|_| line.starts_with('-')) {
        parts.push(rest[..at].trim_end());
        rest = &rest[at..];
    }
    parts.push(rest);
    parts
}

/// Takes in one option or requirement of the requirements file `path`, which lies in the directory `above`.
fn take(asked: &mut Asked<'_>, path: &Path, above: &Path, line: &str) -> Result<()> {
    asked.hashed |= line.contains("--hash=") || line.contains("--hash ") || line == "--require-hashes";
    match Line::of(line) {
        Line::Include(target) if target.contains("://") => {
            asked.bind(format!("{} includes {}", path.display(), without_password(target)));
        }
        Line::Include(target) => include(asked, &above.join(target), Some(path))?,
        Line::Wheels(target) if target.contains("://") => {}
        Line::Wheels(target) => {
            for base in [above, Path::new("")] {
                if let Place::Inside(house) = local::locate(asked.release, &base.join(target))? {
                    return asked.wheels(&house);
                }
            }
            asked.bind(format!("{} looks for packages in {target}", path.display()));
        }
        Line::Local { target, editable } => asked.local(Path::new(target), editable, path)?,
        // Without its address, which may hold a password.
        Line::Moving => asked.bind(format!("{} installs from a repository what no full commit names", path.display())),
        Line::Other => {}
    }
    Ok(())
}

/// What one line of a requirements file means for the digest.
#[derive(Debug, PartialEq, Eq)]
enum Line<'t> {
    /// `-r` or `-c`.
    Include(&'t str),
    /// `-f`.
    Wheels(&'t str),
    /// A path to install, relative to where the installer runs: the release.
    Local { target: &'t str, editable: bool },
    /// Whatever a branch or tag of a repository leads to by then.
    Moving,
    /// The text says it all.
    Other,
}

impl<'t> Line<'t> {
    fn of(line: &'t str) -> Self {
        let included = option(line, "-r", "--requirement").or_else(|| option(line, "-c", "--constraint"));
        if let Some(target) = included {
            return Line::Include(target);
        }
        if let Some(target) = option(line, "-f", "--find-links") {
            return Line::Wheels(target);
        }
        if let Some(target) = option(line, "-e", "--editable") {
            return Self::installed(target, true);
        }
        if line.starts_with('-') { Line::Other } else { Self::installed(line, false) }
    }

    fn installed(requirement: &'t str, editable: bool) -> Self {
        match path_in(requirement) {
            Some(target) => Line::Local { target, editable },
            None if may_move(requirement) => Line::Moving,
            None => Line::Other,
        }
    }
}

/// The value of an option if the line is that option.
fn option<'t>(line: &'t str, short: &str, long: &str) -> Option<&'t str> {
    let value = match line.strip_prefix(long) {
        Some(rest) if rest.starts_with(['=', ' ', '\t']) => rest,
        _ if line.starts_with("--") => return None,
        _ => line.strip_prefix(short)?,
    };
    let value = value.trim_start_matches(['=', ' ', '\t']).trim_end();
    Some(value.trim_matches(['"', '\'']))
}

/// Whether a requirement names a repository, and in it no commit by its full hash.
fn may_move(requirement: &str) -> bool {
    let words = requirement.split([' ', '\t', ';']).map(|word| word.split_once('#').map_or(word, |(word, _)| word));
    let addresses = words.filter_map(|word| word.split_once("://"));
    let mut repositories =
        addresses.filter(|(scheme, _)| ["git+", "hg+", "svn+", "bzr+"].iter().any(|it| scheme.contains(it)));
    let is_hash = |text: &str| text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    repositories.any(|(_, rest)| !rest.rsplit_once('@').is_some_and(|(_, revision)| is_hash(revision)))
}

/// The path a requirement names, if it is one and not a name or a URL.
fn path_in(requirement: &str) -> Option<&str> {
    let named = |c: char| c.is_ascii_alphanumeric() || "._-[], \t".contains(c);
    let (target, direct) = match requirement.split_once('@') {
        Some((name, target)) if name.chars().all(named) => (target.trim_start(), true),
        _ => (requirement, false),
    };
    let target = target.split([' ', '\t', ';']).next().unwrap_or(target);
    let target = target.split_once('[').map_or(target, |(path, _)| path);
    if let Some(path) = target.strip_prefix("file:") {
        return Some(path.strip_prefix("//").unwrap_or(path));
    }
    if target.contains("://") {
        return None;
    }
    let archive = [".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz"].iter().any(|end| target.ends_with(end));
    (direct || archive || target.starts_with('.') || target.contains('/')).then_some(target)
}

/// The lines of a requirements file with continued ones joined, without comments and blank ones.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut joined = String::new();
    // Editors of another system begin a file with a mark, which no installer minds.
    for line in text.trim_start_matches('\u{feff}').lines() {
        let bare = uncommented(line);
        match bare.strip_suffix('\\') {
            Some(open) => joined.push_str(open),
            None => {
                joined.push_str(bare);
                lines.push(std::mem::take(&mut joined));
            }
        }
    }
    lines.push(joined);
    lines.into_iter().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// A line without its comment: from a `#` at its beginning or after a blank.
fn uncommented(line: &str) -> &str {
    let hash = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').find(hash).map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let text = "# all\nDjango==5.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11  # why\n\n-r base.txt\nx @ https://e/x#egg=x\n";
        let lines = logical_lines(text);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().len(), 3);
        assert_eq!(lines[1], "-r base.txt");
        assert_eq!(lines[2], "x @ https://e/x#egg=x");
        assert_eq!(logical_lines("\u{feff}-r base.txt\r\n"), ["-r base.txt"]);
    }

    #[test]
    fn a_line_may_hold_several_options() {
        assert_eq!(
            parts("--no-index\t--find-links my-wheels -c a.txt"),
            ["--no-index", "--find-links my-wheels", "-c a.txt"]
        );
        for one in ["-e ./my-lib", "six --hash=sha256:00 --hash=sha256:11"] {
            assert_eq!(parts(one), [one]);
        }
    }

    #[test]
    fn options_are_read_in_every_spelling() {
        for line in
            ["-r a.txt", "-ra.txt", "--requirement a.txt", "--requirement=a.txt", "-c 'a.txt'", "--constraint=a.txt"]
        {
            assert_eq!(Line::of(line), Line::Include("a.txt"), "{line}");
        }
        assert_eq!(Line::of("--find-links=wheels"), Line::Wheels("wheels"));
        assert_eq!(Line::of("-f wheels"), Line::Wheels("wheels"));
        assert_eq!(Line::of("--require-hashes"), Line::Other);
        assert_eq!(Line::of("-i https://pypi.example/simple"), Line::Other);
        assert_eq!(Line::of("--extra-index-url https://pypi.example/simple"), Line::Other);
    }

    #[test]
    fn local_paths_are_told_from_names_and_urls() {
        let local = |target, editable| Line::Local { target, editable };
        assert_eq!(Line::of("-e ."), local(".", true));
        assert_eq!(Line::of("--editable=./lib[dev]"), local("./lib", true));
        assert_eq!(Line::of("./vendor/x ; python_version > '3'"), local("./vendor/x", false));
        for spelled in ["x @ file:///srv/x.whl", "x@file:///srv/x.whl", "x[a, b]@ file:///srv/x.whl"] {
            assert_eq!(Line::of(spelled), local("/srv/x.whl", false), "{spelled}");
        }
        assert_eq!(Line::of("x-1.0-py3-none-any.whl"), local("x-1.0-py3-none-any.whl", false));
        for other in ["Django>=4", "celery[redis]==5", "x @ https://e/x.whl"] {
            assert_eq!(Line::of(other), Line::Other, "{other}");
        }
    }

    #[test]
    fn a_repository_without_a_full_commit_is_not_the_same_tomorrow() {
        for moving in [
            "-e git+https://git.example/x.git#egg=x",
            "git+ssh://git@git.example/x.git",
            "git+ssh://git@git.example/x.git@v1 ; python_version > '3'",
            "x @ git+file:///srv/x@main",
            "x@git+https://git.example/x.git@0123abc#subdirectory=a@0123456789012345678901234567890123456789",
        ] {
            assert_eq!(Line::of(moving), Line::Moving, "{moving}");
        }
        for url in ["git+https://git.example/x.git", "x @ git+ssh://git@git.example/x"] {
            let pinned = format!("{url}@0123456789012345678901234567890123456789#egg=x");
            assert_eq!(Line::of(&pinned), Line::Other, "{pinned}");
        }
    }
}

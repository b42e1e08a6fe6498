//! Whether git would change what it checks out: leave files out, write a version into them, convert line ends, run
//! filters. If it might, it has to do the work itself.

use super::Result;
use super::contents::{Contents, Kind};
use super::mirror::Mirror;
use crate::directory::Dir;
use crate::tools::{ToolError, Tools};
use memchr::memmem;
use std::path::{Path, PathBuf};

/// Attributes that change what comes out of a repository are spelled so, wherever they stand in a file.
const CHANGING: [&str; 5] = ["export-", "ident", "filter", "crlf", "working-tree-encoding"];
/// Settings that could, and values of theirs that do not.
const SETTINGS: &str = r"^(core\.(autocrlf|eol|attributesfile)|tar\.umask)$";
const HARMLESS: [&str; 4] = ["core.autocrlf\ninput", "core.autocrlf\nfalse", "core.eol\nlf", "core.eol\nnative"];
/// The longest file of attributes that is read.
const LONGEST: u64 = 1 << 20;

/// Whether the text of a file of attributes holds anything that changes contents. Says so once too often rather than once
/// too seldom.
pub(super) fn change(text: &[u8]) -> bool {
    CHANGING.iter().any(|word| memmem::find(text, word.as_bytes()).is_some())
}

/// Whether the attributes of the commit are of a kind that cannot be read as texts.
pub(super) fn are_odd(contents: &Contents) -> bool {
    contents.named(".gitattributes").any(|file| file.kind != Kind::Plain)
}

/// Whether the settings or attributes of this host or of the mirror change what comes out of it, or objects of it are
/// replaced by others. `settings` is what [`ask`] asked for.
pub(super) fn of_host_change(mirror: &Mirror<'_>, settings: &[u8], tools: &Tools) -> Result<bool> {
    let settings = String::from_utf8_lossy(settings);
    let changes = |set: &str| !HARMLESS.contains(&set.to_ascii_lowercase().as_str());
    if settings.split('\0').filter(|set| !set.is_empty()).any(changes) {
        return Ok(true);
    }
    Ok(replaces(mirror.dir())? || files(mirror, tools).iter().any(|file| !is_harmless(file)))
}

/// The settings of git that matter here.
pub(super) fn ask(mirror: &Mirror<'_>) -> std::result::Result<crate::tools::Streaming, ToolError> {
    mirror.git(["config", "-z", "--get-regexp", SETTINGS]).stream()
}

/// Whether an object is looked for under another name than its own.
fn replaces(mirror: &Dir) -> Result<bool> {
    if mirror.stat("reftable")?.is_some() || mirror.stat("refs/replace")?.is_some() {
        return Ok(true);
    }
    let packed = mirror.read_file("packed-refs", u64::MAX - 1)?.unwrap_or_default();
    Ok(memmem::find(&packed, b" refs/replace/").is_some())
}

/// Where attributes are looked for beside the commit.
fn files(mirror: &Mirror<'_>, tools: &Tools) -> Vec<PathBuf> {
    let mut files = vec![mirror.dir().path().join("info/attributes"), PathBuf::from("/etc/gitattributes")];
    files.extend(tools.home().map(|home| Path::new(home).join(".config/git/attributes")));
    let git = tools.find("git");
    files.extend(git.iter().filter_map(|git| Some(git.parent()?.parent()?.join("etc/gitattributes"))));
    files
}

fn is_harmless(file: &Path) -> bool {
    match std::fs::metadata(file) {
        Ok(status) if status.is_file() && status.len() <= LONGEST => {
            std::fs::read(file).is_ok_and(|text| !change(&text))
        }
        Ok(_) => false,
        Err(error) => matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_describes_files_changes_nothing() {
        for text in
            ["* text=auto\n*.png binary\n*.py diff=python\n", "* text eol=lf\n", "*.min.js -diff linguist-generated\n"]
        {
            assert!(!change(text.as_bytes()), "{text}");
        }
        for text in
            ["a export-ignore", "* text eol=crlf", "v export-subst", "* ident", "*.psd filter=lfs", "[attr]x crlf"]
        {
            assert!(change(text.as_bytes()), "{text}");
        }
    }
}

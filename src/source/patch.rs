//! A patch to the code of a release: whole or not at all, and no file of it more open or more closed than it was.

use super::contents::Kind;
use super::objects::Looks;
use super::{Result, refuse_own};
use crate::directory::{Dir, PathError, kind};
use crate::recipe::Link;
use crate::tools::Tools;
use crate::transfer::masked;
use nix::sys::stat::SFlag;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The longest it may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Applies the patch `text` to the release, or undoes it. What it changes keeps its permissions, for git makes that anew by
/// its own umask; what it adds has those of a commit's code, as `link` has them; whether a file may be run is what the patch
/// says. Not durable on return.
pub fn patch(release: &Dir, text: &[u8], reverse: bool, link: Link, tools: &Tools) -> Result<()> {
    let apply = |manner: &[&str]| -> Result<Vec<u8>> {
        let program = tools.program("git").dir(release.path()).limit(LIMIT);
        // The release is no part of a repository around it.
        let above = release.path().parent().unwrap_or(release.path());
        let program = program.env("GIT_CEILING_DIRECTORIES", above).args(["apply", "--whitespace=nowarn"]);
        let program = program.args(manner).args(reverse.then_some("--reverse")).args(["-"]).input(text);
        Ok(program.map_err(|cause| PathError::new("patch", release.path(), cause))?.capture()?)
    };
    let mut before = BTreeMap::new();
    // Lines added, lines removed, and the path.
    for line in apply(&["--numstat", "-z"])?.split(|byte| *byte == 0) {
        let path = Path::new(OsStr::from_bytes(line.splitn(3, |byte| *byte == b'\t').nth(2).unwrap_or_default()));
        refuse_own(path.iter().next().unwrap_or_default())?;
        for path in path.ancestors().filter(|path| path.file_name().is_some()) {
            before.insert(path.to_owned(), look(release, path)?);
        }
    }
    apply(&[])?;
    let umask = masked();
    let masked = if link == Link::Hardlink { umask | 0o222 } else { umask };
    let looks = Looks { time: 0, masked, masked_dirs: umask };
    before.iter().try_for_each(|(path, before)| Ok(restore(release, path, *before, looks)?))
}

/// What is at `path` and its mode, if anything is.
fn look(release: &Dir, path: &Path) -> Result<Option<(SFlag, u32)>, PathError> {
    let Ok(parent) = release.open_below(path.parent().unwrap_or(Path::new(""))) else { return Ok(None) };
    let stat = parent.stat(path.file_name().unwrap_or_default())?;
    Ok(stat.map(|stat| (kind(&stat), stat.st_mode & 0o777)))
}

/// Gives what is at `path` now the permissions it had `before`, or else those of new code.
fn restore(release: &Dir, path: &Path, before: Option<(SFlag, u32)>, looks: Looks) -> Result<(), PathError> {
    let (now, mode) = match look(release, path)? {
        Some(there) if there.0 == SFlag::S_IFREG => there,
        Some((SFlag::S_IFDIR, _)) if before.is_none() => return release.open_below(path)?.set_mode(looks.of_dirs()),
        _ => return Ok(()),
    };
    let runs = mode & 0o100 > 0;
    let wanted = match before.filter(|(before, _)| *before == now) {
        None => looks.of(if runs { Kind::Executable } else { Kind::Plain }).mode,
        Some((_, plain)) if runs && plain & 0o100 == 0 => plain | (plain & 0o444) >> 2,
        Some((_, plain)) if !runs && plain & 0o100 > 0 => plain & !0o111,
        Some((_, plain)) => plain,
    };
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let parent = release.open_below(parent)?;
    let Some(file) = parent.open_file(name)? else { return Ok(()) };
    parent.set_file_mode(&file, name, wanted)
}

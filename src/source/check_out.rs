//! A commit in a release: its files straight from the repository's objects or from an earlier release; by `git archive`
//! where git changes what it checks out. Both give the same tree.

use super::contents::{Contents, Folder};
use super::git::{Commit, fetch};
use super::mirror::Mirror;
use super::objects::{self, Looks, Made, Order};
use super::reuse::{self, Laid};
use super::submodules::Submodules;
use super::{Result, Site, SourceError, attributes, tar};
use crate::directory::{Dir, PathError};
use crate::recipe::Link;
use crate::tools::ToolError;
use crate::transfer::masked;
use crate::tree::{Item, Listing};
use std::ffi::OsString;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How deep submodules may be nested.
pub(super) const DEEPEST: usize = 16;
/// The longest file of attributes or description of a commit that is read; longer ones are git's to read.
const LONGEST: u64 = 1 << 20;
/// Permission bits that a file in common with other releases does not have.
const WRITE: u32 = 0o222;

/// Where a part of the code belongs.
struct Spot<'a> {
    into: &'a Dir,
    /// The path of `into` in the release.
    prefix: &'a Path,
    depth: usize,
}

/// What is under way.
struct CheckOut<'a> {
    site: &'a Site<'a>,
    done: AtomicU64,
}

impl Commit {
    /// Checks it out into the release, submodules included. Returns what was made, if that is known without looking.
    pub(super) fn check_out(&self, site: &Site<'_>) -> Result<Option<Listing>> {
        let check_out = CheckOut { site, done: AtomicU64::new(0) };
        let top = Spot { into: site.release, prefix: Path::new(""), depth: 0 };
        site.stages.during("check out", || check_out.at(self, &top))
    }
}

impl CheckOut<'_> {
    fn at(&self, commit: &Commit, spot: &Spot<'_>) -> Result<Option<Listing>> {
        let site = self.site;
        let mirror = Mirror::open(site.mirrors, &commit.location, site.tools, site.stages)?;
        let taken = self.take(commit, &mirror, spot).map_err(|error| mirror.explain(error));
        drop(mirror);
        let (mut made, submodules) = taken?;
        for (path, module) in submodules {
            let refuse = |why| SourceError::Submodule { path: path.display().to_string(), why };
            if spot.depth == DEEPEST {
                return Err(refuse(format!("submodules are nested more than {DEEPEST} deep")));
            }
            let module = fetch(site.mirrors, &module.location, Some(&module.hash), true, site.tools, site.stages);
            let module = module.map_err(|error| match error {
                // The release has been begun: this is not the ref that was asked for.
                SourceError::NoRef { .. } => refuse(error.to_string()),
                error => error,
            })?;
            let into = spot.into.ensure_below(&path, 0o755)?;
            let prefix = spot.prefix.join(&path);
            let inner = self.at(&module, &Spot { into: &into, prefix: &prefix, depth: spot.depth + 1 })?;
            made = made.zip(inner).map(|(mut made, inner)| {
                made.retain(|(at, _)| *at != prefix);
                made.extend(inner);
                made
            });
        }
        Ok(made)
    }

    /// Takes the commit's own files out of its mirror, and finds out which submodules belong to it, by their paths.
    fn take(&self, commit: &Commit, mirror: &Mirror<'_>, spot: &Spot<'_>) -> Result<(Option<Listing>, Submodules)> {
        let plain = self.plain(commit, mirror)?;
        let may_have = commit.submodules && plain.as_ref().is_none_or(|(contents, _)| contents.has_submodules);
        let made = match plain {
            Some((contents, time)) => Some(self.write(mirror, &contents, time, spot)?),
            None => {
                self.archive(commit, mirror, spot.into)?;
                None
            }
        };
        Ok((made, if may_have { commit.submodules(mirror)? } else { Vec::new() }))
    }

    /// What the commit holds and its time, if that is all there is to know: git would change nothing of it.
    fn plain(&self, commit: &Commit, mirror: &Mirror<'_>) -> Result<Option<(Contents, i64)>> {
        let settings = attributes::ask(mirror)?;
        let mut listed = mirror.git(["ls-tree", "-r", "-t", "-z", "--full-tree", &commit.hash]).stream()?;
        let contents = Contents::read(&mut BufReader::new(&mut listed.output));
        let listed = listed.finish(contents.as_ref().map(drop).map_err(|cause| io::Error::other(cause.to_string())));
        let settings = match whole(settings) {
            // None of them is set.
            Err(ToolError::Failed { status, .. }) if status.code() == Some(1) => Vec::new(),
            answer => answer?,
        };
        listed?;
        let Some(contents) = contents.map_err(|cause| PathError::new("list", mirror.dir().path(), cause))?? else {
            return Ok(None);
        };
        if attributes::are_odd(&contents) || attributes::of_host_change(mirror, &settings, self.site.tools)? {
            return Ok(None);
        }
        let texts = objects::read_short(mirror, &commit.hash, contents.named(".gitattributes"), LONGEST)?;
        let mut texts = texts.iter();
        let time = texts.next().and_then(|text| commit_time(text));
        let changed = texts.any(|text| text.len() as u64 >= LONGEST || attributes::change(text));
        Ok(time.filter(|_| !changed).map(|time| (contents, time)))
    }

    fn write(&self, mirror: &Mirror<'_>, contents: &Contents, time: i64, spot: &Spot<'_>) -> Result<Listing> {
        let site = self.site;
        let tell = || site.stages.advance(self.done.fetch_add(1, Ordering::Relaxed) + 1);
        let umask = masked();
        let masked = if site.link == Link::Hardlink { umask | WRITE } else { umask };
        let looks = Looks { time, masked, masked_dirs: umask };
        let order = Order { contents, into: spot.into, prefix: spot.prefix, how: site.link, looks, tell: &tell };
        let (laid, left) = reuse::lay_out(&order, site.earlier)?;
        let written = if left.is_empty() { Made::new() } else { objects::write(mirror, &order, &left)? };
        Ok(listing(contents, laid, written, spot.prefix))
    }

    fn archive(&self, commit: &Commit, mirror: &Mirror<'_>, into: &Dir) -> Result<()> {
        let mut archive = mirror.archive(&commit.hash).stream()?;
        let before = self.done.load(Ordering::Relaxed);
        let read_only = self.site.link == Link::Hardlink;
        let unpacked = tar::unpack_own(&mut archive.output, into, read_only, &mut |entries| {
            self.done.store(before + entries, Ordering::Relaxed);
            self.site.stages.advance(before + entries);
        });
        // git's own words explain a broken archive better than the archive does.
        let read = unpacked.as_ref().map(drop).map_err(|error| io::Error::other(error.to_string()));
        match archive.finish(read) {
            Err(ToolError::Output { .. }) | Ok(()) => unpacked,
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything a git prints.
fn whole(mut git: crate::tools::Streaming) -> std::result::Result<Vec<u8>, ToolError> {
    let mut said = Vec::new();
    let read = git.output.read_to_end(&mut said);
    git.finish(read.map(drop)).map(|()| said)
}

/// The seconds of `committer A U Thor <mail> SECONDS +0000`, before the commit's message.
fn commit_time(text: &[u8]) -> Option<i64> {
    let lines = text.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let line = lines.filter_map(|line| line.strip_prefix(b"committer ")).next()?;
    let after = &line[line.iter().rposition(|byte| *byte == b'>')? + 1..];
    std::str::from_utf8(after).ok()?.split_ascii_whitespace().next()?.parse().ok().filter(|time| *time >= 0)
}

/// What is there now, by directory.
fn listing(contents: &Contents, laid: Vec<Laid>, written: Made, prefix: &Path) -> Listing {
    let path = |folder: &Folder| {
        if folder.path.as_os_str().is_empty() { prefix.to_owned() } else { prefix.join(&folder.path) }
    };
    let mut listing: Listing = contents.folders.iter().map(|folder| (path(folder), Vec::new())).collect();
    for Laid { number, items, own, .. } in laid {
        listing[number].1.extend(items);
        let folder = &contents.folders[number];
        if let Some(name) = folder.path.file_name() {
            let item = Item { name: name.to_owned(), seen: own, target: OsString::new(), blob: None };
            listing[folder.above].1.push(item);
        }
    }
    for (number, item) in written {
        listing[number].1.push(item);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_committers_and_nothing_a_name_or_message_says() {
        let text = b"tree 1\nauthor A <a> 5 +0000\ncommitter committer > 7 <b@c> 1700000000 +0100\n\ncommitter X <x> 9 +0000\n";
        assert_eq!(commit_time(text), Some(1_700_000_000));
        assert_eq!(commit_time(b"tree 1\n\ncommitter X <x> 9 +0000\n"), None);
        assert_eq!(commit_time(b"committer X <x> -9 +0000\n"), None);
    }
}

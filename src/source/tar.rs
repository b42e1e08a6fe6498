//! A tar as a source: unpacked by descriptor, every member checked before it is made. A
//! member that is not what a release may hold is refused by name, and so is everything after it.

use super::incoming::Incoming;
use super::writers::{SHORT, Short, Writers, with_writers};
use super::{Result, Site, SourceError, refuse_own};
use crate::directory::{Dir, PathError, kind};
use crate::export::MEMBER;
use crate::layout::is_code;
use crate::transfer::{Look, masked};
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tar::{Archive, Entry, EntryType};

/// Why a member is refused whose extended header does not read line by line.
const BROKEN: &str =
    "its extended header is damaged or holds a line break; make the tar with --no-acls and --no-xattrs";
/// Why a file is refused of which the tar leaves out the holes, in either of the two ways.
const SPARSE: &str = "it is a sparse file; make the tar without --sparse";
/// The longest that what stands before a member may be: its name and attributes are held in memory, and papers are passed
/// over.
const LONGEST_HEADER: u64 = 8 << 20;
/// What a member's data is copied with.
const BUFFER: usize = 128 * 1024;
/// Unpacked bytes from which on the ratio to what was read counts …
const BOMB_SIZE: u64 = 1 << 30;
/// … and the ratio that no honest code reaches.
const BOMB_RATIO: u64 = 200;
/// What follows the end mark pads the last block that was written; no tool writes larger ones.
const PADDING: u64 = 64 << 20;

/// Whose tar it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// `git archive` of a commit: links may lead anywhere, since none is ever followed.
    Git,
    /// Somebody handed it in.
    Stranger,
}

/// Unpacks what `git archive` writes. Files lose their write permission if they are to be
/// `read_only`. `tell` hears how many members there were so far.
pub(super) fn unpack_own(from: &mut dyn Read, into: &Dir, read_only: bool, tell: &mut dyn FnMut(u64)) -> Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER, from);
    with_writers(&mut |writers| {
        let unpacking = Unpacking { read_only, ..Unpacking::new(into, Maker::Git, writers)? };
        unpacking.run(&mut reader, &|| 0, tell)
    })
}

/// Unpacks a tar that somebody handed in into the site's release. The papers of an export are no part of it.
pub(super) fn unpack(incoming: &Incoming, site: &Site<'_>) -> Result<()> {
    let export = incoming.export()?.is_some();
    let mut stream = incoming.stream()?;
    let mut unpack = |writers: &mut Writers<'_>| {
        let unpacking = Unpacking { papers: export, ..Unpacking::new(site.release, Maker::Stranger, writers)? };
        unpacking.run(&mut stream.reader, &|| stream.intake.read(), &mut |done| site.stages.advance(done))
    };
    let outcome = site.stages.during("unpack", || with_writers(&mut unpack));
    stream.intake.judge(outcome)
}

/// Remembers whether the last thing read was the end: a tar must end by saying so. No more is read than there is `left`.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    at_end: &'a Cell<bool>,
    left: &'a Cell<u64>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&mut *self.inner).take(self.left.get()).read(buffer)?;
        self.left.set(self.left.get() - read as u64);
        if self.left.get() == 0 {
            return Err(io::Error::other("a name or attributes longer than any code has: a bomb"));
        }
        self.at_end.set(read == 0 && !buffer.is_empty());
        Ok(read)
    }
}

/// A tar being unpacked.
struct Unpacking<'a, 'w> {
    into: &'a Dir,
    writers: &'a mut Writers<'w>,
    maker: Maker,
    /// Permission bits that are taken away, as `tar x` would: none for root.
    masked: u32,
    /// Whether nobody may write to the files.
    read_only: bool,
    /// Whether the papers of an export come first.
    papers: bool,
    /// Bytes that may be written before the disk is full.
    room: u64,
    written: u64,
    /// The directory the last member was made in.
    parent: Option<(PathBuf, Arc<Dir>)>,
    /// Names in lower case, of a stranger's members.
    seen: HashSet<Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a, 'w> Unpacking<'a, 'w> {
    fn new(into: &'a Dir, maker: Maker, writers: &'a mut Writers<'w>) -> Result<Self> {
        Ok(Self {
            into,
            writers,
            maker,
            masked: masked(),
            read_only: false,
            papers: false,
            room: into.space()?.bytes,
            written: 0,
            parent: None,
            seen: HashSet::new(),
            buffer: vec![0; BUFFER],
        })
    }

    fn run(mut self, from: &mut dyn Read, read: &dyn Fn() -> u64, tell: &mut dyn FnMut(u64)) -> Result<()> {
        let (at_end, left) = (Cell::new(false), Cell::new(LONGEST_HEADER));
        let mut archive = Archive::new(Watched { inner: from, at_end: &at_end, left: &left });
        let mut last = PathBuf::new();
        let entries = archive.entries().map_err(|cause| refuse(&last, cause.to_string()))?;
        for (count, entry) in entries.enumerate() {
            left.set(u64::MAX);
            let mut entry = entry.map_err(|cause| match count {
                0 => refuse(&last, cause.to_string()),
                _ => refuse(&last, format!("what follows it is damaged: {cause}")),
            })?;
            last = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
            check_extensions(&mut entry, &last)?;
            self.member(&mut entry, &last)?;
            if self.written > BOMB_SIZE && self.maker == Maker::Stranger && self.written / BOMB_RATIO > read() {
                return Err(refuse(&last, "it unpacks to far more than any code: a bomb"));
            }
            tell(count as u64 + 1);
            left.set(LONGEST_HEADER);
        }
        left.set(u64::MAX);
        if at_end.get() && last.as_os_str().is_empty() {
            return Err(refuse(&last, "there is nothing in it"));
        }
        if at_end.get() {
            return Err(refuse(&last, "it was cut short: there is no end mark"));
        }
        // What pads the archive must be read, or its writer dies of a closed pipe.
        let mut padding = archive.into_inner().take(PADDING);
        let read = io::copy(&mut padding, &mut io::sink()).map_err(|cause| refuse(&last, cause.to_string()))?;
        if read == PADDING { Err(refuse(&last, "what follows the end mark does not end")) } else { Ok(()) }
    }

    fn member(&mut self, entry: &mut Entry<'_, Watched<'_>>, name: &Path) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = plain_path(name).map_err(|why| refuse(name, why))?;
        let Some(path) = path else { return Ok(()) };
        if std::mem::take(&mut self.papers) {
            return Ok(());
        }
        self.check_name(name, &path)?;
        let mode = entry.header().mode().map_err(|cause| refuse(name, cause.to_string()))?;
        if mode & 0o7000 != 0 && kind != EntryType::Symlink {
            return Err(refuse(name, format!("mode {mode:04o} is setuid, setgid or sticky")));
        }
        let mode = mode & 0o777 & !self.masked;
        let time = entry.header().mtime().unwrap_or(0).cast_signed();
        if kind == EntryType::Directory {
            return self.directory(&path, mode, name);
        }
        let base = path.file_name().unwrap_or_default().to_owned();
        let stranger = self.maker == Maker::Stranger;
        let mode = if self.read_only { mode & !0o222 } else { mode };
        let parent = self.parent_of(&path, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let look = Look { mode, time: (time, 0) };
                self.file(
                    entry,
                    Short { member: name.to_owned(), dir: parent, name: base, content: Vec::new(), look },
                )?;
            }
            EntryType::Symlink => {
                let target = link_target(entry, name)?;
                if stranger && leads_out(&path, &target) {
                    return Err(refuse(
                        name,
                        format!("it links to {}, which could lead out of the release", target.display()),
                    ));
                }
                parent.symlink(&base, target.as_os_str()).map_err(|error| taken(name, error))?;
                parent.set_mtime(&base, time, 0)?;
            }
            EntryType::Link => {
                let target = link_target(entry, name)?;
                self.hard_link(&target, &path, name)?;
            }
            EntryType::GNUSparse => return Err(refuse(name, SPARSE)),
            _ => return Err(refuse(name, "it is neither a file, a directory nor a link")),
        }
        Ok(())
    }

    /// Our own names are ours, and no two names of a stranger's may be the same to anyone.
    fn check_name(&mut self, name: &Path, path: &Path) -> Result<()> {
        let first = path.iter().next().unwrap_or_default();
        if self.maker == Maker::Git {
            return refuse_own(first);
        }
        if first == MEMBER || !is_code(first) {
            return Err(refuse(name, "that name is releasectl's own"));
        }
        if !self.seen.insert(path.as_os_str().as_bytes().to_ascii_lowercase()) {
            return Err(refuse(name, "the same name, but for upper and lower case at most, came before"));
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, mode: u32, name: &Path) -> Result<()> {
        // One that could not be entered could not be filled.
        let mode = mode | 0o700;
        let parent = self.parent_of(path, name)?;
        let dir = parent.ensure_dir(path.file_name().unwrap_or_default(), mode).map_err(|error| taken(name, error))?;
        if dir.own_stat()?.st_mode & 0o777 != mode {
            dir.set_mode(mode)?;
        }
        self.parent = Some((path.to_owned(), Arc::new(dir)));
        Ok(())
    }

    fn parent_of(&mut self, path: &Path, name: &Path) -> Result<Arc<Dir>> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        if let Some((_, dir)) = self.parent.as_ref().filter(|(at, _)| at == wanted) {
            return Ok(dir.clone());
        }
        let dir = match self.into.open_below(wanted) {
            Ok(dir) => dir,
            Err(_) => {
                // A file that came before may stand in the way.
                self.writers.settle()?;
                self.into.ensure_below(wanted, 0o755).map_err(|error| taken(name, error))?
            }
        };
        let dir = Arc::new(dir);
        self.parent = Some((wanted.to_owned(), dir.clone()));
        Ok(dir)
    }

    /// Makes a file with what the tar has of it: a short one is handed over, a long one made piece by piece.
    fn file(&mut self, entry: &mut Entry<'_, Watched<'_>>, mut file: Short) -> Result<()> {
        let (size, name) = (entry.size(), &file.member);
        if self.maker == Maker::Stranger && size > self.room.saturating_sub(self.written) {
            return Err(refuse(name, format!("it says it has {size} bytes, more than there is room for")));
        }
        let cut = |read| match read {
            read if read == size => Ok(()),
            read => Err(refuse(name, format!("it is cut short: {read} of {size} bytes"))),
        };
        self.written += size;
        if size <= SHORT {
            let read = entry.read_to_end(&mut file.content).map_err(|cause| refuse(name, cause.to_string()))?;
            cut(read as u64)?;
            return self.writers.make(file);
        }
        file.fill(&mut |made| {
            cut(pour(entry, made, &mut self.buffer).map_err(|cause| match cause.raw_os_error() {
                Some(_) => file.unwritten(cause),
                None => refuse(name, cause.to_string()),
            })?)
        })
    }

    /// A second name for a file that came before, reached without following anything.
    fn hard_link(&mut self, target: &Path, path: &Path, name: &Path) -> Result<()> {
        let wrong = |why: &str| refuse(name, format!("it is a hard link to {}, {why}", target.display()));
        let Ok(Some(plain)) = plain_path(target) else { return Err(wrong("outside the release")) };
        self.writers.settle()?;
        let base = plain.file_name().unwrap_or_default();
        let from = self.into.open_below(plain.parent().unwrap_or(Path::new("")));
        let from = from.map_err(|_| wrong("which is not there"))?;
        let stat = from.stat(base)?.ok_or_else(|| wrong("which is not there"))?;
        if kind(&stat) != SFlag::S_IFREG {
            return Err(wrong("which is no file"));
        }
        let own = path.file_name().unwrap_or_default();
        let into = self.parent_of(path, name)?;
        if from.hard_link_into(base, &into, own)? { Ok(()) } else { Err(wrong("under a name that is taken")) }
    }
}

/// A record of an extended header that cannot be read (the reader takes a line for a record, whatever length it gives) is
/// passed over in silence, and the member then gets a name or a size that is not its own. So is a sparse file's map.
fn check_extensions(entry: &mut Entry<'_, Watched<'_>>, name: &Path) -> Result<()> {
    let extensions = entry.pax_extensions().map_err(|cause| refuse(name, cause.to_string()))?;
    for extension in extensions.into_iter().flatten() {
        let extension = extension.map_err(|_| refuse(name, BROKEN))?;
        if extension.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(refuse(name, SPARSE));
        }
    }
    Ok(())
}

/// `a/b` of `./a//b/`; `None` for the release itself. Absolute names and `..` are errors.
fn plain_path(name: &Path) -> std::result::Result<Option<PathBuf>, String> {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("its name leads out of the release".to_owned()),
            Component::RootDir | Component::Prefix(_) => return Err("its name is absolute".to_owned()),
        }
    }
    if plain.as_os_str().as_bytes().contains(&0) {
        return Err("its name holds a NUL".to_owned());
    }
    Ok((!plain.as_os_str().is_empty()).then_some(plain))
}

/// Whether a link at `path` with this target could lead out of the release. Its way up must come first: behind a name
/// that may be a link itself, `..` leads to nobody knows where.
pub(super) fn leads_out(path: &Path, target: &Path) -> bool {
    let parts = target.components().filter(|part| *part != Component::CurDir);
    let rest: Vec<_> = parts.skip_while(|part| *part == Component::ParentDir).collect();
    let up = target.components().filter(|part| *part == Component::ParentDir).count();
    up > path.components().count() - 1 || rest.iter().any(|part| !matches!(part, Component::Normal(_)))
}

fn link_target(entry: &Entry<'_, Watched<'_>>, name: &Path) -> Result<PathBuf> {
    let bytes = entry.link_name_bytes().filter(|bytes| !bytes.is_empty() && !bytes.contains(&0));
    bytes.map(|bytes| PathBuf::from(OsStr::from_bytes(&bytes))).ok_or_else(|| refuse(name, "it is a link to nothing"))
}

/// Writes all that can be read. Returns how much that was.
fn pour(from: &mut dyn Read, into: &mut File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut poured = 0;
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(poured),
            Ok(read) => {
                into.write_all(&buffer[..read])?;
                poured += read as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// The reason may quote the archive, which may hold anything: it is kept short and without control characters.
pub(super) fn refuse(member: &Path, why: impl Into<String>) -> SourceError {
    let mut why = why.into();
    // What stands in a header's place is quoted to nobody.
    if let Some(at) = why.find("numeric field ").filter(|at| why[*at..].contains(" when getting cksum")) {
        why.replace_range(at.., "no header of a tar is where one should be");
    }
    let why = why.chars().filter(|c| !c.is_control()).take(200).collect();
    if member.as_os_str().is_empty() {
        return SourceError::NoTar { why };
    }
    SourceError::Member { member: member.to_string_lossy().chars().take(512).collect(), why }
}

/// A member that cannot be made because of what came before it; any other failure is the system's.
pub(super) fn taken(name: &Path, error: PathError) -> SourceError {
    if error.is(Errno::EEXIST) {
        refuse(name, "there is something of that name already")
    } else if error.is(Errno::ENOTDIR) || error.is(Errno::ELOOP) {
        refuse(name, "its way leads through a file or a link")
    } else {
        error.into()
    }
}

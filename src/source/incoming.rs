//! A tar as it comes in: opened, its compression recognised by its first bytes, and the papers of an export read if they
//! come first. What was read of it to see that is read again by whoever unpacks it.

use super::{Result, SourceError};
use crate::directory::PathError;
use crate::export::{Export, MEMBER, SCHEMA};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::rc::Rc;

/// What standard input is called where a path is named.
const STDIN: &str = "/dev/stdin";
/// What is read at a time.
const BUFFER: usize = 128 * 1024;
/// A tar's block.
const BLOCK: usize = 512;
/// The largest papers that are read.
const LARGEST: usize = 4 << 20;

/// A tar that is not unpacked yet. It is opened when it is first asked for anything.
pub struct Incoming {
    /// The file; standard input if there is none.
    path: Option<PathBuf>,
    opened: RefCell<Option<Box<Opened>>>,
}

/// An open one.
struct Opened {
    stream: Stream,
    export: Option<Export>,
}

/// Its content.
pub(super) struct Stream {
    /// Decompressed.
    pub(super) reader: Box<dyn Read>,
    /// What is known of the reading below.
    pub(super) intake: Rc<Intake>,
}

/// What became of reading a tar, before it is decompressed.
#[derive(Default)]
pub(super) struct Intake {
    path: PathBuf,
    read: Cell<u64>,
    /// The system's number for why it could not be read on.
    failed: Cell<Option<i32>>,
}

impl Intake {
    /// Bytes so far.
    pub(super) fn read(&self) -> u64 {
        self.read.get()
    }

    /// What came of the tar, unless the system failed to read it: what the layers above made of that is no fault of
    /// the tar.
    pub(super) fn judge<T>(&self, outcome: Result<T>) -> Result<T> {
        match self.failed.get() {
            Some(errno) => Err(PathError::new("read", &self.path, io::Error::from_raw_os_error(errno)).into()),
            None => outcome,
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Incoming").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Incoming {
    /// The tar file `path`, or the one on standard input. Nothing is read yet.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, opened: RefCell::new(None) }
    }

    /// Its papers, if it is an export. They may be asked for again once it is unpacked.
    pub fn export(&self) -> Result<Option<Export>> {
        self.open()?;
        Ok(self.opened.borrow().as_ref().and_then(|opened| opened.export.clone()))
    }

    /// Its content, which can be had once.
    pub(super) fn stream(&self) -> Result<Stream> {
        self.open()?;
        let spent = || Stream { reader: Box::new(io::empty()), intake: Rc::default() };
        Ok(self
            .opened
            .borrow_mut()
            .as_mut()
            .map_or_else(spent, |opened| std::mem::replace(&mut opened.stream, spent())))
    }

    fn open(&self) -> Result<()> {
        if self.opened.borrow().is_some() {
            return Ok(());
        }
        let inner: Box<dyn Read> = match &self.path {
            Some(path) => Box::new(File::open(path).map_err(|cause| PathError::new("open", path, cause))?),
            None => Box::new(io::stdin()),
        };
        let path = self.path.clone().unwrap_or_else(|| STDIN.into());
        let intake = Rc::new(Intake { path, ..Intake::default() });
        let noted = BufReader::with_capacity(BUFFER, Noted { inner, intake: intake.clone() });
        let reader = decompressed(noted).map_err(|cause| SourceError::NoTar { why: plain(&cause.to_string()) });
        let (reader, export) = intake.judge(reader.and_then(look))?;
        *self.opened.borrow_mut() = Some(Box::new(Opened { stream: Stream { reader, intake }, export }));
        Ok(())
    }
}

/// Reads the first member if it is an export's papers. The reader that is returned begins at the beginning all the same.
fn look(mut reader: Box<dyn Read>) -> Result<(Box<dyn Read>, Option<Export>)> {
    let (mut seen, mut failed) = (Vec::new(), None);
    let mut export = None;
    if take(&mut reader, &mut seen, BLOCK, &mut failed)
        && let Some(size) = papers(&seen)
    {
        let wrong = |why: String| SourceError::Member { member: MEMBER.to_owned(), why: plain(&why) };
        if size > LARGEST {
            return Err(wrong(format!("it has {size} bytes")));
        }
        if take(&mut reader, &mut seen, BLOCK + size, &mut failed) {
            let read: Export = serde_json::from_slice(&seen[BLOCK..]).map_err(|error| wrong(error.to_string()))?;
            if read.schema != SCHEMA {
                return Err(wrong(format!("it is of version {}, and this releasectl reads {SCHEMA}", read.schema)));
            }
            if read.python.as_ref().is_some_and(|python| !python.is_plain()) {
                return Err(wrong("its environment leads out of the release".to_owned()));
            }
            export = Some(read);
        }
    }
    let rest: Box<dyn Read> = match failed {
        Some(error) => Box::new(Failing(Some(error))),
        None => reader,
    };
    Ok((Box::new(Cursor::new(seen).chain(rest)), export))
}

/// Reads on until `seen` has `length` bytes. Whether it has; why not is kept for whoever reads on.
fn take(reader: &mut dyn Read, seen: &mut Vec<u8>, length: usize, failed: &mut Option<io::Error>) -> bool {
    let wanted = (length - seen.len()) as u64;
    match reader.take(wanted).read_to_end(seen) {
        Ok(_) => seen.len() == length,
        Err(error) => {
            *failed = Some(error);
            false
        }
    }
}

/// The size of an export's papers, if this is their header.
fn papers(header: &[u8]) -> Option<usize> {
    let name = header.get(..100)?.split(|byte| *byte == 0).next()?;
    let regular = matches!(header.get(156)?, b'0' | 0);
    let size = std::str::from_utf8(header.get(124..136)?).ok()?.trim_matches(['\0', ' ']);
    if name == MEMBER.as_bytes() && regular { usize::from_str_radix(size, 8).ok() } else { None }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Says once what went wrong.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// How others begin that look like something one could hand in, and no tar does.
const OTHERS: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "it is an xz file"), (b"BZh91AY&SY", "it is a bzip2 file"), (b"PK\x03\x04", "it is a zip file")];

/// Recognises gzip and zstd by their first bytes; anything else is taken for a plain tar.
fn decompressed(mut from: BufReader<Noted>) -> io::Result<Box<dyn Read>> {
    let first = from.fill_buf()?;
    if first.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(from)));
    }
    if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skipped(first) {
        return Ok(Box::new(Frames { decoder: frame(from)? }));
    }
    let other = OTHERS.iter().find(|(magic, _)| first.starts_with(magic));
    other.map_or(Ok(Box::new(from)), |(_, name)| Err(io::Error::other(format!("{name}; gzip and zstd are read"))))
}

/// What begins a frame, and all that comes behind it.
type Rest = io::Chain<Cursor<Vec<u8>>, BufReader<Noted>>;
type Frame = ruzstd::decoding::StreamingDecoder<Rest, ruzstd::decoding::FrameDecoder>;

/// Whether this begins a frame that holds nothing of the content, as pzstd and what can be searched has them.
fn is_skipped(magic: &[u8]) -> bool {
    magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18]
}

/// The next frame that holds any; `None` at the end.
fn frame(mut from: BufReader<Noted>) -> io::Result<Option<Frame>> {
    loop {
        let (mut magic, mut length) = (Vec::new(), [0; 4]);
        from.by_ref().take(4).read_to_end(&mut magic)?;
        if magic.is_empty() {
            return Ok(None);
        } else if !is_skipped(&magic) {
            let frame = Frame::new(Cursor::new(magic).chain(from));
            return frame.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
        }
        from.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if io::copy(&mut from.by_ref().take(length), &mut io::sink())? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// All frames of a zstd stream, one after the other.
struct Frames {
    decoder: Option<Frame>,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let rest = self.decoder.take().map(|spent| spent.into_inner().into_inner().1);
            self.decoder = rest.map(frame).transpose()?.flatten();
        }
    }
}

/// Notes what becomes of the reading. Nobody above hears of an interruption.
struct Noted {
    inner: Box<dyn Read>,
    intake: Rc<Intake>,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Ok(read) => {
                    self.intake.read.set(self.intake.read.get() + read as u64);
                    return Ok(read);
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    self.intake.failed.set(cause.raw_os_error());
                    return Err(cause);
                }
            }
        }
    }
}

//! The journal on disk: sealed lines, appended in one write each, read from the end. Its file lies in the state directory
//! and is changed only under the tree lock; looking needs no lock, since a line is whole or it is not there.

use crate::clock::Timestamp;
use crate::directory::{Dir, PathError, Result};
use crate::durable::{append_line, cut, sync_file};
use crate::layout::JOURNAL;
use crate::operation::{Begin, Done, Event, Glance, Kind, Operation, Outcome, Record, Step};
use crate::release::ReleaseId;
use crate::sealed::{seal, unseal};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

/// How much of the end is read at first. Every command checks this much; more is read only if it is needed.
const WINDOW: u64 = 16 * 1024;
/// Numbers stay below this: what reads JSON elsewhere may know no larger ones.
const NUMBERS: u64 = 1 << 53;
/// How much is read at a time. Lines may be longer: one that names every release of a large tree is.
const BUFFER: usize = 64 * 1024;

/// The end of the journal, as far back as it was needed.
#[derive(Debug, Default)]
pub struct Tail<R = Vec<Record>> {
    /// Its records, oldest first, or what they are gathered in.
    pub records: R,
    /// Whether `records` begins with the journal's first line.
    pub complete: bool,
    /// Where the last good line ends, in bytes from the start.
    good_end: u64,
    /// Bytes behind it that are no record.
    pub torn: u64,
    /// Whether what is torn is more than writes of which a part did not reach the disk: whole lines were there once.
    torn_lines: bool,
    /// Whether a bad line stands between good ones.
    pub damaged: bool,
    /// Whether there is a journal at all.
    pub exists: bool,
}

impl Tail {
    /// Reads from the end until `enough` says so of the records found, or all of them are read.
    pub fn read(state: &Dir, enough: &dyn Fn(&[Record]) -> bool) -> Result<Self> {
        Self::gather(state, &|records| enough(records))
    }
}

impl<R: Default + Extend<Record>> Tail<R> {
    /// The same for whoever does not want them all: there may be very many.
    pub fn gather(state: &Dir, enough: &dyn Fn(&R) -> bool) -> Result<Self> {
        let Some(file) = state.open_file(JOURNAL)? else { return Ok(Self { complete: true, ..Self::default() }) };
        let path = state.path().join(JOURNAL);
        let length = file.metadata().map_err(|e| PathError::new("look at", &path, e))?.len();
        let mut window = WINDOW;
        loop {
            let part = length.saturating_sub(window)..length;
            let tail = Self::parse(&file, part).map_err(|e| PathError::new("read", &path, e))?;
            if tail.complete || enough(&tail.records) {
                return Ok(tail);
            }
            window *= 4;
        }
    }

    /// The records in a part of the journal; a first line that is cut is passed over.
    fn parse(file: &File, part: Range<u64>) -> io::Result<Self> {
        let (mut at, mut last, mut bad, mut cut) = (part.start, 0, false, part.start > 0);
        let mut tail = Self { complete: !cut, exists: true, good_end: at, ..Self::default() };
        lines(file, part, &mut |line| {
            at += line.len() as u64;
            if std::mem::take(&mut cut) {
                tail.good_end = at;
                return;
            }
            match line.strip_suffix(b"\n").and_then(record_of).filter(|record| record.seq > last) {
                Some(record) => {
                    last = record.seq;
                    tail.records.extend(Some(record));
                    tail.damaged |= bad;
                    (bad, tail.good_end, tail.torn_lines) = (false, at, false);
                }
                None => {
                    bad = true;
                    // What was never written is zeros, also between what was.
                    tail.torn_lines |= line.ends_with(b"\n") && !line.contains(&0);
                }
            }
        })?;
        tail.torn = at - tail.good_end;
        Ok(tail)
    }
}

/// The record on a line without its end. One with a number that none of ours ever has is damage; one that is sealed and
/// makes no sense here is a later version's.
fn record_of(line: &[u8]) -> Option<Record> {
    let later = || unseal(line).map(|Numbered { seq, at }| Record { seq, at, event: Event::Later });
    unseal(line).or_else(later).filter(|record| record.seq < NUMBERS)
}

/// What every line has, whichever version wrote it.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
    at: Timestamp,
}

/// Every record there is, first to last, without keeping them. Returns how many lines were no records.
pub fn scan(state: &Dir, see: &mut dyn FnMut(Record)) -> Result<u64> {
    let mut bad = 0;
    each_line(state, &mut |line| match line.strip_suffix(b"\n").and_then(record_of) {
        Some(record) => see(record),
        None => bad += 1,
    })?;
    Ok(bad)
}

/// The first record that can be read.
pub fn first(state: &Dir) -> Result<Option<Record>> {
    let mut first = None;
    each_line(state, &mut |line| {
        if first.is_none() {
            first = line.strip_suffix(b"\n").and_then(record_of);
        }
    })?;
    Ok(first)
}

/// When each release last went live. Of each line only that is read.
pub fn activations(state: &Dir) -> Result<BTreeMap<ReleaseId, Timestamp>> {
    let (mut begun, mut made) = (BTreeMap::new(), BTreeMap::new());
    each_line(state, &mut |line| {
        let seen = line.strip_suffix(b"\n").and_then(unseal::<Glance<'_>>);
        let Some(seen) = seen.filter(|seen| seen.seq < NUMBERS) else { return };
        match (seen.event, seen.of) {
            (Kind::Begin, _) if seen.operation.is_some_and(Operation::is_flip) => {
                begun.extend(seen.to.zip(Timestamp::parse(seen.at)).map(|begun| (seen.seq, begun)));
            }
            (Kind::Done, Some(of)) => {
                made.extend(begun.remove(&of).filter(|_| seen.outcome == Some(Outcome::Done)));
            }
            _ => {}
        }
    })?;
    Ok(made)
}

fn each_line(state: &Dir, see: &mut dyn FnMut(&[u8])) -> Result<()> {
    let Some(file) = state.open_file(JOURNAL)? else { return Ok(()) };
    lines(&file, 0..u64::MAX, see).map_err(|e| PathError::new("read", state.path().join(JOURNAL), e))
}

/// The lines in a part of a file, each with its end.
fn lines(mut file: &File, part: Range<u64>, see: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    file.seek(SeekFrom::Start(part.start))?;
    let mut reader = BufReader::with_capacity(BUFFER, file.take(part.end - part.start));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        see(&line);
        line.clear();
    }
    Ok(())
}

/// The journal open for writing. Made only by whoever holds the tree lock.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    end: u64,
    next: u64,
}

impl Journal {
    /// Opens it, made if absent; `tail` is what [`Tail::read`] found under the same lock. A torn end is cut; damage is
    /// set aside as `journal.broken-<now>` with every good line kept. Returns what a person should hear of that.
    /// Numbers go on after the last one, and are never below `least`.
    pub fn open(state: &Dir, tail: &Tail, least: u64, now: Timestamp) -> Result<(Self, Vec<String>)> {
        let mut notices = Vec::new();
        if tail.damaged || tail.torn_lines {
            let aside = set_aside(state, now)?;
            notices.push(format!("the journal was damaged; it was set aside as {aside} and its good lines were kept"));
        }
        let file = state.open_own(JOURNAL, 0o600)?;
        let path = state.path().join(JOURNAL);
        let fail = |cause| PathError::new("open", &path, cause);
        let mut end = file.metadata().map_err(fail)?.len();
        if tail.torn > 0 && !(tail.damaged || tail.torn_lines) {
            cut(&file, &path, tail.good_end)?;
            end = tail.good_end;
            notices
                .push(format!("the last line of the journal was cut short and has been dropped ({} bytes)", tail.torn));
        }
        if end == 0 {
            // Its name: what is written later is made durable with the file alone.
            state.sync()?;
        }
        let next = tail.records.last().map_or(1, |record| record.seq + 1).max(least);
        Ok((Self { file, path, end, next }, notices))
    }

    /// Leaves out the next `count` numbers, and returns them.
    pub fn leave_out(&mut self, count: usize) -> Range<u64> {
        let first = self.next;
        self.next += count as u64;
        first..self.next
    }

    /// Writes an intent. Durable on return; returns its number.
    pub fn begin(&mut self, begin: Begin, now: Timestamp) -> Result<u64> {
        let seq = self.append(Event::Begin(begin), now)?;
        sync_file(&self.file, &self.path)?;
        Ok(seq)
    }

    /// Writes an outcome. Not made durable by itself: an intent without one is settled by looking at the disk.
    pub fn done(&mut self, done: Done, now: Timestamp) -> Result<()> {
        self.append(Event::Done(done), now).map(drop)
    }

    /// Writes that a step is over; like an outcome not made durable by itself.
    pub fn step(&mut self, step: Step, now: Timestamp) -> Result<()> {
        self.append(Event::Step(step), now).map(drop)
    }

    /// Writes what happened to programs, or what a flip came to; like an outcome not made durable by itself: a power cut
    /// ends the programs too.
    pub fn tell(&mut self, event: Event, now: Timestamp) -> Result<()> {
        self.append(event, now).map(drop)
    }

    fn append(&mut self, event: Event, at: Timestamp) -> Result<u64> {
        if self.next >= NUMBERS {
            let cause = io::Error::other("its numbers have come to an end");
            return Err(PathError::new("append to", &self.path, cause));
        }
        let record = Record { seq: self.next, at, event };
        let mut line = seal(&record).map_err(|e| PathError::new("write", &self.path, io::Error::other(e)))?;
        line.push('\n');
        append_line(&mut self.file, &self.path, self.end, line.as_bytes())?;
        self.end += line.len() as u64;
        self.next += 1;
        Ok(record.seq)
    }
}

/// Keeps the damaged journal under another name and puts one with its good lines in its place, whole at every moment.
fn set_aside(state: &Dir, now: Timestamp) -> Result<String> {
    // Byte for byte, with whatever a later version wrote into them.
    let (mut good, mut last) = (Vec::new(), 0);
    each_line(state, &mut |line| {
        let record = line.strip_suffix(b"\n").and_then(record_of);
        if let Some(record) = record.filter(|record| record.seq > last) {
            last = record.seq;
            good.extend_from_slice(line);
        }
    })?;
    let names = (0..).map(|n| match n {
        0 => format!("journal.broken-{}", now.compact()),
        n => format!("journal.broken-{}.{n}", now.compact()),
    });
    let mut aside = String::new();
    for name in names {
        aside = name;
        if state.hard_link_into(JOURNAL, state, &aside)? {
            break;
        }
    }
    state.write_file(JOURNAL, &good, 0o600)?;
    Ok(aside)
}

//! The files of a tar, made by threads of their own while the tar is read on. Short ones only: they wait in memory.

use super::tar::taken;
use super::{Result, SourceError};
use crate::directory::Dir;
use crate::transfer::{Look, finish};
use crate::walk::{beside, with_exact_modes, writers};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The longest file that is short, in bytes.
pub(super) const SHORT: u64 = 128 * 1024;
/// Files wait together: so many at most, so many bytes, and in so few directories, each of which is open.
const FILES: usize = 32;
const BYTES: usize = 256 * 1024;
const DIRECTORIES: usize = 4;
/// How many such batches wait for a writer at most.
const WAITING: usize = 2;

/// A file that is to be made, with all it holds.
pub(super) struct Short {
    /// What the tar calls it.
    pub(super) member: PathBuf,
    /// Where it is made.
    pub(super) dir: Arc<Dir>,
    /// Its name there.
    pub(super) name: OsString,
    /// What it holds.
    pub(super) content: Vec<u8>,
    /// What it is to look like.
    pub(super) look: Look,
}

impl Short {
    /// Makes the file and gives it what `fill` writes, then its look.
    pub(super) fn fill(&self, fill: &mut dyn FnMut(&mut File) -> Result<()>) -> Result<()> {
        let file = self.dir.create_file(&self.name, self.look.mode);
        let mut file = file.map_err(|error| taken(&self.member, error))?;
        fill(&mut file)?;
        finish(&self.dir, &self.name, &file, self.look)?;
        Ok(())
    }

    /// What becomes of a failure to write to it.
    pub(super) fn unwritten(&self, cause: io::Error) -> SourceError {
        self.dir.fail_io("write", &self.name)(cause).into()
    }

    fn make(&self) -> Result<()> {
        self.fill(&mut |file| file.write_all(&self.content).map_err(|cause| self.unwritten(cause)))
    }
}

/// Files that are made one after the other, and how many were handed over before them.
type Batch = (usize, Vec<Short>);

/// What the reader and the writers have in common.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Batch>,
    busy: usize,
    over: bool,
    /// The first file that could not be made.
    failed: Option<(usize, SourceError)>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `condition` holds.
    fn wait_while(&self, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// One writer: until there will be no more. Nothing more is made once a file could not be.
    fn work(&self) {
        loop {
            let mut state = self.wait_while(|state| state.waiting.is_empty() && !state.over);
            let Some((first, files)) = state.waiting.pop_front() else { return };
            state.busy += 1;
            let go_on = state.failed.is_none();
            drop(state);
            self.changed.notify_all();
            let failed =
                (first..).zip(files.iter().filter(|_| go_on)).find_map(|(at, file)| Some((at, file.make().err()?)));
            // Directories are closed before the next ones are opened.
            drop(files);
            let mut state = self.lock();
            state.busy -= 1;
            if let Some((at, error)) = failed
                && state.failed.as_ref().is_none_or(|(other, _)| at < *other)
            {
                state.failed = Some((at, error));
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Takes files to be made.
pub(super) struct Writers<'d> {
    desk: &'d Desk,
    /// Whether there are any threads; if none could be had each file is made at once.
    threads: bool,
    given: usize,
    files: Vec<Short>,
    bytes: usize,
    directories: usize,
}

/// Calls `read` with writers, and returns when everything they were given is made. Not durable then. The error is that
/// of the first file that could not be made, or else that of `read`.
pub(super) fn with_writers(read: &mut dyn FnMut(&mut Writers<'_>) -> Result<()>) -> Result<()> {
    let desk = Desk::default();
    let work = || {
        with_exact_modes();
        desk.work();
    };
    let mut outcome = Ok(());
    beside(writers(), &work, &mut |threads| {
        let (files, threads) = (Vec::new(), threads > 0);
        let mut writers = Writers { desk: &desk, threads, given: 0, files, bytes: 0, directories: 0 };
        let read = read(&mut writers);
        outcome = writers.settle().and(read);
    });
    outcome
}

impl Writers<'_> {
    /// Has a file made, some time before the next [`Writers::settle`] returns.
    pub(super) fn make(&mut self, file: Short) -> Result<()> {
        if !self.threads {
            return file.make();
        }
        self.bytes += file.content.len();
        self.directories += usize::from(self.files.last().is_none_or(|last| !Arc::ptr_eq(&last.dir, &file.dir)));
        self.files.push(file);
        if self.files.len() < FILES && self.bytes < BYTES && self.directories < DIRECTORIES {
            return Ok(());
        }
        self.hand_over();
        if self.desk.lock().failed.is_some() { self.settle() } else { Ok(()) }
    }

    fn hand_over(&mut self) {
        let files = std::mem::take(&mut self.files);
        let first = self.given;
        self.given += files.len();
        (self.bytes, self.directories) = (0, 0);
        self.desk.wait_while(|state| state.waiting.len() >= WAITING).waiting.push_back((first, files));
        self.desk.changed.notify_all();
    }

    /// Waits until everything is made that was to be.
    pub(super) fn settle(&mut self) -> Result<()> {
        if !self.files.is_empty() {
            self.hand_over();
        }
        let mut state = self.desk.wait_while(|state| state.busy > 0 || !state.waiting.is_empty());
        state.failed.take().map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Drop for Writers<'_> {
    fn drop(&mut self) {
        self.desk.lock().over = true;
        self.desk.changed.notify_all();
    }
}

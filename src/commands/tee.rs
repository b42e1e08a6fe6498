//! What a build's programs print: to the build's log, and to whoever watches.

use super::Context;
use crate::tree::Build;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};

/// How much of what one program prints is kept of its beginning.
const FIRST: u64 = 15 << 20;
/// And of its end, where it says why it failed. What is between is only counted.
const LAST: usize = 1 << 20;

/// Takes the output of one program; [`Tee::end`] must follow.
pub(super) struct Tee<'a> {
    context: &'a Context,
    log: Option<File>,
    taken: u64,
    /// Whether what was put last ended in the middle of a line.
    within: bool,
    /// The end of what is not written yet.
    last: VecDeque<u8>,
}

impl<'a> Tee<'a> {
    /// Writes on at the end of the build's log.
    pub(super) fn new(context: &'a Context, build: &Build) -> Self {
        Self { context, log: build.log().try_clone().ok(), taken: 0, within: false, last: VecDeque::new() }
    }

    /// Takes some output, which is told and logged at once as long as there is not too much of it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = usize::try_from(FIRST.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        if !now.is_empty() {
            self.put(now);
        }
        if self.last.is_empty() && !later.is_empty() {
            self.say(&format!("it prints more than {} MiB; of the rest the last MiB follows", FIRST >> 20));
        }
        self.taken += bytes.len() as u64;
        self.last.extend(later);
        let surplus = self.last.len().saturating_sub(LAST);
        self.last.drain(..surplus);
        Ok(())
    }

    /// The program has ended: what was held back of its end is told and logged. What follows begins a line of its own.
    pub(super) fn end(mut self) {
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            let kept = self.taken.min(FIRST) + last.len() as u64;
            self.say(&format!("{} bytes are left out here", self.taken.saturating_sub(kept)));
            let (head, tail) = last.as_slices();
            self.put(head);
            self.put(tail);
        }
        if self.within {
            self.put(b"\n");
        }
    }

    fn say(&mut self, line: &str) {
        self.put(format!("\nreleasectl: {line}\n").as_bytes());
    }

    /// A log that cannot be written any more must not stop the program; a full disk will stop it.
    fn put(&mut self, bytes: &[u8]) {
        self.within = bytes.last().map_or(self.within, |last| *last != b'\n');
        self.context.stages.output(bytes);
        if let Some(log) = &mut self.log {
            let _ = log.write_all(bytes);
        }
    }
}

/// A line of our own in the build's log. A log that cannot be written stops nothing.
pub(super) fn note(build: &Build, line: &str) {
    let _ = writeln!(build.log(), "releasectl: {line}");
}

//! What a build's programs print: to the build's log, and to whoever watches.

use super::Context;
use crate::tree::Build;
use std::fs::File;
use std::io::{self, Write};

/// The most that one program may put into the log; the rest is only counted.
const MOST: u64 = 16 << 20;

/// Takes the output of one program.
pub(super) struct Tee<'a> {
    context: &'a Context,
    log: Option<File>,
    written: u64,
}

impl<'a> Tee<'a> {
    /// Writes on at the end of the build's log.
    pub(super) fn new(context: &'a Context, build: &Build) -> Self {
        Self { context, log: build.log().try_clone().ok(), written: 0 }
    }

    /// Takes some output. A log that cannot be written any more must not stop the program; a full disk will stop it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.written;
        self.written += bytes.len() as u64;
        if before >= MOST {
            return Ok(());
        }
        self.context.stages.output(bytes);
        if let Some(log) = &mut self.log {
            let _ = log.write_all(bytes);
        }
        if self.written >= MOST {
            let cut = format!("\nreleasectl: it prints more than {} MiB; the rest is left out\n", MOST >> 20);
            self.context.stages.output(cut.as_bytes());
            if let Some(log) = &mut self.log {
                let _ = log.write_all(cut.as_bytes());
            }
        }
        Ok(())
    }
}

/// A line of our own in the build's log. A log that cannot be written stops nothing.
pub(super) fn note(build: &Build, line: &str) {
    let _ = writeln!(build.log(), "releasectl: {line}");
}

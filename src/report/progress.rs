//! How far long work is: a bar on a terminal, one line a stage elsewhere; how long each stage took, for who wants more.

use crate::stage::Stages;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long, in milliseconds, a reader is waited for who has not taken yet what was written. One who is away for longer,
/// as a laptop that sleeps in the middle of a deploy, must not hold up what goes on here.
const PATIENCE: u16 = 20_000;
/// What is taken without a wait by a pipe that takes anything at all.
const TAKEN: usize = 4096;

/// Shows stages on standard error, and every warning once. What cannot be written there is lost, and stops nothing.
pub struct Progress {
    bars: bool,
    quiet: bool,
    verbose: bool,
    begun: Mutex<Option<(String, Instant)>>,
    bar: Mutex<Option<ProgressBar>>,
    told: Mutex<BTreeSet<String>>,
    left_out: Mutex<bool>,
}

impl Progress {
    /// A bar if standard error is a terminal; nothing but warnings if `quiet`, the time of each stage if `verbose`.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let (begun, bar, told, left_out) = Default::default();
        Self { bars: stderr().is_terminal(), quiet, verbose, begun, bar, told, left_out }
    }

    /// Writes what somebody takes.
    fn put(&self, bytes: &[u8]) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.chunks(TAKEN) {
            if !is_taken(if *left_out { 0 } else { PATIENCE }) {
                *left_out = true;
            } else {
                let gap: &[u8] = if std::mem::take(&mut *left_out) { GAP } else { b"" };
                let _ = stderr().write_all(gap).and_then(|()| stderr().write_all(part));
            }
        }
    }

    fn with_bar(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut self.bar.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Stages for Progress {
    fn begin(&self, stage: &str) {
        if self.quiet {
            return;
        }
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage.to_owned(), Instant::now()));
        if !self.bars {
            self.put(format!("{stage} …\n").as_bytes());
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{msg:>10} {spinner} {pos} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(stage.to_owned());
        bar.tick();
        self.with_bar(|slot| *slot = Some(bar));
    }

    fn advance(&self, done: u64) {
        self.with_bar(|slot| slot.iter().for_each(|bar| bar.set_position(done)));
    }

    fn end(&self) {
        self.with_bar(|slot| slot.take().iter().for_each(ProgressBar::finish_and_clear));
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stage, begun)) = begun.filter(|_| self.verbose) {
            self.put(format!("{stage} took {}\n", span(begun.elapsed().as_secs_f64())).as_bytes());
        }
    }

    fn output(&self, bytes: &[u8]) {
        if !self.quiet {
            self.with_bar(|slot| slot.iter().for_each(ProgressBar::finish_and_clear));
            self.put(bytes);
        }
    }

    fn warn(&self, message: &str) {
        if !self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(message.to_owned()) {
            return;
        }
        self.with_bar(|slot| slot.iter().for_each(|bar| bar.set_draw_target(ProgressDrawTarget::hidden())));
        self.put(format!("warning: {}\n", visible(message, &LINES)).as_bytes());
    }
}

/// Where something was left out.
const GAP: &[u8] = b"\nreleasectl: nobody took what was printed here; `releasectl log` has it\n";

/// Whether standard error takes something within so many milliseconds. One that is closed does: it says so.
fn is_taken(milliseconds: u16) -> bool {
    let stderr = stderr();
    let mut wanted = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    !matches!(poll(&mut wanted, PollTimeout::from(milliseconds)), Ok(0))
}

/// What a text of several lines is laid out with.
pub(super) const LINES: [&str; 2] = ["\n", "\t"];

/// A text as a terminal may have it: control characters are written out, but for those that begin what is `kept`.
pub(super) fn visible(text: &str, kept: &[&str]) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let begins = |kept: &&str| text.get(at..).is_some_and(|rest| rest.starts_with(kept));
        if c.is_control() && !kept.iter().any(begins) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A span as people read it.
pub(super) fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

//! Waiting for a program that runs: its output as it comes, its time limit, and no wait for what it leaves behind.

use super::{Sink, ToolError};
use crate::process;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, PipeReader, Read, Seek};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How often, in milliseconds, a child that says nothing is looked at.
const TICK: u16 = 20;
/// What a pipe holds where the system does not say it.
const PIPE: usize = 64 * 1024;
/// Bytes of its last output that an error carries.
const TAIL: usize = 4096;

/// A program whose output is followed.
pub(super) struct Running {
    pub(super) label: String,
    pub(super) limit: Option<Duration>,
    pub(super) child: Child,
    pub(super) started: Instant,
}

impl Running {
    /// Follows the program to its end. What still writes into the pipe afterwards is not waited for.
    pub(super) fn watch(mut self, mut output: PipeReader, sink: &mut Sink<'_>) -> Result<(), ToolError> {
        let mut tail = Vec::new();
        let mut take = |output: &mut PipeReader| -> io::Result<usize> {
            let mut buffer = [0; 16 * 1024];
            let read = output.read(&mut buffer)?;
            remember(&mut tail, &buffer[..read]);
            sink(&buffer[..read])?;
            Ok(read)
        };
        let followed = self.follow(&mut output, &mut take);
        if followed.is_err() {
            end_group(&mut self.child);
        }
        let tail = String::from_utf8_lossy(&tail).into_owned();
        match followed {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(ToolError::Failed { program: self.label, status, tail }),
            Ok(None) => {
                end_group(&mut self.child);
                Err(ToolError::Overdue { program: self.label, limit: self.limit.unwrap_or_default(), tail })
            }
            Err(cause) => Err(ToolError::Output { program: self.label, cause }),
        }
    }

    /// Its status when it has ended and what it said has been taken; `None` when its time is up.
    fn follow(
        &mut self,
        output: &mut PipeReader,
        take: &mut dyn FnMut(&mut PipeReader) -> io::Result<usize>,
    ) -> io::Result<Option<ExitStatus>> {
        let mut open = true;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // All it said is in the pipe by now. What it left behind may write into that for ever.
                let mut most = capacity(output);
                while open && most > 0 && readable(output, 0)? {
                    let taken = take(output)?;
                    (open, most) = (taken > 0, most.saturating_sub(taken));
                }
                return Ok(Some(status));
            }
            if !open {
                std::thread::sleep(Duration::from_millis(1));
            } else if readable(output, TICK)? {
                open = take(output)? > 0;
            }
            if self.limit.is_some_and(|limit| self.started.elapsed() >= limit) {
                return Ok(None);
            }
        }
    }
}

/// A program whose standard output is being read.
#[derive(Debug)]
pub struct Streaming {
    /// What it prints.
    pub output: ChildStdout,
    pub(super) label: String,
    pub(super) child: Child,
    pub(super) errors: File,
}

impl Streaming {
    /// Waits for its end. `read` is how the reading went: if that failed the program is ended first, and its own error,
    /// if it has one, explains the failure better.
    pub fn finish(mut self, read: io::Result<()>) -> Result<(), ToolError> {
        drop(self.output);
        let lost = |cause| ToolError::Output { program: self.label.clone(), cause };
        let status = self.child.wait().map_err(lost)?;
        let tail = end_of(self.errors).map_err(lost)?;
        match read {
            Err(cause) if status.success() || status_is_broken_pipe(status) => Err(lost(cause)),
            _ if !status.success() => Err(ToolError::Failed { program: self.label, status, tail }),
            _ => Ok(()),
        }
    }
}

/// The end of what was written into `file`.
pub(super) fn end_of(mut file: File) -> io::Result<String> {
    let mut said = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut said)?;
    let mut tail = Vec::new();
    remember(&mut tail, &said);
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

/// Whether a program died of our closing its output.
fn status_is_broken_pipe(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGPIPE as i32)
}

fn remember(tail: &mut Vec<u8>, said: &[u8]) {
    tail.extend_from_slice(&said[said.len().saturating_sub(TAIL)..]);
    tail.drain(..tail.len().saturating_sub(TAIL));
}

/// How much a pipe can hold.
fn capacity(output: &PipeReader) -> usize {
    fcntl(output, FcntlArg::F_GETPIPE_SZ).ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(PIPE)
}

fn readable(output: &PipeReader, milliseconds: u16) -> io::Result<bool> {
    let mut wanted = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    match poll(&mut wanted, PollTimeout::from(milliseconds)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Has orphans come to us instead of init from now on; returns those that have already.
pub(super) fn adopt_orphans() -> BTreeSet<u32> {
    let _ = nix::sys::prctl::set_child_subreaper(true);
    orphans()
}

/// The processes that were left to us by parents that have ended, zombies aside; see [`super::Program::run`].
pub(super) fn orphans() -> BTreeSet<u32> {
    let ours = |pid: &u32| process::parent(*pid) == Some(std::process::id());
    let alive = |pid: &u32| process::field(*pid, 0).is_some_and(|state| state != "Z");
    process::all().unwrap_or_default().into_iter().filter(ours).filter(alive).collect()
}

/// Ends a program and its process group: TERM, then KILL.
fn end_group(child: &mut Child) {
    let group = Pid::from_raw(child.id().cast_signed());
    let _ = killpg(group, Signal::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(u64::from(TICK)));
    }
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}

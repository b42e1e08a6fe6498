//! Only in a build with debug assertions, as the tests run it: one sync of a run is left out, to see that it is missed.

use nix::sys::stat::{SFlag, fstat};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether this sync of `of`, wanted at `place`, is one that `RELEASECTL_LEAVE_OUT` names: by its number in this process,
/// from 0, or by its place. Whoever traces the run sees where that was: a file of that name is looked for, and not found.
pub(super) fn leaves_out(of: BorrowedFd<'_>, place: &Location<'_>) -> bool {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let place = format!("{}:{}", place.file(), place.line());
    let wanted = std::env::var("RELEASECTL_LEAVE_OUT").is_ok_and(|named| named == place || named.parse() == Ok(number));
    if wanted {
        let is_dir = fstat(of).is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits());
        let kind = if is_dir { "directory" } else { "file" };
        let _ = File::open(format!("left out: {kind} of {place}"));
    }
    wanted
}

//! Visits every directory of a tree, several at a time, each opened through the one above it.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;

/// How many handles wait for the directories below them at most; what lies below others is opened from the root.
const WAITING: usize = 16;
/// How many threads visit directories at most.
const VISITORS: usize = 4;
/// How many look at once at most where a look may wait for the disk, which answers many as fast as one.
const LOOKERS: usize = 32;
/// For so few a thread of their own costs more than it brings.
const FEW: usize = 64;

/// What was found in one directory.
#[derive(Debug)]
pub struct Visit<H, T> {
    /// What the directories below are opened through. Deep ones are visited first, so that few are open at a time.
    pub handle: H,
    /// The names of those below that are to be visited too.
    pub below: Vec<OsString>,
    /// What the visit was made for.
    pub found: T,
}

/// A directory that waits: its path, and the handle of the one above.
type Waiting<H> = (PathBuf, Option<Arc<H>>);

struct State<H, T, E> {
    waiting: Vec<Waiting<H>>,
    handles: usize,
    busy: usize,
    /// Workers that wait for more: nobody else is to be woken, which would cost a system call for each directory.
    idle: usize,
    done: Vec<(PathBuf, T)>,
    failed: Option<E>,
}

/// How many threads visit directories: one where there is one processor, elsewhere more than a small host has. Where the
/// caches are cold each waits for the disk, which answers several as fast as one; what else the host does is left its part.
pub fn visitors() -> usize {
    if processors() == 1 { 1 } else { VISITORS }
}

/// How many threads write files of which all is known already: more gain nothing where a directory's own lock and the
/// journal are shared.
pub fn writers() -> usize {
    processors().min(2)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs `work` on so many threads, and `meanwhile` on this one; it is told how many there are, for it may be that none can
/// be had. Returns when all of them are over.
pub fn beside(threads: usize, work: &(dyn Fn() + Sync), meanwhile: &mut dyn FnMut(usize)) {
    std::thread::scope(|scope| {
        meanwhile((0..threads).filter(|_| Builder::new().spawn_scoped(scope, work).is_ok()).count());
    });
}

/// Gives this thread an umask of its own, an empty one, so that files and directories get the modes they are made with.
/// Where the system does not let it (some containers), they get fewer permissions and need another call.
pub fn with_exact_modes() {
    use nix::sched::{CloneFlags, unshare};
    if unshare(CloneFlags::CLONE_FS).is_ok() {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    }
}

/// What `look` answers for each of `all`, in their order; where they are many, on many threads.
pub fn share_out<T: Sync, A: Send>(all: &[T], look: impl Fn(&T) -> A + Sync) -> Vec<A> {
    let part = all.len().div_ceil(LOOKERS).max(FEW);
    let answer = &|part: &[T]| part.iter().map(&look).collect::<Vec<A>>();
    let (first, rest) = all.split_at(part.min(all.len()));
    std::thread::scope(|scope| {
        let begin = |part| (part, Builder::new().spawn_scoped(scope, move || answer(part)));
        let others: Vec<_> = rest.chunks(part).map(begin).collect();
        let mut answers = answer(first);
        for (part, thread) in others {
            // One that cannot be had is done without.
            answers.extend(thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| answer(part)));
        }
        answers
    })
}

/// Calls `visit` with the path, relative to the root, of the root and of every directory that a visit named, and with
/// the handle that the visit above it gave, if that is still open. Returns what the visits found, sorted by path, or the
/// first error.
pub fn walk<H, T, E>(visit: impl Fn(&Path, Option<&H>) -> Result<Visit<H, T>, E> + Sync) -> Result<Vec<(PathBuf, T)>, E>
where
    H: Send + Sync,
    T: Send,
    E: Send,
{
    walk_after(|| {}, visit)
}

/// The same, to make a tree: on threads with exact modes.
pub fn walk_making<H, T, E>(
    visit: impl Fn(&Path, Option<&H>) -> Result<Visit<H, T>, E> + Sync,
) -> Result<Vec<(PathBuf, T)>, E>
where
    H: Send + Sync,
    T: Send,
    E: Send,
{
    walk_after(with_exact_modes, visit)
}

fn walk_after<H, T, E>(
    start: impl Fn() + Sync,
    visit: impl Fn(&Path, Option<&H>) -> Result<Visit<H, T>, E> + Sync,
) -> Result<Vec<(PathBuf, T)>, E>
where
    H: Send + Sync,
    T: Send,
    E: Send,
{
    let waiting = vec![(PathBuf::new(), None)];
    let state = State { waiting, handles: 0, busy: 0, idle: 0, done: Vec::new(), failed: None };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let worker = || {
        start();
        work(&state, &changed, &visit);
    };
    beside(visitors(), &worker, &mut |threads| {
        // None can be had: slower, on this one, whose umask belongs to others.
        if threads == 0 {
            work(&state, &changed, &visit);
        }
    });
    let State { mut done, failed, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    done.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(done)
}

/// One worker: until nothing waits and nobody can add anything, or somebody failed.
fn work<H, T, E>(
    state: &Mutex<State<H, T, E>>,
    changed: &Condvar,
    visit: &impl Fn(&Path, Option<&H>) -> Result<Visit<H, T>, E>,
) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = lock();
    loop {
        if at.failed.is_some() || (at.waiting.is_empty() && at.busy == 0) {
            changed.notify_all();
            return;
        }
        let Some((path, above)) = at.waiting.pop() else {
            at.idle += 1;
            at = changed.wait(at).unwrap_or_else(PoisonError::into_inner);
            at.idle -= 1;
            continue;
        };
        at.busy += 1;
        drop(at);
        let visited = visit(&path, above.as_deref());
        let last = above.and_then(Arc::into_inner).is_some();
        at = lock();
        at.busy -= 1;
        at.handles -= usize::from(last);
        match visited {
            Ok(Visit { handle, below, found }) => {
                let kept = !below.is_empty() && at.handles < WAITING;
                at.handles += usize::from(kept);
                let handle = kept.then(|| Arc::new(handle));
                at.waiting.extend(below.iter().map(|name| (path.join(name), handle.clone())));
                at.done.push((path, found));
            }
            Err(error) => at.failed = Some(error),
        }
        if at.idle > 0 {
            changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_directory_is_visited_once_through_the_one_above_and_the_answer_is_sorted() {
        let visit = |path: &Path, above: Option<&usize>| -> Result<Visit<usize, usize>, ()> {
            let depth = above.map_or(0, |above| above + 1);
            assert_eq!(depth, path.components().count());
            let below = if depth < 4 { vec!["b".into(), "a".into(), "c".into()] } else { Vec::new() };
            Ok(Visit { handle: depth, below, found: depth })
        };
        let found = walk(visit).unwrap();
        assert_eq!(found.len(), 1 + 3 + 9 + 27 + 81);
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn what_is_shared_out_is_answered_once_each_and_in_order() {
        for count in [0, 1, FEW, 2 * FEW + 1, LOOKERS * FEW + 1] {
            let all: Vec<usize> = (0..count).collect();
            let asked = AtomicUsize::new(0);
            let answers = share_out(&all, |one| (asked.fetch_add(1, Ordering::Relaxed), *one).1);
            assert_eq!((answers, asked.into_inner()), (all, count));
        }
    }

    #[test]
    fn few_handles_wait_however_deep_it_goes() {
        struct Handle<'a>(&'a Mutex<(usize, usize)>);
        impl Drop for Handle<'_> {
            fn drop(&mut self) {
                self.0.lock().unwrap().0 -= 1;
            }
        }
        let open = Mutex::new((0, 0));
        let visit = |path: &Path, above: Option<&Handle<'_>>| -> Result<Visit<Handle<'_>, bool>, ()> {
            let mut count = open.lock().unwrap();
            *count = (count.0 + 1, count.1.max(count.0 + 1));
            let below = if path.components().count() < 100 && !path.ends_with("a") {
                vec!["a".into(), "b".into()]
            } else {
                Vec::new()
            };
            Ok(Visit { handle: Handle(&open), below, found: above.is_some() })
        };
        let found = walk(visit).unwrap();
        assert_eq!(found.len(), 201);
        assert!(found.iter().any(|(_, through)| !through));
        let (left, most) = *open.lock().unwrap();
        assert!(left == 0 && most <= WAITING + 2 * VISITORS, "{left} left, {most} at most");
    }

    #[test]
    fn the_first_error_ends_the_walk() {
        let visit = |path: &Path, _: Option<&()>| -> Result<Visit<(), ()>, String> {
            let below = vec!["a".into(), "b".into()];
            if path.ends_with("b") { Err("b".to_owned()) } else { Ok(Visit { handle: (), below, found: () }) }
        };
        assert_eq!(walk(visit).unwrap_err(), "b");
    }
}

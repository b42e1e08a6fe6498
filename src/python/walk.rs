//! Visits every directory of a tree, two at a time, each opened through the one above it.

use super::Result;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What was found in one directory.
pub(super) struct Visit<H, T> {
    /// What the directories below are opened through. Deep ones are visited first, so that few are open at a time.
    pub(super) handle: H,
    /// The names of those below that are to be visited too.
    pub(super) below: Vec<OsString>,
    /// What the visit was made for.
    pub(super) found: T,
}

/// A directory that waits: its path, and the handle of the one above.
type Waiting<H> = (PathBuf, Option<Arc<H>>);

struct State<H, T, E> {
    waiting: Vec<Waiting<H>>,
    busy: usize,
    done: Vec<(PathBuf, T)>,
    failed: Option<E>,
}

/// Calls `visit` with the path, relative to the root, of the root and of every directory that a visit named, and with
/// the handle that the visit above it gave. Returns what the visits found, sorted by path, or the first error.
pub(super) fn walk<H, T, E>(
    visit: impl Fn(&Path, Option<&H>) -> Result<Visit<H, T>, E> + Sync,
) -> Result<Vec<(PathBuf, T)>, E>
where
    H: Send + Sync,
    T: Send,
    E: Send,
{
    let state = State { waiting: vec![(PathBuf::new(), None)], busy: 0, done: Vec::new(), failed: None };
    let (state, changed) = (Mutex::new(state), Condvar::new());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(|| work(&state, &changed, &visit));
        }
        work(&state, &changed, &visit);
    });
    let State { mut done, failed, .. } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    done.sort_by(|a, b| a.0.cmp(&b.0));
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
            at = changed.wait(at).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        at.busy += 1;
        drop(at);
        let visited = visit(&path, above.as_deref());
        drop(above);
        at = lock();
        at.busy -= 1;
        match visited {
            Ok(Visit { handle, below, found }) => {
                let handle = Arc::new(handle);
                at.waiting.extend(below.iter().map(|name| (path.join(name), Some(Arc::clone(&handle)))));
                at.done.push((path, found));
            }
            Err(error) => at.failed = Some(error),
        }
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_first_error_ends_the_walk() {
        let visit = |path: &Path, _: Option<&()>| -> Result<Visit<(), ()>, String> {
            let below = vec!["a".into(), "b".into()];
            if path.ends_with("b") { Err("b".to_owned()) } else { Ok(Visit { handle: (), below, found: () }) }
        };
        assert_eq!(walk(visit).unwrap_err(), "b");
    }
}

//! Visits every directory of a tree, two at a time.

use super::Result;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// What was found in one directory: those below it that are to be visited too, and what the visit was made for.
pub(super) type Visit<T> = (Vec<OsString>, T);

struct State<T, E> {
    waiting: Vec<PathBuf>,
    busy: usize,
    done: Vec<(PathBuf, T)>,
    failed: Option<E>,
}

/// Calls `visit` with the path, relative to the root, of the root and of every directory that a visit named. A directory
/// is visited after the one above it. Returns what the visits returned, sorted by path, or the first error.
pub(super) fn walk<T: Send, E: Send>(
    visit: impl Fn(&Path) -> Result<Visit<T>, E> + Sync,
) -> Result<Vec<(PathBuf, T)>, E> {
    let state = State { waiting: vec![PathBuf::new()], busy: 0, done: Vec::new(), failed: None };
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
fn work<T, E>(state: &Mutex<State<T, E>>, changed: &Condvar, visit: &impl Fn(&Path) -> Result<Visit<T>, E>) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = lock();
    loop {
        if at.failed.is_some() || (at.waiting.is_empty() && at.busy == 0) {
            changed.notify_all();
            return;
        }
        let Some(path) = at.waiting.pop() else {
            at = changed.wait(at).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        at.busy += 1;
        drop(at);
        let visited = visit(&path);
        at = lock();
        at.busy -= 1;
        match visited {
            Ok((below, found)) => {
                at.waiting.extend(below.iter().map(|name| path.join(name)));
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
    fn every_directory_is_visited_once_and_the_answer_is_sorted() {
        let visit = |path: &Path| -> Result<Visit<usize>, ()> {
            let depth = path.components().count();
            let below = if depth < 4 { vec!["b".into(), "a".into(), "c".into()] } else { Vec::new() };
            Ok((below, depth))
        };
        let found = walk(visit).unwrap();
        assert_eq!(found.len(), 1 + 3 + 9 + 27 + 81);
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_first_error_ends_the_walk() {
        let visit = |path: &Path| -> Result<Visit<()>, String> {
            if path.ends_with("b") { Err("b".to_owned()) } else { Ok((vec!["a".into(), "b".into()], ())) }
        };
        assert_eq!(walk(visit).unwrap_err(), "b");
    }
}

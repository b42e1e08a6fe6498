//! An environment that came with its release from another host: right at its new path, or not fit for this host. What names
//! the place where it was made is written anew in place; the links to its interpreter are made anew; that it works, and
//! shows what it showed there, is seen by running it. It is our own copy: no file in it has another name.

use super::bytecode::{self, CACHE};
use super::interpreter::{self, Interpreter};
use super::record::Record;
use super::reuse::{Obstacle, put, renamed, unfit};
use super::rewrite::{Rewrite, mentions, spell, spellings};
use super::seal;
use super::{Made, Order, PythonError, Sink, path_of};
use crate::directory::{Dir, PathError};
use crate::export::Luggage;
use crate::tree::Item;
use memchr::memmem::Finder;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Makes the environment that came with `order.release` right where it is now, and returns what is to be recorded.
pub(super) fn settle(
    order: &Order<'_>,
    interpreter: &Interpreter,
    luggage: &Luggage,
    sink: &mut Sink<'_>,
) -> Result<Record, Obstacle> {
    let release = order.release.path().to_owned();
    let environment = luggage.environment.clone();
    let mut record = Record { finished: true, release, environment, seal: None };
    if let Some(why) = record.unlike(order.plan, interpreter) {
        return unfit(why);
    }
    let (Some(from), Some(to)) = (spell(&luggage.release, &luggage.resolved), spellings(order.release)?) else {
        return unfit("a path has characters that are written differently in different files");
    };
    let names = from.clone();
    let rewrite = Rewrite::new(from, to);
    for (path, target) in &luggage.links {
        link(order, interpreter, &rewrite, path, target)?;
    }
    let environment = order.release.open_below(&order.plan.directory)?;
    let sources = if names.contains(&order.release.path().as_os_str().as_bytes().to_vec()) {
        Vec::new()
    } else {
        rewrite_all(&environment, &rewrite, &names)?
    };
    bytecode::compile(order.tools, &environment, &sources, sink)?;
    let seen = interpreter::look_around(order.tools, &path_of(order))?;
    if seen.distributions.len() != record.environment.packages {
        let (here, there) = (seen.distributions.len(), record.environment.packages);
        return unfit(format!("it shows {here} packages here and not {there}"));
    }
    record.environment.made = Made::Imported;
    record.environment.from = None;
    record.environment.because = None;
    if order.plan.bound.is_none() {
        record.seal = seal::take(&environment, order.release, false)?.map(|(seal, _)| seal);
    }
    Ok(record)
}

/// Makes one link anew. It may lead to the interpreter, or into the release.
fn link(
    order: &Order<'_>,
    interpreter: &Interpreter,
    rewrite: &Rewrite,
    path: &Path,
    target: &Path,
) -> Result<(), Obstacle> {
    let made = PathBuf::from(OsString::from_vec(rewrite.apply(target.as_os_str().as_bytes())));
    let here = std::fs::canonicalize(&made).is_ok_and(|file| file == interpreter.file);
    let within = made.starts_with(order.release.path()) && made.components().all(|part| part != Component::ParentDir);
    if !here && !within {
        return unfit(format!("{} links to {}", path.display(), target.display()));
    }
    let above = path.parent().unwrap_or(Path::new(""));
    let parent = order.release.ensure_below(above, 0o755)?;
    Ok(parent.symlink(path.file_name().unwrap_or_default(), made.as_os_str())?)
}

/// Writes anew what names the old place. Returns the sources among it, whose bytecode is gone.
fn rewrite_all(environment: &Dir, rewrite: &Rewrite, names: &[Vec<u8>]) -> Result<Vec<PathBuf>, Obstacle> {
    let finders: Vec<_> = names.iter().map(Finder::new).collect();
    let (mut sources, mut waiting) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(path) = waiting.pop() {
        let dir = environment.open_below(&path)?;
        for Item { name, seen, .. } in seal::entries(&dir)? {
            if seen.is_dir() {
                waiting.push(path.join(&name));
            } else if seen.is_file() && !name.as_bytes().ends_with(b".pyc") {
                let Some(mut file) = dir.open_file(&name)? else { continue };
                let unread = |cause| PathError::new("read", dir.path().join(&name), cause);
                if mentions(&mut file, &finders).map_err(unread)? {
                    let text = renamed(rewrite, &dir, &name)?;
                    dir.unlink(&name)?;
                    put(&dir, &name, &text, &seen)?;
                    sources.extend(Some(path.join(&name)).filter(|path| path.extension() == Some("py".as_ref())));
                }
            }
        }
    }
    for source in &sources {
        forget_bytecode(environment, source)?;
    }
    Ok(sources)
}

/// Removes the bytecode of `source`, which is of another text now.
fn forget_bytecode(environment: &Dir, source: &Path) -> Result<(), Obstacle> {
    let cache = source.parent().unwrap_or(Path::new("")).join(CACHE);
    let Ok(dir) = environment.open_below(&cache) else { return Ok(()) };
    for name in dir.names().map_err(PythonError::from)? {
        if bytecode::stem(&name).as_deref() == source.file_stem() {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}

//! Bytecode at build time, so that no first start pays for it: taken over from an earlier environment where the source is
//! the very same file, compiled otherwise.

use super::interpreter::Interpreter;
use super::{PATIENCE, PythonError, Result, Sink, seal};
use crate::directory::{Dir, Identity, PathError, kind};
use crate::tools::Tools;
use crate::walk::{Visit, walk};
use nix::sys::stat::{FileStat, SFlag};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where bytecode lies beside its sources.
pub(super) const CACHE: &str = "__pycache__";
/// Where an environment keeps what can be imported.
const LIBRARY: &str = "lib";
const COMPILE: &str = include_str!("compile.py");

/// Links the bytecode of every source file that is the same file (device and inode: both come from uv's cache) as in one
/// of the `earlier` environments, and returns the sources that have none yet. Python checks the time and size in it
/// whenever it is loaded, so one that is stale costs time, never correctness.
pub(super) fn adopt(environment: &Dir, interpreter: &Interpreter, earlier: &[Dir]) -> Result<Vec<PathBuf>> {
    let library = environment.open_dir(LIBRARY)?;
    let adopt = Adopt { library: &library, earlier, ending: format!(".{}.pyc", interpreter.tag) };
    let found = walk(|path, above| adopt.directory(path, above))?;
    Ok(found.into_iter().flat_map(|(_, uncompiled)| uncompiled).collect())
}

/// Compiles these files of the environment, two or more at a time.
pub(super) fn compile(tools: &Tools, environment: &Dir, files: &[PathBuf], sink: &mut Sink<'_>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let names: Vec<&[u8]> = files.iter().map(|file| file.as_os_str().as_bytes()).collect();
    let python = tools.program(environment.path().join("bin/python")).args(["-I", "-S", "-Wignore", "-c", COMPILE]);
    let python = python.args([environment.path()]).input(&names.join(&0));
    let python = python.map_err(|cause| PathError::new("compile", environment.path(), cause))?;
    python.limit(PATIENCE).run(sink).map_err(PythonError::from)
}

/// The name of a source file's bytecode without the interpreter's mark, or of the bytecode's source: what they share.
pub(super) fn stem(bytecode: &OsStr) -> Option<OsString> {
    let name = bytecode.as_bytes().strip_suffix(b".pyc")?;
    let end = name.iter().position(|byte| *byte == b'.')?;
    Some(OsString::from_vec(name[..end].to_vec()))
}

struct Adopt<'a> {
    library: &'a Dir,
    earlier: &'a [Dir],
    ending: String,
}

/// A directory's sources and bytecode.
struct Shelf {
    dir: Dir,
    cache: Option<Dir>,
}

impl Shelf {
    fn of(dir: Dir) -> Result<Self, PathError> {
        let cache = dir.stat(CACHE)?.is_some().then(|| dir.open_dir(CACHE)).transpose()?;
        Ok(Self { dir, cache })
    }
}

impl Adopt<'_> {
    /// One directory: what lies below it, and its sources that remain without bytecode.
    fn directory(&self, path: &Path, above: Option<&Dir>) -> Result<Visit<Dir, Vec<PathBuf>>> {
        let dir = seal::open(self.library, path, above)?;
        let (mut below, mut sources) = (Vec::new(), Vec::new());
        for name in dir.names()? {
            let source = name.as_bytes().ends_with(b".py");
            if name == CACHE || name.as_bytes().ends_with(b".dist-info") {
                continue;
            }
            let Some(stat) = dir.stat(&name)? else { continue };
            match kind(&stat) {
                SFlag::S_IFDIR => below.push(name),
                SFlag::S_IFREG if source => sources.push((name, stat)),
                _ => {}
            }
        }
        let found = if sources.is_empty() { Vec::new() } else { self.uncompiled(path, dir.duplicate()?, sources)? };
        Ok(Visit { handle: dir, below, found })
    }

    /// Those of the sources for which there is no bytecode, here or to be adopted.
    fn uncompiled(&self, path: &Path, dir: Dir, sources: Vec<(OsString, FileStat)>) -> Result<Vec<PathBuf>> {
        let mut own = Shelf::of(dir)?;
        let there: HashSet<OsString> = own.cache.as_ref().map(Dir::names).transpose()?.into_iter().flatten().collect();
        let path = Path::new(LIBRARY).join(path);
        let opened = self.earlier.iter().filter_map(|dir| dir.open_below(&path).and_then(Shelf::of).ok());
        let earlier: Vec<Shelf> = opened.filter(|shelf| shelf.cache.is_some()).collect();
        let mut uncompiled = Vec::new();
        for (name, stat) in sources {
            let bytecode = self.bytecode_of(&name);
            if !there.contains(&bytecode) && !adopted(&mut own, &earlier, (&name, &stat), &bytecode)? {
                uncompiled.push(path.join(name));
            }
        }
        Ok(uncompiled)
    }

    fn bytecode_of(&self, source: &OsStr) -> OsString {
        let bytes = source.as_bytes();
        let mut name = bytes.strip_suffix(b".py").unwrap_or(bytes).to_vec();
        name.extend_from_slice(self.ending.as_bytes());
        OsString::from_vec(name)
    }
}

/// Links the bytecode of one source from the first directory that has the same source.
fn adopted(own: &mut Shelf, earlier: &[Shelf], source: (&OsStr, &FileStat), bytecode: &OsStr) -> Result<bool> {
    let (name, stat) = source;
    for shelf in earlier {
        let Some(cache) = &shelf.cache else { continue };
        let twin = shelf.dir.stat(name)?.is_some_and(|other| Identity::from(&other) == Identity::from(stat));
        let usable = |found: &FileStat| kind(found) == SFlag::S_IFREG && found.st_uid == stat.st_uid;
        if !twin || !cache.stat(bytecode)?.is_some_and(|found| usable(&found)) {
            continue;
        }
        if own.cache.is_none() {
            own.cache = Some(own.dir.ensure_dir(CACHE, 0o755)?);
        }
        if let Some(into) = &own.cache {
            return Ok(cache.hard_link(bytecode, into).is_ok());
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_is_told_by_its_stem() {
        assert_eq!(stem(OsStr::new("views.cpython-311.pyc")), Some("views".into()));
        assert_eq!(stem(OsStr::new("views.cpython-311.opt-1.pyc")), Some("views".into()));
        assert_eq!(stem(OsStr::new("views.py")), None);
    }
}

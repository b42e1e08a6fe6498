//! Which Python an environment is made with, and whether the one of an environment still does its work.

use super::{PythonError, Result, Sink};
use crate::directory::Identity;
use crate::tools::{Program, ToolError, Tools};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time an interpreter has to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer that is kept.
const LONGEST: usize = 1 << 20;
/// What every line of an answer begins with. What else is said, by a shell that does not know the locale, by a `.pth` file
/// that names what is gone, is none of it.
const MARK: &str = "releasectl:";
/// What a base interpreter is asked: itself without any environment, its version, and its mark on bytecode files.
const WHO: &str = "import os, platform, sys
def tell(line): print('\\nreleasectl:' + line)
tell(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))
tell(platform.python_version())
tell(sys.implementation.cache_tag)";
/// What an environment's interpreter is asked: its version, where it thinks it lives, and what it sees installed there.
const WHERE: &str = "import os, sys
def tell(line): print('\\nreleasectl:' + line)
tell('%d.%d.%d' % sys.version_info[:3])
tell(sys.prefix)
for path in sys.path:
    if path.startswith(sys.prefix + os.sep) and os.path.isdir(path):
        tell('>' + path)
        for name in sorted(os.listdir(path)):
            if name.endswith(('.dist-info', '.egg-info', '.egg-link')):
                tell(name)";

/// An installed Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The executable, links resolved: what an upgrade of the distribution replaces is then missing, not another Python.
    pub(super) file: PathBuf,
    /// `3.11.2`
    pub(super) version: String,
    /// `cpython-311`
    pub(super) tag: String,
}

impl Interpreter {
    /// The interpreter for a configured version (`3`, `3.11`, `3.11.2`): `pythonX.Y` on PATH, else a `python3` that is
    /// of that version, else what uv knows of (it never downloads one).
    pub(super) fn find(tools: &Tools, version: Option<&str>) -> Result<Self> {
        let mut silent = None;
        let mut ask = |name: &str| {
            let answer = Self::ask(tools, name).unwrap_or_else(|error| {
                silent.get_or_insert(error.to_string());
                None
            });
            answer.filter(|found| version.is_none_or(|wanted| found.is(wanted)))
        };
        let numbers = version.map(|version| version.split('.').take(2).collect::<Vec<_>>().join("."));
        let own = numbers.and_then(|numbers| ask(&format!("python{numbers}")));
        let found = own.or_else(|| ask("python3")).or_else(|| ask(&known_to_uv(tools, version?)?));
        found.ok_or_else(|| PythonError::NoInterpreter { wanted: version.map(str::to_owned), silent })
    }

    /// Whether its version is `wanted` or begins with it.
    fn is(&self, wanted: &str) -> bool {
        self.version.strip_prefix(wanted).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }

    /// Asks the program `name`; `None` if there is none. An error if it does not answer, as pyenv's stand-ins do not.
    fn ask(tools: &Tools, name: &str) -> Result<Option<Self>, ToolError> {
        let Some(file) = tools.find(name) else { return Ok(None) };
        let answer = said(tools.program(file).args(["-I", "-S", "-c", WHO]))?;
        let mut lines = told(&answer).map(str::to_owned);
        let mut next = || lines.next();
        Ok(next().zip(next()).zip(next()).map(|((file, version), tag)| Self { file: file.into(), version, tag }))
    }
}

/// The interpreter uv would take, if there is a uv.
fn known_to_uv(tools: &Tools, version: &str) -> Option<String> {
    let uv =
        tools.program(tools.find("uv")?).args(["python", "find", "--quiet", "--no-project", "--no-config", version]);
    let answer = said(uv.env("UV_PYTHON_DOWNLOADS", "never")).ok()?;
    answer.lines().find(|line| line.starts_with('/')).map(str::to_owned)
}

/// What an environment's interpreter sees.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its version.
    pub(super) version: String,
    /// What is installed, by the names of its metadata directories, sorted.
    pub(super) distributions: Vec<String>,
}

/// Runs the environment's interpreter once. An error if it does not answer in time, lives elsewhere, or has no
/// site-packages there any more, as after an upgrade of the system's Python.
pub(super) fn look_around(tools: &Tools, environment: &Path) -> Result<Seen> {
    let dead = |why: String| PythonError::Dead { environment: environment.to_owned(), why };
    let python = tools.program(environment.join("bin/python")).args(["-I", "-c", WHERE]);
    let answer = said(python).map_err(|error| dead(error.to_string()))?;
    let mut lines = told(&answer);
    let (Some(version), Some(prefix)) = (lines.next(), lines.next()) else {
        return Err(dead("it says nothing".into()));
    };
    if !same(Path::new(prefix), environment) {
        return Err(dead(format!("it takes {prefix} for its environment")));
    }
    let rest: Vec<&str> = lines.collect();
    if !rest.iter().any(|line| line.starts_with('>') && line.ends_with("site-packages")) {
        return Err(dead(format!("it is Python {version} now and sees no packages")));
    }
    let mut distributions: Vec<String> =
        rest.iter().filter(|line| !line.starts_with('>')).map(|&line| line.to_owned()).collect();
    distributions.sort_unstable();
    Ok(Seen { version: version.to_owned(), distributions })
}

/// Whether two paths are the same directory, however they are spelled.
fn same(one: &Path, other: &Path) -> bool {
    let identity = |path| nix::sys::stat::stat(path).map(|stat| Identity::from(&stat));
    identity(one).is_ok_and(|one| identity(other).is_ok_and(|other| one == other))
}

/// The lines of an answer, without what else was printed.
fn told(answer: &str) -> impl Iterator<Item = &str> {
    answer.lines().filter_map(|line| line.strip_prefix(MARK))
}

/// Runs a program that answers at once and returns what it printed, on standard error too.
fn said(program: Program) -> Result<String, ToolError> {
    let mut answer = Vec::new();
    let sink: &mut Sink<'_> = &mut |bytes: &[u8]| {
        answer.extend_from_slice(&bytes[..bytes.len().min(LONGEST - answer.len().min(LONGEST))]);
        Ok(())
    };
    program.limit(ANSWER).run(sink)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools::new([("PATH".into(), "/usr/bin:/bin".into())].into_iter(), false)
    }

    #[test]
    fn a_version_matches_by_whole_numbers() {
        let python = Interpreter { file: "/usr/bin/python3.11".into(), version: "3.11.2".into(), tag: String::new() };
        assert!(python.is("3") && python.is("3.11") && python.is("3.11.2"));
        assert!(!python.is("3.1") && !python.is("3.11.20") && !python.is("2"));
    }

    #[test]
    fn a_version_that_is_not_installed_says_what_to_install() {
        let error = Interpreter::find(&tools(), Some("3.99")).unwrap_err();
        assert_eq!(error.to_string(), "Python 3.99 is not installed");
        assert!(error.hint().unwrap().contains("install python3.99"));
    }

    #[test]
    fn an_environment_without_an_interpreter_is_dead() {
        let error = look_around(&tools(), Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, PythonError::Dead { .. }), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "what it was to run is not quoted: {error}");
    }
}

//! A release as the place where its own commands run: its directory, its python_env first on PATH, and the variables
//! that tell a command where it is.

use crate::tools::{Program, Tools};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variable that says which operation a command is a part of.
pub const OPERATION: &str = "RELEASECTL_OPERATION";

/// Where a release's commands run.
#[derive(Clone, Debug)]
pub struct Workplace {
    tools: Tools,
    directory: PathBuf,
    python: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
}

impl Workplace {
    /// The directory `directory`, which is a release's, or the tree's root for what runs before there is one. `python` is
    /// the release's environment, if it has one.
    pub fn new(tools: &Tools, directory: &Path, python: Option<&Path>) -> Self {
        let python = python.map(|relative| directory.join(relative)).filter(|path| path.is_dir());
        Self { tools: tools.clone(), directory: directory.to_owned(), python, variables: Vec::new() }
    }

    /// Sets `RELEASECTL_<name>` for every command; an absent value sets it to nothing.
    #[must_use]
    pub fn telling(mut self, name: &'static str, value: Option<impl AsRef<OsStr>>) -> Self {
        let value = value.map(|value| value.as_ref().to_owned()).unwrap_or_default();
        self.variables.push((name, value));
        self
    }

    /// The directory commands run in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the python_env leads to a Python that is not there any more, as after an upgrade of the host's. A shell would
    /// go on to another one.
    pub fn is_dead(&self) -> bool {
        let python = self.python.as_ref().map(|python| python.join("bin/python"));
        python.is_some_and(|python| python.is_symlink() && !python.exists())
    }

    /// A shell command, with `arguments` as `$1`, `$2`, ….
    pub fn shell<A: AsRef<OsStr>>(&self, command: &str, arguments: impl IntoIterator<Item = A>) -> Program {
        self.dress(self.tools.program("/bin/sh")).naming_orphans().args(["-c", command, "sh"]).args(arguments)
    }

    /// A program, looked for in the release's python_env first. One there that leads to nothing any more is no reason to
    /// take the host's: that would be another Python.
    pub fn program(&self, name: &OsStr) -> Program {
        let own = self.python.as_ref().map(|python| python.join("bin").join(name)).filter(|_| is_bare(name));
        let own = own.filter(|file| file.symlink_metadata().is_ok());
        let file = own.map_or_else(|| name.to_owned(), PathBuf::into_os_string);
        self.dress(self.tools.program(file))
    }

    fn dress(&self, program: Program) -> Program {
        let mut program = program.dir(&self.directory);
        if let Some(python) = &self.python {
            let mut path = python.join("bin").into_os_string();
            path.push(":");
            path.push(self.tools.path());
            program = program.env("PATH", path).env("VIRTUAL_ENV", python);
        }
        self.variables.iter().fold(program, |program, (name, value)| program.env(format!("RELEASECTL_{name}"), value))
    }
}

fn is_bare(name: &OsStr) -> bool {
    !name.as_encoded_bytes().contains(&b'/')
}

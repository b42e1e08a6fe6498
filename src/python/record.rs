//! What is remembered of an environment beside it, in the release's `.releasectl/python.json`: begun before its first file,
//! finished after its last, so that a half-made one is never taken for whole.

use super::interpreter::Interpreter;
use super::requirements::Plan;
use super::seal::Seal;
use super::{Environment, Installer, Made, PythonError, Result};
use crate::directory::{Dir, PathError};
use crate::layout::STATE;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const FILE: &str = "python.json";
/// A record of this size is none of ours.
const LONGEST: u64 = 16 << 20;

/// The record of one environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whether it is whole.
    pub(super) finished: bool,
    /// The release it was made for, as its path was then.
    pub(super) release: PathBuf,
    /// What the manifest tells of it.
    pub(super) environment: Environment,
    /// What came out; without it the environment serves no other release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seal: Option<Seal>,
}

impl Record {
    /// The record of the release's environment; `None` if there is none that can be understood.
    pub(super) fn read(release: &Dir) -> Result<Option<Self>> {
        if release.stat(STATE)?.is_none() {
            return Ok(None);
        }
        let bytes = release.open_dir(STATE)?.read_file(FILE, LONGEST)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// When the record was written last, in seconds and nanoseconds.
    pub(super) fn written_at(release: &Dir) -> Result<Option<(i64, i64)>> {
        let stat = release.open_dir(STATE)?.stat(FILE)?;
        Ok(stat.map(|stat| (stat.st_mtime, stat.st_mtime_nsec)))
    }

    /// Remembers that an environment is being made. Durable on return.
    pub(super) fn begin(release: &Dir, plan: &Plan) -> Result<()> {
        let environment = Environment {
            directory: plan.directory.clone(),
            python: String::new(),
            interpreter: PathBuf::new(),
            digest: plan.digest.clone(),
            made: Made::Built,
            installer: Installer::Pip,
            from: None,
            because: None,
            packages: 0,
        };
        Self { finished: false, release: release.path().to_owned(), environment, seal: None }.write(release)
    }

    /// Remembers that it is whole. Both are durable on return, the environment first: a resumed build takes one that is
    /// on record as it is, and after a power cut files that were never written out are there with nothing in them.
    pub(super) fn finish(self, release: &Dir) -> Result<Environment> {
        release.sync_file_system()?;
        self.write(release)?;
        Ok(self.environment)
    }

    /// The name of the file in the release's state directory, and what is to be in it.
    pub(super) fn paper(&self) -> Result<(&'static str, Vec<u8>)> {
        let unwritable = |e: serde_json::Error| PathError::new("write", self.release.join(STATE).join(FILE), e);
        Ok((FILE, serde_json::to_vec(self).map_err(unwritable)?))
    }

    fn write(&self, release: &Dir) -> Result<()> {
        let (name, bytes) = self.paper()?;
        release.ensure_dir(STATE, 0o700)?.write_file(name, &bytes, 0o600).map_err(PythonError::from)
    }

    /// Whether it is whole and what `plan` asks for with that interpreter.
    pub(super) fn answers(&self, plan: &Plan, interpreter: &Interpreter) -> bool {
        self.unlike(plan, interpreter).is_none()
    }

    /// In what it differs from what is asked for.
    pub(super) fn unlike(&self, plan: &Plan, interpreter: &Interpreter) -> Option<String> {
        let own = &self.environment;
        if !self.finished {
            Some("its environment was not finished".to_owned())
        } else if own.directory != plan.directory {
            Some(format!("its environment is {}", own.directory.display()))
        } else if own.digest != plan.digest {
            Some("its requirements are others".to_owned())
        } else if own.interpreter != interpreter.file || own.python != interpreter.version {
            Some(format!("it was made with Python {} ({})", own.python, own.interpreter.display()))
        } else {
            None
        }
    }

    /// Whether the release still lies where it lay when this was written.
    pub(super) fn is_of(&self, release: &Dir) -> bool {
        self.release == release.path()
    }
}

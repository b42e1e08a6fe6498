//! Why there is no environment, and what to do about it.

use crate::directory::PathError;
use crate::tools::ToolError;
use std::path::PathBuf;

/// What went wrong with an environment.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// The file system.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A program that failed, with the end of what it said.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A configured file, or one that another includes, is not there.
    #[error("{} is not in the release{}", path.display(), named_by.as_ref().map_or(String::new(), |by| format!(", but {} names it", by.display())))]
    Missing {
        /// Relative to the release.
        path: PathBuf,
        /// The file that names it; the configuration if there is none.
        named_by: Option<PathBuf>,
    },
    /// A path leads, through a link, out of the release.
    #[error("{} leads out of the release", path.display())]
    Outside {
        /// As configured.
        path: PathBuf,
    },
    /// A lock file or `pyproject.toml` cannot be understood.
    #[error("cannot understand {}: {cause}", path.display())]
    Malformed {
        /// Relative to the release.
        path: PathBuf,
        /// The parser's words.
        cause: String,
    },
    /// A lock file beside other files.
    #[error("{} is a complete lock and cannot be installed together with other files", path.display())]
    Alone {
        /// The lock file.
        path: PathBuf,
    },
    /// No such interpreter on this host, or none that answers.
    #[error("Python{} {}", wanted.as_ref().map_or(String::new(), |v| format!(" {v}")), silent.as_ref().map_or("is not installed".into(), |why| format!("does not answer: {why}")))]
    NoInterpreter {
        /// The configured version.
        wanted: Option<String>,
        /// Why the first one that is there says nothing.
        silent: Option<String>,
    },
    /// The interpreter is there but cannot make environments.
    #[error("{} cannot make virtual environments: it lacks venv or ensurepip", interpreter.display())]
    NoVenv {
        /// The interpreter.
        interpreter: PathBuf,
        /// Its version.
        version: String,
    },
    /// Only uv can install this.
    #[error("{} cannot be installed without uv: {why}", path.display())]
    NeedsUv {
        /// The lock file.
        path: PathBuf,
        /// What pip cannot do.
        why: String,
    },
    /// A lock file that names more than the wheelhouse can hold.
    #[error("{} cannot be installed from a wheelhouse: {why}", path.display())]
    NotInWheelhouse {
        /// The lock file.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// Something that is no environment stands where it belongs.
    #[error("{} is in the way: it is not a virtual environment", path.display())]
    Occupied {
        /// Its path.
        path: PathBuf,
    },
    /// What is in it could not be found by its place in PATH.
    #[error("{} cannot be on PATH, where a colon parts one place from the next", path.display())]
    Parted {
        /// Its path.
        path: PathBuf,
    },
    /// The environment's interpreter does not do its work.
    #[error("the interpreter of {} does not work: {why}", environment.display())]
    Dead {
        /// The environment.
        environment: PathBuf,
        /// What it did instead.
        why: String,
    },
}

impl PythonError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Missing { named_by: None, .. } => "correct [python] requirements or wheelhouse".to_owned(),
            Self::Missing { .. } => "add it to the code".to_owned(),
            Self::Outside { .. } => "paths of [python] are relative to the release and stay in it".to_owned(),
            Self::Alone { .. } => "name only the lock file in [python] requirements".to_owned(),
            Self::NoInterpreter { wanted: Some(version), .. } => {
                format!("install python{version} (with its venv module), or correct [python] version")
            }
            Self::NoInterpreter { wanted: None, .. } => "install python3 with its venv module".to_owned(),
            Self::NoVenv { version, .. } => {
                let minor: Vec<&str> = version.split('.').take(2).collect();
                format!("install its venv module (on Debian: apt install python{}-venv), or uv", minor.join("."))
            }
            Self::NeedsUv { .. } => {
                "install uv where PATH leads (ssh, cron and a root run look in no ~/.local/bin), or export the lock: \
                 uv export --frozen --no-dev -o requirements.txt, with --no-hashes if code of its own is installed"
                    .to_owned()
            }
            Self::NotInWheelhouse { .. } => "name a requirements file with hashes instead".to_owned(),
            Self::Occupied { .. } => "take it out of the code, or choose another [python] directory".to_owned(),
            Self::Parted { .. } => "give the tree or [python] directory a name without a colon".to_owned(),
            Self::Dead { .. } => {
                "the system's Python was changed or removed: deploy again to build a new environment, \
                 or install that Python again"
                    .to_owned()
            }
            Self::Malformed { .. } => "correct it in the code, and build that".to_owned(),
            Self::Path(_) | Self::Tool(_) => return None,
        };
        Some(text)
    }
}

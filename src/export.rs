//! What travels with a release that is handed to another host: the first member of its tar.

use crate::clock::Timestamp;
use crate::environment::Environment;
use crate::layout::is_code;
use crate::release::{Origin, ReleaseId, StepRecord};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// The member's name.
pub const MEMBER: &str = ".releasectl-export.json";
/// The version of this record.
pub const SCHEMA: u32 = 1;

/// A release's papers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The version of this record.
    pub schema: u32,
    /// What it is called where it was built, which is what it will be called if that name is free.
    pub id: ReleaseId,
    /// When its build began there.
    pub created_at: Timestamp,
    /// Where its code came from.
    pub origin: Origin,
    /// What was done to build it.
    pub steps: Vec<StepRecord>,
    /// Its virtual environment, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<Luggage>,
}

/// A virtual environment on its way: it names the place where it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Luggage {
    /// What is known of it.
    pub environment: Environment,
    /// The release's path where it was made.
    pub release: PathBuf,
    /// The same with links resolved.
    pub resolved: PathBuf,
    /// Its links that lead out of it, to the interpreter: their paths in the release, and their targets.
    pub links: Vec<(PathBuf, PathBuf)>,
}

impl Luggage {
    /// Whether every path in it lies where it may: it was written by others.
    pub fn is_plain(&self) -> bool {
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let directory = &self.environment.directory;
        let inside = |(path, _): &(PathBuf, PathBuf)| plain(path) && path.starts_with(directory) && path != directory;
        plain(directory) && directory.iter().next().is_some_and(is_code) && self.links.iter().all(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Installer, Made};

    #[test]
    fn what_leads_out_of_the_environment_is_seen() {
        let luggage = |directory: &str, link: &str| Luggage {
            environment: Environment {
                directory: directory.into(),
                python: "3.11.2".into(),
                interpreter: "/usr/bin/python3.11".into(),
                digest: String::new(),
                made: Made::Built,
                installer: Installer::Pip,
                from: None,
                because: None,
                packages: 0,
            },
            release: "/a".into(),
            resolved: "/a".into(),
            links: vec![(link.into(), "/usr/bin/python3".into())],
        };
        assert!(luggage("python_env", "python_env/bin/python").is_plain());
        for (directory, link) in [
            ("", "bin/python"),
            ("/python_env", "/python_env/bin"),
            ("../env", "../env/bin/python"),
            ("python_env", "python_env/../x"),
            (".releasectl", ".releasectl/x"),
            ("KEEP_UNTIL__forever", "KEEP_UNTIL__forever/x"),
            ("python_env", "other/bin"),
            ("python_env", "python_env"),
            (".", "./x"),
        ] {
            assert!(!luggage(directory, link).is_plain(), "{directory} {link}");
        }
    }
}

//! Whether supervisord could read its files if a candidate were live, asked of its own parser before the flip: one broken
//! included file leaves a running supervisord alone, and then it does not start after the next reboot.
//!
//! Nothing is copied or changed for it: validate.py runs supervisord's `ServerOptions` on the real main file, so that relative
//! paths and `%(here)s` mean what they mean to supervisord, and lets its glob find the candidate's files where it would find
//! those of `<root>/current`. The interpreter is that of the `supervisord` script, the environment that of the running
//! supervisord where it can be known: `%(ENV_X)s` is expanded from it.

use super::conf::{self, Declared};
use crate::layout::CURRENT;
use crate::tools::{ToolError, Tools};
use nix::unistd::AccessFlags;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCRIPT: &str = include_str!("validate.py");
/// What begins the line of its answer.
const ANSWER: &str = "releasectl:";

/// Why a candidate is not good.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// supervisord's parser cannot be run.
    #[error("supervisord's own parser cannot be run: {0}")]
    NoParser(String),
    /// It ran and broke, or did not end.
    #[error("supervisord's own parser could not be asked: {0}")]
    Tool(#[from] ToolError),
    /// supervisord would not start from these files.
    #[error("supervisord would not accept the release's files: {text}")]
    Refused {
        /// Its own words.
        text: String,
    },
    /// Whether supervisord would start from these files depends on its environment, which is hidden from this user.
    #[error("whether supervisord would accept the release's files cannot be told without its environment: {text}")]
    Unknown {
        /// Its parser's words.
        text: String,
    },
    /// supervisord would not read them at all.
    #[error(
        "{} does not include the {}",
        config.display(),
        if *copied { "conf.d/*.conf beside it, where copies go" } else { "release's files" }
    )]
    NotIncluded {
        /// supervisord's main file.
        config: PathBuf,
        /// Whether it is to find copies of them.
        copied: bool,
    },
    /// The same section comes from elsewhere too; the last one read would silently win.
    #[error("[{section}] of the release is declared in {file} too")]
    Collision {
        /// Kind and name.
        section: String,
        /// The other file.
        file: String,
    },
    /// A group is not what the release's files make of it: another file uses its programs or its name.
    #[error(
        "supervisord would not have the group {group} as the release declares it: another file uses its name or programs"
    )]
    Misread {
        /// The group.
        group: String,
    },
    /// supervisord tells how long its answers are in characters and not in bytes: one that names this is cut short, and
    /// with it every list of its programs.
    #[error("{program} has a name that is not ASCII, and supervisord could not be asked about its programs any more")]
    NotAscii {
        /// `group:name`
        program: String,
    },
    /// What a program runs, or where, is not in the release.
    #[error("{program}: {} {what}", path.display())]
    Absent {
        /// `group:name`
        program: String,
        /// Where it will be.
        path: PathBuf,
        /// What is wrong with it there.
        what: &'static str,
    },
}

/// A release that is to become live.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The tree's root.
    pub root: &'a Path,
    /// The release's directory.
    pub path: &'a Path,
    /// With copies instead of an include: what the path of each copy begins with.
    pub copies: Option<PathBuf>,
    /// Whether the files and directories that its programs need may still be made.
    pub unfinished: bool,
}

/// What reads the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parser {
    python: PathBuf,
    environment: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Report {
    absent: Option<String>,
    refused: Option<String>,
    #[serde(default)]
    files: Vec<FileRead>,
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct FileRead {
    path: PathBuf,
    sections: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    processes: Vec<Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    name: String,
    executable: String,
    directory: Option<String>,
}

impl Parser {
    /// The parser of the supervisord that runs as process `running`, or else of the one that is installed.
    pub fn find(tools: &Tools, running: Option<i64>) -> Result<Self, ValidateError> {
        let running = running.map(|pid| PathBuf::from(format!("/proc/{pid}"))).filter(|proc| trusted(proc));
        let script = running.as_deref().and_then(script_of).or_else(|| tools.find("supervisord"));
        let script = script.ok_or_else(|| ValidateError::NoParser("there is no supervisord on PATH".to_owned()))?;
        let python = interpreter(&script, tools)?;
        Ok(Self { python, environment: running.as_deref().and_then(environment_of) })
    }

    /// Reads `config` as if `candidate`, which declares `declared`, were live. `Ok` if supervisord would start from it and
    /// have exactly the groups that the candidate declares beside those of others.
    pub fn check(
        &self,
        tools: &Tools,
        limit: Duration,
        config: &Path,
        candidate: &Candidate<'_>,
        declared: &Declared,
    ) -> Result<(), ValidateError> {
        let question = serde_json::json!({
            "config": config, "root": candidate.root, "candidate": candidate.path, "copies": candidate.copies,
            "directory": conf::DIRECTORY, "environment": self.environment, "unfinished": candidate.unfinished,
        });
        let parser = tools.program(&self.python).args(["-c", SCRIPT]).limit(limit);
        let parser = parser.input(question.to_string().as_bytes());
        let mut said = Vec::new();
        parser.map_err(|cause| ValidateError::NoParser(cause.to_string()))?.run(&mut |part| {
            said.extend_from_slice(part);
            Ok(())
        })?;
        let answer = said.lines().map_while(Result::ok).find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned));
        let report: Report = answer
            .and_then(|line| serde_json::from_str(&line).ok())
            .ok_or_else(|| ValidateError::NoParser(format!("it said {:?}", String::from_utf8_lossy(&said))))?;
        if let (Some(text), None) = (&report.refused, &self.environment)
            && text.contains("('ENV_")
        {
            return Err(ValidateError::Unknown { text: text.clone() });
        }
        judge(&report, config, candidate, declared)?;
        executables(&report, candidate, declared)
    }
}

/// Whether the report is that of a good candidate.
fn judge(report: &Report, config: &Path, candidate: &Candidate<'_>, declared: &Declared) -> Result<(), ValidateError> {
    if let Some(why) = &report.absent {
        return Err(ValidateError::NoParser(why.clone()));
    }
    if let Some(text) = &report.refused {
        return Err(ValidateError::Refused { text: text.clone() });
    }
    let own = candidate.path.join(conf::DIRECTORY);
    let (ours, others): (Vec<_>, Vec<_>) = report.files.iter().partition(|file| file.path.parent() == Some(&own));
    let read = |section: &String| ours.iter().any(|file| file.sections.contains(section));
    if !declared.programs.keys().all(read) {
        return Err(ValidateError::NotIncluded { config: config.to_owned(), copied: candidate.copies.is_some() });
    }
    let groups = declared.groups.keys().map(|group| format!("group:{group}"));
    for section in declared.programs.keys().cloned().chain(groups) {
        if let Some(other) = others.iter().find(|file| file.sections.contains(&section)) {
            return Err(ValidateError::Collision { section, file: other.path.display().to_string() });
        }
    }
    let made = |name: &String| report.groups.iter().filter(|group| group.name == *name).count();
    match declared.groups.keys().find(|group| made(group) != 1) {
        Some(group) => Err(ValidateError::Misread { group: group.clone() }),
        None => Ok(()),
    }
}

/// Whether supervisord can tell of the candidate's programs, and whether what they run below `<root>/current` is in the
/// candidate.
fn executables(report: &Report, candidate: &Candidate<'_>, declared: &Declared) -> Result<(), ValidateError> {
    let live = candidate.root.join(CURRENT);
    let there = |path: &str| Path::new(path).strip_prefix(&live).ok().map(|behind| candidate.path.join(behind));
    for group in report.groups.iter().filter(|group| declared.owns(&group.name)) {
        for process in &group.processes {
            let program = format!("{}:{}", group.name, process.name);
            if !program.is_ascii() {
                return Err(ValidateError::NotAscii { program });
            }
            if candidate.unfinished {
                continue;
            }
            let absent = |path: &str, what| {
                let program = program.clone();
                Err(ValidateError::Absent { program, path: PathBuf::from(path), what })
            };
            if let Some(path) = there(&process.executable)
                && (!path.is_file() || nix::unistd::access(&path, AccessFlags::X_OK).is_err())
            {
                return absent(&process.executable, "is no program in this release");
            }
            if let Some(directory) = process.directory.as_deref()
                && there(directory).is_some_and(|path| !path.is_dir())
            {
                return absent(directory, "is no directory in this release");
            }
        }
    }
    Ok(())
}

/// Whether what a process of /proc names may be run by us: it is root's or our own.
fn trusted(proc: &Path) -> bool {
    let owner = std::fs::metadata(proc).map(|meta| meta.uid());
    owner.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

/// The script that a running supervisord was started from.
fn script_of(proc: &Path) -> Option<PathBuf> {
    let line = std::fs::read(proc.join("cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).map(|word| PathBuf::from(OsString::from_vec(word.to_vec())));
    words.skip(1).take(3).find(|word| word.is_absolute() && word.ends_with("supervisord") && word.is_file())
}

/// The environment of a running process, as far as it is text.
fn environment_of(proc: &Path) -> Option<BTreeMap<String, String>> {
    let bytes = std::fs::read(proc.join("environ")).ok()?;
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The Python that a script's first lines name: `#!/path/python3`, `#!/usr/bin/env python3`, or pip's and uv's detour over
/// sh for paths that the kernel does not take.
fn interpreter(script: &Path, tools: &Tools) -> Result<PathBuf, ValidateError> {
    let unreadable = |e: io::Error| ValidateError::NoParser(format!("{}: {e}", script.display()));
    let mut lines = io::BufReader::new(File::open(script).map_err(unreadable)?).lines();
    let mut next = || lines.next().and_then(Result::ok).unwrap_or_default();
    let (first, second) = (next(), next());
    let named = first.strip_prefix("#!").map(str::trim).unwrap_or_default();
    let mut words = named.split_whitespace();
    let python = match (words.next(), words.next()) {
        (Some(env), Some(name)) if env.ends_with("/env") => tools.find(name),
        (Some(shell), None) if shell.ends_with("/sh") => {
            let word = second.strip_prefix("'''exec' ").and_then(|rest| match rest.chars().next() {
                Some(quote @ ('"' | '\'')) => rest.split(quote).nth(1),
                _ => rest.split(' ').next(),
            });
            // In an environment that may be moved the shell looks beside the script.
            let beside =
                || Some(std::fs::canonicalize(script).ok()?.with_file_name("python")).filter(|it| it.is_file());
            word.and_then(|word| if word.starts_with("$(") { beside() } else { Some(PathBuf::from(word)) })
        }
        (Some(python), _) if python.starts_with('/') => Some(PathBuf::from(python)),
        _ => None,
    };
    python.ok_or_else(|| ValidateError::NoParser(format!("{} does not say which Python runs it", script.display())))
}

#[cfg(test)]
mod tests;

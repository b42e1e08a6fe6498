//! Which processes run from which release, as /proc shows it: working directory, root, command line, mapped files, open
//! files. The executable alone says nothing: a virtual environment's is the system's python.

mod names;

use crate::process;
use crate::release::ReleaseId;
use names::{Home, Name};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process that runs from a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Who runs from where.
#[derive(Debug, Default)]
pub struct Usage {
    by_release: BTreeMap<ReleaseId, Vec<Process>>,
    /// Whether processes could be looked at at all. If not, every release may be in use.
    pub known: bool,
}

impl Usage {
    /// The processes that run from `release`.
    pub fn of(&self, release: &ReleaseId) -> &[Process] {
        self.by_release.get(release).map_or(&[], Vec::as_slice)
    }

    /// Every release some process runs from.
    pub fn iter(&self) -> impl Iterator<Item = (&ReleaseId, &[Process])> {
        self.by_release.iter().map(|(id, processes)| (id, processes.as_slice()))
    }
}

/// Looks at every process but this one. `releases` is the directory of releases, without links. Of processes whose
/// details this user may not see, only the command line is known.
pub fn scan(releases: &Path) -> Usage {
    let Ok(pids) = process::all() else { return Usage::default() };
    let mut usage = Usage { known: !pids.is_empty(), ..Usage::default() };
    let mut spaces = Spaces::new(releases);
    for pid in pids.into_iter().filter(|pid| *pid != std::process::id()) {
        let (place, command) = (process::place(pid), process::command(pid));
        for id in releases_of(&place, &command, spaces.names(&place)) {
            let command = process::in_a_line(&command);
            usage.by_release.entry(id).or_default().push(Process { pid, command });
        }
    }
    usage
}

/// The processes that a build or deploy of the release at `path` has started, whatever became of it: they were given its path
/// in a variable. Those of other users are not seen.
pub fn started_for(path: &Path) -> Vec<Process> {
    let release = [b"RELEASECTL_RELEASE_PATH=", path.as_os_str().as_bytes()].concat();
    let operations: [&[u8]; 2] = [b"RELEASECTL_OPERATION=create", b"RELEASECTL_OPERATION=deploy"];
    let ours = |pid: u32| {
        let environment = std::fs::read(process::place(pid).join("environ")).ok()?;
        let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
        let is_step = variables.contains(&&release[..]) && operations.iter().any(|one| variables.contains(one));
        is_step.then(|| Process { pid, command: process::in_a_line(&process::command(pid)) })
    };
    process::all().unwrap_or_default().into_iter().filter_map(ours).collect()
}

/// What the releases are called in each mount namespace.
struct Spaces {
    releases: PathBuf,
    home: Option<Home>,
    known: Vec<(PathBuf, Vec<Name>)>,
}

impl Spaces {
    fn new(releases: &Path) -> Self {
        let home = Home::of(releases, &mountinfo(Path::new("/proc/self")));
        Self { releases: releases.to_owned(), home, known: Vec::new() }
    }

    /// Their names where this process is, and here. Of a process that may not be seen only the latter count.
    fn names(&mut self, process: &Path) -> &[Name] {
        let space = std::fs::read_link(process.join("ns/mnt")).unwrap_or_default();
        if let Some(at) = self.known.iter().position(|(one, _)| *one == space) {
            return self.known.get(at).map_or(&[], |(_, names)| names);
        }
        let process = if space.as_os_str().is_empty() { Path::new("/proc/self") } else { process };
        let mut names = self.home.as_ref().map(|home| home.names(&mountinfo(process))).unwrap_or_default();
        let here = Name::of(&self.releases);
        names.retain(|name| *name != here);
        names.push(here);
        self.known.push((space, names));
        self.known.last().map_or(&[], |(_, names)| names)
    }
}

fn mountinfo(process: &Path) -> Vec<u8> {
    std::fs::read(process.join("mountinfo")).unwrap_or_default()
}

/// The releases one process uses.
fn releases_of(process: &Path, command: &[u8], names: &[Name]) -> BTreeSet<ReleaseId> {
    let link = |name: &str| std::fs::read_link(process.join(name)).ok();
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let paths: Vec<PathBuf> = ["cwd", "root"].into_iter().filter_map(link).chain(open).collect();
    let maps = std::fs::read(process.join("maps")).unwrap_or_default();
    let mut found = BTreeSet::new();
    for name in names {
        found.extend(paths.iter().filter_map(|path| name.release_at(path.as_os_str().as_bytes())));
        name.mentioned(command, &mut found);
        name.mentioned(&maps, &mut found);
    }
    found
}

/// A process and those it descends from, the nearest first, as far as they still run.
pub fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(pid), |pid| process::parent(*pid).filter(|parent| *parent > 1)).take(64)
}

//! `status`: what is live, what is under way, what room there is.

use super::programs::{configured, connect, debt, ours};
use super::{Context, Outcome};
use crate::error::Result;
use crate::identity::as_root;
use crate::journal::Tail;
use crate::lock::{self, Holder};
use crate::release::ReleaseId;
use crate::standing::{self, Standing};
use crate::supervisor::rpc::methods::Process;
use crate::tree::Tree;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The state of the tree in short.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is live.
    pub current: Option<ReleaseId>,
    /// What a rollback would go to.
    pub previous: Option<ReleaseId>,
    /// The same on hosts that agree on the environment, what is live and where a rollback goes, the live code's revision
    /// and its requirements; SHA-256 in hexadecimal.
    pub fingerprint: String,
    /// Operations without an outcome, newest last.
    pub unfinished: Vec<Unfinished>,
    /// Who holds the tree lock.
    pub lock: Option<Holder>,
    /// This environment's supervisor programs.
    pub programs: Vec<Program>,
    /// Bytes free for us.
    pub free_bytes: u64,
    /// Inodes free for us, where a file system has only so many.
    pub free_inodes: Option<u64>,
    /// What a person should hear of it. They are told on standard error too.
    pub warnings: Vec<String>,
}

/// An operation that is under way, or was cut off and is settled by the next change.
#[derive(Debug, Serialize)]
pub struct Unfinished {
    /// What is done.
    pub operation: crate::operation::Operation,
    /// What it is about.
    pub to: Option<ReleaseId>,
    /// Who does it.
    pub by: String,
}

/// A supervisor program.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its state, in supervisor's words.
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Seconds since it was started.
    pub uptime: Option<u64>,
}

/// Looks around.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let tail = Tail::read(tree.state(), &standing::is_enough)?;
    let live = tree.live()?;
    let standing = tree.standing_after(&tail.records)?;
    let unfinished = standing::unfinished(&tail.records).into_iter().map(|(_, begin)| {
        let (to, by) = (begin.to.clone(), begin.by.clone());
        Unfinished { operation: begin.operation, to, by }
    });
    let mut warnings = Vec::new();
    if let crate::tree::Live::Elsewhere(target) = &live {
        warnings.push(format!("current leads to {}, which is no release here", target.display()));
    }
    let programs = programs(context, &tree, &standing, &mut warnings);
    let space = tree.releases().space()?;
    let previous = tree.rollback_target(&standing).unwrap_or_else(|error| {
        warnings.push(error.to_string());
        None
    });
    warnings.iter().for_each(|warning| context.stages.warn(warning));
    Ok(Outcome::Status(Status {
        fingerprint: fingerprint(context, &tree, standing.live.as_ref(), previous.as_ref()),
        previous,
        unfinished: unfinished.collect(),
        lock: lock::tree_lock_holder(tree.state()),
        programs,
        free_bytes: space.bytes,
        free_inodes: space.inodes,
        current: standing.live,
        warnings,
    }))
}

/// What the live release cannot tell counts as nothing.
fn fingerprint(context: &Context, tree: &Tree, live: Option<&ReleaseId>, previous: Option<&ReleaseId>) -> String {
    let manifest = live.and_then(|id| tree.release(id).ok());
    let told = |text: Option<&str>| text.map_or_else(|| "none".to_owned(), |text| format!("{}:{text}", text.len()));
    let parts = [
        told(context.config.environment.as_deref()),
        told(live.map(ReleaseId::as_str)),
        told(previous.map(ReleaseId::as_str)),
        told(manifest.as_ref().and_then(|manifest| manifest.origin.revision.as_deref())),
        told(manifest.as_ref().and_then(|manifest| Some(manifest.python.as_ref()?.digest.as_str()))),
    ];
    let digest = Sha256::digest(format!("releasectl fingerprint 1 {}", parts.join(" ")));
    digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// This environment's programs. That supervisord does not answer is told; the rest is worth knowing all the same.
fn programs(context: &Context, tree: &Tree, standing: &Standing, warnings: &mut Vec<String>) -> Vec<Program> {
    let Some(config) = configured(context) else { return Vec::new() };
    let owned = ours(context, tree, standing);
    if owned.groups.is_empty() {
        return Vec::new();
    }
    if let Some((message, hint)) = debt(tree, standing) {
        warnings.push(format!("{message}: {hint}"));
    }
    match connect(config).and_then(|supervisor| as_root(|| supervisor.owned(&owned))) {
        Ok(processes) => processes.into_iter().map(Program::from).collect(),
        Err(error) => {
            warnings.push(error.to_string());
            Vec::new()
        }
    }
}

impl From<Process> for Program {
    fn from(process: Process) -> Self {
        let pid = process.pid.and_then(|pid| u32::try_from(pid).ok());
        let uptime = process.uptime.and_then(|seconds| u64::try_from(seconds).ok());
        let (name, group, state) = (process.name, process.group, process.state.name().to_owned());
        Self { name, group, state, pid, uptime }
    }
}

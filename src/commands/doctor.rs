//! `doctor`: checks everything, and says what to do.

use super::activation::alive;
use super::programs::{configured, connect, debt, ours, wired};
use super::{Context, Outcome, in_use};
use crate::directory::{Space, kind};
use crate::error::Result;
use crate::identity::as_root;
use crate::journal;
use crate::layout::{BALLAST, LOCK, STATE, TRASH};
use crate::release;
use crate::sharing;
use crate::supervisor::Supervisor;
use crate::supervisor::rpc::methods::{Process, State};
use crate::tree::{Entry, Found, Live, Tree, TreeError};
use nix::sys::stat::SFlag;
use serde::Serialize;
use std::path::Path;

/// Below this much free space a release can hardly be built.
const LITTLE_SPACE: u64 = 64 << 20;

/// What was checked.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether all is well.
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Check {
    fn good(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, ok: true, message: message.into(), hint: None }
    }

    fn bad(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, ok: false, message: message.into(), hint: Some(hint.into()) }
    }
}

/// Checks everything without changing anything.
pub fn run(context: &Context) -> Result<Outcome> {
    let tree = context.tree()?;
    let mut checks = vec![
        current(context, &tree),
        established("previous", previous(context, &tree)),
        established("releases", releases(&tree)),
        established("journal", journal_check(&tree)),
        established("lock", lock(&tree)),
        established("state", state(&tree)),
        established("space", space(&tree)),
        established("file system", file_system(context, &tree)),
        tools(context),
        processes(&tree),
    ];
    checks.extend(shared(context, &tree));
    if let Some(config) = configured(context) {
        let (check, supervisor) = supervisor(config);
        checks.extend([check, wiring(context, &tree, config), programs(context, &tree, supervisor.as_ref())]);
    }
    Ok(Outcome::Doctor(Diagnosis { checks }))
}

/// What cannot be looked at is not well; the other checks go on.
fn established(name: &'static str, check: Result<Check>) -> Check {
    check.unwrap_or_else(|error| Check { name, ok: false, message: error.message, hint: error.hint })
}

fn current(context: &Context, tree: &Tree) -> Check {
    let name = "current";
    let live = match tree.live() {
        Ok(live) => live,
        Err(error) => return Check::bad(name, error.to_string(), "move it away, then `releasectl activate`"),
    };
    match live {
        Live::Nothing => match tree.standing().ok().and_then(|standing| standing.believed) {
            Some(id) => Check::bad(name, format!("it is gone, and led to {id}"), format!("`releasectl activate {id}`")),
            None => Check::good(name, "nothing is live"),
        },
        Live::Release(id) => match tree.release(&id) {
            Ok(manifest) if manifest.state(false) == release::State::Ready => match alive(context, tree, &id) {
                Ok(()) => Check::good(name, format!("{id} is live")),
                Err(error) => Check { name, ok: false, message: error.message, hint: error.hint },
            },
            Ok(manifest) => {
                let state = manifest.state(false);
                Check::bad(
                    name,
                    format!("{id} is live and {state}"),
                    "`releasectl rollback`, or `activate` another release",
                )
            }
            Err(error @ TreeError::Foreign(_)) => established(name, Err(error.into())),
            Err(TreeError::Path(error)) => established(name, Err(error.into())),
            Err(error) => Check::bad(name, error.to_string(), "`releasectl rollback`, or `activate` another release"),
        },
        Live::Elsewhere(target) => {
            let message = format!("it leads to {}, which is no release here", target.display());
            Check::bad(name, message, "`releasectl activate` a release of `releasectl list`")
        }
    }
}

fn previous(context: &Context, tree: &Tree) -> Result<Check> {
    let name = "previous";
    if let Err(error @ TreeError::CurrentIsNoLink { .. }) = tree.live() {
        return Ok(Check::good(name, format!("not known while {error}")));
    }
    Ok(match tree.rollback_target(&tree.standing()?)? {
        Some(id) => {
            alive(context, tree, &id)?;
            Check::good(name, format!("a rollback would go to {id}"))
        }
        None => Check::good(name, "there is nothing to go back to yet"),
    })
}

fn releases(tree: &Tree) -> Result<Check> {
    let name = "releases";
    let entries = tree.entries()?;
    let named = |wanted: fn(&Found) -> bool| -> Vec<String> {
        let wanted = entries.iter().filter(|entry| wanted(&entry.found));
        wanted.map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    };
    // What can only not be read, of a failing disk or where the users have other numbers, is nothing to be removed.
    for id in entries.iter().filter(|entry| matches!(entry.found, Found::Damaged(..))).filter_map(Entry::id) {
        if let Err(TreeError::Path(error)) = tree.release(id) {
            return Err(error.into());
        }
    }
    let why = |entry: &Entry| match &entry.found {
        Found::Damaged(id, why) => Some(format!("{id} ({why})")),
        _ => None,
    };
    let damaged: Vec<String> = entries.iter().filter_map(why).collect();
    if !damaged.is_empty() {
        let hint = "`mv` a renamed one back; any other is never cleaned: remove it yourself if it is not live and no later \
                    version made it";
        return Ok(Check::bad(name, format!("manifests that cannot be used: {}", damaged.join(", ")), hint));
    }
    let incomplete = named(|found| match found {
        Found::Release(manifest) => manifest.ready_at.is_none(),
        found => matches!(found, Found::Reserved(_)),
    });
    let (incomplete, foreign) = (incomplete.len(), named(|found| matches!(found, Found::Foreign)).len());
    Ok(Check::good(
        name,
        format!("{} releases, {incomplete} of them incomplete; {foreign} foreign entries", entries.len() - foreign),
    ))
}

fn journal_check(tree: &Tree) -> Result<Check> {
    let name = "journal";
    if tree.state().stat(crate::layout::JOURNAL)?.is_none() {
        let empty = tree.entries()?.iter().all(|entry| entry.manifest().is_none());
        let hint = "`releasectl init` begins a new one; what was live before is not known then";
        return Ok(if empty {
            Check::good(name, "there is none yet")
        } else {
            Check::bad(name, "it is missing", hint)
        });
    }
    let (mut last, mut disorder, mut lines) = (0, 0, 0_u64);
    let bad = journal::scan(tree.state(), &mut |record| {
        disorder += u64::from(record.seq <= last);
        last = record.seq;
        lines += 1;
    })?;
    let hint = "`releasectl init` sets it aside as journal.broken-… and keeps its good lines";
    Ok(if bad + disorder > 0 {
        Check::bad(name, format!("{} of its lines cannot be used", bad + disorder), hint)
    } else {
        Check::good(name, format!("{lines} lines"))
    })
}

fn lock(tree: &Tree) -> Result<Check> {
    let name = "lock";
    let Some(stat) = tree.state().stat(LOCK)? else { return Ok(Check::good(name, "it was never taken")) };
    let path = tree.state().path().join(LOCK);
    if kind(&stat) != SFlag::S_IFREG {
        let hint = "move it away while no releasectl runs; it is made anew";
        return Ok(Check::bad(name, format!("{} is not a regular file", path.display()), hint));
    }
    if stat.st_mode & 0o077 != 0 {
        let message = format!("{} can be opened by others, who could hold it for ever", path.display());
        return Ok(Check::bad(name, message, format!("`chmod 600 {}`", path.display())));
    }
    // One that could leave no note, on a full disk, is known to the kernel.
    let holder = crate::lock::tree_lock_holder(tree.state());
    let holder = holder.or_else(|| crate::lock::holder_of(stat.st_ino));
    Ok(match holder {
        Some(holder) => {
            Check::good(name, format!("held by {} (pid {}, `{}`)", holder.user, holder.pid, holder.command))
        }
        None => Check::good(name, "it is free"),
    })
}

fn state(tree: &Tree) -> Result<Check> {
    let name = "state";
    let (own, root) = (tree.state().own_stat()?, tree.root().own_stat()?);
    let path = tree.state().path().display().to_string();
    if own.st_mode & 0o077 != 0 {
        return Ok(Check::bad(name, format!("{path} can be entered by others"), format!("`chmod 700 {path}`")));
    }
    if own.st_uid != root.st_uid {
        let hint = format!("`chown -R --reference={} {path}`", tree.root().path().display());
        return Ok(Check::bad(name, format!("{path} and the tree have different owners"), hint));
    }
    let trash = tree.state().open_dir(TRASH).and_then(|trash| trash.names()).map_or(0, |names| names.len());
    if trash > 0 {
        return Ok(Check::good(name, format!("{trash} releases in the trash, for the next `clean` to delete")));
    }
    if tree.state().stat(BALLAST)?.is_none() {
        let hint = "`releasectl clean` makes it again once there is room";
        return Ok(Check::bad(name, "the ballast for a full disk has been used", hint));
    }
    Ok(Check::good(name, format!("{STATE} is ours alone")))
}

fn space(tree: &Tree) -> Result<Check> {
    let name = "space";
    let last = tree.last_size().unwrap_or_default();
    let wanted = last.map_or(0, |(bytes, _)| bytes).max(LITTLE_SPACE);
    let inodes = last.map_or(0, |(_, entries)| entries);
    let mut told = String::new();
    // What is fetched for a release lies beside the state, which may have a file system of its own.
    for dir in [tree.state(), tree.releases()] {
        let Space { bytes, inodes: left } = dir.space()?;
        let and = left.map_or(String::new(), |left| format!(" and {left} inodes"));
        told = format!("{} MiB{and} are free", bytes >> 20);
        if bytes < wanted || left.is_some_and(|left| left < inodes) {
            let message = format!("{told} below {}: too little for another release", dir.path().display());
            return Ok(Check::bad(name, message, "`releasectl clean --keep 1 --dry-run` shows what could go"));
        }
    }
    Ok(Check::good(name, told))
}

fn file_system(context: &Context, tree: &Tree) -> Result<Check> {
    let name = "file system";
    match tree.refuse_unsafe_ground() {
        Err(TreeError::OnNfs(path)) if context.config.settings.allow_nfs => {
            Ok(Check::good(name, format!("{} lies on NFS, which the host's file allows", path.display())))
        }
        ground => {
            ground?;
            tree.refuse_unwritable()?;
            Ok(Check::good(name, "it is a local one"))
        }
    }
}

fn tools(context: &Context) -> Check {
    let name = "tools";
    match context.tools.find("git") {
        Some(path) => Check::good(name, format!("git is {}", path.display())),
        None => Check::bad(name, "git is not installed", "install git"),
    }
}

fn processes(tree: &Tree) -> Check {
    let name = "processes";
    let used = in_use(tree);
    if !used.known {
        return Check::bad(name, "/proc cannot be read: every release counts as in use", "mount /proc");
    }
    let live = tree.live().ok().and_then(|live| live.id().cloned());
    let old: Vec<String> = used
        .iter()
        .filter(|(id, _)| Some(*id) != live.as_ref())
        .map(|(id, all)| format!("{id} ({})", all.len()))
        .collect();
    let message = if old.is_empty() {
        "none runs from an old release".to_owned()
    } else {
        format!("some run from {}", old.join(", "))
    };
    Check::good(name, message)
}

/// What the live release links to, if its recipe says that it does.
fn shared(context: &Context, tree: &Tree) -> Option<Check> {
    let name = "shared";
    let release = tree.open_release(tree.live().ok()?.id()?).ok()?;
    let table = match context.config.with_recipe(&release) {
        Ok(settings) => settings.shared,
        Err(error) => return Some(established(name, Err(error.into()))),
    };
    if table.dirs.is_empty() && table.files.is_empty() {
        return None;
    }
    let missing: Vec<_> = sharing::missing(&table, tree.root()).iter().map(|path| path.display().to_string()).collect();
    if missing.is_empty() {
        return Some(Check::good(name, "what [shared] names is there"));
    }
    let message = format!("[shared] names what is not in shared/, or leads nowhere: {}", missing.join(", "));
    Some(Check::bad(name, message, "put it there"))
}

fn supervisor(config: &Path) -> (Check, Option<Supervisor>) {
    let name = "supervisor";
    let answered = connect(config).and_then(|supervisor| {
        let version = as_root(|| supervisor.version())?;
        Ok((Check::good(name, format!("supervisord {version} answers")), Some(supervisor)))
    });
    answered.unwrap_or_else(|error| {
        let hint = error.hint().unwrap_or("see supervisord's own log");
        (Check::bad(name, error.to_string(), hint), None)
    })
}

fn wiring(context: &Context, tree: &Tree, config: &Path) -> Check {
    let name = "wiring";
    match wired(context, tree, config) {
        Ok(Some("copy")) => Check::good(name, "the live release's files are copied for supervisord"),
        Ok(Some(_)) => Check::good(name, format!("{} includes the live release's files", config.display())),
        Ok(None) => {
            let message =
                format!("supervisord does not read the live release's files, as they are, from {}", config.display());
            Check::bad(name, message, "`releasectl supervisor wire`")
        }
        Err(error) => Check::bad(name, error.message, error.hint.unwrap_or_default()),
    }
}

fn programs(context: &Context, tree: &Tree, supervisor: Option<&Supervisor>) -> Check {
    let name = "programs";
    let Ok(standing) = tree.standing() else { return Check::good(name, "not known while current is no link") };
    let declared = ours(context, tree, &standing);
    let exposed: Vec<&str> = declared.without_user().map(|program| program.name.as_str()).collect();
    if !exposed.is_empty() {
        let hint = "write user= into their sections, or `user` into the host's file and render them from templates";
        let message = format!("they run as whoever runs supervisord, often root: {}", exposed.join(", "));
        return Check::bad(name, message, hint);
    }
    if declared.programs.is_empty() {
        return Check::good(name, "none is declared");
    }
    if let Some((message, hint)) = debt(tree, &standing) {
        return Check::bad(name, message, hint);
    }
    // That it does not answer is another check's.
    let processes = supervisor.and_then(|supervisor| as_root(|| supervisor.owned(&declared)).ok()).unwrap_or_default();
    let failed: Vec<String> = processes.iter().filter(|p| p.state == State::Fatal).map(Process::label).collect();
    if !failed.is_empty() {
        let hint = "`releasectl supervisorctl tail NAME` shows what it said last, `releasectl start` tries it again";
        return Check::bad(name, format!("supervisord has given up on {}", failed.join(", ")), hint);
    }
    Check::good(name, format!("{} are declared, each with its user", declared.programs.len()))
}

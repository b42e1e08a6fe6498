//! `clean`: removes what nobody needs.

use super::{Context, Outcome, in_use};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::layout::BALLAST;
use crate::lock::Wait;
use crate::operation::Operation;
use crate::release::ReleaseId;
use crate::removal::Removed;
use crate::retention::{DEFAULT_KEEP, Facts, Policy, Reason, Verdict, decide};
use crate::tree::{Discarded, LockedTree, Tree, empty_trash};
use crate::usage::Usage;
use serde::Serialize;
use std::time::Duration;

/// What is asked for; what is not comes from the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clean {
    /// How many good releases stay.
    pub keep: Option<usize>,
    /// Younger ones stay.
    pub keep_for: Option<Duration>,
    /// Bytes that should be free afterwards.
    pub min_free: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went and what stayed.
#[derive(Debug, Default, Serialize)]
pub struct Cleaned {
    /// Whether nothing was really done.
    pub dry_run: bool,
    /// What went, or would.
    pub removed: Vec<Judged>,
    /// What stayed.
    pub kept: Vec<Judged>,
    /// Bytes of disk that were given back; in a dry run those the releases had when they became ready.
    pub freed_bytes: u64,
    /// What could not be removed, with its path.
    pub warnings: Vec<String>,
}

/// One entry of `releases/` and why.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Its name.
    pub id: String,
    /// Why it goes or stays.
    pub reasons: Vec<Reason>,
    /// The processes that run from it or hold it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
}

impl Judged {
    fn new(verdict: &Verdict, used: &Usage) -> Self {
        let processes = verdict.id.as_ref().map_or(&[][..], |id| used.of(id));
        let pids = processes.iter().map(|process| process.pid).collect();
        Self { id: verdict.name.clone(), reasons: verdict.reasons.clone(), pids }
    }
}

/// Cleans, or says what it would do; both decide by the same plan.
pub fn run(context: &Context, wanted: &Clean) -> Result<Outcome> {
    let tree = context.tree()?;
    if wanted.dry_run {
        let used = in_use(&tree);
        let facts = tree.facts(&tree.standing()?, &used)?;
        let now = tree.trusted_now(context.actor.clock)?;
        let policy = policy(context, wanted, &tree)?;
        let verdicts = decide(&facts, policy, now);
        let (removed, kept) = split(&verdicts, &used);
        let freed_bytes = bytes_of(&facts, &verdicts);
        let warnings = doubts(now, &facts).chain(shortage(policy, freed_bytes)).collect();
        return Ok(told(context, Cleaned { dry_run: true, removed, kept, freed_bytes, warnings }));
    }
    let (mut locked, used) = lock_and_look(context, &tree)?;
    let facts = locked.facts(&used)?;
    let now = locked.trusted_now();
    let policy = policy(context, wanted, &tree)?;
    let verdicts = decide(&facts, policy, now);
    let victims: Vec<ReleaseId> = verdicts.iter().filter(|v| v.remove).filter_map(|v| v.id.clone()).collect();
    let discarded = locked.discard(Operation::Clean, &victims);
    context.tell(&mut locked);
    let (discarded, (_, kept)) = (discarded?, split(&verdicts, &used));
    drop(locked);
    let mut cleaned = sweep(context, &tree, discarded, &verdicts)?;
    cleaned.kept = kept;
    cleaned.warnings.extend(doubts(now, &facts).chain(shortage(policy, cleaned.freed_bytes)));
    Ok(told(context, cleaned))
}

/// The outcome, with what a person should hear of it told.
pub(super) fn told(context: &Context, cleaned: Cleaned) -> Outcome {
    cleaned.warnings.iter().for_each(|warning| context.stages.warn(warning));
    Outcome::Clean(cleaned)
}

/// Takes the tree lock, and looks which releases are in use. Looking at every process takes a while and needs no lock; only
/// what was seen before a wait is looked at anew.
pub(super) fn lock_and_look<'t>(context: &'t Context, tree: &'t Tree) -> Result<(LockedTree<'t>, Usage)> {
    let used = in_use(tree);
    match context.lock_for(tree, Wait::No) {
        Err(Error { kind: Kind::Busy, .. }) if context.wait != Wait::No => Ok((context.lock(tree)?, in_use(tree))),
        locked => Ok((locked?, used)),
    }
}

/// What a person should hear of a clock or a history that cannot be relied on.
fn doubts(now: Option<Timestamp>, facts: &[Facts]) -> impl Iterator<Item = String> {
    let clock = "the clock lies before the newest entry of the journal: nothing is removed for its age";
    let history = "the journal does not tell what was live before: each good release counts as the rollback target \
                   until another one is activated";
    let several = facts.iter().filter(|fact| fact.rollback_target).count() > 1;
    [(now.is_none(), clock), (several, history)].into_iter().filter(|doubt| doubt.0).map(|doubt| doubt.1.into())
}

/// That too little is free still, though all went that nobody needs.
fn shortage(policy: Policy, freed: u64) -> Option<String> {
    let missing = policy.wanted_bytes.saturating_sub(freed).div_ceil(1 << 20);
    (missing > 0).then(|| format!("{missing} MiB less are free than min-free asks for: what is left is needed"))
}

/// Deletes what was discarded, and whatever an earlier run left in the trash. Needs no lock.
pub(super) fn sweep(context: &Context, tree: &Tree, mut discarded: Discarded, verdicts: &[Verdict]) -> Result<Cleaned> {
    if !discarded.gone.is_empty() {
        context.stages.begin("delete");
    }
    let tell = |done| context.stages.advance(done);
    let deleted = empty_trash(tree, &tell).map(|mut all| {
        all.extend(discarded.finish(tree, &tell));
        all
    });
    context.stages.end();
    let deleted = deleted?;
    let gone = |verdict: &&Verdict| verdict.id.as_ref().is_some_and(|id| discarded.gone.contains(id));
    let removed = verdicts.iter().filter(gone).map(|verdict| Judged::new(verdict, &Usage::default())).collect();
    let mut warnings = std::mem::take(&mut discarded.warnings);
    warnings.extend(deleted.iter().flat_map(failures));
    if let Err(error) = restore_ballast(context, tree) {
        warnings.push(format!("the ballast for a full disk is not made again yet: {}", error.message));
    }
    let freed_bytes = deleted.iter().map(|removed| removed.bytes).sum();
    Ok(Cleaned { removed, freed_bytes, warnings, ..Cleaned::default() })
}

/// Makes the ballast again if it was given up. What was removed is, whatever comes of that.
fn restore_ballast(context: &Context, tree: &Tree) -> Result<()> {
    if tree.state().stat(BALLAST)?.is_none() {
        context.lock_briefly(tree)?.restore_ballast()?;
    }
    Ok(())
}

fn failures(removed: &Removed) -> Vec<String> {
    let mut told: Vec<String> = removed.left.iter().map(ToString::to_string).collect();
    if removed.left_untold > 0 {
        told.push(format!("and {} more that could not be removed", removed.left_untold));
    }
    told
}

fn policy(context: &Context, wanted: &Clean, tree: &Tree) -> Result<Policy> {
    let table = context.config.settings.clean;
    let min_free = wanted.min_free.or(table.min_free.map(|size| size.0)).unwrap_or(0);
    Ok(Policy {
        keep: wanted.keep.or(table.keep).unwrap_or(DEFAULT_KEEP),
        keep_for: wanted.keep_for.or(table.keep_for.map(|span| span.0)),
        wanted_bytes: min_free.saturating_sub(tree.releases().space()?.bytes),
    })
}

fn split(verdicts: &[Verdict], used: &Usage) -> (Vec<Judged>, Vec<Judged>) {
    let (gone, kept): (Vec<_>, Vec<_>) = verdicts.iter().partition(|verdict| verdict.remove);
    let judged = |verdicts: Vec<&Verdict>| verdicts.into_iter().map(|verdict| Judged::new(verdict, used)).collect();
    (judged(gone), judged(kept))
}

fn bytes_of(facts: &[Facts], verdicts: &[Verdict]) -> u64 {
    facts.iter().zip(verdicts).filter(|(_, verdict)| verdict.remove).map(|(fact, _)| fact.bytes).sum()
}

//! `init`: lays out a tree, or takes over the one that is there.

use super::{Context, Outcome};
use crate::error::Result;
use crate::predecessor::{Condition, Tool};
use crate::release::ReleaseId;
use crate::tree::{Laid, Live, SharedPaths};
use serde::Serialize;

/// What was laid out or taken over.
#[derive(Debug, Serialize)]
pub struct Initialised {
    /// Whether anything was made.
    pub changed: bool,
    /// Releases that were there before.
    pub adopted: Vec<ReleaseId>,
    /// Those of them that cannot go live: not finished, or rolled back from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<Unusable>,
    /// The tool that laid the tree out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Tool>,
    /// What is live.
    pub current: Option<ReleaseId>,
    /// Where a rollback would go.
    pub previous: Option<ReleaseId>,
    /// What the live release has in `shared/`, for the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedPaths>,
}

/// A release that was there and cannot go live.
#[derive(Debug, Serialize)]
pub struct Unusable {
    /// Which.
    pub id: ReleaseId,
    /// Why.
    pub why: &'static str,
}

/// Makes what is missing; done twice it changes nothing.
pub fn run(context: &Context) -> Result<Outcome> {
    let root = match context.open_root()? {
        Some(root) => root,
        None => context.make_root()?,
    };
    let laid = context.lay_out(root, context.wait)?;
    for notice in &laid.notices {
        context.stages.warn(notice);
    }
    let Laid { tree, account, shared, changed, .. } = laid;
    if let Some(doubt) = account.doubt {
        context.stages.warn(doubt);
    }
    if let Live::Elsewhere(target) = tree.live()? {
        context.stages.warn(&format!("current leads to {}, which is no release here", target.display()));
    }
    let standing = tree.standing()?;
    let previous = tree.rollback_target(&standing).unwrap_or_else(|error| {
        context.stages.warn(&error.to_string());
        None
    });
    let unusable = account.releases.iter().filter_map(|told| match told.condition {
        Condition::Ready => None,
        Condition::Incomplete(why) | Condition::Bad(why) => Some(Unusable { id: told.id.clone(), why }),
    });
    Ok(Outcome::Init(Initialised {
        changed,
        unusable: unusable.collect(),
        tool: account.tool.filter(|_| !account.releases.is_empty()),
        adopted: account.releases.into_iter().map(|told| told.id).collect(),
        current: standing.live,
        previous,
        shared: Some(shared).filter(|shared| *shared != SharedPaths::default()),
    }))
}

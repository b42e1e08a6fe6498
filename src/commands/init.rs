//! `init`: lays out a tree, or takes over the one that is there.

use super::{Context, Outcome};
use crate::error::Result;
use crate::release::ReleaseId;
use serde::Serialize;

/// What was laid out or taken over.
#[derive(Debug, Serialize)]
pub struct Initialised {
    /// Whether anything was made.
    pub changed: bool,
    /// Releases that were there before.
    pub adopted: Vec<ReleaseId>,
    /// What is live.
    pub current: Option<ReleaseId>,
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
    let current = laid.tree.live()?.id().cloned();
    Ok(Outcome::Init(Initialised { changed: laid.changed, adopted: laid.adopted, current }))
}

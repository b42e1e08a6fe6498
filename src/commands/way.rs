//! What a release that is to go live asks of supervisord, and whether supervisord could do it. Nothing is changed here.

use super::activation::Activation;
use super::programs::{self, configured, connect, ours, together};
use super::{Context, copies};
use crate::error::{Error, Kind, Result};
use crate::health::Health;
use crate::identity::as_root;
use crate::recipe::{Settings, Step};
use crate::release::ReleaseId;
use crate::standing::Standing;
use crate::supervisor::conf::Declared;
use crate::supervisor::roll::up;
use crate::supervisor::validate::Candidate;
use crate::supervisor::{Supervisor, SupervisorError};
use crate::tree::Tree;
use std::collections::BTreeSet;

/// A release from the side of what comes up.
pub(super) struct Side {
    pub(super) id: ReleaseId,
    pub(super) settings: Settings,
    pub(super) declared: Declared,
    pub(super) health: Option<Health>,
}

impl Side {
    pub(super) fn of(context: &Context, tree: &Tree, id: &ReleaseId) -> Result<Self> {
        let settings = context.config.with_recipe(&tree.open_release(id)?)?;
        let health = Health::new(&settings.health);
        let refused = |error: Error| Error { kind: Kind::Refused, ..error };
        let declared = programs::declared(context, tree, id).map_err(refused)?;
        Ok(Self { id: id.clone(), settings, declared, health })
    }
}

/// The way from what may run now to a release.
pub(super) struct Way {
    /// Where it leads.
    pub(super) side: Side,
    /// What may run now.
    pub(super) before: Declared,
}

impl Way {
    /// The way to the release `to`.
    pub(super) fn to(context: &Context, tree: &Tree, standing: &Standing, to: &ReleaseId) -> Result<Self> {
        let side = Side::of(context, tree, to)?;
        let before = if configured(context).is_some() { ours(context, tree, standing) } else { Declared::default() };
        Ok(Self { side, before })
    }

    /// Whether there is a program on either side.
    pub(super) fn has_programs(&self) -> bool {
        !(self.before.groups.is_empty() && self.side.declared.groups.is_empty())
    }

    /// The supervisord that is to have the release's programs and could start them from their files, and what is up
    /// there of both sides; `None` where there is none to be asked. What programs need may still be made in an `unfinished`
    /// release.
    pub(super) fn reach(
        &self,
        context: &Context,
        tree: &Tree,
        unfinished: bool,
    ) -> Result<Option<(Supervisor, BTreeSet<String>)>, SupervisorError> {
        let Some(config) = configured(context) else { return Ok(None) };
        let Self { side, before } = self;
        let supervisor = connect(config)?;
        let (root, path) = (tree.layout().root(), tree.layout().release(&side.id));
        let candidate = Candidate { root, path: &path, copies: copies::prefix(context, config), unfinished };
        let mut both = before.clone();
        together(&mut both, side.declared.clone());
        let running = as_root(|| {
            supervisor.check(&context.tools, &candidate, before, &side.declared)?;
            supervisor.programs()
        })?;
        Ok(Some((supervisor, up(&both, &running))))
    }
}

/// Looks whether supervisord would take the release `to`, before `steps` change what no flip brings back. What it runs or
/// logs to may be missing still, and what is to go may be up: the steps may make it, and stop it. An [`Activation`] tells
/// that it cannot be brought over now.
pub(super) fn foresee(
    context: &Context,
    tree: &Tree,
    to: &ReleaseId,
    cause: &'static str,
    steps: &[Step],
) -> Result<Option<Activation>> {
    let standing = tree.standing()?;
    let way = Way::to(context, tree, &standing, to)?;
    if !way.has_programs() {
        return Ok(None);
    }
    match way.reach(context, tree, true) {
        Ok(_) => Ok(None),
        Err(SupervisorError::Unexpected(_)) if steps.iter().any(|step| !step.stop.is_empty()) => Ok(None),
        Err(obstacle) => barred(&obstacle, standing.live, to, cause).map(Some),
    }
}

/// What becomes of a flip that `obstacle` is in the way of: none is made.
pub(super) fn barred(
    obstacle: &SupervisorError,
    live: Option<ReleaseId>,
    to: &ReleaseId,
    cause: &'static str,
) -> Result<Activation> {
    if obstacle.is_unreachable() || matches!(obstacle, SupervisorError::Unexpected(_)) {
        return Ok(Activation::not_begun(obstacle, live, to.clone(), cause));
    }
    Err(refused(obstacle))
}

/// The error of what was not begun.
pub(super) fn refused(obstacle: &SupervisorError) -> Error {
    let kind = if obstacle.is_unreachable() { Kind::NotConfirmed } else { Kind::Refused };
    Error { hint: obstacle.hint().map(str::to_owned), ..Error::new(kind, format!("{obstacle}; nothing was changed")) }
}

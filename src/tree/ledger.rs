//! `RELEASES.txt`, where there is one: kept true after every change, so that the older tooling can still be used, and read
//! for what the older tooling did meanwhile. It follows `current` and our history; neither ever waits for it.

use super::{Found, LockedTree, Result, Tree, remains};
use crate::layout::RELEASES_TXT;
use crate::operation::Chain;
use crate::predecessor::ledger::{kept_true, listed};
use crate::release::ReleaseId;
use crate::standing::Standing;

/// What another hand did to `current`.
pub(super) struct Moved {
    /// The live release and those before it.
    pub(super) chain: Chain,
    /// Releases that went live and are in the list, the live one among them, oldest first.
    pub(super) listed: Vec<ReleaseId>,
    /// Whether the older tooling rolled back: it has taken the line of what was live away.
    pub(super) rolled_back: bool,
}

impl LockedTree<'_> {
    /// Makes the list say what is live and where a rollback goes, if there is one. Whole at every moment and durable on
    /// return. That it could not be done is only noticed: the next command that takes the lock does it again.
    pub(super) fn keep_ledger(&mut self) {
        if let Err(error) = self.rewrite_ledger() {
            self.notice(format!("{RELEASES_TXT} could not be kept true: {error}"));
        }
    }

    fn rewrite_ledger(&self) -> Result<()> {
        let root = self.tree.root();
        let Some(text) = remains::text(root, RELEASES_TXT)? else { return Ok(()) };
        let chain: Vec<&ReleaseId> = self.standing.chain.candidates(None).collect();
        let mut before: Vec<ReleaseId> = Vec::new();
        // A release that was live more than once has the place it had last.
        for id in chain.into_iter().filter(|id| self.is_good(id)) {
            if !before.contains(id) {
                before.push(id.clone());
            }
        }
        before.reverse();
        let wanted = kept_true(&text, &self.tree.layout().releases(), &|id| self.stays(id), &before);
        if wanted == text {
            return Ok(());
        }
        let stale = format!(".{RELEASES_TXT}.releasectl-");
        for name in root.names()?.iter().filter(|name| name.to_string_lossy().starts_with(&stale)) {
            root.unlink(name)?;
        }
        Ok(root.rewrite_file(RELEASES_TXT, wanted.as_bytes())?)
    }

    fn is_good(&self, id: &ReleaseId) -> bool {
        self.tree.release(id).is_ok_and(|manifest| manifest.ready_at.is_some() && manifest.bad.is_none())
    }

    /// Whether a line about it may stay: it is there, and good as far as we know.
    fn stays(&self, id: &ReleaseId) -> bool {
        let entry = self.tree.entry(id.as_str().as_ref()).ok().flatten();
        entry.is_some_and(|entry| matches!(entry.found, Found::Foreign) || self.is_good(id))
    }
}

impl Tree {
    /// What the list says of how another hand moved `current`; nothing if there is none, or it can't be read.
    pub(super) fn moved(&self, standing: &Standing) -> Option<Moved> {
        let (from, before) = (standing.believed.as_ref(), &standing.before);
        let to = standing.live.as_ref().filter(|_| standing.was_moved())?;
        let text = remains::text(self.root(), RELEASES_TXT).unwrap_or_default()?;
        let all = listed(&text);
        let known = |id: &ReleaseId| all.iter().rposition(|other| other == id);
        let reached = known(to);
        match from.map(known) {
            Some(None) if reached.is_some() => {
                Some(Moved { chain: before.went_back(to), listed: vec![to.clone()], rolled_back: true })
            }
            // What did not come up, or not yet, is not listed; what was live before it is.
            Some(Some(left)) if reached.is_none_or(|reached| left < reached) => {
                let mut listed = all[left + 1..reached.map_or(all.len(), |reached| reached + 1)].to_vec();
                listed.extend(Some(to.clone()).filter(|_| reached.is_none()));
                let chain = listed.iter().fold(before.clone(), |chain, id| chain.activated(id));
                Some(Moved { chain, listed, rolled_back: false })
            }
            _ => reached.map(|_| Moved { chain: before.activated(to), listed: vec![to.clone()], rolled_back: false }),
        }
    }
}

//! The verbs. Each composes the nouns and the world below; none calls another, but rollback uses activate, and deploy
//! uses create, activate and clean.

pub mod activate;
pub mod activation;
mod arrival;
pub mod assemble;
mod bring_up;
pub mod clean;
mod copies;
pub mod create;
pub mod deactivate;
pub mod deploy;
pub mod describe;
pub mod doctor;
pub mod exec;
pub mod export;
pub mod history;
mod hooks;
pub mod hotfix;
pub mod init;
mod inside;
pub mod list;
pub mod log;
pub mod manage;
pub mod path;
pub mod pin;
pub mod programs;
pub mod ps;
pub mod remove;
pub mod restart;
pub mod rollback;
pub mod show;
pub mod start;
pub mod status;
pub mod stop;
pub mod supervisor;
pub mod supervisorctl;
pub mod task;
mod tee;
pub mod verify;
mod way;

use crate::config::Config;
use crate::directory::Dir;
use crate::error::{Error, Result};
use crate::identity::{self, as_root};
use crate::lock::Wait;
use crate::release::{ReleaseId, State};
use crate::stage::Stages;
use crate::tools::Tools;
use crate::tree::{Actor, Laid, Live, LockedTree, Tree, is_vacant, lay_out, refuse_unsafe};
use crate::usage::{self, Usage};
use nix::unistd::Uid;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a command that needs the lock for moments only waits for it, whatever was asked for.
const MOMENT: Wait = Wait::For(Duration::from_secs(30));

/// What every verb is given.
pub struct Context {
    /// What the host's file says.
    pub config: Config,
    /// The tree's root: absolute, without links.
    pub root: PathBuf,
    /// Whether this was a root run, which looks at every directory on the way to the tree.
    pub from_root: bool,
    /// How programs are run.
    pub tools: Tools,
    /// Who acts, and when it is.
    pub actor: Actor,
    /// How long to wait for the lock.
    pub wait: Wait,
    /// Who shows how far long work is.
    pub stages: Box<dyn Stages>,
}

impl Context {
    /// Opens the tree.
    pub fn tree(&self) -> Result<Tree> {
        let root = self.open_root()?.ok_or_else(|| crate::tree::TreeError::NoTree(self.root.clone()))?;
        Ok(Tree::open(root)?)
    }

    /// Opens the tree; lays it out first where there is nothing yet.
    pub fn tree_or_new(&self) -> Result<Tree> {
        match self.open_root()? {
            Some(root) if !is_vacant(&root)? => match Tree::open(root) {
                Err(crate::tree::TreeError::NoTree(path)) => Err(crate::tree::TreeError::NotOurs(path).into()),
                opened => Ok(opened?),
            },
            Some(root) => Ok(self.lay_out(root, MOMENT)?.tree),
            None => Ok(self.lay_out(self.make_root()?, MOMENT)?.tree),
        }
    }

    /// Lays out a tree at `root`, or takes over the one that is there.
    fn lay_out(&self, root: Dir, wait: Wait) -> Result<Laid> {
        self.try_ground(&root)?;
        Ok(lay_out(root, &self.actor, wait)?)
    }

    /// Refuses to make anything in a directory whose file system does not keep what is promised.
    fn try_ground(&self, dir: &Dir) -> Result<()> {
        Ok(if self.config.settings.allow_nfs { Ok(()) } else { refuse_unsafe(dir) }?)
    }

    /// The root directory, if it is there.
    fn open_root(&self) -> Result<Option<Dir>> {
        let opened = if self.from_root {
            identity::open_trusted(&self.root, Uid::effective())
        } else {
            Dir::open(&self.root).map_err(Into::into)
        };
        match opened {
            Err(identity::IdentityError::Path(error)) if error.cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Makes the root directory and what is missing above it.
    fn make_root(&self) -> Result<Dir> {
        let existing = self.root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let mut at = Dir::open(existing)?;
        self.try_ground(&at)?;
        for name in self.root.strip_prefix(existing).unwrap_or(Path::new("")).iter() {
            let next = at.ensure_dir(name, 0o755).map_err(|error| match error.cause.kind() {
                std::io::ErrorKind::PermissionDenied => Error::from(error).hint(self.to_be_made()),
                _ => error.into(),
            })?;
            at.sync()?;
            at = next;
        }
        drop(at);
        self.open_root()?.ok_or_else(|| crate::tree::TreeError::NoTree(self.root.clone()).into())
    }

    /// How root makes the directory that whoever the tree is to belong to may not make.
    fn to_be_made(&self) -> String {
        let uid = Uid::effective().to_string();
        let owner = self.config.settings.user.as_ref().filter(|_| self.from_root).unwrap_or(&uid);
        format!("as root, `install -d -o {owner} {}`; then repeat it", self.root.display())
    }

    /// Takes the tree lock and tells what was found and mended.
    pub fn lock<'t>(&'t self, tree: &'t Tree) -> Result<LockedTree<'t>> {
        self.lock_for(tree, self.wait)
    }

    /// The same for a command that needs it for moments only.
    pub fn lock_briefly<'t>(&'t self, tree: &'t Tree) -> Result<LockedTree<'t>> {
        self.lock_for(tree, if self.wait == Wait::No { MOMENT } else { self.wait })
    }

    fn lock_for<'t>(&'t self, tree: &'t Tree, wait: Wait) -> Result<LockedTree<'t>> {
        if !self.config.settings.allow_nfs {
            tree.refuse_unsafe_ground()?;
        }
        let mut locked = tree.lock(&self.actor, wait)?;
        self.tell(&mut locked);
        Ok(locked)
    }

    /// Writes into the history how something ended. Where somebody has the lock for longer the next command does it.
    fn record(&self, tree: &Tree, ended: impl FnOnce(&mut LockedTree<'_>)) {
        match self.lock_briefly(tree) {
            Ok(mut locked) => {
                ended(&mut locked);
                self.tell(&mut locked);
            }
            Err(error) => {
                self.stages.warn(&format!("the history learns of it from the next command: {}", error.message));
            }
        }
    }

    /// Tells what a person should hear.
    pub fn tell(&self, locked: &mut LockedTree<'_>) {
        for notice in locked.take_notices() {
            self.stages.warn(&notice);
        }
    }
}

/// Which processes run from the releases of `tree`: root sees those of all users.
fn in_use(tree: &Tree) -> Usage {
    as_root(|| usage::scan(&tree.layout().releases()))
}

/// A release as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its id.
    Id(ReleaseId),
    /// The live one.
    Current,
    /// The one a rollback would go to.
    Previous,
    /// The newest ready one.
    Latest,
}

impl FromStr for Target {
    type Err = crate::release::NotAnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "current" => Ok(Self::Current),
            "previous" => Ok(Self::Previous),
            "latest" => Ok(Self::Latest),
            id => id.parse().map(Self::Id),
        }
    }
}

impl Target {
    /// The release it names now.
    pub fn resolve(&self, tree: &Tree) -> Result<ReleaseId> {
        match self {
            Self::Id(id) => Ok(id.clone()),
            Self::Current => {
                let live = tree.live()?;
                let nothing = match &live {
                    Live::Elsewhere(target) => {
                        format!("nothing is live: current leads to {}, which is no release here", target.display())
                    }
                    _ => "nothing is live".to_owned(),
                };
                let hint = "`releasectl activate` makes the newest ready release live";
                live.id().cloned().ok_or_else(|| Error::refused(nothing).hint(hint))
            }
            Self::Previous => {
                let standing = tree.standing()?;
                tree.rollback_target(&standing)?.ok_or_else(rollback::nowhere)
            }
            Self::Latest => {
                let newest = tree.choices()?.into_iter().rfind(|manifest| manifest.state(false) == State::Ready);
                newest
                    .map(|manifest| manifest.id)
                    .ok_or_else(|| Error::refused("there is no ready release").hint("`releasectl create` builds one"))
            }
        }
    }
}

/// What a verb did or found; one document.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// `init`
    Init(init::Initialised),
    /// `create`
    Create(create::Created),
    /// `deploy`
    Deploy(deploy::Deployed),
    /// `activate`, `rollback`, `deactivate`, `hotfix`
    Activate(activation::Activation),
    /// `clean`, `remove`
    Clean(clean::Cleaned),
    /// `list`
    List(list::Listing),
    /// `status`
    Status(status::Status),
    /// `show`
    Show(show::Shown),
    /// `history`
    History(history::History),
    /// `log`
    Log(log::Log),
    /// `export`
    Export(export::Exported),
    /// `path`
    Path(path::Located),
    /// `ps`
    Ps(ps::Processes),
    /// `pin`, `unpin`
    Pin(pin::Pinned),
    /// `verify`
    Verify(verify::Verified),
    /// `restart`, `start`, `stop`
    Programs(programs::Operated),
    /// `supervisor`
    Supervisor(supervisor::Supervised),
    /// `doctor`
    Doctor(doctor::Diagnosis),
}

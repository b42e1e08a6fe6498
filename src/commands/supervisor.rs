//! `supervisor`: what supervisord reads of this environment: files rendered from templates, and their include.

use super::assemble::{check_templates, rendered};
use super::programs::{configured, connect, declared, owner, required, wired};
use super::{Context, Outcome, Target, copies};
use crate::error::{Error, Result};
use crate::identity::as_root;
use crate::operation::Programs;
use crate::recipe::Wiring;
use crate::release::ReleaseId;
use crate::supervisor::conf::{declared_in, files_of, wire};
use crate::supervisor::render;
use crate::tree::Tree;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Render a release's files anew.
    Render(Target),
    /// Have supervisord include them.
    Wire,
    /// Take that back.
    Unwire,
    /// Look.
    Status,
}

/// What supervisord reads of this environment.
#[derive(Debug, Serialize)]
pub struct Supervised {
    /// Whether anything was changed.
    pub changed: bool,
    /// supervisord's configuration file.
    pub config: Option<PathBuf>,
    /// How it comes to read the release's files: `include` or `copy`; `by_hand` where somebody else wrote the include.
    pub wired: Option<&'static str>,
    /// The release they are of.
    pub release: Option<ReleaseId>,
    /// Its files.
    pub files: Vec<String>,
    /// The groups it declares.
    pub groups: Vec<String>,
    /// Programs of it that do not say whom they run as.
    pub without_user: Vec<String>,
    /// supervisord's version; none if it does not answer.
    pub version: Option<String>,
}

/// Does it.
pub fn run(context: &Context, verb: &Verb) -> Result<Outcome> {
    let tree = context.tree()?;
    let supervised = match verb {
        Verb::Render(target) => render_anew(context, &tree, target)?,
        Verb::Wire => {
            let config = required(context)?;
            let changed = connect_files(context, &tree, config)?;
            look(context, &tree, changed, tree.live()?.id().cloned())?
        }
        Verb::Unwire => {
            let config = required(context)?;
            // Both ways: somebody may have changed `wiring` since.
            let included = as_root(|| wire::unwire(config, owner(context)))?;
            let copied = copies::remove(context, config)?;
            look(context, &tree, included || copied, tree.live()?.id().cloned())?
        }
        Verb::Status => look(context, &tree, false, tree.live()?.id().cloned())?,
    };
    Ok(Outcome::Supervisor(supervised))
}

/// Renders the templates of a release into it again: its recipe or this host has changed.
fn render_anew(context: &Context, tree: &Tree, target: &Target) -> Result<Supervised> {
    let id = target.resolve(tree)?;
    let settings = context.config.with_recipe(&tree.open_release(&id)?)?;
    check_templates(context, &tree.open_release(&id)?, &settings)?;
    let Some(templates) = &settings.supervisor.templates else {
        let hint = "write templates = \"DIRECTORY\" into [supervisor] of the recipe";
        return Err(Error::refused(format!("release {id} has no templates for supervisor")).hint(hint));
    };
    let mut locked = context.lock_briefly(tree)?;
    let mut build = locked.take_up(&id)?;
    let files = rendered(context, tree, build.dir(), templates, &settings)?;
    let before = files_of(build.dir()).ok();
    let groups = declared_in(build.dir()).unwrap_or_default().groups;
    let after = render::write(build.dir(), &files)?;
    let gone: BTreeSet<String> = groups.into_keys().filter(|group| !after.owns(group)).collect();
    if locked.standing().live.as_ref() == Some(&id) && !gone.is_empty() {
        // The files do not tell any more that these are ours.
        locked.programs_changed(Programs { gone, ..Programs::default() });
    }
    let changed = before != Some(files_of(build.dir())?);
    if changed {
        build.record_anew()?;
    }
    context.tell(&mut locked);
    look(context, tree, changed, Some(id))
}

/// Has supervisord read the live release's files, by an include or by copies of them.
fn connect_files(context: &Context, tree: &Tree, config: &Path) -> Result<bool> {
    if context.config.settings.supervisor.wiring == Wiring::Include {
        return Ok(as_root(|| wire::wire(config, tree.layout().root(), owner(context)))?);
    }
    match tree.live()?.id() {
        Some(live) => copies::install(context, config, tree, live),
        None => copies::remove(context, config),
    }
}

fn look(context: &Context, tree: &Tree, changed: bool, release: Option<ReleaseId>) -> Result<Supervised> {
    let config = configured(context).map(Path::to_owned);
    let (mut files, mut groups, mut without_user) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(id) = &release {
        files = files_of(&tree.open_release(id)?)?.into_iter().map(|(name, _)| name).collect();
        let declared = declared(context, tree, id)?;
        groups = declared.groups.keys().cloned().collect();
        without_user = declared.without_user().map(|program| program.name.clone()).collect();
    }
    let wired = config.as_deref().map(|config| wired(context, tree, config)).transpose()?.flatten();
    let answer = config.as_deref().map(|config| connect(config).and_then(|it| Ok(as_root(|| it.client().version())?)));
    let version = match answer {
        Some(Err(error)) => {
            context.stages.warn(&error.to_string());
            None
        }
        answer => answer.and_then(|answer| answer.ok()),
    };
    Ok(Supervised { changed, config, wired, release, files, groups, without_user, version })
}

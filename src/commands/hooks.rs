//! Hooks: the operator's own commands at turning points. Each is given a JSON document on standard input.

use super::Context;
use crate::error::{Error, Kind, Result};
use crate::recipe::HooksTable;
use crate::release::ReleaseId;
use crate::tree::Tree;
use crate::workplace::Workplace;
use serde_json::json;
use std::time::Duration;

/// The longest a hook may run if nothing is said.
const LIMIT: Duration = Duration::from_secs(300);

/// A turning point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Start,
    Success,
    Failure,
    Rollback,
}

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Success => "on_success",
            Self::Failure => "on_failure",
            Self::Rollback => "on_rollback",
        }
    }
}

/// What a hook is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct News<'a> {
    pub(super) operation: &'a str,
    pub(super) from: Option<&'a ReleaseId>,
    pub(super) to: Option<&'a ReleaseId>,
    pub(super) error: Option<&'a str>,
}

/// Runs the hook of `turn`, if there is one, in the tree's root. Its output is told like a step's.
pub(super) fn run(context: &Context, tree: &Tree, turn: Turn, news: News<'_>) -> Result<()> {
    let hooks = &context.config.settings.hooks;
    let command = match turn {
        Turn::Start => &hooks.on_start,
        Turn::Success => &hooks.on_success,
        Turn::Failure => &hooks.on_failure,
        Turn::Rollback => &hooks.on_rollback,
    };
    let Some(command) = command else { return Ok(()) };
    let root = tree.layout().root();
    let document = json!({
        "schema": 1, "hook": turn.name(), "operation": news.operation, "env": context.config.environment,
        "root": root, "by": context.actor.by, "host": context.actor.host,
        "from": news.from, "to": news.to, "error": news.error,
    });
    let release = news.to.map(|id| tree.layout().release(id));
    let place = Workplace::new(&context.tools, root, None)
        .telling("ENV", context.config.environment.as_ref())
        .telling("ROOT", Some(root))
        .telling("RELEASE", news.to.map(ReleaseId::as_str))
        .telling("RELEASE_PATH", release)
        .telling("PREVIOUS", news.from.map(ReleaseId::as_str))
        .telling("OPERATION", Some(news.operation))
        .telling("REVISION", news.to.and_then(|id| tree.release(id).ok()?.origin.revision));
    let failed = |why: String| Error::new(Kind::Failed, format!("hook {}: {why}", turn.name()));
    let program = place.shell::<&str>(command, []).limit(limit(hooks)).input(document.to_string().as_bytes());
    let program = program.map_err(|cause| failed(cause.to_string()))?;
    let told = program.run(&mut |bytes| {
        context.stages.output(bytes);
        Ok(())
    });
    told.map_err(|error| {
        failed(error.to_string()).hint("what it printed is above; correct the command or what it checks")
    })
}

/// The longest one of these hooks may run.
pub(super) fn limit(hooks: &HooksTable) -> Duration {
    hooks.timeout.map_or(LIMIT, |span| span.0)
}

/// Runs `command`, a hook around a program that is stopped and started. It is told which in RELEASECTL_PROGRAM.
pub(super) fn around(
    context: &Context,
    place: &Workplace,
    command: &str,
    program: &str,
    limit: Duration,
) -> std::result::Result<(), String> {
    let place = place.clone().telling("PROGRAM", Some(program));
    let shell = place.shell::<&str>(command, []).env("HOSTNAME", &context.actor.host).limit(limit);
    let ran = shell.run(&mut |bytes| {
        context.stages.output(bytes);
        Ok(())
    });
    ran.map_err(|error| error.to_string())
}

/// The same where a failure of the hook changes nothing any more.
pub(super) fn tell(context: &Context, tree: &Tree, turn: Turn, news: News<'_>) {
    if let Err(error) = run(context, tree, turn, news) {
        context.stages.warn(&error.message);
    }
}

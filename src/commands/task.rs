//! `task`: a named task of the recipe inside a release.

use super::{Context, Target, inside};
use crate::error::{Error, Result};

/// Becomes the task `name`; returns only if that fails.
pub fn run(context: &Context, target: &Target, name: &str) -> Result<Error> {
    inside::become_program(context, target, "task", |room| {
        let unknown = || {
            let known: Vec<&str> = room.settings.task.keys().map(String::as_str).collect();
            let hint = if known.is_empty() {
                "the recipe has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            Error::refused(format!("the recipe has no task {name:?}")).hint(hint)
        };
        let task = room.settings.task.get(name).ok_or_else(unknown)?;
        room.shell::<&str>(&task.run, [])
    })
}

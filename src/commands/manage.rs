//! `manage`: the recipe's management command inside a release.

use super::{Context, Target, inside};
use crate::error::{Error, Result};
use std::ffi::OsString;

/// What is managed with if the recipe says nothing.
const MANAGE: &str = "python manage.py";

/// Becomes the management command with `arguments`; returns only if that fails.
pub fn run(context: &Context, target: &Target, arguments: &[OsString]) -> Result<Error> {
    inside::become_program(context, target, "manage", |room| {
        let manage = room.settings.manage.as_deref().unwrap_or(MANAGE);
        room.shell(&format!("exec {manage} \"$@\""), arguments)
    })
}

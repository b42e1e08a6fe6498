//! `exec`: runs a command inside a release.

use super::{Context, Target, inside};
use crate::error::{Error, Result};
use std::ffi::OsString;

/// Becomes `command`; returns only if that fails.
pub fn run(context: &Context, target: &Target, command: &[OsString]) -> Result<Error> {
    inside::become_program(context, target, "exec", |room| {
        let (name, arguments) = command.split_first().ok_or_else(|| Error::refused("no command was named"))?;
        Ok(room.place.program(name).args(arguments))
    })
}

//! `supervisorctl`: the real one, with the right configuration file.

use super::Context;
use super::programs::required;
use crate::error::{Error, Kind, Result};
use crate::identity::as_root;
use std::ffi::OsString;

/// Becomes supervisorctl; returns only if that fails.
pub fn run(context: &Context, arguments: &[OsString]) -> Result<Error> {
    let config = required(context)?;
    let program = context.tools.program("supervisorctl").args(["-c".as_ref(), config.as_os_str()]).args(arguments);
    let cause = as_root(|| program.replace());
    let kind = if cause.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::NotExecutable };
    Ok(Error::new(kind, format!("cannot run supervisorctl: {cause}")).hint("install supervisor"))
}

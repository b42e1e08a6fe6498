//! This environment's programs, as steps stop and start them.

use super::Context;
use crate::recipe::Settings;
use crate::steps::Programs;
use crate::tree::Tree;

/// A host without supervisor has nothing to stop or start.
pub(super) struct Nothing;

impl Programs for Nothing {
    fn stop(&mut self, _: &[String]) -> Result<(), String> {
        Ok(())
    }

    fn start(&mut self, _: &[String]) -> Result<(), String> {
        Ok(())
    }
}

/// The programs that `settings` give this environment on this host.
pub(super) fn of(_: &Context, _: &Tree, _: &Settings) -> Nothing {
    Nothing
}

//! Which tree is meant: what a command line names counts before what variables say.

use super::{Cli, Global};
use crate::config::Wanted;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;

/// What of a tree was typed; of the rest variables may speak.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed {
    env: bool,
    root: bool,
    config: bool,
}

impl Cli {
    /// Reads a command line, and the variables that stand for options.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        cli.global.typed = Typed { env: typed("env"), root: typed("root"), config: typed("config") };
        Ok(cli)
    }
}

impl Global {
    /// Where the tree and the host's file are. A step, and a shell that `exec` runs, have the variables of their own tree:
    /// whoever names another environment there means its tree, not this one.
    pub fn wanted(&self) -> Wanted {
        let here = std::env::var("RELEASECTL_ENV").ok();
        // A step of a tree without a name is given an empty variable: that names none.
        let nameless = here.as_deref() == Some("");
        let inherited = self.root.is_some() && !self.typed.root;
        // Nor is it the name of what another file describes.
        let elsewhere = inherited && self.typed.config && !self.typed.env;
        let environment = self.env.clone().filter(|name| !(elsewhere || nameless && name.is_empty()));
        let another = self.typed.env && environment != here;
        let (root, fallback) = match self.root.clone() {
            // The variables tell of another environment's tree.
            _ if inherited && another && here.is_some() && !nameless => (None, None),
            root if inherited && (another || self.typed.config) => (None, root),
            root => (root, None),
        };
        Wanted { environment, root, fallback, file: self.config.clone() }
    }
}

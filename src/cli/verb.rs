//! The verbs' names, and what is known of a verb by its name.

use super::{Cli, Command};
use clap::CommandFactory;
use std::ffi::OsString;

impl Command {
    /// Whether it may change the tree.
    pub fn changes(&self) -> bool {
        use Command::*;
        let looks = matches!(self, List | Status | Show { .. } | History { .. } | Log { .. } | Path { .. } | Ps);
        let runs = matches!(self, Export { .. } | Exec { .. } | Manage { .. } | Task { .. });
        !(looks || runs || matches!(self, Verify { .. } | Doctor | Gate { .. } | Completions { .. }))
    }

    /// The name of the verb in `arguments`, whatever else is wrong with them.
    pub fn named(arguments: &[OsString]) -> Option<String> {
        let matches = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok()?;
        matches.subcommand_name().map(str::to_owned)
    }

    /// Its name in the documents.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Create { .. } => "create",
            Self::Deploy { .. } => "deploy",
            Self::Activate { .. } => "activate",
            Self::Rollback { .. } => "rollback",
            Self::Clean { .. } => "clean",
            Self::List => "list",
            Self::Status => "status",
            Self::Show { .. } => "show",
            Self::History { .. } => "history",
            Self::Log { .. } => "log",
            Self::Path { .. } => "path",
            Self::Ps => "ps",
            Self::Pin { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::Remove { .. } => "remove",
            Self::Exec { .. } => "exec",
            Self::Manage { .. } => "manage",
            Self::Task { .. } => "task",
            Self::Restart(_) => "restart",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Supervisorctl { .. } => "supervisorctl",
            Self::Supervisor { .. } => "supervisor",
            Self::Hotfix { .. } => "hotfix",
            Self::Verify { .. } => "verify",
            Self::Export { .. } => "export",
            Self::Deactivate { .. } => "deactivate",
            Self::Doctor => "doctor",
            Self::Gate { .. } => "gate",
            Self::Completions { .. } => "completions",
        }
    }
}

/// The longest name of a key.
const LONGEST_KEY: usize = 64;

/// A verb that a gate may let through.
pub(super) fn admissible(name: &str) -> Result<String, String> {
    let known = Cli::command().get_subcommands().any(|verb| verb.get_name() == name);
    if known && !["gate", "completions"].contains(&name) {
        Ok(name.to_owned())
    } else {
        Err("it is no verb that a key can be given".to_owned())
    }
}

/// The name of a key: one that can be shown in a line.
pub(super) fn key_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > LONGEST_KEY || name.contains(char::is_control) {
        return Err(format!("a key's name is one to {LONGEST_KEY} bytes of plain text"));
    }
    Ok(name.to_owned())
}

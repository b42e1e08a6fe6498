//! The gate: what the client of an ssh key may ask for. It is the key's forced command in authorized_keys,
//!
//! ```text
//! restrict,command="releasectl gate -e production --allow create,activate,list --key ci" ssh-ed25519 …
//! ```
//!
//! and reads what the client typed from SSH_ORIGINAL_COMMAND. There is no shell: the words are split here, parsed by the
//! same types as any other command line, and what came out is judged, not how it was spelt. The tree and its
//! configuration are named by the forced command alone, and no path is taken from the client: code comes on standard
//! input or from the configured source. What is not admitted is refused in one line, with nothing read or changed.

mod words;

use crate::cli::{Cli, Command, Global, fault};
use crate::error::Error;
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Nobody types more; the rest of a message would not be read either.
const LONGEST_LINE: usize = 16 * 1024;
const LONGEST_MESSAGE: usize = 300;

/// A command line that may be carried out.
#[derive(Debug)]
pub struct Admitted {
    /// What it says, with the tree and configuration of the forced command.
    pub cli: Cli,
    /// Its words, as a shell would have given them.
    pub words: Vec<OsString>,
    /// Whose key it came by, for the history.
    pub key: String,
}

/// Why one is not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// Always a refusal, in one line.
    pub error: Error,
    /// Whether the client, or the forced command, wants a document.
    pub json: bool,
}

/// Judges `asked`, what the client typed, by `forced`, the forced command's own words. `connection` is sshd's
/// SSH_CONNECTION: where the client is names a key that has no name. Other variables, which a client may be able to
/// send, count for nothing.
pub fn admit(forced: &[OsString], asked: Option<&OsStr>, connection: Option<&str>) -> Result<Admitted, Refusal> {
    let asked_so = asked.is_some_and(|asked| asked.to_string_lossy().split_whitespace().any(|word| word == "--json"));
    let json = asked_so || forced.iter().any(|word| word == "--json");
    judge(forced, asked, connection).map_err(|why| Refusal { error: Error::refused(in_one_line(&why)), json })
}

fn judge(forced: &[OsString], asked: Option<&OsStr>, connection: Option<&str>) -> Result<Admitted, String> {
    let own = parse(forced)?;
    let Command::Gate { allow, key } = &own.command else { return Err("this is not a gate's command line".to_owned()) };
    let nothing = "this key runs no shell; name a command";
    let asked = asked.ok_or(nothing)?;
    let asked = asked.to_str().ok_or("the command is not UTF-8")?;
    if asked.len() > LONGEST_LINE {
        return Err(format!("the command is longer than {LONGEST_LINE} bytes"));
    }
    let mut words = words::split(asked)?;
    if words.first().is_some_and(|word| Path::new(word).file_name() == Some("releasectl".as_ref())) {
        words.remove(0);
    }
    if words.is_empty() {
        return Err(nothing.to_owned());
    }
    let words: Vec<OsString> = std::iter::once("releasectl".into()).chain(words.into_iter().map(Into::into)).collect();
    let mut cli = parse(&words)?;
    if !allow.iter().any(|verb| verb == cli.command.name()) {
        return Err(format!("this key may not use {}, only {}", cli.command.name(), allow.join(", ")));
    }
    check_global(&cli.global, &own.global)?;
    check_paths(&cli.command)?;
    let (json, quiet) = (cli.global.json || own.global.json, cli.global.quiet || own.global.quiet);
    let wait = cli.global.wait.or(own.global.wait);
    let Global { env, root, config, .. } = own.global;
    cli.global = Global { env, root, config, json, quiet, wait, ..cli.global };
    let from = || connection.and_then(|text| text.split(' ').next()).unwrap_or("an unnamed key").to_owned();
    Ok(Admitted { cli, words, key: key.clone().unwrap_or_else(from) })
}

/// Parses `words` with no regard to variables.
fn parse(words: &[OsString]) -> Result<Cli, String> {
    let command = Cli::command().mut_args(|argument| argument.env(Resettable::Reset));
    let parsed = command.try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if error.exit_code() == 0 {
            return "it gives no help; ask on the host".to_owned();
        }
        fault::in_a_line(&error)
    })
}

/// The tree and its configuration are not the client's to name.
fn check_global(asked: &Global, own: &Global) -> Result<(), String> {
    if asked.root.is_some() || asked.config.is_some() {
        return Err("this key may not name a tree or a configuration".to_owned());
    }
    if asked.env.is_some() && asked.env != own.env {
        let only = own.env.as_deref().unwrap_or("the configured one");
        return Err(format!("this key may not name an environment other than {only}"));
    }
    Ok(())
}

/// Paths on this host are not the client's to name.
fn check_paths(command: &Command) -> Result<(), String> {
    match command {
        Command::Create { source, .. } | Command::Deploy { source, .. } => {
            if source.source.as_ref().is_some_and(|source| source != "-") {
                return Err("this key may hand in code on standard input only: write - or nothing".to_owned());
            }
        }
        Command::Hotfix { patch: Some(_), .. } => {
            return Err("this key may not name a patch on this host; use --ref".to_owned());
        }
        // Its options name files and servers, and without a command it is interactive.
        Command::Supervisorctl { arguments } => {
            let first = arguments.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            if first.is_empty() || first.starts_with('-') {
                return Err("supervisorctl needs a command, and takes no options here".to_owned());
            }
        }
        Command::Gate { .. } | Command::Completions { .. } => return Err("a gate leads to no other".to_owned()),
        // What these run is what the key was given for, and the rest takes no paths.
        Command::Exec { .. } | Command::Manage { .. } | Command::Task { .. } => {}
        Command::Init | Command::Activate { .. } | Command::Rollback { .. } | Command::Clean { .. } => {}
        Command::List | Command::Status | Command::Show { .. } | Command::History { .. } | Command::Log { .. } => {}
        Command::Path { .. } | Command::Ps | Command::Pin { .. } | Command::Unpin { .. } | Command::Remove { .. } => {}
        Command::Restart(_) | Command::Start(_) | Command::Stop(_) | Command::Supervisor { .. } => {}
        Command::Hotfix { .. }
        | Command::Verify { .. }
        | Command::Export { .. }
        | Command::Deactivate { .. }
        | Command::Doctor => {}
    }
    Ok(())
}

fn in_one_line(why: &str) -> String {
    let plain = why.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE);
    std::iter::once("the gate: ").map(str::to_owned).chain(plain.map(String::from)).collect()
}

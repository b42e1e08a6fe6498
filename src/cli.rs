//! The whole command line.

pub mod fault;
mod place;
mod verb;

use crate::clock::parse_duration;
use crate::commands::Target;
use crate::commands::activate::Expected;
use crate::recipe::Size;
use crate::release::ReleaseId;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Owns the release tree on this server: builds a release, flips `current` to it, rolls back, cleans
#[derive(Debug, Parser)]
#[command(name = "releasectl", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "RELEASE is an id, or one of: current, previous, latest.\nSee releasectl COMMAND --help.")]
pub struct Cli {
    /// What every command takes
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes
#[derive(Args, Debug)]
pub struct Global {
    /// The environment; by default the only one configured
    #[arg(short = 'e', long, global = true, env = "RELEASECTL_ENV", value_name = "NAME")]
    pub env: Option<String>,
    /// The tree; works without any configuration
    // clap would tell of an empty variable as if the option had been given.
    #[arg(long, global = true, env = "RELEASECTL_ROOT", value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub root: Option<PathBuf>,
    /// The host's configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print exactly one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but errors, warnings and what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: how long each stage took
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Wait for the lock: for ever, or this long (90s, 5m, 1h)
    #[arg(long, global = true, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = duration)]
    pub wait: Option<Option<Duration>>,
    /// What of these was typed
    #[arg(skip)]
    pub typed: place::Typed,
}

/// When to use colours
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What a source is, whatever it looks like
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A git repository
    Git,
    /// A directory
    Dir,
    /// A tar file
    Tar,
}

// Where the code comes from.
#[expect(missing_docs, reason = "clap takes a doc comment here for what the commands do")]
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// A git URL or repository, a directory, a tar file, or - for a tar on standard input
    pub source: Option<String>,
    /// The branch, tag or commit to check out
    #[arg(long, value_name = "REF")]
    pub r#ref: Option<String>,
    /// Take SOURCE for this, whatever it looks like
    #[arg(long = "as", value_name = "KIND")]
    pub kind: Option<Kind>,
    /// Keep the release for this many days
    #[arg(long, value_name = "N")]
    pub keep_days: Option<u64>,
    /// Build no virtual environment
    #[arg(long)]
    pub no_python: bool,
}

/// What `create --resume` goes on with
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The newest, whatever has changed since
    Anyway,
    /// One release
    Release(ReleaseId),
}

impl std::str::FromStr for Resumed {
    type Err = crate::release::NotAnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "anyway" { Ok(Self::Anyway) } else { text.parse().map(Self::Release) }
    }
}

/// The verbs
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Lay out the tree; take over what is there
    Init,
    /// Build a private release; prints its path
    Create {
        /// Where from
        #[command(flatten)]
        source: SourceArgs,
        /// The new release's id; by default the time in UTC
        #[arg(long, value_name = "ID")]
        id: Option<ReleaseId>,
        /// Go on with an unfinished release: the newest, or ID; "anyway" though the recipe has changed
        #[arg(long, value_name = "ID", num_args = 0..=1, conflicts_with = "id")]
        resume: Option<Option<Resumed>>,
    },
    /// Create a release, activate it, clean
    Deploy {
        /// Where from
        #[command(flatten)]
        source: SourceArgs,
        /// Deploy this release, built before
        #[arg(long, value_name = "RELEASE", conflicts_with_all = ["source", "ref", "kind", "no_python"])]
        release: Option<Target>,
        /// Go on with the newest deploy that did not come to its end; "anyway" though the recipe has changed
        #[arg(long, value_name = "anyway", num_args = 0..=1, require_equals = true, value_parser = ["anyway"])]
        resume: Option<Option<String>>,
        /// Change nothing unless this release (or none) is live
        #[arg(long, value_name = "ID|none")]
        expect_current: Option<Expected>,
    },
    /// Make a release live
    Activate {
        /// Which
        #[arg(default_value = "latest")]
        release: Target,
        /// Change nothing unless this release (or none) is live
        #[arg(long, value_name = "ID|none")]
        expect_current: Option<Expected>,
        /// Leave the programs as they are; supervisord is not asked
        #[arg(long)]
        no_restart: bool,
    },
    /// Make the release live that was live before
    Rollback {
        /// Go back to this one
        #[arg(long, value_name = "RELEASE")]
        to: Option<Target>,
        /// Change nothing unless this release is live
        #[arg(long, value_name = "ID")]
        expect_current: Option<Expected>,
        /// Only say where it would go
        #[arg(long)]
        dry_run: bool,
        /// Leave the programs as they are; supervisord is not asked
        #[arg(long)]
        no_restart: bool,
    },
    /// Remove releases nobody needs
    Clean {
        /// How many good releases stay; by default what is configured, or 3
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
        /// Younger ones stay
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        keep_for: Option<Duration>,
        /// Remove more until this much is free (500M, 2G)
        #[arg(long, value_name = "SIZE")]
        min_free: Option<Size>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// List the releases
    List,
    /// What is live, what is under way, what room there is
    Status,
    /// One release
    Show {
        /// Which
        #[arg(default_value = "current")]
        release: Target,
    },
    /// What was done, by whom, and how it ended
    History {
        /// The last N operations
        #[arg(short = 'n', value_name = "N", default_value_t = 20)]
        count: usize,
    },
    /// What a build printed; by default the newest
    Log {
        /// Which
        release: Option<Target>,
    },
    /// Where a release is
    Path {
        /// Which
        #[arg(default_value = "current")]
        release: Target,
    },
    /// Which processes run from which release
    Ps,
    /// Keep a release for a while
    #[command(group(clap::ArgGroup::new("long").required(true)))]
    Pin {
        /// Which
        release: Target,
        /// For N days
        #[arg(long, value_name = "N", group = "long")]
        days: Option<u64>,
        /// Until a time: 2026-12-02, 2026-12-02_23.40, or RFC 3339
        #[arg(long, value_name = "TIME", group = "long")]
        until: Option<String>,
        /// Until it is unpinned
        #[arg(long, group = "long")]
        forever: bool,
    },
    /// Take a release's pins away
    Unpin {
        /// Which
        release: Target,
    },
    /// Remove releases by name, with the same protections as clean
    Remove {
        /// Which
        #[arg(required = true)]
        releases: Vec<Target>,
    },
    /// Run a command inside a release
    Exec {
        /// Which
        #[arg(long, default_value = "current")]
        release: Target,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Run the recipe's manage command inside a release
    Manage {
        /// Which
        #[arg(long, default_value = "current")]
        release: Target,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a named task of the recipe inside a release
    Task {
        /// Which task
        name: String,
        /// Which release
        #[arg(long, default_value = "current")]
        release: Target,
    },
    /// Restart this environment's programs, those that run if none is named
    Restart(Names),
    /// Start this environment's programs
    Start(Names),
    /// Stop this environment's programs
    Stop(Names),
    /// Run the real supervisorctl with the right configuration file
    Supervisorctl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What supervisord reads of this environment
    Supervisor {
        /// What to do
        #[command(subcommand)]
        verb: SupervisorVerb,
    },
    /// Make a release from current with only the code changed, and activate it
    #[command(group(clap::ArgGroup::new("change").required(true)))]
    Hotfix {
        /// To the code at this branch, tag or commit
        #[arg(long, value_name = "REF", group = "change")]
        r#ref: Option<String>,
        /// By this patch
        #[arg(long, value_name = "FILE", group = "change")]
        patch: Option<PathBuf>,
        /// By undoing the patch
        #[arg(long, requires = "patch", conflicts_with = "ref")]
        reverse: bool,
    },
    /// Whether a release is what it was when it became ready
    Verify {
        /// Which
        #[arg(default_value = "current")]
        release: Target,
    },
    /// Write a release to standard output, as a tar that `create -` on another host takes
    Export {
        /// Which
        #[arg(default_value = "current")]
        release: Target,
    },
    /// Remove current
    Deactivate {
        /// Really
        #[arg(long)]
        yes: bool,
    },
    /// Check everything, say what to do
    Doctor,
    /// The forced command of an ssh key: runs what the client asks for if it is one of these verbs, never a shell
    Gate {
        /// The verbs that the key may use
        #[arg(long, value_name = "VERB,…", required = true, value_delimiter = ',', value_parser = verb::admissible)]
        allow: Vec<String>,
        /// Whose key it is, for the history
        #[arg(long, value_name = "NAME", value_parser = verb::key_name)]
        key: Option<String>,
    },
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

// Programs of this environment.
#[expect(missing_docs, reason = "clap takes a doc comment here for what the commands do")]
#[derive(Args, Debug)]
pub struct Names {
    /// These programs or groups; all if none is named
    #[arg(value_name = "PROGRAM|GROUP")]
    pub names: Vec<String>,
}

// What `supervisor` does.
#[expect(missing_docs, reason = "clap takes a doc comment here for what the command is")]
#[derive(Clone, Debug, Subcommand)]
pub enum SupervisorVerb {
    /// Render a release's files from its templates anew
    Render {
        /// Which
        #[arg(default_value = "current")]
        release: Target,
    },
    /// Have supervisord include the live release's files
    Wire,
    /// Take that back: its file is as it was before
    Unwire,
    /// Which files, whether they are included, whether supervisord answers
    Status,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a duration is a number and one of s, m, h, d, w".to_owned())
}

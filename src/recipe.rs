//! What a host file and a recipe may say: the tables of `/etc/releasectl/<env>.toml` and `releasectl.toml`.

mod parse;
mod url;
mod values;

pub use parse::{Fault, line_naming, merge, nearest, parse};
pub use url::HttpUrl;
pub use values::{Size, Span};

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use values::{absolute, all_inside, inside, repository, version};

/// Everything either file can say. Keys absent from both have the defaults given here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The tree's root (host).
    #[serde(deserialize_with = "absolute")]
    pub root: Option<PathBuf>,
    /// What a root run becomes (host).
    pub user: Option<String>,
    /// Whether a tree on NFS may be changed (host).
    pub allow_nfs: bool,
    /// This host's roles (host).
    pub roles: Vec<String>,
    /// Where the code comes from (host).
    pub source: SourceTable,
    /// The command of `manage`; `python manage.py` if not given.
    pub manage: Option<String>,
    /// The virtual environment.
    pub python: PythonTable,
    /// What is linked or carried into a release.
    pub shared: SharedTable,
    /// The steps, in order.
    pub step: Vec<Step>,
    /// Named tasks.
    pub task: BTreeMap<String, Task>,
    /// Supervisor programs and where its files are.
    pub supervisor: SupervisorTable,
    /// How to tell that the application is up.
    pub health: HealthTable,
    /// What follows a failed activation.
    pub activate: ActivateTable,
    /// What is kept.
    pub clean: CleanTable,
    /// Commands run at turning points.
    pub hooks: HooksTable,
}

/// `[source]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTable {
    /// URL or absolute path of a git repository.
    #[serde(deserialize_with = "repository")]
    pub git: Option<String>,
    /// Branch, tag or commit; the repository's HEAD if not given.
    pub r#ref: Option<String>,
    /// Whether submodules are checked out; they are, unless `false`.
    pub submodules: Option<bool>,
    /// How files come into a release.
    pub link: Link,
}

/// `[source] link`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Every file is the release's own.
    #[default]
    Copy,
    /// Files that have not changed are the earlier release's, and nobody may write to any.
    Hardlink,
}

/// `[python]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PythonTable {
    /// The environment's directory in the release; `python_env` if not given.
    #[serde(deserialize_with = "inside")]
    pub directory: Option<PathBuf>,
    /// The interpreter's version: `3`, `3.11` or `3.11.2`.
    #[serde(deserialize_with = "version")]
    pub version: Option<String>,
    /// Requirements files, relative to the release; looked for if empty.
    #[serde(deserialize_with = "all_inside")]
    pub requirements: Vec<PathBuf>,
    /// A directory of wheels, relative to the release: nothing else is used.
    #[serde(deserialize_with = "inside")]
    pub wheelhouse: Option<PathBuf>,
}

impl PythonTable {
    /// Where the environment lies in the release.
    pub fn place(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new("python_env"))
    }
}

/// `[shared]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SharedTable {
    /// Directories linked to `shared/`, made if absent.
    #[serde(deserialize_with = "all_inside")]
    pub dirs: Vec<PathBuf>,
    /// Files linked to `shared/`, required.
    #[serde(deserialize_with = "all_inside")]
    pub files: Vec<PathBuf>,
    /// Copied from the current release.
    #[serde(deserialize_with = "all_inside")]
    pub carry: Vec<PathBuf>,
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// While the release is built; part of what makes it ready.
    Create,
    /// When it is ready and before it is activated.
    #[default]
    Prepare,
    /// After it was activated and confirmed.
    Finish,
}

/// `[[step]]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// Its name in logs, history and on resume; unique.
    pub name: String,
    /// The shell command.
    pub run: Option<String>,
    /// When it runs.
    pub phase: Phase,
    /// Only on hosts with one of these roles; on all if empty.
    pub roles: Vec<String>,
    /// Only if this shell command succeeds.
    pub only_if: Option<String>,
    /// Repeated until it succeeds.
    pub retry: Option<Retry>,
    /// Programs or groups to stop.
    pub stop: Vec<String>,
    /// Programs or groups to start.
    pub start: Vec<String>,
    /// The longest one run may take; an hour if not given.
    pub timeout: Option<Span>,
}

/// `retry = { for = "5m", every = "5s" }`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, expecting = "a table such as { for = \"5m\", every = \"5s\" }")]
pub struct Retry {
    /// For how long in all.
    pub r#for: Span,
    /// From the end of one run to the next.
    pub every: Span,
}

/// `[task.NAME]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table such as { run = \"…\" }")]
pub struct Task {
    /// The shell command.
    pub run: String,
}

/// `[supervisor]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisorTable {
    /// supervisord's configuration file (host).
    #[serde(deserialize_with = "absolute")]
    pub config: Option<PathBuf>,
    /// How it comes to read the release's files (host).
    pub wiring: Wiring,
    /// The directory of templates, relative to the release.
    #[serde(deserialize_with = "inside")]
    pub templates: Option<PathBuf>,
    /// What is rendered from them.
    pub program: Vec<ProgramTable>,
    /// Programs that are never rendered here.
    pub blacklist: Vec<String>,
    /// How running programs are restarted.
    pub restart: Restart,
}

/// `[supervisor] wiring`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// One continuation line in supervisord's `[include]`.
    #[default]
    Include,
    /// Rendered into `conf.d`, owned by root.
    Copy,
}

/// `[supervisor] restart`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// One process at a time.
    #[default]
    Rolling,
    /// In two halves.
    Together,
}

/// `[[supervisor.program]]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ProgramTable {
    /// The template's file name.
    pub template: PathBuf,
    /// Only on hosts with one of these roles; on all if empty.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How many times it is rendered; once if not given.
    #[serde(default)]
    pub count: Option<u32>,
    /// What the template is given.
    #[serde(default)]
    pub params: BTreeMap<String, toml::Value>,
    /// What it is given instead on one host, by host name.
    #[serde(default)]
    pub hosts: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

/// `[health]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HealthTable {
    /// Must answer with 2xx.
    pub url: Option<HttpUrl>,
    /// Must exit with 0. [`parse`] and [`merge`] leave one of the two.
    pub command: Option<String>,
    /// The time it has; a minute if not given.
    pub timeout: Option<Span>,
}

/// `[activate]`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ActivateTable {
    /// What follows if the release does not come up.
    pub on_failure: OnFailure,
}

/// `[activate] on_failure`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The release that was live before is activated again.
    #[default]
    Rollback,
    /// The new one stays live.
    Stay,
}

/// `[clean]`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct CleanTable {
    /// How many of the newest good releases are kept; 3 if not given.
    pub keep: Option<usize>,
    /// Releases younger than this are kept.
    pub keep_for: Option<Span>,
    /// Fewer are kept while less than this is free.
    pub min_free: Option<Size>,
}

/// `[hooks]`: shell commands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct HooksTable {
    /// Before a deploy begins.
    pub on_start: Option<String>,
    /// After one succeeded.
    pub on_success: Option<String>,
    /// After one failed.
    pub on_failure: Option<String>,
    /// After a rollback.
    pub on_rollback: Option<String>,
    /// Before a program is restarted.
    pub drain: Option<String>,
    /// After it runs again.
    pub undrain: Option<String>,
    /// The longest one of them may run; five minutes if not given.
    pub timeout: Option<Span>,
}

impl HooksTable {
    /// Every command there is.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let all = [&self.on_start, &self.on_success, &self.on_failure, &self.on_rollback, &self.drain, &self.undrain];
        all.into_iter().flatten().map(String::as_str)
    }
}

//! Sources: where code comes from, and how it gets into a release. Nothing here knows of locks or manifests.

mod attributes;
mod check_out;
mod compare;
mod contents;
mod dir;
mod git;
mod incoming;
mod mirror;
mod objects;
mod pack;
mod patch;
mod reuse;
mod submodules;
mod tar;
mod writers;

pub use dir::open_dir;
pub use git::{Commit, fetch};
pub use incoming::Incoming;
pub use pack::{Packed, Shared, links_out, pack};
pub use patch::patch;

use crate::directory::{Dir, Identity, PathError};
use crate::export::Export;
use crate::layout::is_code;
use crate::recipe::Link;
use crate::release::{Origin, SourceKind, without_password};
use crate::stage::Stages;
use crate::tools::{ToolError, Tools};
use crate::tree::{Inventory, Listing};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Why code could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It names nothing that is there.
    #[error("{0} is neither a git repository, a directory nor a tar file")]
    Nothing(String),
    /// The text cannot be a source.
    #[error("{location:?} cannot be used as a source: {why}")]
    Refused {
        /// What was given.
        location: String,
        /// Why not.
        why: &'static str,
    },
    /// The ref is not in the repository.
    #[error("{location} has no {reference}")]
    NoRef {
        /// The repository.
        location: String,
        /// What was asked for.
        reference: String,
    },
    /// What should be a tar is none, from its beginning on.
    #[error("it is no tar, or a damaged one: {why}")]
    NoTar {
        /// What is wrong with it.
        why: String,
    },
    /// git could not fetch.
    #[error("cannot fetch {location}: {cause}")]
    Fetch {
        /// The repository.
        location: String,
        /// What git said of it.
        cause: ToolError,
    },
    /// It was named with a password, which nothing of ours keeps.
    #[error("the password of {0} is not on record")]
    NoPassword(String),
    /// A member of a tar file is not what a release may hold.
    #[error("the tar was refused at {member:?}: {why}")]
    Member {
        /// The member's name.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// The code brings a name of ours.
    #[error("the code has {0:?} at its top, and that name is releasectl's own")]
    OwnName(String),
    /// A release holds what no other host takes.
    #[error("{member:?} cannot be handed to another host: {why}")]
    Unfit {
        /// Its path in the release.
        member: String,
        /// Why not.
        why: String,
    },
    /// A submodule cannot be had.
    #[error("submodule {path}: {why}")]
    Submodule {
        /// Its path in the repository.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// What had been fetched was damaged, and is thrown away.
    #[error("{} was damaged, and is empty now: {cause}", path.display())]
    Mirror {
        /// The mirror.
        path: PathBuf,
        /// What git said of it.
        cause: ToolError,
    },
    /// git did not do it.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The system refused.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Shorthand of this module.
pub type Result<T, E = SourceError> = std::result::Result<T, E>;

/// Where code is to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A git repository, by URL or absolute path.
    Git {
        /// URL or path.
        location: String,
        /// What to check out; its HEAD if not given.
        reference: Option<String>,
    },
    /// A directory as it is.
    Dir(PathBuf),
    /// A tar file.
    Tar(PathBuf),
    /// A tar on standard input.
    Stdin,
}

impl Source {
    /// Recognises `text`. `forced` overrides what it looks like.
    pub fn recognise(text: &str, reference: Option<String>, forced: Option<SourceKind>) -> Result<Self> {
        if text == "-" && std::io::stdin().is_terminal() {
            return Err(SourceError::Refused { location: text.to_owned(), why: "standard input is a terminal" });
        } else if text == "-" {
            return Ok(Self::Stdin);
        }
        let path = Path::new(text);
        let absolute = || std::fs::canonicalize(path).map_err(|cause| PathError::new("open", path, cause));
        let there = match look(path) {
            // Where it would lie is nobody's to see; a URL lies elsewhere.
            Err(_) if is_url(text) => None,
            looked => looked?,
        };
        let kind = match (forced, &there) {
            (Some(kind), _) => kind,
            (None, Some(it)) if it.is_dir() && is_repository(path)? => SourceKind::Git,
            (None, Some(it)) if it.is_dir() => SourceKind::Dir,
            (None, Some(it)) if it.is_file() => SourceKind::Tar,
            (None, _) if is_url(text) => SourceKind::Git,
            (None, _) => return Err(SourceError::Nothing(text.to_owned())),
        };
        let unlike = match (kind, &there) {
            (SourceKind::Tar, Some(it)) if it.is_dir() => Some("it is a directory, not a tar"),
            (SourceKind::Dir, Some(it)) if !it.is_dir() => Some("it is no directory"),
            _ => None,
        };
        if let Some(why) = unlike {
            return Err(SourceError::Refused { location: text.to_owned(), why });
        }
        match kind {
            SourceKind::Git if there.is_some() => Ok(Self::Git { location: text_of(&absolute()?)?, reference }),
            SourceKind::Git => Ok(Self::Git { location: git::checked_url(text)?, reference }),
            SourceKind::Tar => Ok(Self::Tar(absolute()?)),
            SourceKind::Dir | SourceKind::Adopted => Ok(Self::Dir(absolute()?)),
        }
    }

    /// What the manifest says of it, before it is known which commit it is.
    pub fn origin(&self) -> Origin {
        let (kind, location, reference) = match self {
            Self::Git { location, reference } => (SourceKind::Git, without_password(location), reference.clone()),
            Self::Dir(path) => (SourceKind::Dir, path.display().to_string(), None),
            Self::Tar(path) => (SourceKind::Tar, path.display().to_string(), None),
            Self::Stdin => (SourceKind::Tar, "-".to_owned(), None),
        };
        Origin { kind, location, r#ref: reference, revision: None }
    }
}

/// What bringing code into a release needs.
pub struct Site<'a> {
    /// The release, empty but for our own records.
    pub release: &'a Dir,
    /// The tree's mirrors.
    pub mirrors: &'a Dir,
    /// The tree itself, which is never copied into a release.
    pub tree: Identity,
    /// A release that may hold what this one needs.
    pub earlier: Option<&'a Earlier>,
    /// How files come out of that one.
    pub link: Link,
    /// How programs are run.
    pub tools: &'a Tools,
    /// Who shows how far it is.
    pub stages: &'a dyn Stages,
}

/// A ready release, and what was recorded of it then.
#[derive(Debug)]
pub struct Earlier {
    /// Its directory.
    pub dir: Dir,
    /// Its inventory.
    pub inventory: Inventory,
}

/// What is to be brought: for git, the commit that was fetched before the release's name was reserved.
#[derive(Debug)]
pub enum Ready {
    /// A commit in a mirror.
    Commit(Commit),
    /// A directory.
    Dir(PathBuf),
    /// A tar file, or the tar on standard input.
    Tar(Incoming),
}

impl Ready {
    /// The papers that came with it, if another host handed it over.
    pub fn export(&self) -> Result<Option<Export>> {
        match self {
            Self::Tar(incoming) => incoming.export(),
            Self::Commit(_) | Self::Dir(_) => Ok(None),
        }
    }
}

/// Brings the code into the release. Files have the modes and times of the source; nothing outside the release is
/// written, whatever the source says. Not durable on return, which is what was made, if that is known without looking.
pub fn bring(ready: &Ready, site: &Site<'_>) -> Result<Option<Listing>> {
    match ready {
        Ready::Commit(commit) => return commit.check_out(site),
        Ready::Dir(path) => dir::copy(path, site)?,
        Ready::Tar(incoming) => tar::unpack(incoming, site)?,
    }
    Ok(None)
}

/// Refuses a name at the top of the code that is one of our records or a pin.
pub fn refuse_own(name: &OsStr) -> Result<()> {
    if is_code(name) { Ok(()) } else { Err(SourceError::OwnName(name.to_string_lossy().into_owned())) }
}

/// A repository with a work tree, a linked work tree (whose `.git` is a file), or a bare one.
fn is_repository(path: &Path) -> Result<bool> {
    let is = |name: &str, kind: fn(&Metadata) -> bool| look(&path.join(name)).map(|it| it.as_ref().is_some_and(kind));
    Ok(is(".git", |_| true)?
        || (is("objects", Metadata::is_dir)? && is("refs", Metadata::is_dir)? && is("HEAD", Metadata::is_file)?))
}

/// What a path leads to. What the system does not show is not taken for absent.
fn look(path: &Path) -> Result<Option<Metadata>> {
    use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    std::fs::metadata(path).map(Some).or_else(|cause| match cause.kind() {
        // A URL may be longer than a name can be.
        NotFound | NotADirectory | InvalidFilename => Ok(None),
        _ => Err(PathError::new("look at", path, cause).into()),
    })
}

/// `scheme://…` or scp's `user@host:path`.
fn is_url(text: &str) -> bool {
    let scp =
        || text.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !host.is_empty() && !path.is_empty());
    text.contains("://") || scp()
}

fn text_of(path: &Path) -> Result<String> {
    let location = || path.display().to_string();
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| SourceError::Refused { location: location(), why: "it is not UTF-8" })
}

//! What supervisord's configuration says: how to talk to it, and what a release declares. Reading only; edits of its text
//! are made in edit.rs and brought to the disk by wire.rs.

pub mod edit;
pub mod ini;
pub mod wire;

use super::rpc::{Address, Endpoint};
use crate::directory::{Dir, PathError};
use crate::recipe::HttpUrl;
use ini::{Ini, IniError, expand};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a release's files for supervisord are.
pub const DIRECTORY: &str = "services/supervisor";
/// The longest configuration file that is read.
pub const LONGEST: u64 = 4 * 1024 * 1024;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The file system said no.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is not there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It must not be changed.
    #[error("{} cannot be changed: {cause}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// It is not what supervisord could read.
    #[error("{file}: {cause}")]
    Broken {
        /// The file.
        file: String,
        /// Which line, and what is wrong with it.
        cause: IniError,
    },
    /// It says something that cannot be followed.
    #[error("{file}: {message}")]
    Unusable {
        /// The file.
        file: String,
        /// What, in one sentence.
        message: String,
    },
}

/// What to do about files of a release that supervisord would not take. To correct them in the release would not last.
pub(crate) const OF_RELEASE: &str =
    "correct services/supervisor or the templates where the code comes from, and build anew";

impl ConfError {
    /// What the operator may do about it. Files of a release are named without a directory.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ReadOnly { .. } => "run it as whoever may change that file, usually root",
            Self::Missing { .. } => {
                "is supervisor installed? [supervisor] config of the host's file says where its configuration is"
            }
            Self::Path(error) if error.is_full() => "make room there, then repeat it",
            Self::Path(error) if error.cause.kind() == io::ErrorKind::PermissionDenied => {
                "run it as whoever may read that file, usually root"
            }
            Self::Broken { file, .. } | Self::Unusable { file, .. } if file.starts_with('/') => {
                "correct that file; what it takes from the environment must be set here too"
            }
            _ => OF_RELEASE,
        }
    }

    pub(crate) fn unusable(file: &str, message: impl Into<String>) -> Self {
        Self::Unusable { file: file.to_owned(), message: message.into() }
    }
}

/// The text of the file at `path`, which an administrator may have made a link.
pub fn read(path: &Path) -> Result<String, ConfError> {
    let (dir, name) = locate(path)?;
    let bytes = dir.read_file(&name, LONGEST)?.ok_or_else(|| ConfError::Missing { path: path.to_owned() })?;
    String::from_utf8(bytes).map_err(|_| ConfError::unusable(&path.display().to_string(), "it is not UTF-8"))
}

/// The directory a file really lies in, and its name there.
pub(crate) fn locate(path: &Path) -> Result<(Dir, String), ConfError> {
    let real = std::fs::canonicalize(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => ConfError::Missing { path: path.to_owned() },
        _ => PathError::new("open", path, cause).into(),
    })?;
    let name = real.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    match (real.parent(), name) {
        (Some(parent), Some(name)) => Ok((Dir::open(parent)?, name)),
        _ => Err(ConfError::unusable(&path.display().to_string(), "it is not a file with a name")),
    }
}

/// How to talk to supervisord, as supervisorctl reads it: `[supervisorctl]`, or the server's own section where that is
/// missing. `file` is for messages, `here` its directory, `environment` knows what `%(ENV_X)s` may name.
pub fn endpoint(text: &str, file: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, ConfError> {
    let label = file.display().to_string();
    let ini = Ini::parse(text).map_err(|cause| ConfError::Broken { file: label.clone(), cause })?;
    let here = file.parent().unwrap_or(Path::new("/"));
    let known = |name: &str| match name.strip_prefix("ENV_") {
        Some(variable) => environment(variable),
        None => (name == "here").then(|| here.display().to_string()),
    };
    let get = |section: &str, key: &str| {
        let expanded = ini.get(section, key).map(|value| expand(value, &known)).transpose();
        expanded.map_err(|why| ConfError::unusable(&label, format!("[{section}] {key}: {why}")))
    };
    let unix = get("unix_http_server", "file")?;
    let inet = get("inet_http_server", "port")?;
    let server = if unix.is_some() { "unix_http_server" } else { "inet_http_server" };
    let url = match (get("supervisorctl", "serverurl")?, unix, inet) {
        (Some(url), ..) => url,
        (None, Some(path), _) => format!("unix://{path}"),
        (None, None, Some(port)) => format!("http://{}", local(&port)),
        (None, None, None) => {
            return Err(ConfError::unusable(&label, "it has neither [unix_http_server] nor [inet_http_server]"));
        }
    };
    let (name, password) = (get("supervisorctl", "username")?, get("supervisorctl", "password")?);
    let login = match (name, password) {
        (None, None) => get(server, "username")?.zip(get(server, "password")?.filter(|p| !p.starts_with("{SHA}"))),
        (name, password) => name.zip(password),
    };
    Ok(Endpoint {
        address: address(&url).map_err(|why| ConfError::unusable(&label, format!("serverurl {url:?}: {why}")))?,
        login,
    })
}

fn address(url: &str) -> Result<Address, &'static str> {
    match url.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(Address::Unix(PathBuf::from(path))),
        Some(_) => Err("the path of its socket is not absolute"),
        None => HttpUrl::parse(url).map(Address::Http),
    }
}

/// `*:9001`, `:9001` and `9001` as a client has to say them.
fn local(port: &str) -> String {
    match port.rsplit_once(':') {
        Some(("" | "*" | "0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(_) => port.to_owned(),
        None => format!("127.0.0.1:{port}"),
    }
}

/// What a release declares to supervisord.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Its groups; a program in no `[group:x]` is a group of its own name. The programs of each, by name.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Its programs, by section.
    pub programs: BTreeMap<String, Program>,
}

/// A `[program:x]`, `[fcgi-program:x]` or `[eventlistener:x]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `x`
    pub name: String,
    /// Whom it runs as, if it says so. Without it, as whoever supervisord runs: often root.
    pub user: Option<String>,
    /// The file it stands in.
    pub file: String,
}

impl Declared {
    /// Whether a process of this group is the release's.
    pub fn owns(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Programs that do not say whom they run as.
    pub fn without_user(&self) -> impl Iterator<Item = &Program> {
        self.programs.values().filter(|program| program.user.is_none())
    }
}

/// Reads the release's files (name and text, in any order). Refused: sections of any other kind, which would change
/// supervisord itself or other programs; the same section twice, of which the last would silently win; groups of
/// programs that are not the release's.
pub fn declared<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Declared, ConfError> {
    let mut declared = Declared::default();
    let mut groups = Vec::new();
    for (file, text) in files {
        let ini = Ini::parse(text).map_err(|cause| ConfError::Broken { file: file.to_owned(), cause })?;
        for section in &ini.sections {
            let twice = || {
                let first = declared.programs.get(&section.name).map_or(file, |program| &program.file);
                ConfError::unusable(file, format!("[{}] is already declared in {first}", section.name))
            };
            match section.name.split_once(':') {
                Some(("program" | "fcgi-program" | "eventlistener", name)) => {
                    if declared.programs.contains_key(&section.name) {
                        return Err(twice());
                    }
                    let user = ini.get(&section.name, "user").map(str::to_owned);
                    let program = Program { name: name.trim().to_owned(), user, file: file.to_owned() };
                    declared.programs.insert(section.name.clone(), program);
                }
                Some(("group", name)) => {
                    if groups.iter().any(|(_, known, _)| known == name.trim()) {
                        return Err(twice());
                    }
                    let members = ini.get(&section.name, "programs").unwrap_or_default();
                    groups.push((file.to_owned(), name.trim().to_owned(), members.to_owned()));
                }
                _ => {
                    let why = "only program, group, fcgi-program and eventlistener belong into a release";
                    return Err(ConfError::unusable(
                        file,
                        format!("line {}: [{}]: {why}", section.line + 1, section.name),
                    ));
                }
            }
        }
    }
    declared.groups = gather(&declared.programs, &groups)?;
    Ok(declared)
}

fn gather(
    programs: &BTreeMap<String, Program>,
    groups: &[(String, String, String)],
) -> Result<BTreeMap<String, BTreeSet<String>>, ConfError> {
    let mut gathered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut grouped = BTreeSet::new();
    for (file, group, members) in groups {
        let members: BTreeSet<String> = members.split(',').map(|name| name.trim().to_owned()).collect();
        for member in &members {
            let section = ["program", "fcgi-program"].map(|kind| format!("{kind}:{member}"));
            let known = section.into_iter().find(|section| programs.contains_key(section));
            let unknown = || format!("[group:{group}] names {member:?}, which is not a program of this release");
            grouped.insert(known.ok_or_else(|| ConfError::unusable(file, unknown()))?);
        }
        gathered.insert(group.clone(), members);
    }
    for (section, program) in programs.iter().filter(|(section, _)| !grouped.contains(*section)) {
        if gathered.insert(program.name.clone(), BTreeSet::from([program.name.clone()])).is_some() {
            let message = format!("[{section}] makes a second group named {}", program.name);
            return Err(ConfError::unusable(&program.file, message));
        }
    }
    Ok(gathered)
}

/// The files a release has for supervisord, in the order it reads them. A link among them is an error: what it leads to
/// could change after it was checked. `release` without such files has none.
pub fn files_of(release: &Dir) -> Result<Vec<(String, String)>, ConfError> {
    let dir = match release.open_below(Path::new(DIRECTORY)) {
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let unreadable = |name: OsString| ConfError::unusable(&name.to_string_lossy(), "its name is not UTF-8");
    let named = |name: OsString| name.into_string().map_err(unreadable);
    let mut names: Vec<_> = dir.names()?.into_iter().filter(is_included).map(named).collect::<Result<_, _>>()?;
    names.sort_unstable();
    let text = |name: String| {
        let bytes = dir.read_file(&name, LONGEST)?.unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|_| ConfError::unusable(&name, "it is not UTF-8"))?;
        Ok((name, text))
    };
    names.into_iter().map(text).collect()
}

/// Whether the glob `*.conf` finds it.
fn is_included(name: &OsString) -> bool {
    name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".")
}

/// What the files of a release declare.
pub fn declared_in(release: &Dir) -> Result<Declared, ConfError> {
    let files = files_of(release)?;
    declared(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

#[cfg(test)]
mod tests;

//! The host's file and the recipe, read and checked: who may have written them, what they say, what follows from both.

use crate::directory::{Dir, PathError, kind};
use crate::layout::RECIPE;
use crate::recipe::{Fault, Settings, line_naming, merge, parse};
use nix::sys::stat::SFlag;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the host's files are: `<env>.toml` each.
pub const DIRECTORY: &str = "/etc/releasectl";
/// Programs that run the file they are given.
const INTERPRETERS: [&str; 8] = [".", "source", "sh", "bash", "dash", "python", "perl", "ruby"];
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file says something it may not.
    #[error("{}: {fault}", path.display())]
    Fault {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        fault: Fault,
    },
    /// The recipe of a release does.
    #[error("{}: {fault}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        fault: Fault,
    },
    /// A file, or its directory, could have been written by others.
    #[error("{} can be written by others than its owner and root: it {why}", path.display())]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// A link, which whoever may change its way could lead elsewhere.
    #[error("{} is a link, and the host's file must be the file itself", .0.display())]
    Link(PathBuf),
    /// It could not be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// None was named, and there is not exactly one.
    #[error("no environment was named, and {} has {} of them", DIRECTORY, .0.len())]
    WhichEnvironment(Vec<String>),
    /// The name cannot be an environment's.
    #[error("{0:?} cannot be an environment's name")]
    NotAName(String),
    /// No root anywhere.
    #[error("{} does not say where the tree is", .0.display())]
    NoRoot(PathBuf),
}

/// What was asked for on the command line or in the environment.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--env`.
    pub environment: Option<String>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The root where no file says one.
    pub fallback: Option<PathBuf>,
}

impl Wanted {
    /// The root if there is no file.
    fn without_file(&self) -> Option<&PathBuf> {
        self.root.as_ref().or(self.fallback.as_ref())
    }
}

/// One environment on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, if it has one.
    pub environment: Option<String>,
    /// The tree's root as it was given.
    pub root: PathBuf,
    /// Where the host's file is, if there is one.
    file: Option<PathBuf>,
    /// What is in it, for [`Config::with_recipe`].
    host: String,
    /// What the host's file says.
    pub settings: Settings,
}

impl Config {
    /// Finds and reads the host's file. With a root and neither environment nor file named, none is looked for.
    pub fn load(wanted: &Wanted) -> Result<Self, ConfigError> {
        let (environment, file) = locate(wanted)?;
        let Some(file) = file else {
            let root = wanted.without_file().cloned().unwrap_or_default();
            let settings = Settings::default();
            return Ok(Self { environment, root, file: None, host: String::new(), settings });
        };
        let text = read_trusted(&file)?;
        let fault = |fault| ConfigError::Fault { path: file.clone(), fault };
        let settings = parse(&text, false).map_err(fault)?;
        let root = [&wanted.root, &settings.root, &wanted.fallback].into_iter().flatten().next().cloned();
        let root = root.ok_or_else(|| ConfigError::NoRoot(file.clone()))?;
        Ok(Self { environment, root, file: Some(file), host: text, settings })
    }

    /// What the host's file and the recipe of `release` say together; the host wins.
    pub fn with_recipe(&self, release: &Dir) -> Result<Settings, ConfigError> {
        let Some(bytes) = release.read_file(RECIPE, LARGEST)? else { return Ok(self.settings.clone()) };
        let fault = |fault| ConfigError::Recipe { path: release.path().join(RECIPE), fault };
        let text = text(bytes).map_err(fault)?;
        parse(&text, true).map_err(fault)?;
        merge(&self.host, &text).map_err(fault)
    }
}

impl Config {
    /// Refuses hooks of the host's whose own file others than root and us could have written. One that is not there is
    /// told of when it is run.
    pub fn refuse_unsafe_hooks(&self) -> Result<(), ConfigError> {
        for file in self.settings.hooks.commands().flat_map(programs_in) {
            let Ok(file) = std::fs::canonicalize(file) else { continue };
            let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { continue };
            let dir = Dir::open(parent)?;
            refuse_writable(parent, &dir.own_stat()?, true)?;
            dir.stat(name)?.map_or(Ok(()), |stat| refuse_writable(&file, &stat, false))?;
        }
        Ok(())
    }

    /// What is wrong with the template, or the directory of templates, `name`: told with the file that names it, where the
    /// host wins, and the line.
    pub fn fault_naming(&self, release: &Dir, name: &str, message: String) -> Result<ConfigError, ConfigError> {
        if let (Some(file), Some(line)) = (&self.file, line_naming(&self.host, name)) {
            return Ok(ConfigError::Fault { path: file.clone(), fault: Fault { line, message } });
        }
        let recipe = text(release.read_file(RECIPE, LARGEST)?.unwrap_or_default()).unwrap_or_default();
        let line = line_naming(&recipe, name).unwrap_or_default();
        Ok(ConfigError::Recipe { path: release.path().join(RECIPE), fault: Fault { line, message } })
    }

    /// A sum of the host's file and the recipe of `release`, to see whether they have changed.
    pub fn sum(&self, release: &Dir) -> Result<String, ConfigError> {
        let mut text = self.host.clone().into_bytes();
        text.extend(release.read_file(RECIPE, LARGEST)?.unwrap_or_default());
        Ok(format!("{:08x}", crc32fast::hash(&text)))
    }
}

/// The environment's name and the file that describes it, if there is one.
fn locate(wanted: &Wanted) -> Result<(Option<String>, Option<PathBuf>), ConfigError> {
    let stem = |file: &Path| file.file_stem().and_then(OsStr::to_str).map(str::to_owned);
    match (&wanted.environment, &wanted.file) {
        (name, Some(file)) => Ok((name.clone().or_else(|| stem(file)), Some(file.clone()))),
        (Some(name), None) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return Err(ConfigError::NotAName(name.clone()));
            }
            let file = Path::new(DIRECTORY).join(format!("{name}.toml"));
            // With a root of its own an environment needs no file; one that cannot be looked at is there.
            let needed = wanted.without_file().is_none() || file.try_exists().unwrap_or(true);
            Ok((Some(name.clone()), needed.then_some(file)))
        }
        (None, None) if wanted.without_file().is_some() => Ok((None, None)),
        (None, None) => {
            let mut names: Vec<String> = configured()?.iter().filter_map(|file| stem(file)).collect();
            // Hidden files are an editor's or another program's own.
            names.retain(|name| !name.starts_with('.'));
            names.sort_unstable();
            match <[String; 1]>::try_from(names) {
                Ok([name]) => {
                    let file = Path::new(DIRECTORY).join(format!("{name}.toml"));
                    Ok((Some(name), Some(file)))
                }
                Err(names) => Err(ConfigError::WhichEnvironment(names)),
            }
        }
    }
}

fn configured() -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            return Err(PathError::new("read", Path::new(DIRECTORY), cause).into());
        }
        entries => entries.into_iter().flatten().flatten().map(|entry| entry.path()),
    };
    Ok(entries.filter(|path| path.extension() == Some(OsStr::new("toml"))).collect())
}

/// Reads a file that only root or the one who runs us can have written: it, and the directory it is in.
fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| ConfigError::Missing(path.to_owned()))?;
    let directory = std::fs::canonicalize(directory).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => PathError::new("open", path, cause).into(),
    })?;
    let dir = Dir::open(&directory)?;
    refuse_writable(dir.path(), &dir.own_stat()?, true)?;
    let Some(stat) = dir.stat(name)? else { return Err(ConfigError::Missing(path.to_owned())) };
    if kind(&stat) == SFlag::S_IFLNK {
        return Err(ConfigError::Link(path.to_owned()));
    }
    // What is no file is told as that: nobody is to change the mode of /dev/null.
    if kind(&stat) == SFlag::S_IFREG {
        refuse_writable(path, &stat, false)?;
    }
    let bytes = dir.read_file(name, LARGEST)?.ok_or_else(|| ConfigError::Missing(path.to_owned()))?;
    text(bytes).map_err(|fault| ConfigError::Fault { path: path.to_owned(), fault })
}

/// The files that a shell command runs: absolute paths of what may be executed, or is handed to an interpreter.
fn programs_in(command: &str) -> Vec<PathBuf> {
    let words: Vec<&str> = command.split(|c: char| c.is_whitespace() || "'\";|&()`".contains(c)).collect();
    let runs = |at: usize| {
        // Its options stand in between, its version at its end.
        let before = words[..at].iter().rfind(|word| !word.starts_with('-')).and_then(|word| word.rsplit('/').next());
        let name = before.map(|name| {
            if name == "." { name } else { name.trim_end_matches(|c: char| c == '.' || c.is_ascii_digit()) }
        });
        let handed = name.is_some_and(|name| INTERPRETERS.contains(&name));
        let found = std::fs::metadata(words[at]).ok().filter(std::fs::Metadata::is_file);
        found.is_some_and(|found| handed || found.permissions().mode() & 0o111 != 0)
    };
    (0..words.len()).filter(|at| words[*at].starts_with('/') && runs(*at)).map(|at| PathBuf::from(words[at])).collect()
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault { line: 0, message: "it is not UTF-8 text".to_owned() })
}

fn refuse_writable(path: &Path, stat: &nix::sys::stat::FileStat, sticky_will_do: bool) -> Result<(), ConfigError> {
    let own = nix::unistd::Uid::effective().as_raw();
    let sticky = sticky_will_do && stat.st_mode & 0o1000 != 0;
    let why = if stat.st_uid != 0 && stat.st_uid != own {
        format!("belongs to uid {}", stat.st_uid)
    } else if stat.st_mode & 0o022 != 0 && !sticky {
        format!("has mode {:04o}", stat.st_mode & 0o7777)
    } else {
        return Ok(());
    };
    Err(ConfigError::Unsafe { path: path.to_owned(), why })
}

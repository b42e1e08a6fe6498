//! `uv.lock`, `pylock.toml`, `pyproject.toml` and `uv.toml`: what in them concerns files of the release, and a lock as
//! requirements.

use super::local::{Asked, Place, is_dir, locate, read};
use super::{PythonError, Result};
use crate::directory::Dir;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const SETUPTOOLS: &str = "setuptools.build_meta";
/// Build backends that make an editable install from `pyproject.toml` alone, if it has nothing of [`BUILDS`].
const PLAIN_BACKENDS: [&str; 6] =
    [SETUPTOOLS, "hatchling.build", "flit_core.buildapi", "uv_build", "poetry.core.masonry.api", "pdm.backend"];
/// Tables by which those backends run code of the project, build extensions, or copy files of it even into an editable
/// install.
const BUILDS: [&[&str]; 17] = [
    &["tool", "setuptools", "ext-modules"],
    &["tool", "setuptools", "cmdclass"],
    &["tool", "setuptools", "data-files"],
    &["tool", "setuptools", "script-files"],
    &["tool", "setuptools_scm"],
    &["tool", "hatch", "build", "hooks"],
    &["tool", "hatch", "build", "force-include"],
    &["tool", "hatch", "build", "dev-mode-exact"],
    &["tool", "hatch", "build", "targets", "wheel", "hooks"],
    &["tool", "hatch", "build", "targets", "wheel", "force-include"],
    &["tool", "hatch", "build", "targets", "wheel", "shared-data"],
    &["tool", "hatch", "build", "targets", "wheel", "shared-scripts"],
    &["tool", "flit", "external-data"],
    &["tool", "uv", "build-backend", "data"],
    &["tool", "poetry", "build"],
    &["tool", "poetry", "scripts"],
    &["tool", "pdm", "build"],
];
/// Files beside `pyproject.toml` that those backends read or run unasked.
const BESIDE: [&str; 4] = ["setup.py", "setup.cfg", "hatch.toml", "pdm_build.py"];
/// Where they look for packages before they look beside it.
const SRC: &str = "src";

/// Takes in a uv project: its lock, its `pyproject.toml`, and what else of the release they install.
pub(super) fn uv_lock(asked: &mut Asked<'_>, file: &Path) -> Result<()> {
    let (path, lock) = open(asked, file)?;
    let project = path.parent().unwrap_or(Path::new("")).to_owned();
    asked.file("pyproject", &project.join("pyproject.toml"))?;
    for package in packages(&lock, "package") {
        let Some(source) = package.get("source").and_then(Value::as_table) else { continue };
        let of = |key: &str| source.get(key).and_then(Value::as_str);
        if let Some(at) = of("editable") {
            asked.local(&project.join(at), true, &path)?;
        } else if let Some(at) = of("virtual") {
            if let Place::Inside(at) = locate(asked.release, &project.join(at).join("pyproject.toml"))? {
                asked.file("pyproject", &at)?;
            }
        } else if let Some(at) = of("directory").or_else(|| of("path")) {
            asked.local(&project.join(at), false, &path)?;
        } else if let Some(at) = of("registry").filter(|at| !at.contains("://")) {
            match locate(asked.release, &project.join(at))? {
                Place::Inside(house) => asked.wheels(&house)?,
                _ => asked.bind(format!("{} looks for packages in {at}", path.display())),
            }
        }
    }
    Ok(())
}

/// Takes in a lock as PEP 751 defines it, and the files of the release it names.
pub(super) fn pylock(asked: &mut Asked<'_>, file: &Path) -> Result<()> {
    let (path, lock) = open(asked, file)?;
    let above = path.parent().unwrap_or(Path::new("")).to_owned();
    for package in packages(&lock, "packages") {
        let at = |key: &str| package.get(key).and_then(|source| source.get("path")?.as_str());
        if let Some(directory) = at("directory") {
            let editable = package.get("directory").and_then(|d| d.get("editable")?.as_bool()).unwrap_or(false);
            asked.local(&above.join(directory), editable, &path)?;
        }
        let wheels = package.get("wheels").and_then(Value::as_array).into_iter().flatten();
        let wheels = wheels.filter_map(|wheel| wheel.get("path")?.as_str());
        for named in [at("archive"), at("sdist"), at("vcs")].into_iter().flatten().chain(wheels) {
            asked.local(&above.join(named), false, &path)?;
        }
    }
    Ok(())
}

/// A pylock as requirements with hashes, for installers and wheelhouses that know no such files: what comes from an
/// index, by name, version, marker and hashes. `Err` says in words what cannot be put that way.
pub(super) fn as_requirements(release: &Dir, file: &Path) -> Result<Result<String, String>> {
    let Place::Inside(path) = locate(release, file)? else {
        return Err(PythonError::Outside { path: file.to_owned() });
    };
    let bytes = read(release, &path)?.unwrap_or_default();
    let lock = parse(&path, &bytes)?;
    let lines = packages(&lock, "packages").map(requirement).collect::<Result<Vec<_>, _>>();
    Ok(lines.map(|lines| lines.concat()))
}

/// One package of a pylock as a requirement.
fn requirement(package: &Table) -> Result<String, String> {
    let of = |key: &str| package.get(key).and_then(Value::as_str);
    let name = of("name").ok_or("it holds a package without a name")?;
    let version = of("version").ok_or_else(|| format!("{name} has no version"))?;
    let mut line = format!("{name}=={version}");
    if let Some(marker) = of("marker") {
        if marker.contains("extras") || marker.contains("dependency_groups") {
            return Err(format!("{name} depends on extras or dependency groups"));
        }
        let _ = write!(line, " ; {marker}");
    }
    let wheels = package.get("wheels").and_then(Value::as_array).into_iter().flatten();
    let hashes = wheels.chain(package.get("sdist")).filter_map(|file| file.get("hashes")?.get("sha256")?.as_str());
    let mut any = false;
    for hash in hashes {
        any = true;
        let _ = write!(line, " \\\n    --hash=sha256:{hash}");
    }
    line.push('\n');
    if any { Ok(line) } else { Err(format!("{name} is not from an index, or has no sha256")) }
}

/// Whether the project in the located directory is installed editable by what its `pyproject.toml` says and nothing
/// else: no `setup.py`, nothing dynamic, no extension, no build hook, no list of what lay there. That file is taken in.
pub(super) fn says_everything(asked: &mut Asked<'_>, directory: &Path) -> Result<bool> {
    let dir = asked.release.open_below(directory)?;
    for file in BESIDE {
        if dir.stat(file)?.is_some() {
            return Ok(false);
        }
    }
    if dir.stat("pyproject.toml")?.is_none() {
        return Ok(false);
    }
    let path = directory.join("pyproject.toml");
    let bytes = asked.file("project", &path)?;
    let src = is_dir(asked.release, &directory.join(SRC))?;
    if src {
        asked.piece("directory", &directory.join(SRC), b"");
    }
    Ok(is_plain(&parse(&path, &bytes)?, src))
}

/// The same by its text, and whether it has a directory `src`.
fn is_plain(project: &Table, src: bool) -> bool {
    let backend = at(project, &["build-system", "build-backend"]).and_then(Value::as_str);
    let own = at(project, &["build-system", "backend-path"]).is_some();
    let dynamic = at(project, &["project", "dynamic"]).and_then(Value::as_array).is_some_and(|names| !names.is_empty());
    let named = at(project, &["project", "name"]).is_some();
    let builds = BUILDS.iter().any(|path| at(project, path).is_some());
    let listed = backend == Some(SETUPTOOLS) && lists_what_it_finds(project, src);
    named && !own && !dynamic && !builds && !listed && backend.is_some_and(|backend| PLAIN_BACKENDS.contains(&backend))
}

/// Whether setuptools writes down which packages it finds, as it does unless it is told them, or all lie in one directory
/// of their own: one that the next release adds would not be found.
fn lists_what_it_finds(project: &Table, src: bool) -> bool {
    let of = |key: &str| at(project, &["tool", "setuptools", key]);
    let told = [of("packages"), of("py-modules")];
    if told.iter().flatten().any(|names| names.is_array()) {
        return false;
    }
    let below = |dirs: &[Value]| matches!(dirs, [Value::String(dir)] if Path::new(dir) != Path::new("."));
    let alone = match told[0] {
        Some(find) => find.get("find").and_then(|find| find.get("where")?.as_array()).is_some_and(|dirs| below(dirs)),
        None => src,
    };
    !alone || of("package-dir").is_some()
}

/// Takes in what uv is told in the release's own `uv.toml` and `pyproject.toml`, and the wheels it is sent to there.
pub(super) fn settings_of_uv(asked: &mut Asked<'_>) -> Result<()> {
    let file = Path::new("uv.toml");
    if let Some(bytes) = read(asked.release, file)? {
        asked.piece("uv.toml", file, &bytes);
        // One that cannot be understood is uv's to refuse, if there is a uv.
        let settings = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        settings.map_or(Ok(()), |settings| wheels_of_uv(asked, file, &settings))?;
    }
    let file = Path::new("pyproject.toml");
    let Place::Inside(path) = locate(asked.release, file)? else { return Ok(()) };
    let Some(bytes) = read(asked.release, &path)? else { return Ok(()) };
    let project = parse(&path, &bytes)?;
    let Some(settings) = at(&project, &["tool", "uv"]) else { return Ok(()) };
    // Not a format: only good for comparing.
    asked.piece("tool.uv", file, format!("{settings:?}").as_bytes());
    settings.as_table().map_or(Ok(()), |settings| wheels_of_uv(asked, file, settings))
}

/// Takes in the directories that uv's settings in `file` name beside or in place of an index.
fn wheels_of_uv(asked: &mut Asked<'_>, file: &Path, settings: &Table) -> Result<()> {
    let pip = settings.get("pip").and_then(Value::as_table);
    let named = [Some(settings), pip]
        .into_iter()
        .flatten()
        .flat_map(|table| ["find-links", "index-url", "extra-index-url"].into_iter().filter_map(|key| table.get(key)));
    let named = named.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    let indexes = packages(settings, "index").filter_map(|index| index.get("url"));
    for house in named.chain(indexes).filter_map(Value::as_str).filter(|house| !house.contains("://")) {
        match locate(asked.release, Path::new(house))? {
            Place::Inside(path) if is_dir(asked.release, &path)? => asked.wheels(&path)?,
            _ => asked.bind(format!("{} looks for packages in {house}", file.display())),
        }
    }
    Ok(())
}

fn open(asked: &mut Asked<'_>, file: &Path) -> Result<(PathBuf, Table)> {
    let path = match locate(asked.release, file)? {
        Place::Inside(path) => path,
        Place::Outside => return Err(PythonError::Outside { path: file.to_owned() }),
        Place::Absent => return Err(PythonError::Missing { path: file.to_owned(), named_by: None }),
    };
    let bytes = asked.file("lock", &path)?;
    let lock = parse(&path, &bytes)?;
    Ok((path, lock))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Table> {
    let wrong = |cause: String| PythonError::Malformed { path: path.to_owned(), cause };
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    text.parse().map_err(|e: toml::de::Error| wrong(e.message().to_owned()))
}

fn packages<'t>(lock: &'t Table, key: &str) -> impl Iterator<Item = &'t Table> {
    lock.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table)
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn an_editable_project_is_plain_only_if_its_file_says_everything() {
        let head = "[project]\nname = 'x'\nversion = '1'\n";
        let plain = format!("{head}[build-system]\nbuild-backend = 'hatchling.build'\n");
        let is_plain = |text: &str| is_plain(&table(text), false);
        assert!(is_plain(&plain));
        assert!(!is_plain(head), "the default backend may run setup.py");
        assert!(!is_plain(&format!("{plain}[tool.hatch.build.hooks.vcs]\n")));
        assert!(!is_plain(&format!("{plain}[tool.hatch.build.targets.wheel.shared-data]\n")), "copied");
        assert!(!is_plain(&plain.replace("version = '1'", "dynamic = ['version']")));
        assert!(!is_plain(&plain.replace("hatchling.build", "maturin")));
    }

    #[test]
    fn what_setuptools_finds_by_itself_is_not_in_pyproject() {
        let says = |src: bool, more: &str| {
            let build = "[build-system]\nbuild-backend = 'setuptools.build_meta'\n";
            is_plain(&table(&format!("[project]\nname = 'x'\nversion = '1'\n{build}[tool.setuptools]\n{more}")), src)
        };
        assert!(says(true, "") && !says(false, ""));
        assert!(says(false, "packages = ['app']") && says(false, "py-modules = ['app']"));
        assert!(says(false, "packages.find.where = ['lib']"));
        for several in ["include = ['app*']", "where = ['.']", "where = ['a', 'b']"] {
            assert!(!says(true, &format!("packages.find.{several}")), "{several}");
        }
        assert!(!says(true, "package-dir = { app = 'code' }"));
    }

    #[test]
    fn a_pylock_becomes_requirements_with_hashes() {
        let lock = table(
            "[[packages]]\nname = 'six'\nversion = '1.16.0'\nmarker = \"python_version > '3'\"\n\
             sdist = { url = 'https://e/six.tar.gz', hashes = { sha256 = 'aa' } }\n\
             wheels = [{ url = 'https://e/six.whl', hashes = { sha256 = 'bb' } }]\n",
        );
        let lines: Vec<_> = packages(&lock, "packages").map(requirement).collect();
        let wanted = "six==1.16.0 ; python_version > '3' \\\n    --hash=sha256:bb \\\n    --hash=sha256:aa\n";
        assert_eq!(lines, [Ok(wanted.to_owned())]);
    }

    #[test]
    fn what_a_requirement_cannot_say_is_named() {
        let from = |text: &str| requirement(&table(text)).unwrap_err();
        assert!(from("name = 'x'\n[directory]\npath = '.'\n").contains("x has no version"));
        assert!(from("name = 'x'\nversion = '1'\nmarker = \"'dev' in dependency_groups\"\n").contains("groups"));
        assert!(from("name = 'x'\nversion = '1'\n[vcs]\nurl = 'https://e/x.git'\n").contains("not from an index"));
    }
}

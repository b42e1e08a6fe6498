//! A tree of releases in a temporary directory, packages made by hand so that no network is needed, and uv.

use releasectl::directory::Dir;
use releasectl::python::{self, Environment, Order, PythonError};
use releasectl::recipe::PythonTable;
use releasectl::tools::Tools;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The interpreter the tests are made for: the distribution's, with its venv module.
pub const PYTHON: &str = "/usr/bin/python3";

/// What installs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum With {
    Pip,
    Uv,
}

pub struct Sandbox {
    dir: TempDir,
    pub root: PathBuf,
    pub tools: Tools,
    pub path: Vec<PathBuf>,
}

impl Sandbox {
    pub fn new(with: With) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = dir.path().join("www/production");
        fs::create_dir_all(root.join("releases")).unwrap();
        fs::create_dir_all(dir.path().join("home")).unwrap();
        let mut path = vec![PathBuf::from("/usr/bin"), PathBuf::from("/bin")];
        if with == With::Uv {
            path.insert(0, uv().parent().unwrap().to_owned());
        }
        let mut sandbox = Self { dir, root, tools: tools(&[]), path };
        sandbox.look_in(None);
        sandbox
    }

    /// Puts a directory first on PATH.
    pub fn look_in(&mut self, first: Option<PathBuf>) {
        first.into_iter().for_each(|dir| self.path.insert(0, dir));
        let path = std::env::join_paths(&self.path).unwrap();
        let home = self.dir.path().join("home").into_os_string();
        self.tools = tools(&[("PATH", path), ("HOME", home), ("LANG", "C.UTF-8".into())]);
    }

    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a program there. Another process writes it: a file that this one has open for writing is open for a moment
    /// in every child that another test starts, and the kernel starts no program that is.
    pub fn install(&self, from: &Path, to: &Path) {
        assert!(Command::new("install").arg("-D").arg(from).arg(to).status().unwrap().success());
    }

    /// Puts a shell script there.
    pub fn script(&self, to: &Path, text: &str) {
        let draft = self.dir.path().join("draft");
        fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        self.install(&draft, to);
    }

    pub fn release(&self, id: &str) -> PathBuf {
        self.root.join("releases").join(id)
    }

    pub fn environment(&self, id: &str) -> PathBuf {
        self.release(id).join("python_env")
    }

    /// A release with these files.
    pub fn code(&self, id: &str, files: &[(&str, &str)]) -> &Self {
        for (name, text) in files {
            self.file(id, name, text.as_bytes());
        }
        fs::create_dir_all(self.release(id)).unwrap();
        self
    }

    pub fn file(&self, id: &str, name: &str, bytes: &[u8]) {
        let path = self.release(id).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A release that asks for `requirements` and has the usual wheels.
    pub fn offline_code(&self, id: &str, requirements: &str) -> PythonTable {
        self.code(id, &[("requirements.txt", requirements)]);
        for wheel in [hello("1.0"), hello("2.0"), greeting()] {
            self.file(id, &format!("wheelhouse/{}", wheel.file), &wheel.bytes);
        }
        PythonTable { wheelhouse: Some("wheelhouse".into()), ..PythonTable::default() }
    }

    /// Builds the release's environment; what was printed comes with it.
    pub fn try_build(
        &self,
        id: &str,
        table: &PythonTable,
        previous: &[&str],
    ) -> (Result<Environment, PythonError>, String) {
        let release = Dir::open(&self.release(id)).unwrap();
        let plan = match python::plan(&release, table) {
            Ok(plan) => plan.expect("nothing is asked for"),
            Err(error) => return (Err(error), String::new()),
        };
        let previous: Vec<Dir> = previous.iter().map(|id| Dir::open(&self.release(id)).unwrap()).collect();
        let cache = self.root.join(".releasectl/cache");
        let order = Order { plan: &plan, release: &release, previous: &previous, cache: &cache, tools: &self.tools };
        let mut printed = Vec::new();
        let built = python::build(&order, &mut |bytes| {
            printed.extend_from_slice(bytes);
            Ok(())
        });
        let built = built.and_then(|built| built.finish(&release));
        (built, String::from_utf8_lossy(&printed).into_owned())
    }

    pub fn build(&self, id: &str, table: &PythonTable, previous: &[&str]) -> Environment {
        let (built, printed) = self.try_build(id, table, previous);
        built.unwrap_or_else(|error| panic!("{error}\n{printed}"))
    }

    /// Runs a program of the release's environment and returns what it prints.
    pub fn run(&self, id: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.outcome(id, program, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn outcome(&self, id: &str, program: &str, arguments: &[&str]) -> Output {
        let program = self.environment(id).join("bin").join(program);
        Command::new(&program).args(arguments).env_clear().current_dir("/").output().unwrap()
    }
}

/// Which Python the host's own is: `3.11`.
pub fn minor() -> &'static str {
    static MINOR: OnceLock<String> = OnceLock::new();
    MINOR.get_or_init(|| {
        let asked = Command::new(PYTHON).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).output();
        String::from_utf8(asked.unwrap().stdout).unwrap().trim().to_owned()
    })
}

/// Where packages lie in an environment.
pub fn site() -> PathBuf {
    PathBuf::from(format!("lib/python{}/site-packages", minor()))
}

/// The bytecode of the module `name`, from the directory that it lies in.
pub fn bytecode(name: &str) -> String {
    format!("__pycache__/{name}.cpython-{}.pyc", minor().replace('.', ""))
}

fn tools(environment: &[(&str, std::ffi::OsString)]) -> Tools {
    // uv leaves its lock there.
    let temporary = ("TMPDIR".into(), env!("CARGO_TARGET_TMPDIR").into());
    let own = environment.iter().map(|(name, value)| (name.into(), value.clone()));
    Tools::new(std::iter::once(temporary).chain(own), false)
}

/// uv, installed from PyPI once and kept in `target/test-cache`.
pub fn uv() -> &'static Path {
    static UV: OnceLock<PathBuf> = OnceLock::new();
    UV.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-cache");
        let uv = cache.join("uv/bin/uv");
        if !uv.exists() {
            fs::create_dir_all(&cache).unwrap();
            let fresh = tempfile::tempdir_in(&cache).unwrap();
            let venv = fresh.path().join("uv");
            let mut make = Command::new(PYTHON);
            assert!(make.args(["-m", "venv"]).arg(&venv).status().unwrap().success());
            let mut install = Command::new(venv.join("bin/pip"));
            let installed = install.args(["--quiet", "install", "uv"]).status().unwrap().success();
            assert!(installed, "uv cannot be installed from PyPI");
            // Somebody else may have been faster; theirs is as good.
            let _ = fs::rename(&venv, cache.join("uv"));
        }
        uv
    })
}

/// A wheel.
pub struct Wheel {
    pub file: String,
    pub bytes: Vec<u8>,
}

impl Wheel {
    /// A pure wheel of these files, its metadata made up.
    pub fn new(name: &str, version: &str, metadata: &str, files: &[(&str, &str)]) -> Self {
        let own = format!("{name}-{version}.dist-info");
        let mut all: Vec<(String, String)> = files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let head = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}");
        all.push((format!("{own}/METADATA"), head));
        all.push((
            format!("{own}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n".into(),
        ));
        let mut record: String = all.iter().map(|(name, _)| format!("{name},,\n")).collect();
        record.push_str(&format!("{own}/RECORD,,\n"));
        all.push((format!("{own}/RECORD"), record));
        Self { file: format!("{name}-{version}-py3-none-any.whl"), bytes: zip(&all) }
    }

    pub fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// It as a requirement with its hash.
    pub fn pinned(&self) -> String {
        let mut parts = self.file.split('-');
        let (name, version) = (parts.next().unwrap(), parts.next().unwrap());
        format!("{name}=={version} --hash=sha256:{}\n", self.sha256())
    }
}

/// A package with a console script, a script of its own, a file that is no Python, and a dependency.
pub fn hello(version: &str) -> Wheel {
    let code = format!(
        "import sys\nfrom greeting import greet\n\n\ndef main():\n    print(greet('{version}'), sys.prefix, sys.argv[0], __file__)\n\n\n\
         def where():\n    return where.__code__.co_filename\n"
    );
    let data = format!("hello-{version}.data/scripts/hello-raw.py");
    Wheel::new(
        "hello",
        version,
        "Requires-Dist: greeting\n",
        &[
            ("hello/__init__.py", &code),
            ("hello/template.py", "this is {{ no }} python\n"),
            (&format!("hello-{version}.dist-info/entry_points.txt"), "[console_scripts]\nhello = hello:main\n"),
            (&data, "#!python\nimport sys\nprint(sys.prefix)\n"),
        ],
    )
}

pub fn greeting() -> Wheel {
    Wheel::new("greeting", "1.0", "", &[("greeting.py", "def greet(name):\n    return 'hello ' + name\n")])
}

/// A zip file, nothing compressed.
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let at = u32::try_from(bytes.len()).unwrap();
        let size = u32::try_from(text.len()).unwrap();
        let crc = crc32fast::hash(text.as_bytes());
        let mut common = Vec::new();
        // Version, flags, stored, 1980-01-01.
        [20u16, 0, 0, 0, 0x21].iter().for_each(|n| common.extend_from_slice(&n.to_le_bytes()));
        [crc, size, size].iter().for_each(|n| common.extend_from_slice(&n.to_le_bytes()));
        common.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&common);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(text.as_bytes());
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        let mode = if name.contains(".data/scripts/") { 0o100_755u32 } else { 0o100_644 };
        directory.extend_from_slice(&(mode << 16).to_le_bytes());
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, count) = (u32::try_from(bytes.len()).unwrap(), u16::try_from(files.len()).unwrap());
    let size = u32::try_from(directory.len()).unwrap();
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    [count, count].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    [size, at].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// Everything below a directory by its relative path: inode, mode, time, and content or link target.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u64, u32, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let stat = entry.path().symlink_metadata().unwrap();
        let content = match stat.file_type() {
            kind if kind.is_symlink() => fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes(),
            kind if kind.is_file() => fs::read(entry.path()).unwrap(),
            _ => Vec::new(),
        };
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        all.insert(path, (stat.ino(), stat.permissions().mode(), stat.mtime(), stat.mtime_nsec(), content));
    }
    all
}

/// The files below `root` in which `text` occurs.
pub fn naming(root: &Path, text: &Path) -> Vec<PathBuf> {
    let finder = memchr::memmem::Finder::new(text.as_os_str().as_encoded_bytes());
    let named = |(path, (.., content)): (PathBuf, (u64, u32, i64, i64, Vec<u8>))| finder.find(&content).map(|_| path);
    snapshot(root).into_iter().filter_map(named).collect()
}

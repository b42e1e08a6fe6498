//! Packages from PyPI and uv, fetched once and kept in `target/test-cache`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The distribution's interpreter, with its venv module.
const PYTHON: &str = "/usr/bin/python3";

fn cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-cache");
    fs::create_dir_all(&cache).unwrap();
    cache
}

fn runs(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes `cache/<name>` by `make` in a directory of its own, unless it is there.
fn kept(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let kept = cache().join(name);
    if !kept.exists() {
        let fresh = tempfile::tempdir_in(cache()).unwrap();
        let made = fresh.path().join("made");
        make(&made);
        // Somebody else may have been faster; theirs is as good.
        let _ = fs::rename(&made, &kept);
    }
    kept
}

/// The directory that holds uv.
pub fn uv() -> &'static Path {
    static UV: OnceLock<PathBuf> = OnceLock::new();
    UV.get_or_init(|| {
        let venv = kept("uv", |made| {
            runs(Command::new(PYTHON).args(["-m", "venv"]).arg(made));
            runs(Command::new(made.join("bin/pip")).args(["--quiet", "install", "uv"]));
        });
        venv.join("bin")
    })
}

/// Wheels of Django, gunicorn and celery, and of all they want.
fn wheels() -> &'static Path {
    static WHEELS: OnceLock<PathBuf> = OnceLock::new();
    WHEELS.get_or_init(|| {
        kept("wheels", |made| {
            let venv = made.with_extension("venv");
            runs(Command::new(PYTHON).args(["-m", "venv"]).arg(&venv));
            let mut download = Command::new(venv.join("bin/pip"));
            runs(download.args(["--quiet", "download", "--dest"]).arg(made).args(["Django", "gunicorn", "celery"]));
        })
    })
}

/// Puts the wheels of these packages into `house`, all of them if none is named. Returns their files.
pub fn wheelhouse(packages: &[&str], house: &Path) -> Vec<PathBuf> {
    fs::create_dir_all(house).unwrap();
    let wanted = |name: &str| packages.is_empty() || packages.iter().any(|p| name.starts_with(&format!("{p}-")));
    let files = fs::read_dir(wheels()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|file| wanted(file.file_name().unwrap().to_str().unwrap())).collect();
    assert!(!files.is_empty(), "{packages:?}");
    files
        .iter()
        .map(|file| {
            let own = house.join(file.file_name().unwrap());
            fs::copy(file, &own).unwrap();
            own
        })
        .collect()
}

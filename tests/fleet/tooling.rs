//! Ansible, its lints and Fabric, from PyPI; fetched once and kept in `target/test-cache`.

use crate::world::done;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What is fetched; a change of it fetches anew. The lints are held to one version, whose rules are known to hold.
const WANTED: [&str; 3] = ["ansible-core==2.19.*", "ansible-lint==26.10.1", "fabric==3.2.*"];

/// The directory of their programs.
pub fn orchestrators() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-cache");
        fs::create_dir_all(&cache).unwrap();
        // Made where it stays, since its programs name their interpreter; by one process at a time.
        let (venv, lock) = (cache.join("orchestrators"), fs::File::create(cache.join("orchestrators.lock")).unwrap());
        lock.lock().unwrap();
        let (made, wanted) = (venv.join("made-of"), format!("{WANTED:?} in {}", venv.display()));
        if fs::read_to_string(&made).unwrap_or_default() != wanted {
            let _ = fs::remove_dir_all(&venv);
            done(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
            done(Command::new(venv.join("bin/pip")).args(["--quiet", "install"]).args(WANTED));
            fs::write(&made, wanted).unwrap();
        }
        venv.join("bin")
    })
}

/// The package that is installed on the hosts.
#[track_caller]
pub fn package() -> PathBuf {
    let packages = Path::new(env!("CARGO_BIN_EXE_releasectl")).ancestors().nth(2).unwrap().join("packages");
    let files = fs::read_dir(&packages).into_iter().flatten().map(|entry| entry.unwrap().path());
    let package = files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "deb"));
    package.unwrap_or_else(|| panic!("{} holds no .deb: run packaging/build", packages.display()))
}

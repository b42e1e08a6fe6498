//! Power is cut while a python_env is made: what a resumed build takes as it is has something in every file, and would not
//! if the environment were not synced before it is on record.

use super::mutants;
use super::real::cut_power;
use crate::disk::{Kind, alone, command, mount_image, unmount};
use crate::lab::as_root_or_left_out;
use crate::sandbox::{PROGRAM, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;

/// The programs of a release's environment by name, each with its length.
fn programs(disk: &Sandbox, id: &str) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(disk.release(id).join("python_env/bin")).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::metadata(entry.path()).unwrap().len())).collect()
}

/// Code whose environment is the last that is made of it, and code that has a step after it.
const CODES: [&str; 2] = ["code", "stepping"];

/// Cuts power before the syncfs of that number of a build of `code`, in which a sync is left out, and resumes it.
/// Whether its environment is whole then; nothing if the build came to its end.
fn cut(disk: &Sandbox, code: &str, left_out: &str, number: usize) -> Option<bool> {
    // As long as `whole`: an environment's programs name their release.
    let (id, code) = (format!("{}-{number}", &code[..3]), disk.beside(code));
    let code = code.to_str().unwrap();
    command(disk, "sync", &["--file-system", disk.root().to_str().unwrap()]);
    let fault = format!("inject=syncfs:signal=SIGKILL:when={number}");
    let mut strace = disk.clean("strace");
    // Only the program itself: followed into Python, which has its time to answer, strace would take it all.
    strace.env("RELEASECTL_LEAVE_OUT", left_out).args(["-qq", "-o", "/dev/null", "-e", "trace=syncfs", "-e", &fault]);
    strace.arg(PROGRAM).arg("--root").arg(disk.root()).args(["create", code, "--id", &id]);
    let output = strace.output().unwrap();
    if output.status.success() {
        return None;
    }
    assert_eq!(output.status.signal(), Some(9), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
    cut_power(disk);
    disk.done(&["create", code, "--resume", &id]);
    Some(programs(disk, &id) == programs(disk, "whole"))
}

/// Does `act` with a disk on which a release was built whole.
fn on_a_disk(act: impl FnOnce(&Sandbox) + Send) {
    if !as_root_or_left_out("power cuts of a python_env") {
        return;
    }
    alone(|| {
        let disk = Sandbox::new();
        mount_image(&disk, Kind::Ext4, None);
        for name in CODES {
            let code = disk.beside(name);
            fs::create_dir(&code).unwrap();
            fs::write(code.join("requirements.txt"), "# nothing but what comes with every environment\n").unwrap();
        }
        let step = "[[step]]\nname = \"step\"\nphase = \"create\"\nrun = \"true\"\n";
        fs::write(disk.beside("stepping/releasectl.toml"), step).unwrap();
        disk.done(&["create", disk.beside("code").to_str().unwrap(), "--id", "whole"]);
        act(&disk);
        unmount(&disk.root());
    });
}

#[test]
fn p13_what_a_resumed_build_takes_as_it_is_was_on_the_disk() {
    on_a_disk(|disk| {
        for (code, least) in CODES.into_iter().zip([2, 4]) {
            let cut = |number| cut(disk, code, "none", number);
            let cuts: Vec<bool> = (1..).map_while(cut).collect();
            assert!(cuts.iter().all(|whole| *whole), "{code}: {cuts:?}");
            assert!(cuts.len() >= least, "{code}: there were {}", cuts.len());
        }
    });
}

#[test]
fn p13_it_would_not_be_without_the_sync_before_the_record() {
    let place = mutants::place_of("src/python/record.rs", "sync_file_system");
    on_a_disk(|disk| {
        let mut cuts = (1..).map_while(|number| cut(disk, CODES[1], &place, number));
        let lost = cuts.position(|whole| !whole);
        let _ = writeln!(std::io::stderr(), "power: without {place} an environment is lost by cut {lost:?}");
        assert!(lost.is_some());
    });
}

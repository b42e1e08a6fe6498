//! Power is cut while a python_env is made: what a resumed build takes as it is has something in every file.

use super::real::cut_power;
use crate::disk::{Kind, alone, command, mount_image};
use crate::lab::as_root_or_left_out;
use crate::sandbox::Sandbox;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// The programs of a release's environment by name, each with its length.
fn programs(disk: &Sandbox, id: &str) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(disk.release(id).join("python_env/bin")).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::metadata(entry.path()).unwrap().len())).collect()
}

/// Cuts power before the sync of that number of a build whose environment is linked, and resumes it. Whether the build
/// came that far.
fn cut(disk: &Sandbox, code: &Path, sync: usize) -> bool {
    let (id, code) = (format!("cut-{sync}"), code.to_str().unwrap());
    command(disk, "sync", &["--file-system", disk.root().to_str().unwrap()]);
    let fault = format!("syncfs:signal=SIGKILL:when={sync}");
    let output = disk.faulty(&fault, &["create", code, "--id", &id]).output().unwrap();
    if output.status.success() {
        return false;
    }
    assert_eq!(output.status.signal(), Some(9), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
    cut_power(disk);
    disk.done(&["create", code, "--resume", &id]);
    assert_eq!(programs(disk, &id), programs(disk, "whole"), "{fault}");
    true
}

#[test]
fn p13_what_a_resumed_build_takes_as_it_is_was_on_the_disk() {
    if !as_root_or_left_out("power cuts of a python_env") {
        return;
    }
    alone(|| {
        let disk = Sandbox::new();
        mount_image(&disk, Kind::Ext4, None);
        let code = disk.beside("code");
        fs::create_dir(&code).unwrap();
        fs::write(code.join("requirements.txt"), "# nothing but what comes with every environment\n").unwrap();
        disk.done(&["create", code.to_str().unwrap(), "--id", "whole"]);
        let cuts = (1..).take_while(|sync| cut(&disk, &code, *sync)).count();
        assert!(cuts >= 3, "there were {cuts}");
        command(&disk, "umount", &[disk.root().to_str().unwrap()]);
    });
}

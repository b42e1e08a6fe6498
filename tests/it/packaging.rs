//! The packages that `packaging/build` makes: what is in them, and what installing and removing them does.

use crate::lab::{as_root_or_left_out, in_mount_namespace};
use crate::sandbox::{PROGRAM, Sandbox};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package with this ending.
fn package(ending: &str) -> PathBuf {
    let packages = Path::new(PROGRAM).parent().and_then(Path::parent).unwrap().join("packages");
    let names = fs::read_dir(&packages).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|own| own == ending)).collect();
    assert_eq!(found.len(), 1, "{} must hold one .{ending}: run packaging/build", packages.display());
    found.remove(0)
}

/// What a program says on standard output; it must succeed and say nothing else.
#[track_caller]
fn said(program: &str, arguments: &[&str], file: &Path) -> String {
    // lintian leaves temporary files behind.
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(program).args(arguments).arg(file).env("TMPDIR", place.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{program}: {said}{errors}");
    said
}

#[test]
fn both_packages_bring_the_same_files_and_all_of_them_are_roots() {
    let deb = said("dpkg-deb", &["-c"], &package("deb"));
    let mut in_deb = BTreeSet::new();
    for line in deb.lines().filter(|line| !line.ends_with('/')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.last().unwrap().trim_start_matches('.').to_owned();
        let mode = if name == "/usr/bin/releasectl" { "-rwxr-xr-x" } else { "-rw-r--r--" };
        assert_eq!((fields[0], fields[1]), (mode, "root/root"), "{name}");
        in_deb.insert(name.replace("vendor-completions", "site-functions"));
    }
    let in_rpm: BTreeSet<String> = said("rpm", &["-qpl"], &package("rpm")).lines().map(str::to_owned).collect();
    let only: Vec<&String> = in_deb.symmetric_difference(&in_rpm).collect();
    let own = [
        "/usr/share/doc/releasectl/copyright",
        "/usr/share/licenses/releasectl/LICENSE",
        "/usr/share/lintian/overrides/releasectl",
    ];
    assert_eq!(only, own);
    for needed in [
        "/usr/bin/releasectl",
        "/etc/cron.d/releasectl",
        "/etc/releasectl/README",
        "/usr/lib/tmpfiles.d/releasectl.conf",
    ] {
        assert!(in_deb.contains(needed), "{needed}");
    }
    let shipped = |directory: &str| in_deb.iter().filter(|name| name.starts_with(directory)).count();
    assert_eq!((shipped("/usr/share/man/"), shipped("/usr/lib/systemd/system/")), (3, 2));
    assert!(shipped("/usr/share/doc/releasectl/examples/") >= 5);
    let keeps = said("rpm", &["-qp", "--configfiles"], &package("rpm"));
    assert_eq!(keeps, "/etc/cron.d/releasectl\n/etc/releasectl/README\n");
}

#[test]
fn lintian_and_rpm_have_nothing_to_say() {
    let deb = package("deb");
    assert_eq!(said("lintian", &["--allow-root", "--fail-on", "error,warning"], &deb), "");
    assert!(said("rpm", &["-K"], &package("rpm")).ends_with(": digests OK\n"));
    let version =
        said("dpkg-deb", &["-f"], &deb).lines().find_map(|line| line.strip_prefix("Version: ").map(str::to_owned));
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let changelog = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/changelog")).unwrap();
    assert!(
        changelog.starts_with(&format!("releasectl ({}) ", env!("CARGO_PKG_VERSION"))),
        "the changelog's newest entry"
    );
}

#[test]
fn completions_are_scripts_that_a_shell_reads() {
    let extracted = tempfile::tempdir().unwrap();
    let deb = package("deb");
    let status = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(extracted.path()).status().unwrap();
    assert!(status.success());
    let bash = extracted.path().join("usr/share/bash-completion/completions/releasectl");
    let asked = "source \"$0\"; COMP_WORDS=(releasectl roll); COMP_CWORD=1; _releasectl releasectl roll releasectl; echo ${COMPREPLY[@]}";
    assert_eq!(said("bash", &["--norc", "-c", asked], &bash), "rollback\n");
}

#[test]
fn install_upgrade_remove_and_purge_do_as_debian_policy_asks_and_never_touch_a_tree() {
    if !as_root_or_left_out("installing the package in a mount namespace") {
        return;
    }
    let sandbox = Sandbox::new();
    let room = sandbox.beside("room");
    fs::create_dir(&room).unwrap();
    let output = in_mount_namespace(&sandbox, include_str!("packaging.sh"), &[&package("deb"), &room]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
}

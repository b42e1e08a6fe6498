//! The include, judged by supervisord's own parser: exactly the files that were there and ours, and every byte back.

use crate::sandbox::{Sandbox, Version, run, sleeper};
use releasectl::directory::PathError;
use releasectl::supervisor::conf::edit::Wired;
use releasectl::supervisor::conf::{ConfError, wire};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

on_both_versions!(
    each_kind_of_file_is_read_with_our_line_and_comes_back_whole,
    any_path_is_read_back_as_itself,
    supervisord_starts_what_was_wired_and_forgets_what_was_unwired,
    copies_are_read_where_the_stock_file_looks,
);

/// What Debian's package installs.
const STOCK: &str = include_str!("stock.conf");

/// A directory like /etc/supervisor, with one file of the host's own in conf.d.
fn etc() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["conf.d", "more.d"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("own.conf"), format!("[program:{name}]\ncommand=x\n")).unwrap();
    }
    let config = dir.path().join("supervisord.conf");
    (dir, config)
}

/// A tree whose live release has one file for supervisord, and that file as supervisord will see it.
fn tree(at: &Path) -> PathBuf {
    let release = at.join("releases/a/services/supervisor");
    fs::create_dir_all(&release).unwrap();
    fs::write(release.join("web.conf"), "[program:web]\ncommand=x\n").unwrap();
    symlink("releases/a", at.join("current")).unwrap();
    at.join("current/services/supervisor/web.conf")
}

/// The files that supervisord includes, by its own account.
fn included(version: Version, config: &Path) -> Vec<PathBuf> {
    let script = "import sys; from supervisor.options import ServerOptions; o = ServerOptions(); o.realize(['-c', sys.argv[1]]); \
                  print('\\n'.join(o.parse_infos))";
    let said = run(Command::new(version.program("python3")).arg("-c").arg(script).arg(config));
    said.lines().filter_map(|line| line.split('"').nth(1)).map(PathBuf::from).collect()
}

fn texts(dir: &Path) -> Vec<String> {
    let at = dir.display();
    vec![
        STOCK.replace("/etc/supervisor", &at.to_string()).replace("/var/log/supervisor", &at.to_string()),
        "[supervisord] ; main\n[include] ; of the host\nfiles = conf.d/*.conf ; first\n; between\n\n    more.d/*.conf # second\n\n; end\n"
            .to_owned(),
        "[include]\r\nFiles: %(here)s/conf.d/*.conf\r\n\tmore.d/*.conf ; two\r\n[supervisord]\r\n".to_owned(),
        "[supervisord]\nnodaemon=true".to_owned(),
        "[supervisord]\nnodaemon=true\n\n\n".to_owned(),
        "[supervisord]\n[include]\nfiles = conf.d/*.conf".to_owned(),
        "[supervisord]\n[include]\n  files =\n\n     conf.d/*.conf\n".to_owned(),
    ]
}

fn each_kind_of_file_is_read_with_our_line_and_comes_back_whole(version: Version) {
    let (dir, config) = etc();
    let roots = ["production", "staging"].map(|name| dir.path().join(name));
    let [first, second] = roots.clone().map(|root| tree(&root));
    for text in texts(dir.path()) {
        fs::write(&config, &text).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        let before = included(version, &config);
        assert!(wire::wire(&config, &roots[0], "production").unwrap());
        assert_eq!(included(version, &config), [before.clone(), vec![first.clone()]].concat(), "{text}");
        assert!(!wire::wire(&config, &roots[0], "production").unwrap());
        assert_eq!(wire::status(&config, &roots[0], "production").unwrap(), Wired::Yes);
        assert!(wire::wire(&config, &roots[1], "staging").unwrap());
        assert_eq!(included(version, &config), [before.clone(), vec![first.clone(), second.clone()]].concat());
        assert!(wire::unwire(&config, "production").unwrap());
        assert_eq!(included(version, &config), [before.clone(), vec![second.clone()]].concat());
        assert!(wire::unwire(&config, "staging").unwrap());
        assert!(!wire::unwire(&config, "staging").unwrap());
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
        assert_eq!(fs::metadata(&config).unwrap().mode() & 0o7777, 0o640);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "nothing is left beside the file");
}

fn any_path_is_read_back_as_itself(version: Version) {
    for name in ["my app", "100%", "50%(here)s", "[x]*?", "a;b #c", "grüß\u{a0}gott", "x ;y"] {
        let (dir, config) = etc();
        let root = dir.path().join(name);
        let file = tree(&root);
        fs::write(&config, "[supervisord]\n[include]\nfiles = conf.d/*.conf\n").unwrap();
        wire::wire(&config, &root, "production").unwrap();
        let found = included(version, &config);
        assert_eq!(found[1..], [file], "{name}: {}", fs::read_to_string(&config).unwrap());
        assert_eq!(wire::status(&config, &root, "production").unwrap(), Wired::Yes);
    }
}

fn supervisord_starts_what_was_wired_and_forgets_what_was_unwired(version: Version) {
    let sandbox = Sandbox::new(version);
    let root = sandbox.path().join("www/third");
    fs::create_dir_all(root.join("releases")).unwrap();
    sandbox.make("third", "a", &sleeper("web", ""));
    sandbox.flip("third", "a");
    let supervisor = sandbox.supervisor();
    assert!(supervisor.client().reread().unwrap().added.is_empty());
    wire::wire(&sandbox.config(), &root, "third").unwrap();
    assert_eq!(supervisor.client().reread().unwrap().added, ["web"]);
    wire::unwire(&sandbox.config(), "third").unwrap();
    assert!(supervisor.client().reread().unwrap().added.is_empty());
}

fn copies_are_read_where_the_stock_file_looks(version: Version) {
    let (dir, config) = etc();
    fs::write(&config, "[supervisord]\n[include]\nfiles = conf.d/*.conf\n").unwrap();
    let copies = wire::directory_of_copies(&config);
    assert_eq!(copies, dir.path().join("conf.d"));
    let file = |name: &str| (format!("{name}.conf"), format!("[program:{name}]\ncommand=x\nuser=nosuchuser\n"));
    assert!(wire::install(&copies, "a", Some("root"), &[file("web"), file("worker")]).unwrap());
    assert!(wire::install(&copies, "a-b", Some("root"), &[file("other")]).unwrap());
    assert!(!wire::install(&copies, "a", Some("root"), &[file("web"), file("worker")]).unwrap());
    assert_eq!(included(version, &config).len(), 4);
    assert!(wire::install(&copies, "a", Some("root"), &[file("web")]).unwrap());
    let names: Vec<_> = included(version, &config).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["own.conf", "releasectl-a-b@other.conf", "releasectl-a@web.conf"]);
    let foreign = ("x.conf".to_owned(), "[supervisord]\n".to_owned());
    assert!(wire::install(&copies, "a", None, &[foreign]).is_err());
    assert!(wire::install(&copies, "a", None, &[]).unwrap());
    assert_eq!(included(version, &config).len(), 2);
}

#[test]
fn a_missing_a_read_only_and_an_ambiguous_file_are_said_to_be_so() {
    let (dir, config) = etc();
    let root = dir.path().join("production");
    let wire = || wire::wire(&config, &root, "production").unwrap_err();
    assert!(matches!(wire(), ConfError::Missing { path } if path == config));
    assert!(wire().hint().contains("is supervisor installed?"));
    let full = ConfError::from(PathError::new("write", &config, nix::errno::Errno::ENOSPC));
    assert!(full.hint().contains("make room"));
    fs::write(&config, "[include]\nfiles=a\n[supervisord]\n[include]\nfiles=b\n").unwrap();
    let error = wire().to_string();
    assert!(wire().hint().contains("correct that file"));
    assert!(error.contains("two [include]") && error.contains(config.to_str().unwrap()), "{error}");
    fs::write(&config, b"[supervisord]\n; \xff\n").unwrap();
    assert!(wire().to_string().contains("UTF-8"));
    fs::write(&config, "[supervisord]\n").unwrap();
    let immutable = |flag: &str| Command::new("chattr").arg(flag).arg(&config).status().is_ok_and(|s| s.success());
    if immutable("+i") {
        let error = wire();
        assert!(immutable("-i"));
        assert!(matches!(error, ConfError::ReadOnly { .. }), "{error}");
    }
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(&config, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(wire(), ConfError::ReadOnly { .. }));
    }
    assert_eq!(fs::read_to_string(&config).unwrap(), "[supervisord]\n");
}

#[test]
fn owner_and_mode_are_kept_and_a_link_stays_a_link() {
    let (dir, real) = etc();
    fs::write(&real, "[supervisord]\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o604)).unwrap();
    let owner = if nix::unistd::geteuid().is_root() { 12345 } else { nix::unistd::geteuid().as_raw() };
    nix::unistd::chown(&real, Some(owner.into()), None).unwrap();
    let link = dir.path().join("link.conf");
    symlink("supervisord.conf", &link).unwrap();
    wire::wire(&link, &dir.path().join("production"), "production").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let now = fs::metadata(&real).unwrap();
    assert_eq!((now.uid(), now.mode() & 0o7777), (owner, 0o604));
    assert!(fs::read_to_string(&real).unwrap().contains("; releasectl production"));
}

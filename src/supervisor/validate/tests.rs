use super::*;

fn report(files: &[(&str, &[&str])], groups: &[&str]) -> Report {
    let file = |(path, sections): &(&str, &[&str])| FileRead {
        path: path.into(),
        sections: sections.iter().map(|section| (*section).to_owned()).collect(),
    };
    let group = |name: &&str| Group { name: (*name).to_owned(), processes: Vec::new() };
    Report {
        absent: None,
        refused: None,
        files: files.iter().map(file).collect(),
        groups: groups.iter().map(group).collect(),
    }
}

fn verdict(report: &Report) -> Result<(), String> {
    let declared = conf::declared([("web.conf", "[program:web]\n")]).unwrap();
    let candidate =
        Candidate { root: Path::new("/w"), path: Path::new("/w/releases/a"), copies: None, unfinished: false };
    judge(report, Path::new("/etc/s.conf"), &candidate, &declared).map_err(|e| e.to_string())
}

const OWN: (&str, &[&str]) = ("/w/releases/a/services/supervisor/web.conf", &["program:web"]);

#[test]
fn a_candidate_is_good_if_its_groups_are_its_own() {
    let main: (&str, &[&str]) = ("/etc/s.conf", &["supervisord", "include"]);
    verdict(&report(&[main, OWN], &["web", "theirs"])).unwrap();
    let error = verdict(&report(&[main], &["theirs"])).unwrap_err();
    assert!(error.contains("/etc/s.conf does not include"), "{error}");
    let theirs: (&str, &[&str]) = ("/x/current/services/supervisor/web.conf", &["program:web"]);
    let error = verdict(&report(&[main, OWN, theirs], &["web"])).unwrap_err();
    assert!(error.contains("[program:web]") && error.contains("/x/current"), "{error}");
    let theirs: (&str, &[&str]) = ("/etc/conf.d/x.conf", &["group:web"]);
    assert!(verdict(&report(&[main, OWN, theirs], &["web"])).unwrap_err().contains("[group:web]"));
    assert!(verdict(&report(&[main, OWN], &["all"])).unwrap_err().contains("group web"));
    let refused = Report { refused: Some("no such user".into()), ..report(&[], &[]) };
    assert!(verdict(&refused).unwrap_err().contains("no such user"));
}

#[test]
fn the_interpreter_is_read_from_the_script() {
    let tree = tempfile::tempdir().unwrap();
    let tools = Tools::new(std::env::vars_os(), false);
    let dir = crate::directory::Dir::open(tree.path()).unwrap();
    let named = |text: &str| {
        dir.write_file("supervisord", text.as_bytes(), 0o755).unwrap();
        interpreter(&tree.path().join("supervisord"), &tools).map_err(|e| e.to_string())
    };
    assert_eq!(named("#!/usr/bin/python3\nimport re\n").unwrap(), Path::new("/usr/bin/python3"));
    assert_eq!(named("#! /opt/s/bin/python -I\n").unwrap(), Path::new("/opt/s/bin/python"));
    assert_eq!(named("#!/usr/bin/env sh\n").unwrap(), tools.find("sh").unwrap());
    let long = "#!/bin/sh\n'''exec' \"/very long/bin/python\" \"$0\" \"$@\"\n' '''\n";
    assert_eq!(named(long).unwrap(), Path::new("/very long/bin/python"));
    let bare = "#!/bin/sh\n'''exec' /very/long/bin/python \"$0\" \"$@\"\n";
    assert_eq!(named(bare).unwrap(), Path::new("/very/long/bin/python"));
    let of_uv = "#!/bin/sh\n'''exec' '/very long/bin/python' \"$0\" \"$@\"\n' '''\n";
    assert_eq!(named(of_uv).unwrap(), Path::new("/very long/bin/python"));
    let movable = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n";
    assert!(named(movable).is_err());
    dir.write_file("python", b"", 0o755).unwrap();
    assert_eq!(named(movable).unwrap(), tree.path().canonicalize().unwrap().join("python"));
    assert!(named("\x7fELF").is_err());
    assert!(named("#!/bin/sh\nexec supervisord\n").is_err());
}

//! `export`: what was built on one host becomes a release on another, right at its new path.

use crate::code::{read, step};
use crate::packages::wheelhouse;
use crate::sandbox::{Answer, PROGRAM, Sandbox};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// The tar of a release.
#[track_caller]
fn exported(tree: &Sandbox, id: &str) -> Vec<u8> {
    let output = tree.command(&["export", id]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Hands `tar` in on standard input, to the tree at `root`.
fn handed_in(tree: &Sandbox, root: &Path, tar: &[u8], words: &[&str]) -> Answer {
    let mut command = tree.clean(PROGRAM);
    command.arg("--root").arg(root).args(["create", "-"]).args(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may refuse before all of it is read.
    let _ = child.stdin.take().unwrap().write_all(tar);
    child.wait_with_output().unwrap().into()
}

#[track_caller]
fn created(answer: Answer) -> String {
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout.trim_end().to_owned()
}

/// The members of a tar: their names, and the content of the first.
fn members(tar: &[u8]) -> (Vec<String>, String) {
    let (mut names, mut first) = (Vec::new(), String::new());
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        if names.is_empty() {
            std::io::Read::read_to_string(&mut entry, &mut first).unwrap();
        }
        names.push(entry.path().unwrap().display().to_string());
    }
    (names, first)
}

/// The same tar with the content of its first member changed.
fn with_papers(tar: &[u8], change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let (_, first) = members(tar);
    let mut papers = serde_json::from_str(&first).unwrap();
    change(&mut papers);
    let rest = &tar[512 + first.len().next_multiple_of(512)..];
    let mut header = tar::Header::new_gnu();
    let text = papers.to_string();
    header.set_path(".releasectl-export.json").unwrap();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut made = header.as_bytes().to_vec();
    made.extend(text.as_bytes());
    made.resize(made.len().next_multiple_of(512), 0);
    made.extend(rest);
    made
}

fn recipe() -> String {
    let python = "[python]\nwheelhouse = 'wheelhouse'\n[shared]\ndirs = ['media', 'var/log']\nfiles = ['.env']\n";
    python.to_owned() + &step("compile", "create", "tell compiled; echo made >generated\n")
}

/// Django and gunicorn, whose script names its interpreter, built once by the recipe above.
fn built() -> Sandbox {
    let tree = Sandbox::laid_out();
    let source = tree.code("code", &recipe(), &[("requirements.txt", "gunicorn\n"), ("app/main.py", "print(1)\n")]);
    wheelhouse(&["gunicorn", "packaging"], &tree.beside("code/wheelhouse"));
    symlink("main.py", tree.beside("code/app/link.py")).unwrap();
    fs::write(tree.at("shared/.env"), "the password of this host\n").unwrap();
    tree.done(&["create", &source, "--id", "2026-11-22_23.40", "--keep-days", "3"]);
    tree
}

const ID: &str = "2026-11-22_23.40";

/// Files below `directory` that hold `text`, bytecode left out: Python puts the real path into what it loads.
fn naming(tree: &Sandbox, directory: &Path, text: &str) -> String {
    let mut grep = tree.clean("grep");
    let output = grep.args(["-rlF", "--exclude=*.pyc", "--", text]).arg(directory).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_was_built_once_runs_on_another_host_at_its_new_path() {
    let tree = built();
    let tar = exported(&tree, ID);
    assert_eq!(exported(&tree, ID), tar, "the same whenever it is written");
    let (names, papers) = members(&tar);
    assert_eq!(names[0], ".releasectl-export.json");
    assert!(papers.contains(r#""id":"2026-11-22_23.40""#), "{papers}");
    let foreign = |name: &&String| {
        name.starts_with(".releasectl/")
            || name.starts_with("KEEP_UNTIL")
            || name.starts_with("media")
            || *name == ".env"
    };
    assert_eq!(names.iter().find(foreign), None);
    let shared = tar.windows(16).any(|bytes| bytes == b"password of this");
    assert!(!shared, "what is shared does not travel");

    let other = tree.beside("another/host/srv");
    fs::create_dir_all(&other).unwrap();
    tree.clean(PROGRAM).arg("--root").arg(&other).arg("init").output().unwrap();
    fs::write(other.join("shared/.env"), "the password of that host\n").unwrap();
    let path = created(handed_in(&tree, &other, &tar, &[]));
    let release = other.join("releases").join(ID);
    assert_eq!(Path::new(&path), release, "the same id, since it is free");
    assert_eq!(tree.told(), ["compiled"], "a step that was done is not run again");
    assert_eq!(read(release.join("generated")), "made");
    assert_eq!(fs::read_link(release.join("app/link.py")).unwrap(), Path::new("main.py"));
    assert_eq!(read(release.join(".env")), "the password of that host");
    assert!(release.join("media").is_symlink() && release.join("var/log").is_dir());
    assert!(!release.join("KEEP_UNTIL__forever").exists());

    let environment = release.join("python_env");
    assert_eq!(naming(&tree, &environment, tree.root().to_str().unwrap()), "");
    let script = read(environment.join("bin/gunicorn"));
    assert!(script.starts_with(&format!("#!{}", environment.join("bin/python").display())), "{script}");
    let version = tree.clean(environment.join("bin/gunicorn")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains("gunicorn"), "{version:?}");
    let there = |words: &[&str]| {
        let mut command = tree.clean(PROGRAM);
        Answer::from(command.arg("--root").arg(&other).args(words).output().unwrap())
    };
    assert_eq!(there(&["verify", ID]).code, 0);
    assert_eq!(there(&["activate", ID]).code, 0);
    let said = there(&["exec", "--", "python", "-c", "import gunicorn; print(gunicorn.__file__)"]);
    assert!(said.stdout.starts_with(environment.to_str().unwrap()), "{}{}", said.stdout, said.stderr);
    assert_eq!(there(&["doctor"]).code, 0);
    let log = there(&["log", ID]).stdout;
    assert!(log.contains("export of 2026-11-22_23.40") && log.contains("Imported"), "{log}");

    // It serves the next release there like one that was built there, and can be handed on.
    let source = tree.beside("code").display().to_string();
    fs::write(tree.beside("code/app/main.py"), "print(2)\n").unwrap();
    fs::copy(tree.beside("shell"), other.with_file_name("shell")).unwrap();
    assert_eq!(there(&["create", &source, "--id", "next"]).code, 0);
    assert!(there(&["log", "next"]).stdout.contains("Linked"), "{}", there(&["log", "next"]).stdout);
    let mut again = tree.clean(PROGRAM);
    let again = again.arg("--root").arg(&other).args(["export", ID]).output().unwrap().stdout;
    assert_eq!(members(&again).0, names);
}

#[test]
fn on_the_same_host_and_compressed_it_is_another_release() {
    let tree = built();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&exported(&tree, ID)).unwrap();
    let path = created(handed_in(&tree, &tree.root(), &gzip.finish().unwrap(), &[]));
    assert_ne!(Path::new(&path), tree.release(ID), "its id is taken here");
    let script = read(Path::new(&path).join("python_env/bin/gunicorn"));
    assert!(script.starts_with(&format!("#!{path}/python_env/bin/python")), "{script}");
    tree.done(&["verify", Path::new(&path).file_name().unwrap().to_str().unwrap()]);
    fs::write(tree.beside("out.tar"), exported(&tree, ID)).unwrap();
    tree.done(&["create", "out.tar", "--id", "named", "--no-python"]);
    assert!(!tree.release("named").join("python_env").exists());
    tree.done(&["activate", "named"]);
}

#[test]
fn an_environment_that_does_not_fit_is_built_afresh() {
    let tree = built();
    let tar = exported(&tree, ID);
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 3] = [
        ("made with Python", |papers| papers["python"]["environment"]["python"] = "3.1.4".into()),
        ("links to /etc/passwd", |papers| papers["python"]["links"][0][1] = "/etc/passwd".into()),
        ("python_env/bin/out links to ", |papers| {
            let out = format!("{}/../../../../../../etc/passwd", papers["python"]["release"].as_str().unwrap());
            let links = papers["python"]["links"].as_array_mut().unwrap();
            links.push(serde_json::json!(["python_env/bin/out", out]));
        }),
    ];
    for (at, (why, change)) in changes.into_iter().enumerate() {
        let id = format!("R{at}");
        let answer = handed_in(&tree, &tree.root(), &with_papers(&tar, change), &["--id", &id]);
        assert!(answer.stderr.contains("does not fit here") && answer.stderr.contains(why), "{why}: {}", answer.stderr);
        created(answer);
        let environment = tree.release(&id).join("python_env");
        assert!(
            tree.clean(environment.join("bin/gunicorn")).arg("--version").output().unwrap().status.success(),
            "{why}"
        );
        assert_eq!(naming(&tree, &environment, tree.release(ID).to_str().unwrap()), "", "{why}");
        tree.done(&["verify", &id]);
    }
}

#[test]
fn p17_papers_that_lie_are_refused_by_name_and_nothing_is_left() {
    let tree = Sandbox::with_live(&["A"]);
    let tar = exported(&tree, "A");
    let before = tree.states();
    let python = |directory: &str| {
        serde_json::json!({
            "environment": {"directory": directory, "python": "3", "interpreter": "/x", "digest": "", "made": "built",
                            "installer": "pip", "packages": 0},
            "release": "/a", "resolved": "/a", "links": [],
        })
    };
    let lies: [Vec<u8>; 5] = [
        with_papers(&tar, |papers| papers["schema"] = 2.into()),
        with_papers(&tar, |papers| papers["id"] = "../../x".into()),
        with_papers(&tar, |papers| papers["python"] = python("../../../x")),
        with_papers(&tar, |papers| papers["python"] = python(".releasectl")),
        with_papers(&tar, |papers| *papers = "no papers".into()),
    ];
    for lie in &lies {
        let answer = handed_in(&tree, &tree.root(), lie, &[]);
        assert_eq!(answer.code, 1, "{}{}", answer.stdout, answer.stderr);
        assert!(answer.stderr.contains(".releasectl-export.json"), "{}", answer.stderr);
        assert_eq!(tree.states(), before);
    }
    // Papers that do not come first, or bring our own records, are hostile like any other.
    let late = crate::lab::tar_of(&[("version", b"x"), (".releasectl-export.json", b"{}")]);
    let mut records = tar[..tar.len() - 1024].to_vec();
    records.extend(crate::lab::tar_of(&[(".releasectl/release.json", b"{}")]));
    for (tar, name) in [(late, ".releasectl-export.json"), (records, ".releasectl/release.json")] {
        let answer = handed_in(&tree, &tree.root(), &tar, &["--id", "hostile"]);
        assert_eq!(answer.code, 1, "{}", answer.stderr);
        assert!(answer.stderr.contains(name) && answer.stderr.contains("releasectl's own"), "{}", answer.stderr);
        assert_eq!(tree.states()["hostile"], "incomplete");
        tree.done(&["remove", "hostile"]);
    }
    // One that is cut short, in its papers or after them, makes no release.
    for length in [100, 512, 700, tar.len() - 1200] {
        let answer = handed_in(&tree, &tree.root(), &tar[..length], &["--id", "short"]);
        assert_eq!(answer.code, 1, "{length}: {}", answer.stderr);
        assert_eq!(tree.states().get("short").map(String::as_str), Some("incomplete"), "{length}");
        tree.done(&["remove", "short"]);
    }
}

#[test]
fn a_link_to_what_is_shared_that_no_host_makes_is_not_left_out_in_silence() {
    let tree = Sandbox::new();
    let recipe = "[shared]\ndirs = ['media']\n\n".to_owned()
        + &step("link", "create", "ln -s ../../shared/local.py settings.py");
    let source = tree.code("code", &recipe, &[("version", "A\n")]);
    tree.done(&["deploy", &source]);
    let output = tree.command(&["export"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("settings.py links to shared/") && !said.contains("media"), "{said}");
}

#[test]
fn what_cannot_travel_is_refused() {
    let tree = Sandbox::with_live(&["A"]);
    fs::write(tree.beside("bad.tar"), [b'x'; 1024]).unwrap();
    tree.ends(1, &["create", "bad.tar", "--id", "B"]);
    tree.refused(&["export", "B"]);
    tree.refused(&["export", "not-there"]);
    let document = tree.json(&["export"]);
    assert_eq!(document["error"]["exit"], 2);
    symlink("/etc/hostname", tree.release("A").join("out")).unwrap();
    let output = tree.command(&["export"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\"out\"") && said.contains("/etc/hostname"), "{said}");
    // The other end of the pipe does not know how this one ended, only what came.
    let answer = handed_in(&tree, &tree.root(), &output.stdout, &["--id", "part"]);
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert_eq!(tree.states()["part"], "incomplete");
    fs::remove_file(tree.release("A").join("out")).unwrap();
    // What stands in the way of itself on a host that knows no case is taken by none.
    fs::write(tree.release("A").join("VERSION"), "A\n").unwrap();
    let output = tree.command(&["export"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("\"version\"") && said.contains("upper and lower case"), "{said}");
    fs::remove_file(tree.release("A").join("VERSION")).unwrap();
    // On a terminal.
    let line = format!("{PROGRAM} --root {} export", tree.root().display());
    let script = tree.clean("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    assert_eq!(script.status.code(), Some(3), "{}", String::from_utf8_lossy(&script.stdout));
    // A reader that goes away has no whole release, and is told so.
    fs::write(tree.release("A").join("large"), vec![b'x'; 1 << 20]).unwrap();
    let mut child: Command = tree.command(&["export"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let answer = Answer::from(child.wait_with_output().unwrap());
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert!(answer.stderr.contains("not whole"), "{}", answer.stderr);
}

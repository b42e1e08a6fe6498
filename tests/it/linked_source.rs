//! Files that a release has in common with the one before it: linked (`link = "hardlink"`) or copied, and only while they
//! are what was recorded of them.

use crate::sandbox::{Answer, Sandbox, picture};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// A tree whose host's file asks for links, and a repository with a commit, which has been made release A.
struct Linked {
    tree: Sandbox,
    repository: PathBuf,
}

impl Linked {
    fn new(link: &str) -> Self {
        let tree = Sandbox::new();
        fs::write(tree.beside("host.toml"), format!("root = '{}'\n[source]\nlink = '{link}'\n", tree.root().display()))
            .unwrap();
        let repository = tree.repository("app");
        let linked = Self { tree, repository };
        for number in 0..20 {
            linked.write(&format!("many/{}/file{number}", number % 3), &format!("{number}\n"));
        }
        linked.write("app/main.py", "main\n");
        linked.write("app/run", "#!/bin/sh\n");
        fs::set_permissions(linked.repository.join("app/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("main.py", linked.repository.join("app/link")).unwrap();
        linked.done(&["init"]);
        linked.create("A");
        linked
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.repository.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.tree.clean(crate::sandbox::PROGRAM);
        command.arg("--config").arg(self.tree.beside("host.toml")).args(words);
        command
    }

    fn done(&self, words: &[&str]) -> String {
        let answer: Answer = self.command(words).output().unwrap().into();
        assert_eq!(answer.code, 0, "{words:?}: {}", answer.stderr);
        answer.stdout
    }

    /// Commits what is there and makes it the release `id`.
    fn create(&self, id: &str) {
        self.tree.commit(&self.repository, id);
        self.done(&["create", self.repository.to_str().unwrap(), "--id", id]);
    }

    fn at(&self, id: &str, path: &str) -> PathBuf {
        self.tree.release(id).join(path)
    }

    fn inode(&self, id: &str, path: &str) -> u64 {
        fs::symlink_metadata(self.at(id, path)).unwrap().ino()
    }

    /// The release holds what `git archive` gives for HEAD, but for the write permissions that are taken.
    #[track_caller]
    fn is_head(&self, id: &str, taken: u32) {
        let place = tempfile::tempdir_in(self.tree.beside("")).unwrap();
        let script = "git -C \"$1\" archive HEAD | tar -x -C \"$2\"";
        let unpacked = self.tree.clean("sh").args(["-c", script, "sh"]).args([&self.repository, place.path()]).status();
        assert!(unpacked.unwrap().success());
        let picture = |directory: &Path, taken: u32| -> BTreeMap<PathBuf, String> {
            let entries = picture(directory).into_iter().filter(|(path, _)| !path.starts_with(".releasectl"));
            let entries = entries.map(|(path, shown)| {
                let (mode, rest) = shown.split_once(' ').unwrap();
                let mode = u32::from_str_radix(mode, 8).unwrap();
                let mode = if mode & 0o170_000 == 0o100_000 { mode & !taken } else { mode };
                (path, format!("{mode:o} {rest}"))
            });
            entries.collect()
        };
        assert_eq!(picture(&self.tree.release(id), 0), picture(place.path(), taken));
        self.done(&["verify", id]);
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

/// Sets a file's modification time back to what it was.
fn with_old_time(path: &Path, change: impl FnOnce()) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    change();
    set_time(path, time);
}

fn set_time(path: &Path, time: SystemTime) {
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

#[test]
fn unchanged_files_are_the_earlier_releases_own_and_nobody_may_write_to_any() {
    let linked = Linked::new("hardlink");
    linked.is_head("A", 0o222);
    linked.write("app/main.py", "changed\n");
    linked.write("app/new.py", "new\n");
    fs::rename(linked.repository.join("many/0/file0"), linked.repository.join("many/0/moved")).unwrap();
    fs::remove_file(linked.repository.join("many/1/file1")).unwrap();
    fs::set_permissions(linked.repository.join("many/2/file2"), fs::Permissions::from_mode(0o755)).unwrap();
    linked.create("B");
    linked.is_head("B", 0o222);
    for path in ["app/run", "many/0/file3", "version"] {
        assert_eq!(linked.inode("A", path), linked.inode("B", path), "{path}");
        assert_eq!(fs::metadata(linked.at("B", path)).unwrap().mode() & 0o222, 0, "{path}");
    }
    for path in ["app/main.py", "many/2/file2", "app/link"] {
        assert_ne!(linked.inode("A", path), linked.inode("B", path), "{path}");
    }
    assert_eq!(read(linked.at("A", "app/main.py")), "main\n");
    // The third has the second's, whose first names are gone then.
    linked.done(&["activate", "B"]);
    linked.done(&["remove", "A"]);
    linked.write("app/new.py", "newer\n");
    linked.create("C");
    linked.is_head("C", 0o222);
    assert_eq!(linked.inode("B", "app/run"), linked.inode("C", "app/run"));
    assert_eq!(fs::metadata(linked.at("C", "app/run")).unwrap().nlink(), 2);
    linked.done(&["verify", "B"]);
}

#[test]
fn what_is_no_longer_as_recorded_in_the_earlier_release_is_written_afresh() {
    for link in ["hardlink", "copy"] {
        let linked = Linked::new(link);
        let at = |path: &str| linked.at("A", path);
        let open = |path: &str| fs::set_permissions(at(path), fs::Permissions::from_mode(0o644)).unwrap();
        // Other content of the same length, the time put back: written in place, and another file in its place.
        open("many/0/file3");
        with_old_time(&at("many/0/file3"), || fs::write(at("many/0/file3"), "x\n").unwrap());
        with_old_time(&at("many/0/file6"), || {
            fs::write(at("another"), "y\n").unwrap();
            let mode = fs::metadata(at("many/0/file9")).unwrap().permissions();
            fs::set_permissions(at("another"), mode).unwrap();
            fs::rename(at("another"), at("many/0/file6")).unwrap();
        });
        set_time(&at("many/0/file9"), SystemTime::now());
        open("many/0/file12");
        fs::write(at("many/0/file12"), "something longer\n").unwrap();
        fs::remove_file(at("many/0/file15")).unwrap();
        symlink("/etc/hostname", at("many/0/file15")).unwrap();
        fs::remove_file(at("many/0/file18")).unwrap();
        fs::rename(at("many/1"), at("many/elsewhere")).unwrap();
        symlink("elsewhere", at("many/1")).unwrap();
        let before = picture(&linked.tree.release("A"));
        linked.create("B");
        let taken = if link == "hardlink" { 0o222 } else { 0 };
        linked.is_head("B", taken);
        assert_eq!(picture(&linked.tree.release("A")), before, "{link}: the earlier release is only read");
        let shared = linked.inode("A", "many/2/file2") == linked.inode("B", "many/2/file2");
        assert_eq!(shared, link == "hardlink");
    }
}

#[test]
fn attributes_are_obeyed_and_what_they_change_is_never_shared() {
    let linked = Linked::new("hardlink");
    linked.write("VERSION", "$Format:%H$\n");
    linked.write(".gitattributes", "VERSION export-subst\nmany/1 export-ignore\n*.txt eol=crlf\n");
    linked.write("a.txt", "one\ntwo\n");
    for id in ["B", "C"] {
        linked.write("app/main.py", id);
        linked.create(id);
        linked.is_head(id, 0o222);
    }
    assert!(!linked.at("C", "many/1").exists());
    assert_eq!(read(linked.at("C", "a.txt")), "one\r\ntwo\r\n");
    assert_ne!(read(linked.at("B", "VERSION")), read(linked.at("C", "VERSION")));
    assert_ne!(linked.inode("B", "app/run"), linked.inode("C", "app/run"));
    // Attributes that only describe files are no reason; nor are those of the next commit a reason for the last.
    linked.write(".gitattributes", "* text=auto\n*.py diff=python\n");
    linked.create("D");
    linked.is_head("D", 0o222);
    linked.create("E");
    assert_eq!(linked.inode("D", "app/run"), linked.inode("E", "app/run"));
}

#[test]
fn the_hosts_own_attributes_and_settings_count_as_they_do_for_git_archive() {
    let linked = Linked::new("copy");
    linked.write("a.txt", "one\n");
    linked.write(".gitattributes", "*.txt text\n");
    linked.create("B");
    assert_eq!(read(linked.at("B", "a.txt")), "one\n");
    fs::write(linked.tree.beside("home/.gitconfig"), "[core]\n\tautocrlf = true\n").unwrap();
    linked.create("C");
    linked.is_head("C", 0);
    assert_eq!(read(linked.at("C", "a.txt")), "one\r\n");
    fs::write(linked.tree.beside("home/.gitconfig"), "[tar]\n\tumask = 077\n").unwrap();
    linked.create("D");
    linked.is_head("D", 0);
    fs::remove_file(linked.tree.beside("home/.gitconfig")).unwrap();
    fs::create_dir_all(linked.tree.beside("home/.config/git")).unwrap();
    fs::write(linked.tree.beside("home/.config/git/attributes"), "version export-ignore\n").unwrap();
    linked.create("E");
    linked.is_head("E", 0);
    assert!(!linked.at("E", "version").exists());
}

#[test]
fn submodules_are_shared_too() {
    let linked = Linked::new("hardlink");
    let inner = linked.tree.repository("inner");
    let words = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--", "../inner", "extern/inner"];
    linked.tree.git(&linked.repository, &words);
    linked.create("B");
    linked.write("app/main.py", "later\n");
    linked.create("C");
    assert_eq!(linked.inode("B", "extern/inner/version"), linked.inode("C", "extern/inner/version"));
    fs::write(inner.join("version"), "2\n").unwrap();
    linked.tree.commit(&inner, "two");
    let module = linked.repository.join("extern/inner");
    linked.tree.git(&module, &["-c", "protocol.file.allow=always", "pull", "--quiet"]);
    linked.create("D");
    let version = |id| read(linked.at(id, "extern/inner/version"));
    assert_eq!((version("C"), version("D")), ("1\n".to_owned(), "2\n".to_owned()));
    linked.done(&["verify", "D"]);
}

#[test]
fn p13_a_linked_build_that_was_killed_is_resumed_to_the_same_tree() {
    let linked = Linked::new("hardlink");
    linked.write("app/main.py", "changed\n");
    linked.tree.commit(&linked.repository, "B");
    let mut killed = linked.tree.clean("strace");
    killed.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e", "inject=linkat:signal=SIGKILL:when=5"]);
    killed.arg(crate::sandbox::PROGRAM).arg("--config").arg(linked.tree.beside("host.toml"));
    let output = killed.args(["create", linked.repository.to_str().unwrap(), "--id", "B"]).output().unwrap();
    assert!(!output.status.success());
    let before = picture(&linked.tree.release("A"));
    linked.done(&["create", "--resume", "B"]);
    linked.is_head("B", 0o222);
    assert_eq!(linked.inode("A", "app/run"), linked.inode("B", "app/run"));
    assert_eq!(picture(&linked.tree.release("A")), before);
}

#[test]
fn a_hotfix_of_a_linked_release_has_its_commits_files_and_its_own_others() {
    let linked = Linked::new("hardlink");
    linked.done(&["activate", "A"]);
    fs::write(linked.at("A", "made-here"), "kept\n").unwrap();
    linked.write("app/main.py", "fixed\n");
    let fix = linked.tree.commit(&linked.repository, "fix");
    linked.done(&["hotfix", "--ref", &fix]);
    let live = linked.tree.live().unwrap();
    assert_eq!(read(linked.at(&live, "app/main.py")), "fixed\n");
    assert_eq!(read(linked.at(&live, "made-here")), "kept\n");
    assert_eq!(read(linked.at("A", "app/main.py")), "main\n");
    assert_ne!(linked.inode("A", "made-here"), linked.inode(&live, "made-here"));
    linked.done(&["verify", &live]);
    linked.write("app/main.py", "next\n");
    linked.create("C");
    linked.is_head("C", 0o222);
    assert_eq!(linked.inode(&live, "app/run"), linked.inode("C", "app/run"));
}

/// Writes a tree object of these entries, whatever git thinks of them, and a commit of it. Returns the commit.
fn raw_commit(tree: &Sandbox, repository: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let mut object = Vec::new();
    for (mode, name, hash) in entries {
        object.extend_from_slice(mode.as_bytes());
        object.push(b' ');
        object.extend_from_slice(name);
        object.push(0);
        object.extend((0..20).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()));
    }
    let mut git = tree.clean("git");
    git.current_dir(repository).args(["hash-object", "-t", "tree", "-w", "--literally", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(&object).unwrap();
    let said = git.wait_with_output().unwrap().stdout;
    let made = String::from_utf8(said).unwrap();
    tree.git(repository, &["commit-tree", "-m", "hostile", made.trim()])
}

#[test]
fn p17_a_hostile_repository_writes_nothing_outside_its_release_and_nothing_into_an_earlier_one() {
    let linked = Linked::new("hardlink");
    let outside = linked.tree.beside("outside");
    fs::create_dir(&outside).unwrap();
    let git = |words: &[&str]| linked.tree.git(&linked.repository, words);
    let blob = git(&["rev-parse", "HEAD:app/run"]);
    let inner = git(&["rev-parse", "HEAD:app"]);
    linked.write("to", &format!("{}", outside.display()));
    let link = git(&["hash-object", "-w", "to"]);
    fs::remove_file(linked.repository.join("to")).unwrap();
    let file = ("100644", blob.as_str());
    let one = |name: &'static [u8]| vec![(file.0, name, file.1)];
    let mut hostile: Vec<Vec<(&str, &[u8], &str)>> = vec![
        one(b".."),
        one(b".git"),
        one(b".GiT"),
        one(b".releasectl"),
        one(b"a/../../x"),
        one(b"/x"),
        vec![("40000", b"..", &inner)],
        vec![("40000", b".releasectl", &inner)],
        // The same name twice: files, and a link that leads out beside a directory of its name.
        vec![(file.0, b"run", file.1), (file.0, b"run", file.1)],
        vec![("120000", b"app", &link), ("40000", b"app", &inner)],
        vec![("40000", b"app", &inner), ("120000", b"app", &link)],
    ];
    hostile.push(vec![("40000", b"app", &inner), ("40000", b"app", &inner), (file.0, b"app", file.1)]);
    let earlier = picture(&linked.tree.release("A"));
    let around = |tree: &Sandbox| {
        let mut names: Vec<_> = fs::read_dir(tree.at("releases")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.retain(|name| name == OsStr::new("x") || name == OsStr::new("run"));
        names
    };
    for (number, entries) in hostile.iter().enumerate() {
        let commit = raw_commit(&linked.tree, &linked.repository, entries);
        git(&["update-ref", "refs/heads/hostile", &commit]);
        let id = format!("H{number}");
        let source = linked.repository.to_str().unwrap();
        let output = linked.command(&["create", source, "--ref", "hostile", "--id", &id]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{entries:?}: {said}");
        assert!(said.contains("error: "), "{entries:?}: {said}");
        assert!(picture(&outside).is_empty() && around(&linked.tree).is_empty(), "{entries:?}");
        assert_eq!(picture(&linked.tree.release("A")), earlier, "{entries:?}");
    }
}

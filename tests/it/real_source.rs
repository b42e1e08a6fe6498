//! A real application's history: Django's source distribution in git and ten commits on, each created and activated in
//! turn, each exactly what `git archive` gives.

use crate::sandbox::Sandbox;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DJANGO: &str = "Django-5.1.4.tar.gz";

/// The source distribution, fetched from PyPI once for all runs.
fn django() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let cache = target.join("test-cache");
    let file = cache.join(DJANGO);
    if !file.exists() {
        fs::create_dir_all(&cache).unwrap();
        // Tests that run beside this one, in this process or another, wait for its download.
        let lock = fs::File::create(cache.join("lock")).unwrap();
        fs2::FileExt::lock_exclusive(&lock).unwrap();
        if !file.exists() {
            download(&cache);
        }
    }
    file
}

fn download(cache: &Path) {
    let place = tempfile::tempdir_in(cache).unwrap();
    let words = "-m pip download --quiet --disable-pip-version-check --no-deps --no-binary Django Django==5.1.4 --dest";
    let output = Command::new("python3").args(words.split(' ')).arg(place.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "Django's source distribution cannot be had from PyPI, and is not cached:\n{said}"
    );
    fs::rename(place.path().join(DJANGO), cache.join(DJANGO)).unwrap();
}

/// Runs a program; it must succeed.
#[track_caller]
fn run(tree: &Sandbox, directory: &Path, words: &[&str]) {
    let output = tree.clean(words[0]).current_dir(directory).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What `git archive COMMIT | tar x` makes, with every submodule's own in its place.
fn expected(tree: &Sandbox, repository: &Path, commit: &str, into: &Path) {
    let mut archive = tree.clean("git");
    archive.current_dir(repository).args(["archive", "--format=tar", commit]).stdout(Stdio::piped());
    let mut archive = archive.spawn().unwrap();
    let mut tar = tree.clean("tar");
    tar.args(["-C", into.to_str().unwrap(), "-x"]).stdin(archive.stdout.take().unwrap());
    assert!(tar.status().unwrap().success() && archive.wait().unwrap().success());
    for line in tree.git(repository, &["ls-tree", "-r", "--full-tree", commit]).lines() {
        if let Some((hash, path)) = line.strip_prefix("160000 commit ").and_then(|rest| rest.split_once('\t')) {
            // Each submodule's repository lies beside the main one, under the last word of its path.
            let name = Path::new(path).file_name().unwrap().to_str().unwrap();
            expected(tree, &tree.beside(name), hash, &into.join(path));
        }
    }
}

/// Every entry: its mode, and its content, target or nothing; for files and links also their time.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut contents = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory).min_depth(1) {
        let entry = entry.unwrap();
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let content = if metadata.is_symlink() {
            fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
        } else if metadata.is_file() {
            let mut bytes = Vec::new();
            fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        } else {
            Vec::new()
        };
        // A directory's time is that of its last change, which is no part of a commit.
        let time = if metadata.is_dir() { 0 } else { metadata.mtime() };
        contents.insert(path.strip_prefix(directory).unwrap().to_owned(), (metadata.mode(), time, content));
    }
    contents
}

/// Creates and activates `commit`, and compares all of it.
fn deploy(tree: &Sandbox, repository: &Path, commit: &str, what: &str) {
    let document = tree.json(&["create", repository.to_str().unwrap(), "--ref", commit]);
    assert_eq!(document["release"]["revision"], commit, "{what}: {document}");
    let id = document["release"]["id"].as_str().unwrap();
    tree.done(&["activate", id]);
    assert_eq!(tree.live().as_deref(), Some(id));
    let place = tempfile::tempdir_in(tree.beside("")).unwrap();
    expected(tree, repository, commit, place.path());
    let mut ours = contents(&tree.at("current/"));
    ours.retain(|path, _| !path.starts_with(".releasectl"));
    let theirs = contents(place.path());
    let names = |of: &BTreeMap<PathBuf, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{what}");
    for (path, entry) in &theirs {
        assert!(ours[path] == *entry, "{what}: {}: {:?} and {:?}", path.display(), head(&ours[path]), head(entry));
    }
    tree.done(&["clean", "--keep", "1"]);
}

fn head((mode, time, content): &(u32, i64, Vec<u8>)) -> (u32, i64, String) {
    (*mode, *time, String::from_utf8_lossy(&content[..content.len().min(200)]).into_owned())
}

/// A repository for a submodule, with one inside it.
fn submodules(tree: &Sandbox) {
    for (name, inner) in [("deep", None), ("lib", Some("deep"))] {
        let repository = tree.repository(name);
        fs::write(repository.join("module.py"), format!("name = {name:?}\n")).unwrap();
        fs::write(repository.join(".gitattributes"), "module.py export-subst eol=crlf\nversion export-ignore\n")
            .unwrap();
        if let Some(inner) = inner {
            add_submodule(tree, &repository, &format!("../{inner}"), "vendor/deep");
        }
        tree.commit(&repository, "more");
    }
}

fn add_submodule(tree: &Sandbox, repository: &Path, url: &str, path: &str) {
    let words = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--force", "--", url, path];
    tree.git(repository, &words);
}

/// The work tree that the commits are made in.
struct Work<'a> {
    tree: &'a Sandbox,
    at: &'a Path,
}

impl Work<'_> {
    fn git(&self, words: &[&str]) {
        self.tree.git(self.at, words);
    }

    fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.at.join(path)).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.at.join(path)).unwrap();
    }
}

/// What each of the ten commits changes.
fn change(work: &Work<'_>, number: usize) -> &'static str {
    match number {
        1 => {
            work.write("django/__init__.py", "VERSION = (5, 1, 5)\n");
            work.write("blob.bin", (0..300_000_u32).map(|n| (n % 4099 * 31 / 8) as u8).collect::<Vec<_>>());
            "edits"
        }
        2 => {
            work.git(&["mv", "django/contrib/flatpages", "django/contrib/pages"]);
            work.git(&["mv", "README.rst", "READ ME é.rst"]);
            "renames"
        }
        3 => {
            ["setup.cfg", "django/shortcuts.py", "docs/conf.py"].iter().for_each(|path| work.mode(path, 0o755));
            work.mode("scripts/manage_translations.py", 0o644);
            "modes"
        }
        4 => {
            work.link("current", "django");
            work.link("docs/up", "../django/urls");
            work.link("gone", "not/there");
            work.link("etc", "/etc/hostname");
            "links"
        }
        5 => {
            work.git(&["rm", "-r", "--quiet", "docs/releases", "tests/gis_tests"]);
            "deletions"
        }
        6 => {
            work.write("VERSION", "$Format:%H %h %an %ad %s %D$ $Format:%(describe)$\n");
            let ignored = "js_tests export-ignore\n.github export-ignore\n";
            work.write(".gitattributes", format!("VERSION export-subst\n*.txt text eol=crlf\n{ignored}"));
            work.git(&["add", "--renormalize", "."]);
            "attributes"
        }
        later => change_more(work, later),
    }
}

fn change_more(work: &Work<'_>, number: usize) -> &'static str {
    match number {
        7 => {
            add_submodule(work.tree, work.at, "../lib", "extern/lib");
            add_submodule(work.tree, work.at, work.tree.beside("deep").to_str().unwrap(), "deep");
            "submodules"
        }
        8 => {
            let lib = work.tree.beside("lib");
            fs::write(lib.join("later.py"), "later = True\n").unwrap();
            let later = work.tree.commit(&lib, "later");
            work.git(&["-c", "protocol.file.allow=always", "-C", "extern/lib", "fetch", "--quiet"]);
            work.git(&["-C", "extern/lib", "checkout", "--quiet", &later]);
            work.write(format!("{}/{}", "d".repeat(120), "f".repeat(200)), "a long name\n");
            work.write("new\nline \"and\" tab\t", "an odd name\n");
            work.write(OsStr::from_bytes(b"latin-\xe9"), "");
            "a submodule moved on, and odd names"
        }
        9 => {
            work.remove("current");
            work.write("current/file", "a directory now\n");
            work.remove("gone");
            work.write("gone", "a file now\n");
            fs::remove_dir_all(work.at.join("scripts")).unwrap();
            work.link("scripts", "docs");
            "files, links and directories in each other's places"
        }
        _ => {
            work.git(&["mv", "extern/lib", "lib"]);
            work.git(&["rm", "--quiet", "--force", "deep"]);
            work.remove(".gitattributes");
            "submodules and attributes gone"
        }
    }
}

#[test]
fn ten_commits_of_django_are_byte_for_byte_what_git_archive_gives() {
    let archive = django();
    let tree = Sandbox::in_memory();
    tree.done(&["init"]);
    let repository = tree.beside("django");
    fs::create_dir(&repository).unwrap();
    run(&tree, &repository, &["tar", "-xzf", archive.to_str().unwrap(), "--strip-components=1", "--no-same-owner"]);
    tree.git(&repository, &["init", "--quiet", "--initial-branch=master"]);
    let first = tree.commit(&repository, "Django 5.1.4");
    assert!(tree.git(&repository, &["ls-files"]).lines().count() > 6500);
    tree.git(&repository, &["tag", "--annotate", "5.1.4", "--message", "5.1.4"]);
    submodules(&tree);
    deploy(&tree, &repository, &first, "as released");
    for number in 1..=10 {
        let what = change(&Work { tree: &tree, at: &repository }, number);
        let commit = tree.commit(&repository, what);
        deploy(&tree, &repository, &commit, what);
    }
    tree.done(&["verify"]);
    // What is live and what was before it are there; a rollback goes to the ninth.
    let ninth = tree.git(&repository, &["rev-parse", "HEAD~1"]);
    tree.done(&["rollback"]);
    assert_eq!(tree.json(&["show"])["release"]["revision"], ninth);
    assert_eq!(fs::read_link(tree.at("current/scripts")).unwrap(), Path::new("docs"));
}

//! `[shared]`: what every release links to, and what is carried over from the live one.

use crate::code::read;
use crate::sandbox::{Sandbox, picture};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

#[test]
fn shared_directories_and_files_are_linked_into_every_release() {
    let tree = Sandbox::laid_out();
    fs::create_dir_all(tree.at("shared/conf")).unwrap();
    fs::write(tree.at("shared/conf/.env"), "secret").unwrap();
    let recipe = "[shared]\ndirs = ['media', 'var/log']\nfiles = ['conf/.env']\n";
    let source = tree.code("code", recipe, &[("version", "1")]);
    fs::create_dir(tree.beside("code/media")).unwrap();
    for id in ["A", "B"] {
        tree.done(&["create", &source, "--id", id]);
        let release = tree.release(id);
        assert_eq!(fs::read_link(release.join("media")).unwrap(), Path::new("../../shared/media"));
        assert_eq!(fs::read_link(release.join("var/log")).unwrap(), Path::new("../../../shared/var/log"));
        assert_eq!(fs::read_link(release.join("conf/.env")).unwrap(), Path::new("../../../shared/conf/.env"));
    }
    fs::write(tree.release("A").join("var/log/x"), "one").unwrap();
    assert_eq!(read(tree.release("B").join("var/log/x")), "one");
    tree.done(&["activate", "B"]);
    tree.done(&["remove", "A"]);
    assert_eq!(read(tree.at("shared/var/log/x")), "one", "what is shared outlives a release");
    assert_eq!(read(tree.at("current/conf/.env")), "secret");
}

#[test]
fn links_to_what_is_shared_are_on_record_wherever_the_code_comes_from() {
    let tree = Sandbox::laid_out();
    let recipe = "[shared]\ndirs = ['log', 'app/cache/pages', 'very/deep/media']\n";
    let repository = tree.repository("code");
    tree.code("code", recipe, &[("app/cache/keep", "")]);
    tree.commit(&repository, "with links");
    let tar = tree.clean("tar").args(["-C", "code", "--exclude=.git", "-c", "-f", "code.tar", "."]).status();
    assert!(tar.unwrap().success());
    for (kind, source) in [("git", "code"), ("dir", "code"), ("tar", "code.tar")] {
        tree.done(&["create", source, "--as", kind, "--id", kind]);
        assert_eq!(tree.json(&["verify", kind])["ok"], true, "{kind}");
        for path in ["log", "app/cache/pages", "very/deep/media"] {
            let link = tree.release(kind).join(path);
            let target = fs::read_link(&link).unwrap();
            fs::remove_file(&link).unwrap();
            let answer = tree.ends(1, &["--json", "verify", kind]);
            let said: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
            assert_eq!(said["missing"], serde_json::json!([path]), "{kind}: {said}");
            symlink(target, link).unwrap();
        }
    }
}

#[test]
fn a_required_file_that_is_missing_is_named_and_the_build_goes_on_once_it_is_there() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("code", "[shared]\nfiles = ['.env']\n", &[]);
    let answer = tree.ends(1, &["create", &source, "--id", "B"]);
    let missing = tree.at("shared/.env");
    assert!(answer.stderr.contains(&format!("{} is required", missing.display())), "{}", answer.stderr);
    assert_eq!(tree.states()["B"], "incomplete");
    assert_eq!(tree.live().as_deref(), Some("A"));
    fs::write(&missing, "there").unwrap();
    tree.done(&["create", "--resume", "B"]);
    assert_eq!(read(tree.release("B").join(".env")), "there");
}

#[test]
fn what_is_shared_may_lie_elsewhere_behind_a_link_but_must_be_there() {
    let tree = Sandbox::laid_out();
    let volume = tree.beside("volume");
    fs::create_dir_all(volume.join("media")).unwrap();
    symlink(volume.join("media"), tree.at("shared/media")).unwrap();
    symlink(volume.join("secret"), tree.at("shared/.env")).unwrap();
    let source = tree.code("code", "[shared]\ndirs = ['media']\nfiles = ['.env']\n", &[]);
    let gone = tree.ends(1, &["create", &source, "--id", "A"]).stderr;
    assert!(gone.contains("shared/.env is required by [shared] files and is not there"), "{gone}");
    fs::write(volume.join("secret"), "there").unwrap();
    tree.done(&["create", "--resume", "A"]);
    assert_eq!(read(tree.release("A").join(".env")), "there");
    fs::write(tree.release("A").join("media/x"), "one").unwrap();
    assert_eq!(read(volume.join("media/x")), "one");
    fs::rename(tree.at("shared"), tree.beside("elsewhere")).unwrap();
    symlink(tree.beside("elsewhere"), tree.at("shared")).unwrap();
    tree.done(&["create", &source, "--id", "B"]);
    assert_eq!(read(tree.release("B").join("media/x")), "one");
}

#[test]
fn code_that_brings_something_else_in_the_place_of_a_link_is_refused_and_not_lost() {
    for (at, brought) in ["media/picture", "media"].iter().enumerate() {
        let tree = Sandbox::laid_out();
        let source = tree.code(&format!("code-{at}"), "[shared]\ndirs = ['media']\n", &[(brought, "mine")]);
        let answer = tree.ends(1, &["create", &source, "--id", "A"]);
        assert!(answer.stderr.contains("media is in the way of the link to shared/"), "{}", answer.stderr);
        assert_eq!(read(tree.release("A").join(brought)), "mine");
    }
}

#[test]
fn what_lies_in_something_shared_is_not_shared_once_more() {
    let tree = Sandbox::laid_out();
    let source = tree.code("code", "[shared]\ndirs = ['media', 'media/cache']\n", &[]);
    let said = tree.ends(1, &["create", &source, "--id", "A"]).stderr;
    assert!(
        said.contains("A/media is in the way of the link to shared/") && said.contains("out of [shared]"),
        "{said}"
    );
}

#[test]
fn links_that_the_code_brings_on_the_way_to_a_shared_place_are_never_followed() {
    let tree = Sandbox::laid_out();
    let outside = tree.beside("outside");
    fs::create_dir(&outside).unwrap();
    let source = tree.code("code", "[shared]\ndirs = ['var/log']\n", &[]);
    symlink(&outside, tree.beside("code/var")).unwrap();
    let answer = tree.run(&["create", &source, "--id", "A"]);
    assert_ne!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stderr.contains("var"), "{}", answer.stderr);
    assert!(picture(&outside).is_empty());
}

#[test]
fn what_is_carried_comes_from_the_live_release_with_its_modes_and_links() {
    let tree = Sandbox::laid_out();
    let recipe = "[shared]\ncarry = ['localsettings.py', 'node_modules', 'static/js', 'absent']\n";
    let source = tree.code("code", recipe, &[("version", "1"), ("static/css/a", "css")]);
    tree.done(&["create", &source, "--id", "A"]);
    tree.done(&["activate", "A"]);
    let live = tree.release("A");
    fs::write(live.join("localsettings.py"), "DEBUG = False").unwrap();
    fs::create_dir_all(live.join("node_modules/.bin")).unwrap();
    fs::write(live.join("node_modules/less.js"), "less").unwrap();
    symlink("../less.js", live.join("node_modules/.bin/less")).unwrap();
    symlink("/etc/passwd", live.join("node_modules/outside")).unwrap();
    fs::create_dir_all(live.join("static/js")).unwrap();
    fs::write(live.join("static/js/a"), "js").unwrap();
    tree.done(&["create", &source, "--id", "B"]);
    let carried = tree.release("B");
    assert_eq!(picture(&carried.join("node_modules")), picture(&live.join("node_modules")));
    assert!(carried.join("node_modules/outside").is_symlink(), "links are carried as links");
    assert_eq!(read(carried.join("localsettings.py")), "DEBUG = False");
    assert_eq!((read(carried.join("static/js/a")), read(carried.join("static/css/a"))), ("js".into(), "css".into()));
    assert!(!carried.join("absent").exists());
    // They are copies: nothing written into one is seen in the other.
    fs::write(carried.join("localsettings.py"), "DEBUG = True").unwrap();
    assert_eq!(read(live.join("localsettings.py")), "DEBUG = False");
}

#[test]
fn a_hole_in_a_file_is_carried_as_a_hole() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("code", "[shared]\ncarry = ['database', 'hole']\n", &[("version", "1")]);
    let live = tree.release("A");
    // As a database is that is mapped far beyond what is in it.
    let database = fs::File::create(live.join("database")).unwrap();
    database.set_len(64 << 20).unwrap();
    for at in [0, 20 << 20, (40 << 20) + 5] {
        database.write_all_at(&[7; 100_000], at).unwrap();
    }
    fs::File::create(live.join("hole")).unwrap().set_len((1 << 20) + 1).unwrap();
    tree.done(&["create", &source, "--id", "B"]);
    let room = |path: PathBuf| fs::metadata(path).unwrap().blocks() * 512;
    for name in ["database", "hole"] {
        let (there, here) = (live.join(name), tree.release("B").join(name));
        assert!(fs::read(&there).unwrap() == fs::read(&here).unwrap(), "{name}");
        assert!(room(here) < room(there) + (1 << 20), "{name}");
    }
}

#[test]
fn nothing_is_carried_through_a_link_of_either_release() {
    let tree = Sandbox::laid_out();
    let outside = tree.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "mine").unwrap();
    let recipe = "[shared]\ncarry = ['cache/secret']\n";
    tree.done(&["create", &tree.code("one", recipe, &[]), "--id", "A"]);
    tree.done(&["activate", "A"]);
    symlink(&outside, tree.release("A").join("cache")).unwrap();
    tree.done(&["create", &tree.code("two", recipe, &[]), "--id", "B"]);
    assert!(!tree.release("B").join("cache").exists(), "the live release leads out");
    fs::remove_file(tree.release("A").join("cache")).unwrap();
    fs::create_dir(tree.release("A").join("cache")).unwrap();
    fs::write(tree.release("A").join("cache/secret"), "other").unwrap();
    let leads_out = tree.code("three", recipe, &[]);
    symlink(&outside, tree.beside("three/cache")).unwrap();
    let answer = tree.run(&["create", &leads_out, "--id", "C"]);
    assert_ne!(answer.code, 0, "the new release leads out");
    assert!(answer.stderr.contains("cache"), "{}", answer.stderr);
    assert_eq!(read(outside.join("secret")), "mine");
}

#[test]
fn what_is_in_the_way_of_what_is_carried_is_told_with_its_path() {
    let tree = Sandbox::laid_out();
    let recipe = "[shared]\ncarry = ['cache/js']\n";
    tree.done(&["create", &tree.code("one", recipe, &[("cache/js", "made")]), "--id", "A"]);
    tree.done(&["activate", "A"]);
    let file = tree.code("two", recipe, &[("cache", "a file")]);
    let said = tree.ends(1, &["create", &file, "--id", "B"]).stderr;
    let told = format!("{} is in the way of what is carried over", tree.release("B").join("cache").display());
    assert!(said.contains(&told) && said.contains("hint: take it out of the code"), "{said}");
}

#[test]
fn what_the_code_brings_itself_is_not_replaced_by_what_is_carried() {
    let tree = Sandbox::laid_out();
    let recipe = "[shared]\ncarry = ['settings.py']\n";
    let source = tree.code("code", recipe, &[("settings.py", "old")]);
    tree.done(&["create", &source, "--id", "A"]);
    tree.done(&["activate", "A"]);
    fs::write(tree.beside("code/settings.py"), "new").unwrap();
    tree.done(&["create", &source, "--id", "B"]);
    assert_eq!(read(tree.release("B").join("settings.py")), "new");
}

//! `doctor`: what a later command would trip over is seen before.

use crate::activate::Frozen;
use crate::sandbox::{Answer, PROGRAM, Sandbox};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn what_the_recipe_shares_and_is_not_there_is_seen() {
    let tree = Sandbox::laid_out();
    fs::create_dir(tree.at("shared")).unwrap_or_default();
    fs::write(tree.at("shared/.env"), "secret").unwrap();
    let source = tree.code("code", "[shared]\ndirs = ['var/media']\nfiles = ['.env']\n", &[]);
    tree.done(&["deploy", &source]);
    fs::rename(tree.at("shared"), tree.beside("elsewhere")).unwrap();
    symlink(tree.beside("elsewhere"), tree.at("shared")).unwrap();
    assert!(tree.done(&["doctor"]).contains("ok   shared"));
    fs::remove_file(tree.at("shared/.env")).unwrap();
    fs::remove_dir(tree.at("shared/var/media")).unwrap();
    symlink("not-there", tree.at("shared/var/media")).unwrap();
    let told = tree.ends(6, &["doctor"]).stdout;
    assert!(told.contains("BAD  shared") && told.contains("leads nowhere: var/media, .env"), "{told}");
}

#[test]
fn what_nobody_may_change_in_the_mirrors_the_cache_or_the_trash_is_seen() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code.git");
    tree.done(&["deploy", repository.to_str().unwrap()]);
    let mirror = fs::read_dir(tree.at(".releasectl/mirror")).unwrap().next().unwrap().unwrap().path();
    fs::create_dir_all(tree.at(".releasectl/cache")).unwrap();
    fs::create_dir_all(tree.at(".releasectl/trash/A.7/app")).unwrap();
    assert!(tree.done(&["doctor"]).contains("1 releases in the trash"));
    let places = ["mirror", "cache", "trash"].map(|name| tree.at(".releasectl").join(name));
    let mut places = Vec::from_iter(places.into_iter().chain([mirror]));
    if crate::sandbox::is_root() {
        // One's own directory without a right to write is mended where it is deleted.
        places.push(tree.at(".releasectl/trash/A.7"));
    }
    for place in places {
        let frozen = Frozen::new(place.clone());
        let told = tree.ends(6, &["doctor"]).stdout;
        assert!(told.contains(&format!("cannot write to {}: ", place.display())), "{told}");
        drop(frozen);
    }
    if crate::sandbox::is_root() {
        let append_only = |change: &str| {
            let journal = tree.at(".releasectl/journal.jsonl");
            assert!(tree.clean("chattr").arg(change).arg(journal).status().unwrap().success());
        };
        append_only("+a");
        let told = tree.ends(6, &["doctor"]).stdout;
        append_only("-a");
        assert!(told.contains("BAD  file system") && told.contains("journal.jsonl: "), "{told}");
    }
    tree.done(&["doctor"]);
}

#[test]
fn a_current_that_somebody_removed_is_seen_with_what_brings_it_back() {
    let tree = Sandbox::with_live(&["A", "B"]);
    tree.done(&["rollback"]);
    fs::remove_file(tree.at("current")).unwrap();
    let told = tree.ends(6, &["doctor"]).stdout;
    assert!(told.contains("it is gone, and led to A") && told.contains("`releasectl activate A`"), "{told}");
    tree.done(&["activate", "A"]);
    tree.done(&["doctor"]);
    tree.done(&["deactivate", "--yes"]);
    assert!(tree.done(&["doctor"]).contains("nothing is live"));
}

#[test]
fn p15_what_a_failing_disk_does_not_give_is_told_as_that_and_not_as_something_to_be_removed() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let manifest = tree.release("A").join(".releasectl/release.json");
    for (errno, hint) in [("EIO", "`dmesg`"), ("EUCLEAN", "`dmesg`"), ("ENOMEM", "too little memory")] {
        let mut strace = tree.clean("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(&manifest);
        strace.args(["-e", &format!("inject=read,pread64:error={errno}"), PROGRAM, "--root"]).arg(tree.root());
        let doctor: Answer = strace.arg("doctor").output().unwrap().into();
        let releases = doctor.stdout.split("BAD  releases").nth(1).unwrap_or_else(|| panic!("{}", doctor.stdout));
        let told = releases.split("ok   ").next().unwrap();
        assert!(told.contains(manifest.to_str().unwrap()) && told.contains(hint), "{told}");
        assert!(!doctor.stdout.contains("remove it yourself"), "{}", doctor.stdout);
    }
}

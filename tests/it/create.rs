//! `create`: ids, what is left behind, and going on with what was not finished. Where code comes from has modules of its own.

use crate::code::{read, step};
use crate::lab::tar_of;
use crate::sandbox::{Answer, PROGRAM, Sandbox, Started, is_root, picture};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// The code of a release: everything in it but our own records.
fn code(tree: &Sandbox, id: &str) -> BTreeMap<PathBuf, String> {
    let mut code = picture(&tree.release(id));
    code.retain(|path, _| !path.starts_with(".releasectl"));
    code
}

#[test]
fn p12_forty_creates_at_once_give_forty_ids() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one").display().to_string();
    let started: Vec<Started> = (0..40).map(|_| Started::new(tree.command(&["create", &source]))).collect();
    let answers: Vec<Answer> = started.into_iter().map(Started::answer).collect();
    for answer in &answers {
        assert_eq!(answer.code, 0, "{}", answer.stderr);
    }
    let paths: BTreeSet<&str> = answers.iter().map(|answer| answer.stdout.trim_end()).collect();
    assert_eq!(paths.len(), 40, "{paths:?}");
    let states = tree.states();
    assert_eq!(states.len(), 40);
    for (id, state) in &states {
        assert_eq!(state, "ready");
        assert!(paths.contains(tree.release(id).to_str().unwrap()));
        assert_eq!(fs::read_to_string(tree.release(id).join("version")).unwrap(), "one");
    }
    assert_eq!(
        tree.history().iter().filter(|entry| entry.starts_with("create ") && entry.ends_with(" done")).count(),
        40
    );
}

#[test]
fn p12_forty_creates_of_one_id_make_it_once() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one").display().to_string();
    let started: Vec<Started> =
        (0..40).map(|_| Started::new(tree.command(&["create", &source, "--id", "A"]))).collect();
    let mut codes: Vec<i32> = started.into_iter().map(|run| run.answer().code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [&[0][..], &[3; 39]].concat());
    assert_eq!(tree.states()["A"], "ready");
}

#[test]
fn p12_ids_made_from_the_time_sort_in_the_order_of_their_making() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one").display().to_string();
    let made: Vec<String> = (0..5).map(|_| tree.done(&["create", &source])).collect();
    let mut sorted = made.clone();
    sorted.sort();
    assert_eq!(made, sorted);
    let listing = tree.json(&["list"]);
    let listed: Vec<&str> =
        listing["releases"].as_array().unwrap().iter().map(|r| r["path"].as_str().unwrap()).collect();
    assert_eq!(listed, made.iter().map(|line| line.trim_end()).collect::<Vec<_>>());
}

#[test]
fn p12_an_id_that_is_taken_is_refused_before_anything_is_touched() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let source = tree.source("other").display().to_string();
    fs::create_dir(tree.release("foreign")).unwrap();
    fs::write(tree.release("foreign").join("precious"), "").unwrap();
    fs::write(tree.release("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", tree.release("link")).unwrap();
    let before = tree.picture();
    for id in ["A", "B", "foreign", "file", "link"] {
        let said = tree.refused(&["create", &source, "--id", id]);
        assert!(said.contains(id), "{said}");
        assert_eq!(tree.picture(), before, "{id}");
    }
}

#[test]
fn p12_a_name_that_was_reserved_and_no_more_is_told_so() {
    let tree = Sandbox::laid_out();
    let source = tree.source("other").display().to_string();
    tree.killed("renameat:signal=SIGKILL:when=1", &["create", &source, "--id", "A"]);
    assert!(tree.refused(&["create", "--resume", "A"]).contains("only its name is there"));
    tree.done(&["clean"]);
    tree.done(&["create", &source, "--id", "A"]);
}

#[test]
fn p12_an_id_that_could_be_a_path_or_an_option_makes_nothing() {
    let tree = Sandbox::new();
    let source = tree.source("one").display().to_string();
    let long = "x".repeat(300);
    for id in ["../x", "-x", "a b", "", ".", "..", "a/b", "/tmp/x", "_a", "é", "a\n", "current", "none", &long] {
        let code = tree.run(&["create", &source, &format!("--id={id}")]).code;
        assert!(code == 2 || code == 3, "{id:?} ends with {code}");
        let code = tree.run(&["create", &source, "--id", id]).code;
        assert!(code == 2 || code == 3, "{id:?} ends with {code}");
        assert!(!tree.root().exists(), "{id:?}");
    }
    tree.create("A");
    let before = tree.picture();
    for words in [["create", "--resume=../x"], ["activate", "../A"], ["remove", "a/b"], ["show", ""], ["path", "."]] {
        tree.ends(2, &words);
    }
    assert_eq!(tree.picture(), before);
}

#[test]
fn a_source_that_is_nothing_leaves_nothing_behind() {
    let tree = Sandbox::with_live(&["A"]);
    let before = tree.picture();
    for source in ["not-there", "/not/there", "ext::sh -c id", "--upload-pack=x", "-oProxyCommand=x"] {
        let code = tree.run(&["create", "--", source]).code;
        assert!(code == 2 || code == 3, "{source} ends with {code}");
    }
    tree.refused(&["create"]);
    assert_eq!(tree.picture(), before);
}

#[test]
fn the_answer_of_a_create_is_the_path_of_its_release() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one").display().to_string();
    let answer = tree.ends(0, &["create", &source, "--id", "A", "--keep-days", "3"]);
    assert_eq!(answer.stdout, format!("{}\n", tree.release("A").display()));
    assert!(tree.json(&["show", "A"])["release"]["keep_until"].as_str().unwrap().ends_with('Z'));
    assert_eq!(tree.live(), None, "a release is private until it is activated");
}

#[test]
fn a_release_may_be_entered_by_whoever_may_enter_its_directories() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code.git");
    fs::create_dir(repository.join("app")).unwrap();
    fs::write(repository.join("app/main.py"), "").unwrap();
    tree.commit(&repository, "a directory");
    let mut create = tree.clean("sh");
    create.args(["-c", "umask 077; exec \"$@\"", "sh", PROGRAM, "--root"]).arg(tree.root());
    create.args(["create", repository.to_str().unwrap(), "--id", "A"]);
    assert!(create.output().unwrap().status.success());
    let by_others = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o055;
    assert_eq!(by_others(tree.release("A")), by_others(tree.release("A").join("app")));
}

#[test]
fn a_directory_with_what_no_release_may_hold_is_refused_with_its_path() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one");
    let device = source.join("app/device");
    // The one device that every user may make: it stands for nothing.
    assert!(tree.clean("mknod").arg(&device).args(["c", "0", "0"]).status().unwrap().success());
    let said = tree.ends(1, &["create", source.to_str().unwrap()]).stderr;
    assert!(said.contains(device.to_str().unwrap()) && said.contains("hint: take it away"), "{said}");
}

#[test]
fn a_ref_of_what_is_no_repository_is_refused_and_nothing_else_is_built() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.source("one").display().to_string();
    let before = tree.picture();
    for arguments in [["create", &source], ["deploy", &source], ["create", "-"]] {
        let said = tree.refused(&[&arguments[..], &["--ref", "v2"]].concat());
        assert!(said.contains("has no v2"), "{said}");
    }
    assert_eq!(tree.picture(), before);
}

#[test]
fn standard_input_is_taken_for_nothing_but_a_tar() {
    let tree = Sandbox::laid_out();
    let before = tree.picture();
    for words in [["create", "-", "--as", "git"], ["deploy", "-", "--as", "dir"]] {
        let said = tree.ends(2, &words).stderr;
        assert!(said.contains("only be a tar") && said.contains("hint: "), "{said}");
    }
    assert_eq!(tree.picture(), before);
}

#[test]
fn a_source_that_is_not_what_it_is_said_to_be_is_refused() {
    let tree = Sandbox::laid_out();
    let directory = tree.source("one").display().to_string();
    let file = format!("{directory}/version");
    for (source, kind, why) in
        [(&directory, "tar", "it is a directory, not a tar"), (&file, "dir", "it is no directory")]
    {
        let said = tree.refused(&["create", source, "--as", kind]);
        assert!(said.contains(source.as_str()) && said.contains(why), "{said}");
    }
    assert!(tree.states().is_empty());
}

#[test]
fn nothing_is_for_everybody_to_write_whatever_the_umask() {
    let tree = Sandbox::laid_out();
    let step = "[[step]]\nname = 'make'\nphase = 'create'\nrun = 'mkdir made && touch made/file'\n";
    let source = tree.code("code", step, &[]);
    let mut create = tree.clean("sh");
    create.args(["-c", "umask 000; exec \"$@\"", "sh", PROGRAM, "--root"]).arg(tree.root());
    assert!(create.args(["create", &source, "--id", "A"]).output().unwrap().status.success());
    let open = format!("find {} -perm /002 ! -type l", tree.root().display());
    let found = tree.clean("sh").args(["-c", &open]).output().unwrap();
    assert!(tree.release("A").join("made/file").exists() && found.stdout.is_empty(), "{found:?}");
}

#[test]
fn a_source_that_contains_the_tree_is_copied_without_it() {
    let tree = Sandbox::new();
    let source = tree.beside("");
    fs::write(source.join("version"), "all").unwrap();
    tree.done(&["create", source.to_str().unwrap(), "--id", "A"]);
    tree.done(&["create", source.to_str().unwrap(), "--id", "B"]);
    assert!(!tree.release("B").join("tree").exists());
    assert_eq!(fs::read_to_string(tree.release("B").join("version")).unwrap(), "all");
    assert!(tree.release("B").join("home").is_dir());
}

#[test]
fn the_tree_is_no_source_of_its_own() {
    let tree = Sandbox::with_live(&["A"]);
    let before = tree.picture();
    for source in [tree.root(), tree.at("releases"), tree.at("current/..")] {
        tree.refused(&["create", source.to_str().unwrap(), "--id", "B"]);
        assert_eq!(tree.picture(), before, "{}", source.display());
    }
    // One release may be made from another, without its records.
    tree.done(&["create", tree.release("A").to_str().unwrap(), "--id", "B"]);
    assert_eq!(code(&tree, "B"), code(&tree, "A"));
}

#[test]
fn p13_a_create_killed_anywhere_is_resumed_to_the_same_release() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("app");
    fs::create_dir_all(repository.join("deep/er")).unwrap();
    fs::write(repository.join("deep/er/file"), "deep").unwrap();
    std::os::unix::fs::symlink("deep/er", repository.join("link")).unwrap();
    tree.commit(&repository, "two");
    let source = repository.display().to_string();
    tree.done(&["create", &source, "--id", "undisturbed", "--ref", "master"]);
    let faults = ["symlinkat:signal=SIGKILL:when=1", "utimensat:signal=SIGKILL:when=2", "syncfs:signal=SIGKILL:when=1"];
    for (n, fault) in faults.into_iter().enumerate() {
        let id = format!("killed-{n}");
        tree.killed(fault, &["create", &source, "--id", &id, "--ref", "master"]);
        assert_eq!(tree.states()[&id], "incomplete", "{fault}");
        fs::write(tree.release(&id).join("left-by-hand"), "").unwrap();
        // What the branch leads to by now is another release's matter.
        fs::write(repository.join("version"), format!("later {n}\n")).unwrap();
        tree.commit(&repository, "later");
        tree.done(&["create", "--resume"]);
        assert_eq!(tree.states()[&id], "ready", "{fault}");
        assert_eq!(code(&tree, &id), code(&tree, "undisturbed"), "{fault}");
        assert_eq!(tree.json(&["show", &id])["release"]["ref"], "master");
        tree.git(&repository, &["reset", "--quiet", "--hard", "HEAD~1"]);
    }
    tree.refused(&["create", "--resume"]);
    tree.refused(&["create", "--resume", "undisturbed"]);
    tree.refused(&["create", "--resume", "not-there"]);
}

#[test]
fn p13_what_is_resumed_with_other_code_holds_that_and_what_is_built_is_not_taken_for_it() {
    let tree = Sandbox::new();
    let recipe = step("one", "create", "test -e \"$place/mended\"\n") + &step("two", "prepare", "exit 1\n");
    let of = |name: &str| tree.code(name, &recipe, &[("version", name)]);
    let tar = |name: &str| {
        let (file, content) = (tree.beside(&format!("{name}.tar")), format!("{name}.tar"));
        fs::write(&file, tar_of(&[("releasectl.toml", recipe.as_bytes()), ("version", content.as_bytes())])).unwrap();
        file.display().to_string()
    };
    let [one, two, packed, repacked] = [of("one"), of("two"), tar("one"), tar("two")];
    for (id, first, then) in [("A", &one, &two), ("B", &packed, &repacked), ("C", &repacked, &one)] {
        let _ = fs::remove_file(tree.beside("mended"));
        tree.ends(1, &["create", first, "--id", id]);
        fs::write(tree.beside("mended"), "").unwrap();
        let document = tree.json(&["create", "--resume", id, then]);
        assert_eq!(document["release"]["source"], *then);
        assert_eq!(
            read(tree.release(id).join("version")),
            std::path::Path::new(then).file_name().unwrap().to_str().unwrap()
        );
    }
    tree.ends(1, &["deploy", &one]);
    for words in [&[two.as_str()][..], &["--ref", "v1"], &["-"]] {
        let refused = tree.refused(&[&["deploy", "--resume"], words].concat());
        assert!(refused.contains(&format!("is built already, from {one} and nothing else")), "{refused}");
    }
    tree.ends(1, &["deploy", "--resume", &one]);
    let repository = tree.repository("code.git");
    tree.code("code.git", &recipe, &[]);
    let revision = tree.commit(&repository, "with a recipe");
    tree.git(&repository, &["tag", "v1"]);
    let repository = repository.display().to_string();
    tree.ends(1, &["deploy", &repository, "--ref", "v1"]);
    for asked in ["v1", &revision, &revision[..7]] {
        tree.ends(1, &["deploy", "--resume", &repository, "--ref", asked]);
    }
    assert!(tree.refused(&["deploy", "--resume", "--ref", "master"]).contains(" at v1 and nothing else"));
    tree.ends(2, &["deploy", "--release", "A", "--no-python"]);
    tree.ends(2, &["deploy", "--release", "A", "--as", "dir"]);
}

#[test]
fn p12_a_create_killed_before_its_first_record_is_no_release_and_can_be_cleaned() {
    let tree = Sandbox::laid_out();
    let source = tree.source("one").display().to_string();
    tree.killed("renameat:signal=SIGKILL:when=1", &["create", &source, "--id", "A"]);
    assert_eq!(tree.states()["A"], "incomplete");
    assert!(tree.done(&["doctor"]).contains("1 releases, 1 of them incomplete"));
    tree.refused(&["activate", "A"]);
    tree.refused(&["create", &source, "--id", "A"]);
    tree.done(&["clean"]);
    assert!(!tree.release("A").exists());
    assert_eq!(tree.history().iter().filter(|entry| entry.as_str() == "create - A interrupted").count(), 1);
}

#[test]
fn p13_code_that_could_not_be_synced_is_not_taken_for_there() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code");
    tree.code("code", "[shared]\ndirs = ['media']\n", &[]);
    tree.commit(&repository, "with a link");
    let failed = tree.faulty("syncfs:error=EIO:when=1", &["create", "code", "--id", "A"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", String::from_utf8_lossy(&failed.stderr));
    let (version, record) = (tree.release("A").join("version"), tree.release("A").join(".releasectl/release.json"));
    assert!(version.exists() && !read(record).contains("\"source\",\"status\""));
    let before = fs::metadata(&version).unwrap().ino();
    // Or its number would be given again.
    let kept = fs::File::open(&version).unwrap();
    tree.done(&["create", "--resume", "A"]);
    assert_ne!(fs::metadata(&version).unwrap().ino(), before, "what the cache shows may never have been written");
    assert_eq!(tree.json(&["verify", "A"])["ok"], true);
    drop(kept);
}

#[test]
fn too_few_descriptors_are_told_as_such() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code.git");
    for limit in 6..30 {
        let mut create = tree.clean("prlimit");
        create.arg(format!("--nofile={limit}")).args([PROGRAM, "--root"]).arg(tree.root()).args(["create"]);
        let answer = Answer::from(create.arg(&repository).output().unwrap());
        let without = answer.stderr.contains("No file descriptors") || answer.stderr.contains("Too many open files");
        assert!(answer.code == 0 || without, "{limit}: {}", answer.stderr);
        let by_us = answer.stderr.lines().any(|line| line.starts_with("error: ") && line.ends_with("(os error 24)"));
        assert!(!by_us || answer.stderr.contains("hint: look at `ulimit -n`"), "{}", answer.stderr);
    }
}

#[test]
fn a_git_that_is_not_there_is_told_with_where_it_is_looked_for() {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code.git");
    tree.give_all_to_nobody();
    let mut create = tree.command_by_nobody(&["create", repository.to_str().unwrap()]);
    let said = Answer::from(create.env("PATH", "/nonexistent").output().unwrap()).stderr;
    assert!(said.contains("error: cannot run git "), "{said}");
    assert!(said.contains("hint: install it where PATH leads"), "{said}");
}

#[test]
fn a_tree_that_hands_its_group_on_does_so_in_every_release() {
    let tree = Sandbox::laid_out();
    let (root, releases) = (tree.root(), tree.at("releases"));
    let group = if is_root() { 4242 } else { nix::unistd::Gid::effective().as_raw() };
    for place in [&root, &releases] {
        std::os::unix::fs::chown(place, None, Some(group)).unwrap();
        fs::set_permissions(place, Permissions::from_mode(0o2755)).unwrap();
    }
    let archive = tree.beside("code.tar");
    let made = tree.clean("tar").arg("-cf").arg(&archive).arg("-C").arg(tree.source("A")).arg(".").status();
    assert!(made.unwrap().success());
    let sources = [tree.source("A"), tree.repository("git"), archive];
    fs::create_dir(sources[1].join("app")).unwrap();
    fs::write(sources[1].join("app/main.py"), "1\n").unwrap();
    tree.commit(&sources[1], "with a directory");
    for (id, source) in ["A", "B", "C"].iter().zip(&sources) {
        tree.done(&["deploy", source.to_str().unwrap()]);
        let release = fs::canonicalize(tree.at("current")).unwrap();
        for (path, handed_on) in [("", 0o2000), ("app", 0o2000), ("app/main.py", 0)] {
            let found = fs::metadata(release.join(path)).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o2000), (group, handed_on), "{id} {path}");
        }
        assert_eq!(tree.json(&["verify"])["ok"], true);
    }
}

#[test]
fn p18_what_each_stage_took_is_told_to_who_wants_more() {
    let tree = Sandbox::laid_out();
    let source = tree.code("code", "[[step]]\nname = 'assets'\nphase = 'create'\nrun = 'echo made'\n", &[]);
    let told = |words: &[&str]| tree.ends(0, &[words, &["create", source.as_str()]].concat()).stderr;
    let (plain, more) = (told(&[]), told(&["-v"]));
    assert!(!plain.contains(" took "), "{plain}");
    for stage in ["copy", "step assets", "sync"] {
        assert!(plain.contains(&format!("{stage} …\n")) && more.contains(&format!("\n{stage} took ")), "{more}");
    }
}

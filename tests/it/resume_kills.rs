//! A deploy that is killed in what it does itself — bringing the code in, linking what is shared, carrying over, making
//! python_env — is resumed to the same release, file by file, as one that nobody disturbed.

use crate::code::Run;
use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox, picture};
use crate::trace::{Call, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECIPE: &str = "[python]\nwheelhouse = 'wheelhouse'
[shared]\ndirs = ['media', 'var/cache']\nfiles = ['.env']\ncarry = ['node_modules', 'localsettings.py']\n";
/// The calls that make what is in a release.
const MAKING: &str = "openat,mkdirat,symlinkat,linkat,renameat,renameat2,fchmod,fchmodat,utimensat,unlinkat,write,fsync,syncfs,\
                      copy_file_range,ioctl,ftruncate";
/// How many places of each phase are tried.
const PLACES: usize = 3;

/// A tree, its host's file, and a repository of code with all of it.
fn prepared() -> (Sandbox, String) {
    let tree = Sandbox::laid_out();
    let repository = tree.repository("code.git");
    let files =
        [("app/main.py", "print(1)\n"), ("app/deep/er/x.py", "x = 1\n"), ("bin/run", "#!/bin/sh\n"), ("z", "last\n")];
    tree.code("code.git", RECIPE, &files);
    fs::write(repository.join("requirements.txt"), "six\n").unwrap();
    fs::set_permissions(repository.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("main.py", repository.join("app/link")).unwrap();
    fs::write(repository.join("app/blob"), vec![7; 300_000]).unwrap();
    crate::packages::wheelhouse(&["six"], &repository.join("wheelhouse"));
    tree.commit(&repository, "with a recipe");
    fs::write(tree.at("shared/.env"), "secret\n").unwrap();
    let host = tree.host(&format!("[source]\ngit = {repository:?}\nref = 'master'\n[clean]\nkeep = 1\n"));
    (tree, host)
}

/// Puts into the live release what the next one is to carry over.
fn to_be_carried(tree: &Sandbox) {
    let modules = tree.at("current/node_modules/less/lib");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("less.js"), "less").unwrap();
    fs::write(modules.join("more.js"), vec![b'm'; 200_000]).unwrap();
    symlink("less.js", modules.join("index.js")).unwrap();
    fs::set_permissions(modules.join("less.js"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(tree.at("current/localsettings.py"), "DEBUG = False\n").unwrap();
}

/// strace of the program's own process: its children run free.
fn strace(tree: &Sandbox, host: &str, options: &[&str], words: &[&str]) -> Command {
    let mut command = tree.clean("strace");
    command.args(["-qq", "-y", "-s", "300"]).args(options);
    command.arg(PROGRAM).args(["--config", host, "--root"]).arg(tree.root()).args(words);
    command
}

/// The phase that a call is a part of: what it names belongs to it.
fn phase(call: &Call, root: &str) -> Option<&'static str> {
    let text = &call.arguments;
    let below = |name: &str| text.contains(&format!("/{name}")) || text.contains(&format!("\"{name}"));
    if !text.contains(&format!("{root}/releases/")) || text.contains(".releasectl") || !call.changes_disk() {
        return None;
    }
    let shared = call.name == "symlinkat" && text.contains("shared/");
    let phases = [
        ("python", below("python_env")),
        ("carry", below("node_modules") || below("localsettings.py")),
        ("shared", shared),
    ];
    Some(phases.iter().find(|(_, is)| *is).map_or("source", |(phase, _)| phase))
}

/// Deploys undisturbed and returns some places of each phase, as strace's `inject` wants them.
fn places(tree: &Sandbox, host: &str) -> BTreeMap<&'static str, Vec<String>> {
    let log = tree.beside("trace");
    let output = strace(tree, host, &["-o", log.to_str().unwrap(), "-e", &format!("trace={MAKING}")], &["deploy"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text: String = fs::read_to_string(log).unwrap().lines().map(|line| format!("1 {line}\n")).collect();
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for call in parse(&text) {
        if let Some(phase) = phase(&call, tree.root().to_str().unwrap()) {
            all.entry(phase).or_default().push(format!("{}:signal=SIGKILL:when={}", call.name, call.nth));
        }
    }
    // The last of what several threads share out among themselves is not the same one each time.
    let some = |places: Vec<String>| places.iter().step_by(places.len().div_ceil(PLACES)).cloned().collect();
    all.into_iter().map(|(phase, places)| (phase, some(places))).collect()
}

/// The live release, file by file. Our own records are left out; what cannot but name the release names ID, and of compiled
/// files and the lists of sums, which hold its path in other forms, only names and modes count.
fn outcome(tree: &Sandbox) -> BTreeMap<PathBuf, String> {
    let id = tree.live().unwrap();
    let mut picture = picture(&tree.release(&id));
    picture.retain(|path, _| !path.starts_with(".releasectl") && path != Path::new("requirements.txt"));
    for (path, entry) in &mut picture {
        let sums = path.extension().is_some_and(|ending| ending == "pyc") || path.ends_with("RECORD");
        let kept = if sums { entry.split(' ').next().unwrap() } else { entry.as_str() };
        *entry = kept.replace(&id, "ID");
    }
    picture
}

/// Kills a deploy at `place` and resumes it; what comes of it is `wanted`. Returns whether it came to that place.
fn killed_and_resumed(tree: &Sandbox, host: &str, place: &str, wanted: &BTreeMap<PathBuf, String>) -> bool {
    let before = tree.live();
    let call = place.split(':').next().unwrap();
    let fault = ["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={place}")];
    let output = strace(tree, host, &fault, &["deploy"]).output().unwrap();
    if output.status.success() {
        return false;
    }
    assert_eq!(output.status.signal(), Some(9), "{place}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(tree.live(), before, "{place}");
    resumed(tree, host, place, wanted);
    true
}

fn resumed(tree: &Sandbox, host: &str, place: &str, wanted: &BTreeMap<PathBuf, String>) {
    let begun = tree.states().into_keys().max();
    tree.resumed(&["--config", host]);
    assert_eq!(tree.live(), begun, "{place}: the same release went on");
    let found = outcome(tree);
    let names = |of: &BTreeMap<PathBuf, String>| of.keys().cloned().collect::<BTreeSet<_>>();
    let differing: Vec<_> = names(&found).symmetric_difference(&names(wanted)).cloned().collect();
    assert!(differing.is_empty(), "{place}: {differing:?}");
    for (path, entry) in wanted {
        assert_eq!(&found[path], entry, "{place}: {}", path.display());
    }
    assert_eq!(tree.json(&["verify"])["ok"], true, "{place}");
}

fn releases(tree: &Sandbox) -> BTreeSet<PathBuf> {
    fs::read_dir(tree.at("releases")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn p13_killed_in_any_phase_of_its_own_a_deploy_is_resumed_to_the_same_release_file_by_file() {
    let (tree, host) = prepared();
    // What is carried comes from the release before, and python_env is linked from there.
    tree.done(&["--config", &host, "deploy"]);
    to_be_carried(&tree);
    tree.done(&["--config", &host, "deploy"]);
    let linked = places(&tree, &host);
    assert_eq!(linked.keys().copied().collect::<Vec<_>>(), ["carry", "python", "shared", "source"]);
    let wanted = outcome(&tree);
    assert!(wanted.contains_key(Path::new("node_modules/less/lib/less.js")));
    assert!(wanted.contains_key(Path::new("python_env/bin/python")));
    for (phase, places) in &linked {
        let killed = places.iter().filter(|place| killed_and_resumed(&tree, &host, place, &wanted)).count();
        assert!(2 * killed >= places.len(), "{phase}: {killed} of {places:?}");
    }
    let requirements = tree.beside("code.git/requirements.txt");
    let renew = |number: usize| {
        fs::write(&requirements, format!("six\n{}", "# again\n".repeat(number))).unwrap();
        tree.commit(&tree.beside("code.git"), "other requirements");
    };
    renew(1);
    tree.done(&["--config", &host, "deploy"]);
    let wanted = outcome(&tree);
    // Now it is made afresh, by others: they are cut off where they have made these.
    for (number, made) in ["bin/pip", "six.py"].into_iter().enumerate() {
        renew(number + 2);
        let before = releases(&tree);
        let run = Run::start(&mut tree.command(&["--config", &host, "deploy"]));
        eventually(made, || {
            let new = releases(&tree).into_iter().find(|release| !before.contains(release));
            let Some(environment) = new.map(|release| release.join("python_env")) else { return false };
            let libraries = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
            let packages = libraries.map(|library| library.path().join("site-packages"));
            [environment].into_iter().chain(packages).any(|place| place.join(made).exists())
        });
        run.kill();
        resumed(&tree, &host, made, &wanted);
    }
}

#[test]
fn p13_what_a_last_step_made_is_part_of_what_is_verified_wherever_the_deploy_was_killed_behind_it() {
    let recipe = "[[step]]\nname = 'stamp'\nrun = 'echo stamped >stamp'\n";
    let mut killed = 0;
    for call in ["unlinkat", "write"] {
        for when in 1.. {
            let tree = Sandbox::laid_out();
            let source = tree.code("code", recipe, &[("version", "1")]);
            let output =
                tree.faulty(&format!("{call}:signal=SIGKILL:when={when}"), &["deploy", &source]).output().unwrap();
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.signal(), Some(9));
            // What was killed before there was anything to go on with leaves nothing.
            if tree.run(&["deploy", "--resume"]).code == 0 {
                let changed = tree.ends(0, &["verify"]).stdout;
                assert!(changed.contains("is as it was"), "{call} {when}: {changed}");
                killed += 1;
            }
        }
    }
    assert!(killed > 10, "only {killed}");
}

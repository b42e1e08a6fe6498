//! `deploy --resume`: wherever a deploy was killed, what comes of it is what would have come of it undisturbed.

use crate::code::{NOBODY, Run, read, step};
use crate::lab::{as_root_or_left_out, tar_of};
use crate::patience::eventually;
use crate::sandbox::{Sandbox, picture};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// The recipe's steps and their phases, in order.
const STEPS: [(&str, &str); 6] = [
    ("compile", "create"),
    ("bundle", "create"),
    ("migrate", "prepare"),
    ("warm", "prepare"),
    ("announce", "finish"),
    ("record", "finish"),
];

/// A recipe whose every step can be stopped before it, within it and after all it does.
fn recipe() -> String {
    let mut recipe = String::from("[shared]\ndirs = ['media']\ncarry = ['node_modules']\n");
    for (name, phase) in STEPS {
        let work = format!(
            "mkdir -p made/{name}\necho half >made/{name}/file\ngate {name} within\necho whole >made/{name}/file\n\
             ln -sf file made/{name}/link\nchmod 640 made/{name}/file\ngate {name} after\ntell {name}\n"
        );
        recipe += &step(name, phase, &work);
        recipe += &format!("only_if = '. \"$RELEASECTL_ROOT/../shell\"; gate {name} before; true'\n");
    }
    recipe
}

const HOST: &str = "[source]\ngit = 'SOURCE'\nref = 'master'\n[hooks]
on_start = '. \"$RELEASECTL_ROOT/../shell\"; gate start; true'
on_success = '. \"$RELEASECTL_ROOT/../shell\"; gate success; true'\n";

/// A tree with one live release that has something to carry, and a host's file that names the source.
fn prepared() -> (Sandbox, String) {
    let tree = Sandbox::new();
    let repository = tree.repository("code.git");
    tree.code("code.git", &recipe(), &[("app/main.py", "print(1)\n")]);
    tree.commit(&repository, "with a recipe");
    let host = tree.host(&HOST.replace("SOURCE", repository.to_str().unwrap()));
    tree.done(&["--config", &host, "deploy"]);
    let modules = tree.at("current/node_modules");
    fs::create_dir(&modules).unwrap();
    fs::write(modules.join("less.js"), "less").unwrap();
    fs::remove_file(tree.beside("told")).unwrap();
    (tree, host)
}

/// The live release, file by file, our own records left out.
fn outcome(tree: &Sandbox) -> BTreeMap<PathBuf, String> {
    let mut picture = picture(&tree.release(&tree.live().unwrap()));
    picture.retain(|path, _| !path.starts_with(".releasectl"));
    picture
}

impl Sandbox {
    /// Resumes, and repeats that as long as it is refused for something that was killed and is not gone yet.
    #[track_caller]
    pub fn resumed(&self, options: &[&str]) {
        let words = [options, &["deploy", "--resume"]].concat();
        eventually("the resumed deploy", || {
            let answer = self.run(&words);
            assert!(answer.code == 0 || answer.stderr.contains("this runs on: "), "{}", answer.stderr);
            answer.code == 0
        });
    }
}

#[test]
fn p13_a_deploy_killed_anywhere_is_resumed_to_the_same_tree_and_repeats_no_finished_step() {
    let (undisturbed, host) = prepared();
    undisturbed.done(&["--config", &host, "deploy"]);
    let (wanted, all) = (outcome(&undisturbed), STEPS.map(|(name, _)| name));
    assert_eq!(undisturbed.told(), all);
    assert!(wanted.contains_key(&PathBuf::from("node_modules/less.js")));
    let within = STEPS.iter().flat_map(|(name, _)| ["before", "within", "after"].map(|when| format!("{name} {when}")));
    for gate in within.chain(["success".to_owned()]) {
        let (tree, host) = prepared();
        let first = tree.live();
        let run = tree.run_to(&gate, &["--config", &host, "deploy"]);
        run.kill();
        let told = tree.told();
        assert!(all.starts_with(&told.iter().map(String::as_str).collect::<Vec<_>>()), "{gate}: {told:?}");
        let live_before = tree.live();
        tree.done(&["--config", &host, "deploy", "--resume"]);
        assert_ne!(tree.live(), first, "{gate}");
        assert_eq!(outcome(&tree), wanted, "{gate}");
        assert_eq!(tree.told(), all, "{gate}: no finished step was run twice");
        assert!(live_before == first || live_before == tree.live(), "{gate}");
        assert_eq!(tree.states().len(), 2, "{gate}: the same release went on");
        let again = tree.json(&["--config", &host, "deploy", "--resume"]);
        assert_eq!((&again["ok"], &again["changed"]), (&true.into(), &false.into()), "{gate}: {again}");
        assert_eq!(tree.told(), all, "{gate}");
    }
}

#[test]
fn p13_killed_before_anything_there_is_nothing_new_to_resume() {
    let (tree, host) = prepared();
    let before = tree.states();
    tree.run_to("start", &["--config", &host, "deploy"]).kill();
    assert_eq!(tree.states(), before);
    tree.done(&["--config", &host, "deploy"]);
    assert_eq!(tree.told(), STEPS.map(|(name, _)| name));
}

#[test]
fn p13_a_deploy_that_came_to_its_end_is_not_gone_back_to_by_resume() {
    let tree = Sandbox::laid_out();
    let source = tree.source("code").display().to_string();
    tree.done(&["deploy", &source]);
    let deployed = tree.live().unwrap();
    fs::write(
        tree.beside("fix.patch"),
        "--- a/version\n+++ b/version\n@@ -1 +1 @@\n-code\n\\ No newline at end of file\n+2\n",
    )
    .unwrap();
    tree.done(&["hotfix", "--patch", "fix.patch"]);
    let fixed = tree.live();
    let said = tree.refused(&["deploy", "--resume"]);
    assert!(said.contains(&deployed) && said.contains("is not live any more"), "{said}");
    assert_eq!(tree.live(), fixed, "what was mended since stays");
    // Named, it is meant.
    tree.done(&["deploy", "--release", &deployed]);
    assert_eq!(tree.live().as_deref(), Some(&*deployed));
    assert_eq!(tree.json(&["deploy", "--resume"])["changed"], false);
}

#[test]
fn p13_killed_while_the_source_comes_in_it_is_brought_in_anew() {
    let tree = Sandbox::with_live(&["A"]);
    let recipe = step("one", "create", "tell one\n");
    drop(tree.code("code", &recipe, &[]));
    let whole = tar_of(&[("releasectl.toml", recipe.as_bytes()), ("big", &[7; 300_000]), ("last", b"last")]);
    let mut command = tree.command(&["deploy", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&whole[..100_000]).unwrap();
    eventually("the source", || tree.states().values().any(|state| state == "building"));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(input);
    assert!(tree.refused(&["deploy", "--resume"]).contains("standard input"));
    assert_eq!(tree.live().as_deref(), Some("A"));
    let mut command = tree.command(&["deploy", "-", "--resume"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&whole).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read(tree.at("current/last")), "last");
    assert_eq!(fs::read(tree.at("current/big")).unwrap(), [7; 300_000]);
    assert_eq!((tree.told(), tree.states().len()), (vec!["one".to_owned()], 2));
}

#[test]
fn p13_what_came_through_a_pipe_need_not_come_again_once_it_is_there() {
    let tree = Sandbox::with_live(&["A"]);
    tree.code("code", "", &[]);
    let recipe = step("one", "create", "tell one\n") + &step("two", "prepare", "test -e \"$place/mended\"\n");
    let whole = tar_of(&[("releasectl.toml", recipe.as_bytes()), ("version", b"B")]);
    let mut run = Run::start(tree.command(&["deploy", "-"]).stdin(Stdio::piped()));
    run.child().stdin.take().unwrap().write_all(&whole).unwrap();
    assert_eq!(run.answer().code, 1);
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!((tree.told(), read(tree.at("current/version"))), (vec!["one".to_owned()], "B".to_owned()));
}

#[test]
fn p13_killed_while_python_env_is_made_it_is_made_anew_and_whole() {
    let tree = Sandbox::new();
    let recipe = format!("[python]\nwheelhouse = 'wheelhouse'\n{}", step("one", "create", "tell one\n"));
    let source = tree.code("code", &recipe, &[("requirements.txt", "six\n")]);
    crate::packages::wheelhouse(&["six"], &tree.beside("code/wheelhouse"));
    let run = Run::start(&mut tree.command(&["deploy", &source]));
    let begun = || {
        let release = fs::read_dir(tree.at("releases")).ok()?.flatten().next()?;
        Some(release.path().join("python_env/pyvenv.cfg").exists())
    };
    eventually("python_env", || begun() == Some(true));
    run.kill();
    assert_eq!(tree.live(), None);
    tree.resumed(&[]);
    let release = tree.release(&tree.live().unwrap());
    let said = tree.done(&["exec", "--", "python", "-c", "import six; print(six.__file__)"]);
    assert!(PathBuf::from(said.trim()).starts_with(release.join("python_env")), "{said}");
    assert_eq!((tree.told(), tree.states().len()), (vec!["one".to_owned()], 1));
    assert_eq!(tree.json(&["verify"])["ok"], true);
}

#[test]
fn p13_a_failed_step_is_tried_again_and_those_before_it_are_not() {
    let tree = Sandbox::with_live(&["A"]);
    let second = "tell two\ntest -e \"$place/mended\"\n";
    let recipe = step("one", "create", "tell one\n") + &step("two", "prepare", second);
    let source = tree.code("code", &recipe, &[]);
    let failed = tree.ends(1, &["deploy", &source]);
    assert!(failed.stderr.contains("step two") && failed.stderr.contains("deploy --resume"), "{}", failed.stderr);
    assert_eq!(tree.live().as_deref(), Some("A"));
    tree.ends(1, &["deploy", "--resume"]);
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(tree.told(), ["one", "two", "two", "two"]);
    assert_ne!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p13_a_deploy_whose_build_failed_is_gone_on_with_as_a_deploy() {
    let tree = Sandbox::with_live(&["A"]);
    let source = tree.code("code", &step("one", "create", "test -e \"$place/mended\"\n"), &[]);
    let hint = |words: &[&str]| tree.ends(1, words).stderr.lines().last().unwrap().to_owned();
    assert!(hint(&["deploy", &source]).contains("`releasectl deploy --resume`"));
    assert!(hint(&["create", &source]).contains("`releasectl create --resume "));
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_ne!(tree.live().as_deref(), Some("A"));
}

#[test]
fn p13_steps_that_change_the_code_are_not_taken_for_damage_to_it() {
    let tree = Sandbox::with_live(&["A"]);
    let recipe = step("one", "create", "tell one\necho changed >>version\nrm gone\n")
        + &step("two", "create", "tell two\necho again >>version\ntest -e \"$place/mended\"\n");
    let recipe = format!("[shared]\ndirs = ['media']\n{recipe}");
    let source = tree.code("code", &recipe, &[("version", "B\n"), ("gone", "")]);
    fs::create_dir(tree.beside("code/media")).unwrap();
    tree.ends(1, &["deploy", &source]);
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(tree.told(), ["one", "two", "two"]);
    assert_eq!(read(tree.at("current/version")), "B\nchanged\nagain\nagain");
    assert_eq!(tree.json(&["verify"])["ok"], true);
}

#[test]
fn p13_code_that_was_damaged_since_is_brought_in_anew_and_every_step_with_it() {
    let tree = Sandbox::with_live(&["A"]);
    let recipe = step("one", "create", "tell one\n") + &step("two", "create", "test -e \"$place/mended\"\n");
    let source = tree.code("code", &recipe, &[("version", "B\n")]);
    tree.ends(1, &["deploy", &source]);
    let id = tree.states().into_keys().find(|id| id != "A").unwrap();
    fs::write(tree.release(&id).join("version"), "").unwrap();
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(tree.told(), ["one", "one"]);
    assert_eq!(read(tree.at("current/version")), "B");
}

#[test]
fn p13_what_has_changed_since_is_refused_unless_the_operator_says_anyway() {
    for changed in ["host", "recipe"] {
        let tree = Sandbox::with_live(&["A"]);
        let recipe = step("one", "create", "tell one\n") + &step("two", "prepare", "test -e \"$place/mended\"\n");
        let source = tree.code("code", &recipe, &[]);
        let host = tree.host("roles = ['web']\n");
        tree.ends(1, &["--config", &host, "deploy", &source]);
        fs::write(tree.beside("mended"), "").unwrap();
        if changed == "host" {
            tree.host("roles = ['web', 'celery']\n");
        } else {
            let id = tree.states().into_keys().find(|id| id != "A").unwrap();
            let file = tree.release(&id).join("releasectl.toml");
            fs::write(&file, recipe.clone() + &step("three", "finish", "tell three\n")).unwrap();
        }
        let refused = tree.refused(&["--config", &host, "deploy", "--resume"]);
        assert!(refused.contains("has changed since") && refused.contains("--resume=anyway"), "{refused}");
        assert_eq!(tree.live().as_deref(), Some("A"));
        tree.done(&["--config", &host, "deploy", "--resume=anyway"]);
        let told: &[&str] = if changed == "host" { &["one"] } else { &["one", "three"] };
        assert_eq!(tree.told(), told);
    }
}

#[test]
fn p13_resumed_with_another_ref_the_release_holds_what_its_record_says() {
    let tree = Sandbox::new();
    let repository = tree.repository("code.git");
    let recipe = step("one", "create", "test -e \"$place/mended\"\n");
    let source = tree.code("code.git", &recipe, &[]);
    tree.commit(&repository, "with a recipe");
    tree.ends(1, &["deploy", &source]);
    fs::write(repository.join("version"), "2\n").unwrap();
    let newer = tree.commit(&repository, "two");
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", &source, "--resume", "--ref", "master"]);
    assert_eq!(tree.json(&["show"])["release"]["revision"], newer.as_str());
    assert_eq!(read(tree.at("current/version")), "2");
}

#[test]
fn p06_a_second_deploy_at_once_is_busy_and_names_the_holder_and_nobody_else_is_held_up() {
    let (tree, host) = prepared();
    let first = tree.live().unwrap();
    for gate in ["bundle within", "migrate within", "announce within"] {
        let run = tree.run_to(gate, &["--config", &host, "deploy"]);
        let (live, before) = (tree.live(), tree.states());
        let busy = tree.ends(4, &["--config", &host, "deploy"]);
        let pid = run.pid().to_string();
        assert!(busy.stderr.contains(&pid) && busy.stderr.contains("deploy"), "{}", busy.stderr);
        tree.ends(4, &["--config", &host, "deploy", "--resume"]);
        assert_eq!((tree.live(), tree.states()), (live, before));
        // P07: what is live can be changed meanwhile.
        tree.done(&["deactivate", "--yes"]);
        tree.done(&["activate", &first]);
        tree.open_gate();
        // Who made it live already is told that it is so no more.
        let code = if gate == "announce within" { 5 } else { 0 };
        assert_eq!(run.answer().code, code);
    }
}

#[test]
fn p13_the_newest_deploy_is_gone_on_with_whatever_was_created_since() {
    let tree = Sandbox::with_live(&["A"]);
    assert!(tree.refused(&["deploy", "--resume"]).contains("no deploy to go on with"));
    let recipe = step("one", "create", "tell one\ntest -e \"$place/mended\"\n");
    tree.ends(1, &["deploy", &tree.code("code", &recipe, &[("version", "deployed")])]);
    tree.done(&["create", tree.source("private").to_str().unwrap()]);
    tree.ends(1, &["create", &tree.code("other", &step("x", "create", "exit 1\n"), &[])]);
    fs::write(tree.beside("mended"), "").unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(read(tree.at("current/version")), "deployed");
    let live = tree.live().unwrap();
    tree.done(&["rollback"]);
    tree.done(&["remove", &live]);
    assert!(tree.refused(&["deploy", "--resume"]).contains(&format!("of {live}, of which nothing is there")));
}

#[test]
fn p13_what_a_killed_step_started_is_not_worked_beside() {
    for phase in ["create", "prepare"] {
        let tree = Sandbox::with_live(&["A"]);
        nix::unistd::mkfifo(&tree.beside("child"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let run = "sh -c 'echo $$ >\"$0/pid\"; read -r _ <\"$0/child\"; echo late >late' \"$place\" &\ngate within\ntell one\n";
        let source = tree.code("code", &step("one", phase, run), &[]);
        let run = tree.run_to("within", &["deploy", &source]);
        eventually("the child", || fs::read_to_string(tree.beside("pid")).is_ok_and(|pid| pid.ends_with('\n')));
        run.kill();
        let pid = read(tree.beside("pid"));
        let refused = tree.refused(&["deploy", "--resume"]);
        assert!(refused.contains(&format!("this runs on: {pid} (")), "{refused}");
        assert!(refused.contains("`--resume=anyway`"), "{refused}");
        let end = |pid: &str| {
            fs::write(tree.beside("child"), "\n").unwrap();
            eventually("its end", || !std::path::Path::new("/proc").join(pid).exists());
        };
        end(&pid);
        fs::remove_file(tree.beside("pid")).unwrap();
        // The child of the resumed step has no say in it either.
        let run = Run::start(&mut tree.command(&["deploy", "--resume"]));
        assert_eq!(run.answer().code, 0);
        assert_eq!(tree.told(), ["one"]);
        eventually("another child", || fs::read_to_string(tree.beside("pid")).is_ok_and(|pid| pid.ends_with('\n')));
        end(&read(tree.beside("pid")));
    }
}

#[test]
fn p13_another_user_resumes_as_the_tree_owners_hand() {
    if !as_root_or_left_out("a deploy begun by its owner and resumed by root") {
        return;
    }
    let tree = Sandbox::new();
    let recipe = step("one", "create", "tell one\n") + &step("two", "prepare", "gate two\ntell two\n");
    let source = tree.code("code", &recipe, &[]);
    fs::create_dir(tree.root()).unwrap();
    tree.stop_at("two");
    tree.give_all_to_nobody();
    let run = Run::start(&mut tree.command_by_nobody(&["deploy", &source]));
    eventually("two", || tree.beside("reached").exists());
    run.kill();
    fs::remove_file(tree.beside("stop")).unwrap();
    tree.done(&["deploy", "--resume"]);
    assert_eq!(tree.told(), ["one", "two"]);
    for entry in walkdir::WalkDir::new(tree.root()) {
        let entry = entry.unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap());
        assert_eq!(owner, NOBODY, "{}", entry.path().display());
    }
}

#[test]
fn p05_a_deploy_that_expects_what_is_live_gives_way_to_who_was_faster() {
    let tree = Sandbox::with_live(&["A", "B"]);
    let source = tree.code("code", &step("migrate", "prepare", "gate migrate\ntell migrate\n"), &[]);
    let deploy = ["deploy", source.as_str(), "--expect-current", "B"];
    let run = tree.run_to("migrate", &deploy);
    tree.done(&["rollback"]);
    tree.open_gate();
    let answer = run.answer();
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("A is live, not B as expected"), "{answer:?}");
    assert_eq!(tree.live().as_deref(), Some("A"));
    tree.done(&["deploy", "--resume", "--expect-current", "A"]);
    assert_eq!(tree.told(), ["migrate"], "what was done is not done again");
}

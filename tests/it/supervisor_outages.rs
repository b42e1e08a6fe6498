//! What cost others an outage: after each of these the programs run the release that `current` names, and supervisord
//! would start again from its files.

use crate::patience::eventually;
use crate::sandbox::Sandbox;
use crate::supervised::{Version, World, script, sleeper};
use std::fs;
use std::os::unix::fs::symlink;

const TWO: &str = "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d";

/// A is live with a web program of two processes and a worker.
fn world(version: Version) -> World {
    let world = World::of(version, "");
    world.build("A", &conf(), &[]);
    world.done("activate A");
    world.is_well("A", &PROGRAMS);
    world
}

fn conf() -> String {
    sleeper("web", TWO) + &sleeper("worker", "")
}

const PROGRAMS: [&str; 3] = ["web:web_0", "web:web_1", "worker"];

fn the_text_unchanged_the_programs_move(version: Version) {
    let world = world(version);
    world.build("B", &conf(), &[]);
    world.done("activate B");
    world.is_well("B", &PROGRAMS);
    world.done("rollback");
    world.is_well("A", &PROGRAMS);
}

#[test]
fn a_restart_stops_nothing_that_a_dead_python_env_could_not_start_again() {
    let world = World::new();
    let serve = "exec python_env/bin/python -c 'import time; time.sleep(1000)'\n";
    world.build("A", &script("web", "web.sh", ""), &[("web.sh", serve), ("requirements.txt", "")]);
    world.done("activate A");
    let pid = world.pid("web");
    // As an upgrade of the distribution leaves it.
    let python = world.tree.release("A").join("python_env/bin/python");
    fs::remove_file(&python).unwrap();
    symlink("/no/such/python", &python).unwrap();
    for words in ["restart", "restart web"] {
        let said = world.ends(3, words).stderr;
        assert!(said.contains("release A has a dead python_env") && said.contains("build a new release"), "{said}");
        assert_eq!(world.pid("web"), pid);
    }
}

fn a_release_without_programs_is_not_confirmed_while_some_run(version: Version) {
    let world = world(version);
    world.build("B", "", &[]);
    let before = PROGRAMS.map(|program| world.pid(program));
    let answer = world.ends(5, "activate B");
    for word in ["not confirmed: ", "declares no programs", "nothing was flipped: A is still live", "hint: "] {
        assert!(answer.stderr.contains(word), "{word}: {}", answer.stderr);
    }
    world.is_well("A", &PROGRAMS);
    assert_eq!(PROGRAMS.map(|program| world.pid(program)), before, "nothing was touched");
    assert_eq!(world.history(), ["activate A done"]);
}

#[test]
fn what_another_hand_left_running_is_seen_though_what_is_live_declares_none() {
    let mut world = world(Version::Debian);
    world.build("B", "", &[]);
    fs::remove_file(world.tree.at("current")).unwrap();
    symlink("releases/B", world.tree.at("current")).unwrap();
    let status = world.json(0, "status");
    assert_eq!(status["programs"].as_array().unwrap().len(), PROGRAMS.len(), "{status}");
    let told = "not all programs are known to run from B";
    assert!(status["warnings"][0].as_str().unwrap().contains(told), "{status}");
    world.ends(6, "doctor");
    world.kill();
    let status = world.json(0, "status");
    assert!(status["warnings"][1].as_str().unwrap().contains("cannot reach supervisord"), "{status}");
}

fn a_broken_file_is_refused_before_the_flip(version: Version) {
    let world = world(version);
    for (number, broken) in [
        "[program:web\ncommand=/bin/sleep 1\n",
        "[program:web]\n",
        "[program:web]\ncommand=/bin/sleep 1\nnumprocs=many\n",
        "[program:web]\ncommand=/bin/sleep %(nothing)s\n",
        "[program:web]\ncommand=/bin/sleep 1\nuser=nobody_of_that_name\n",
        "[program:web]\ncommand=ROOT/current/not-there\n",
        "[program:web]\ncommand=/bin/sleep 1\n[supervisord]\nidentifier=mine\n",
        "[program:web]\ncommand=/bin/sleep 1\n[program:web]\ncommand=/bin/sleep 2\n",
        "[program:web]\ncommand=/bin/sleep 1\n[group:all]\nprograms=web,gone\n",
    ]
    .into_iter()
    .enumerate()
    {
        // What cannot even be read never becomes a release; what supervisord alone can tell is refused as a candidate.
        let id = format!("B{number}");
        let source = world.tree.source(&id);
        fs::create_dir_all(source.join("services/supervisor")).unwrap();
        let broken = broken.replace("ROOT", world.tree.root().to_str().unwrap());
        fs::write(source.join("services/supervisor/app.conf"), &broken).unwrap();
        let built = world.run(&format!("create {} --id {id}", source.display()));
        if built.code == 0 {
            let answer = world.ends(3, &format!("activate {id}"));
            assert!(answer.stderr.contains("nothing was changed"), "{broken}\n{}", answer.stderr);
        } else {
            assert_eq!(built.code, 1, "{broken}\n{}", built.stderr);
        }
        world.is_well("A", &PROGRAMS);
    }
    assert_eq!(world.history(), ["activate A done"]);
}

fn what_supervisord_would_not_take_is_refused_before_a_prepare_step_runs(version: Version) {
    let mut world = world(version);
    fs::write(world.tree.beside("others/their.conf"), "[program:their]\ncommand=/bin/sleep 1000\n").unwrap();
    let source = world.tree.source("app");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    let recipe = "[[step]]\nname = \"migrate\"\nrun = \"touch ../../migrated && ln -s /bin/sleep made && mkdir -p ../../logs\"\n";
    fs::write(source.join("releasectl.toml"), recipe).unwrap();
    let declare = |conf: &str| {
        let conf = conf.replace("ROOT", world.tree.root().to_str().unwrap());
        fs::write(source.join("services/supervisor/app.conf"), conf).unwrap();
    };
    let (deploy, migrated) = (format!("deploy {}", source.display()), world.tree.at("migrated"));
    for (conf, why) in [
        (sleeper("their", ""), "[program:their]"),
        ("[program:web]\ncommand=/bin/sleep 1\nuser=nobody_of_that_name\n".into(), "nobody_of_that_name"),
    ] {
        declare(&conf);
        let answer = world.ends(3, &deploy);
        assert!(answer.stderr.contains(why) && answer.stderr.contains("nothing was changed"), "{}", answer.stderr);
    }
    // What a program runs, and where it logs to, may be made by the steps.
    declare("[program:web]\ncommand=ROOT/current/made 1000\ndirectory=ROOT/current\nstdout_logfile=ROOT/logs/web\n");
    world.kill();
    let document = world.json(5, &deploy);
    assert_eq!(document["steps"].as_array().unwrap().last().unwrap()["name"], "activate", "{document}");
    assert!(!migrated.exists());
    assert_eq!(world.tree.live().as_deref(), Some("A"));
    fs::remove_file(world.tree.beside("others/their.conf")).unwrap();
    world.start();
    world.done("deploy --resume");
    assert!(migrated.exists());
    world.is_well(&world.tree.live().unwrap(), &["web"]);
}

fn a_release_whose_steps_stop_its_last_programs_goes_live_without_any(version: Version) {
    let world = world(version);
    for (stop, code, up) in [("", 5, &PROGRAMS[..]), ("stop = [\"web\", \"worker\"]", 0, &[])] {
        let recipe = format!("[[step]]\nname = \"gone\"\nrun = \"true\"\n{stop}\n");
        let source = world.tree.code("app", &recipe, &[("version", "B")]);
        world.ends(code, &format!("deploy {source}"));
        world.is_well(&world.tree.live().unwrap(), up);
    }
}

fn what_a_deploy_looks_at_several_times_is_warned_of_once(version: Version) {
    let world = world(version);
    fs::write(world.tree.release("A").join("services/supervisor/app.conf"), "x[broken").unwrap();
    let recipe = "[[step]]\nname = \"one\"\nstop = [\"web\"]\n";
    let source = world.tree.code("app", recipe, &[("version", "B")]);
    let answer = world.ends(0, &format!("deploy {source}"));
    assert_eq!(answer.stderr.matches("is not known").count(), 1, "{}", answer.stderr);
}

fn a_release_that_declares_a_program_of_others_is_refused(version: Version) {
    let world = world(version);
    fs::write(world.tree.beside("others/their.conf"), "[program:their]\ncommand=/bin/sleep 1000\n").unwrap();
    assert_eq!(world.ctl(&["update"]).code, 0);
    let pid = world.pid("their");
    world.build("B", &(conf() + &sleeper("their", "")), &[]);
    let answer = world.ends(3, "activate B");
    assert!(answer.stderr.contains("their"), "{}", answer.stderr);
    assert_eq!(world.pid("their"), pid);
    assert_eq!(world.tree.live().as_deref(), Some("A"));
}

fn a_missing_command_brings_back_what_was_live(version: Version) {
    let world = world(version);
    world.build("B", &(conf() + "[program:new]\ncommand=/nowhere/at-all\nstartretries=0\n"), &[]);
    let answer = world.ends(5, "activate B");
    assert!(answer.stderr.contains("new"), "{}", answer.stderr);
    world.is_well("A", &PROGRAMS);
    assert_eq!(world.history(), ["activate A done", "activate B returned", "rollback A done"]);
}

fn a_dangling_current_stops_nothing_and_is_mended(version: Version) {
    let world = world(version);
    let pids = PROGRAMS.map(|program| world.pid(program));
    fs::remove_file(world.tree.at("current")).unwrap();
    symlink("releases/gone", world.tree.at("current")).unwrap();
    world.run("status");
    world.ends(3, "restart");
    assert_eq!(PROGRAMS.map(|program| world.pid(program)), pids);
    world.build("B", &(sleeper("web", TWO) + &sleeper("new", "")), &[]);
    world.done("activate B");
    world.is_well("B", &["new", "web:web_0", "web:web_1"]);
}

fn a_current_moved_by_hand_is_followed_by_the_programs(version: Version) {
    let world = world(version);
    world.build("B", &conf(), &[]);
    fs::remove_file(world.tree.at("current")).unwrap();
    symlink("releases/B", world.tree.at("current")).unwrap();
    let document = world.json(0, "activate B");
    assert_eq!(document["confirmed"], true);
    world.is_well("B", &PROGRAMS);
    world.done("rollback");
    world.is_well("A", &PROGRAMS);
}

/// supervisord reads another file than the one it is checked by, as somebody changes its own at that very moment.
fn with_a_file_that_changes_under_us(version: Version, change: impl Fn(&str) -> String, word: &str) {
    let world = world(version);
    world.build("B", &conf(), &[]);
    let pids = PROGRAMS.map(|program| world.pid(program));
    let text = fs::read_to_string(world.config()).unwrap();
    let other = world.tree.beside("other.conf");
    fs::write(&other, &text).unwrap();
    let host = fs::read_to_string(world.tree.beside("app.toml")).unwrap();
    fs::write(world.tree.beside("app.toml"), host.replace("supervisord.conf", "other.conf")).unwrap();
    fs::write(world.config(), change(&text)).unwrap();
    let answer = world.ends(5, "activate B");
    for word in ["release A is live again", word] {
        assert!(answer.stderr.contains(word), "{word}: {}", answer.stderr);
    }
    assert_eq!(PROGRAMS.map(|program| world.pid(program)), pids, "no program was stopped");
    fs::write(world.config(), text).unwrap();
    world.done("restart");
    world.is_well("A", &PROGRAMS);
    world.done("activate B");
    world.is_well("B", &PROGRAMS);
}

fn programs_that_vanish_from_the_files_are_not_stopped(version: Version) {
    let without = |text: &str| text.split("[include]").next().unwrap().to_owned();
    with_a_file_that_changes_under_us(version, without, "no longer finds web, worker");
}

fn files_that_cannot_be_read_any_more_stop_nothing(version: Version) {
    let broken = |text: &str| text.replace("others/*.conf", "%(nothing)s");
    with_a_file_that_changes_under_us(version, broken, "hint: correct the file it names");
}

fn what_an_operator_stopped_stays_stopped_through_everything(version: Version) {
    let world = world(version);
    assert_eq!(world.ctl(&["stop", "worker"]).code, 0);
    world.build("B", &conf(), &[]);
    world.done("activate B");
    world.is_well("B", &PROGRAMS[..2]);
    world.build("C", &(conf() + &script("new", "dies.sh", "")), &[("dies.sh", "exit 3\n")]);
    world.ends(5, "activate C");
    world.is_well("B", &PROGRAMS[..2]);
    world.done("rollback");
    world.is_well("A", &PROGRAMS[..2]);
    world.done("restart");
    world.is_well("A", &PROGRAMS[..2]);
    world.done("start worker");
    world.is_well("A", &PROGRAMS);
}

fn p19_another_environment_is_never_touched(version: Version) {
    let world = world(version);
    let theirs = Sandbox::laid_out();
    let conf_of = |more: &str| sleeper("their", more).replace("ROOT", theirs.root().to_str().unwrap());
    let source = theirs.source("A");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    fs::write(source.join("services/supervisor/their.conf"), conf_of("")).unwrap();
    theirs.done(&["create", source.to_str().unwrap(), "--id", "A"]);
    let host = format!("root = {:?}\n[supervisor]\nconfig = {:?}\n", theirs.root(), world.config());
    fs::write(world.tree.beside("their.toml"), host).unwrap();
    let run = |words: &str| {
        let mut command = world.tree.clean(crate::sandbox::PROGRAM);
        let output = command.arg("--config").arg(world.tree.beside("their.toml")).args(words.split(' ')).output();
        let answer: crate::sandbox::Answer = output.unwrap().into();
        assert_eq!(answer.code, 0, "{words}: {}", answer.stderr);
    };
    run("supervisor wire");
    run("activate A");
    let pid = world.pid("their");
    // Meanwhile they are half-way through a change of their own.
    fs::write(theirs.release("A").join("services/supervisor/their.conf"), conf_of("priority=3")).unwrap();
    world.build("B", &(sleeper("web", "") + &sleeper("new", "")), &[]);
    world.done("activate B");
    world.done("restart");
    world.done("stop");
    world.ends(3, "restart their");
    world.done("start");
    world.build("C", &script("web", "dies.sh", ""), &[("dies.sh", "exit 3\n")]);
    world.ends(5, "activate C");
    world.done("rollback");
    eventually("the programs are those of A", || world.states()["worker"] == "RUNNING");
    assert_eq!(world.pid("their"), pid);
    run("restart");
    assert_ne!(world.pid("their"), pid);
    world.would_start();
}

on_both_versions!(
    the_text_unchanged_the_programs_move,
    a_release_without_programs_is_not_confirmed_while_some_run,
    a_broken_file_is_refused_before_the_flip,
    what_supervisord_would_not_take_is_refused_before_a_prepare_step_runs,
    a_release_whose_steps_stop_its_last_programs_goes_live_without_any,
    what_a_deploy_looks_at_several_times_is_warned_of_once,
    a_release_that_declares_a_program_of_others_is_refused,
    a_missing_command_brings_back_what_was_live,
    a_dangling_current_stops_nothing_and_is_mended,
    a_current_moved_by_hand_is_followed_by_the_programs,
    programs_that_vanish_from_the_files_are_not_stopped,
    files_that_cannot_be_read_any_more_stop_nothing,
    what_an_operator_stopped_stays_stopped_through_everything,
    p19_another_environment_is_never_touched,
);

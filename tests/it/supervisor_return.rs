//! A release that does not come up: what was live before is live again, and up; and what a kill leaves.

use crate::patience::eventually;
use crate::sandbox::Started;
use crate::supervised::{Version, World, script, signal, sleeper};
use std::fs;
use std::process::Stdio;

const WAITS: &str = "exec sleep 1000\n";
const DIES: &str = "echo the database is away >&2; exit 3\n";

#[test]
fn without_programs_or_health_nothing_is_asked_of_supervisord() {
    let mut world = World::new();
    world.kill();
    world.build("A", "", &[]);
    world.build("B", "", &[]);
    world.done("activate A");
    let document = world.json(0, "activate B");
    assert_eq!((&document["confirmed"], &document["rolled_back"]), (&true.into(), &false.into()));
    world.done("rollback");
    assert_eq!(world.history(), ["activate A done", "activate B done", "rollback A done"]);
}

fn a_program_that_dies_brings_back_what_was_live(version: Version) {
    let world = World::of(version, "");
    let conf = script("web", "web.sh", "") + &sleeper("worker", "");
    world.build("A", &conf, &[("web.sh", WAITS)]);
    world.build("B", &conf, &[("web.sh", DIES)]);
    world.done("activate A");
    world.is_well("A", &["web", "worker"]);
    let document = world.json(5, "activate B");
    assert_eq!((&document["confirmed"], &document["rolled_back"]), (&false.into(), &true.into()));
    assert_eq!((&document["from"], &document["to"]), (&"A".into(), &"B".into()));
    assert_eq!(document["error"]["kind"], "not_confirmed");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("the database is away"), "{message}");
    assert!(message.contains("release A is live again, and came up"), "{message}");
    world.is_well("A", &["web", "worker"]);
    assert_eq!(world.history(), ["activate A done", "activate B returned", "rollback A done"]);
    assert_eq!(world.tree.states()["B"], "bad");
    // The bad one is never chosen: there is nothing before A.
    world.ends(3, "rollback");
    world.build("C", &conf, &[("web.sh", WAITS)]);
    world.done("activate C");
    world.is_well("C", &["web", "worker"]);
    world.done("rollback");
    world.is_well("A", &["web", "worker"]);
}

on_both_versions!(a_program_that_dies_brings_back_what_was_live);

#[test]
fn a_failing_health_check_brings_back_what_was_live() {
    let world = World::of(Version::Debian, "[health]\ncommand = \"cat well\"\ntimeout = \"1s\"\n");
    let conf = sleeper("web", "");
    world.build("A", &conf, &[("well", "")]);
    world.build("B", &conf, &[]);
    world.done("activate A");
    let answer = world.ends(5, "activate B");
    assert!(answer.stderr.contains("cat well") && answer.stderr.contains("A is live again"), "{}", answer.stderr);
    assert_eq!(answer.stdout, "", "what is told of a failure is told once");
    world.is_well("A", &["web"]);
    assert_eq!(world.history(), ["activate A done", "activate B returned", "rollback A done"]);
}

#[test]
fn a_health_check_that_hangs_brings_back_what_was_live() {
    let world = World::of(Version::Debian, "[health]\ncommand = \"test -e well || sleep 1000\"\ntimeout = \"1s\"\n");
    let conf = sleeper("web", "");
    world.build("A", &conf, &[("well", "")]);
    world.build("B", &conf, &[]);
    world.done("activate A");
    world.ends(5, "activate B");
    world.is_well("A", &["web"]);
}

#[test]
fn a_health_check_counts_without_any_programs() {
    let world = World::of(Version::Debian, "[health]\ncommand = \"cat well\"\ntimeout = \"1s\"\n");
    world.build("A", "", &[("well", "")]);
    world.build("B", "", &[]);
    world.done("activate A");
    world.ends(5, "activate B");
    assert_eq!(world.tree.live().as_deref(), Some("A"));
}

#[test]
fn on_failure_stay_leaves_the_new_one_live_and_a_repetition_tries_again() {
    let world = World::of(Version::Debian, "[activate]\non_failure = \"stay\"\n");
    let conf = script("web", "web.sh", "");
    world.build("A", &conf, &[("web.sh", WAITS)]);
    world.build("B", &conf, &[("web.sh", "test -e ../../well || exit 3; exec sleep 1000\n")]);
    world.done("activate A");
    let document = world.json(5, "activate B");
    assert_eq!((&document["confirmed"], &document["rolled_back"]), (&false.into(), &false.into()));
    assert_eq!(world.tree.live().as_deref(), Some("B"));
    assert_eq!(world.history(), ["activate A done", "activate B unconfirmed"]);
    world.ends(5, "activate B");
    fs::write(world.tree.at("well"), "").unwrap();
    world.done("activate B");
    world.is_well("B", &["web"]);
    assert_eq!(world.history(), ["activate A done", "activate B done"]);
    assert_eq!(world.json(0, "activate B")["changed"], false);
}

#[test]
fn the_first_release_has_nothing_to_go_back_to() {
    let world = World::new();
    world.build("A", &script("web", "web.sh", ""), &[("web.sh", DIES)]);
    let answer = world.ends(5, "activate A");
    assert!(answer.stderr.contains("nothing else was live before it"), "{}", answer.stderr);
    assert_eq!(world.tree.live().as_deref(), Some("A"));
}

#[test]
fn a_failed_rollback_brings_back_what_was_live_and_says_so() {
    let world = World::new();
    let conf = script("web", "web.sh", "");
    world.build("A", &conf, &[("web.sh", "test ! -e ../../broken || exit 3; exec sleep 1000\n")]);
    world.build("B", &conf, &[("web.sh", WAITS)]);
    world.done("activate A");
    world.done("activate B");
    fs::write(world.tree.at("broken"), "").unwrap();
    world.ends(5, "rollback");
    world.is_well("B", &["web"]);
    assert_eq!(world.tree.states()["A"], "bad");
    assert_eq!(world.tree.states()["B"], "ready");
}

#[test]
fn a_deploy_that_does_not_come_up_runs_no_finish_steps_and_is_on_record() {
    let world = World::new();
    let conf = script("web", "web.sh", "");
    let recipe = "[[step]]\nname = \"after\"\nrun = \"touch ../../finished\"\nphase = \"finish\"\n";
    let root = world.tree.root();
    let conf = conf.replace("ROOT", root.to_str().unwrap());
    let source = world.tree.source("app");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    fs::write(source.join("services/supervisor/app.conf"), conf).unwrap();
    fs::write(source.join("releasectl.toml"), recipe).unwrap();
    fs::write(source.join("web.sh"), WAITS).unwrap();
    world.done(&format!("deploy {}", source.display()));
    let first = world.tree.live().unwrap();
    assert!(world.tree.at("finished").exists());
    fs::remove_file(world.tree.at("finished")).unwrap();
    fs::write(source.join("web.sh"), DIES).unwrap();
    let document = world.json(5, &format!("deploy {}", source.display()));
    assert_eq!(document["rolled_back"], true);
    assert_eq!(document["steps"].as_array().unwrap().last().unwrap()["status"], "failed");
    assert!(!world.tree.at("finished").exists());
    world.is_well(&first, &["web"]);
    let document = world.json(0, "history");
    let last = document["entries"].as_array().unwrap().iter().rfind(|e| e["operation"] == "deploy").unwrap().clone();
    assert_eq!(last["outcome"], "failed");
}

#[test]
fn going_back_brings_over_what_ran_from_elsewhere_before() {
    for moved in ["rollback --no-restart", "by another hand"] {
        let world = World::new();
        let conf = script("one", "one.sh", "priority=1") + &sleeper("two", "priority=2");
        world.build("A", &conf, &[("one.sh", WAITS)]);
        world.build("B", &conf, &[("one.sh", WAITS)]);
        world.build("C", &conf, &[("one.sh", DIES)]);
        world.done("activate A");
        world.done("activate B");
        if moved == "by another hand" {
            fs::remove_file(world.tree.at("current")).unwrap();
            std::os::unix::fs::symlink("releases/A", world.tree.at("current")).unwrap();
        } else {
            world.done(moved);
        }
        let answer = world.ends(5, "activate C");
        assert!(answer.stderr.contains("release A is live again, and came up"), "{}", answer.stderr);
        world.is_well("A", &["one", "two"]);
    }
}

#[test]
fn what_does_not_come_up_on_the_way_back_keeps_nothing_else_on_what_is_no_good() {
    for mode in ["rolling", "together"] {
        let world = World::of(Version::Debian, &format!("[supervisor]\nrestart = \"{mode}\"\n"));
        let conf = script("first", "first.sh", "") + &sleeper("second", "") + &script("third", "third.sh", "");
        let first = "test ! -e ../../away || exit 3; exec sleep 1000\n";
        world.build("A", &conf, &[("first.sh", first), ("third.sh", WAITS)]);
        world.build("B", &conf, &[("first.sh", "touch ../../away; exec sleep 1000\n"), ("third.sh", DIES)]);
        world.done("activate A");
        let answer = world.ends(5, "activate B");
        assert!(answer.stderr.contains("did not come up either: first:first"), "{}", answer.stderr);
        assert!(answer.stderr.contains("not done: first:first\n"), "{}", answer.stderr);
        assert_eq!((world.works_in("second"), world.works_in("third")), ("A".to_owned(), "A".to_owned()));
    }
}

#[test]
fn a_hook_that_fails_on_the_way_back_keeps_nothing_else_on_what_is_no_good() {
    for (hook, stays) in [("drain", "B"), ("undrain", "A")] {
        let host = format!("[hooks]\n{hook} = 'case $RELEASECTL_PROGRAM in a:*) test ! -e ../../away;; esac'\n");
        let world = World::of(Version::Debian, &host);
        let conf = sleeper("a", "") + &sleeper("b", "") + &script("c", "c.sh", "");
        world.build("A", &conf, &[("c.sh", WAITS)]);
        world.build("B", &(conf + &sleeper("new", "")), &[("c.sh", "touch ../../away; exit 3\n")]);
        world.done("activate A");
        let said = world.ends(5, "activate B").stderr;
        assert!(said.contains(&format!("did not come up either: the {hook} hook failed for a:a")), "{said}");
        assert!(said.contains("not done: a:a\n"), "{said}");
        assert_eq!(["a", "b", "c"].map(|program| world.works_in(program)), [stays, "A", "A"]);
        assert!(!world.states().contains_key("new"));
        fs::remove_file(world.tree.at("away")).unwrap();
        world.done("restart");
        world.is_well("A", &["a", "b", "c"]);
    }
}

/// What is left after `releasectl activate B` was killed when `moment` came.
fn killed_at(world: &World, moment: impl Fn() -> bool) {
    let mut child = world.command("activate B").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the moment to kill", || moment() || child.try_wait().unwrap().is_some());
    signal(child.id(), "KILL");
    child.wait().unwrap();
}

#[test]
fn after_a_kill_in_the_middle_the_next_command_brings_the_programs_over() {
    for next in ["activate B", "restart", "rollback"] {
        let world = World::new();
        let slow = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done\n";
        let conf =
            script("one", "slow.sh", "priority=1") + &script("two", "slow.sh", "priority=2") + &sleeper("old", "");
        world.build("A", &conf, &[("slow.sh", slow)]);
        let conf =
            script("one", "slow.sh", "priority=1") + &script("two", "slow.sh", "priority=2") + &sleeper("new", "");
        world.build("B", &conf, &[("slow.sh", slow)]);
        world.done("activate A");
        let pid = world.pid("one");
        killed_at(&world, || world.states()["one"] != "RUNNING" || world.pid("one") != pid);
        assert_eq!(world.tree.live().as_deref(), Some("B"));
        assert!(world.run("status").stderr.contains("not all programs are known to run from B"));
        let said = world.done(next);
        assert_eq!(said.contains("B is live, as it was; its programs run from it now"), next == "activate B", "{said}");
        if next == "rollback" {
            world.is_well("A", &["old", "one", "two"]);
        } else {
            world.is_well("B", &["new", "one", "two"]);
            assert_eq!(world.history(), ["activate A done", "activate B done"]);
        }
        assert!(!world.run("status").stderr.contains("not all programs"), "{next}");
    }
}

#[test]
fn after_a_kill_on_the_way_back_the_next_command_brings_the_programs_back() {
    let world = World::new();
    let slow = "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done\n";
    let conf = script("one", "slow.sh", "priority=1") + &script("two", "two.sh", "priority=2");
    world.build("A", &conf, &[("slow.sh", slow), ("two.sh", WAITS)]);
    world.build("B", &conf, &[("slow.sh", slow), ("two.sh", DIES)]);
    world.done("activate A");
    let went = std::cell::Cell::new(false);
    killed_at(&world, || {
        went.set(went.get() || world.tree.live().as_deref() == Some("B"));
        went.get() && world.tree.live().as_deref() == Some("A")
    });
    assert_eq!(world.tree.live().as_deref(), Some("A"));
    world.done("restart");
    world.is_well("A", &["one", "two"]);
    let history = world.history();
    assert_eq!(history.last().unwrap(), "rollback A done");
    assert!(["activate B returned", "activate B unconfirmed"].contains(&history[1].as_str()), "{history:?}");
    world.ends(3, "rollback");
}

#[test]
fn programs_that_are_not_as_they_should_be_are_told_with_what_mends_them() {
    let world = World::new();
    let user = format!("user={}", nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name);
    let conf = script("web", "web.sh", &user) + &sleeper("worker", &user);
    let well = world.tree.beside("well");
    let run = format!("test -e {} && exec sleep 1000\n", well.display());
    fs::write(&well, "").unwrap();
    world.build("A", &conf, &[("web.sh", &run)]);
    let step = "[[step]]\nname = 'work'\nrun = 'touch begun; exec sleep 1000'\nstop = ['worker']\n";
    world.build("B", &conf, &[("web.sh", &run), ("releasectl.toml", step)]);
    world.done("activate A");
    let told = |what: &str| {
        let told = world.ends(6, "doctor").stdout;
        assert!(told.contains(what), "{what}: {told}");
    };
    // Stopped by a deploy: as it should be while it runs, and not once it was killed.
    let mut deploy = world.command("deploy --release B").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("its step", || world.tree.release("B").join("begun").exists());
    world.done("doctor");
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    told("did not come to its end, and not started again: worker:worker");
    assert!(world.run("status").stderr.contains("not started again: worker:worker"));
    world.done("start");
    world.done("doctor");
    // Moved by hand.
    fs::remove_file(world.tree.at("current")).unwrap();
    std::os::unix::fs::symlink("releases/B", world.tree.at("current")).unwrap();
    told("not all programs are known to run from B");
    world.done("restart");
    world.is_well("B", &["web", "worker"]);
    world.done("doctor");
    // Given up.
    fs::remove_file(&well).unwrap();
    signal(world.pid("web"), "KILL");
    eventually("supervisord gives up", || world.states()["web"] == "FATAL");
    told("supervisord has given up on web");
    fs::write(&well, "").unwrap();
    world.done("start");
    assert_eq!(world.done("start"), "nothing to do\n");
    world.done("doctor");
}

#[test]
fn what_a_deploy_has_stopped_for_its_steps_is_started_by_no_other_command_meanwhile() {
    let world = World::new();
    let conf = sleeper("web", "") + &sleeper("worker", "");
    let step =
        "[[step]]\nname = 'work'\nrun = 'touch begun; until test -e done; do sleep 0.1; done'\nstop = ['worker']\n";
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[("releasectl.toml", step)]);
    world.done("activate A");
    let web = world.pid("web");
    let deploy = Started::new(world.command("deploy --release B"));
    eventually("its step", || world.tree.release("B").join("begun").exists());
    let document = world.json(0, "restart");
    assert_eq!(document["restarted"], serde_json::json!(["web:web"]));
    assert!(world.pid("web") != web);
    assert_eq!(world.json(0, "activate A")["changed"], false);
    assert_eq!(world.states()["worker"], "STOPPED");
    fs::write(world.tree.release("B").join("done"), "").unwrap();
    let answer = deploy.answer();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    world.is_well("B", &["web", "worker"]);
}

#[test]
fn a_deploy_that_fails_says_of_no_program_that_runs_that_it_has_stopped_it() {
    let world = World::new();
    let conf = script("web", "web.sh", "startsecs=1") + &sleeper("worker", "");
    let well = world.tree.beside("well");
    let run = format!("test -e {} && exec sleep 1000\n", well.display());
    fs::write(&well, "").unwrap();
    world.build("A", &conf, &[("web.sh", &run)]);
    world.build("B", &conf, &[("web.sh", DIES)]);
    let fails = "[[step]]\nname = 'work'\nrun = 'false'\n";
    world.build("C", &conf, &[("web.sh", &run), ("releasectl.toml", fails)]);
    let stops = format!("{fails}stop = ['worker']\n");
    world.build("D", &conf, &[("web.sh", &run), ("releasectl.toml", &stops)]);
    world.done("activate A");
    // Nothing is confirmed after that, neither there nor back, and everything is owed.
    fs::remove_file(&well).unwrap();
    assert!(world.ends(5, "activate B").stderr.contains("did not come up either"));
    let said = |id: &str| world.ends(1, &format!("deploy --release {id}")).stderr;
    let stopped = "stopped for this deploy and not started again: ";
    let told = said("C");
    assert!(!told.contains(stopped), "{told}");
    let told = said("D");
    assert!(told.contains(&format!("{stopped}worker:worker;")), "{told}");
    fs::write(&well, "").unwrap();
    world.done("restart");
    world.is_well("A", &["web", "worker"]);
}

#[test]
fn p13_a_resumed_deploy_stops_again_what_a_reboot_has_started() {
    let mut world = World::new();
    let conf = sleeper("web", "") + &sleeper("worker", "");
    let (ok, ctl) = (world.tree.beside("ok"), Version::Debian.program("supervisorctl"));
    let asks = format!("test -e {} || exit 1; {} -c {} status", ok.display(), ctl.display(), world.config().display());
    let recipe = format!(
        "[[step]]\nname = 'stop'\nstop = ['worker']\n[[step]]\nname = 'work'\nrun = '{asks} worker | tee seen'\n"
    );
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[("releasectl.toml", &recipe)]);
    world.done("activate A");
    world.ends(1, "deploy --release B");
    world.kill();
    world.start();
    eventually("everything is up again", || world.states().values().all(|state| state == "RUNNING"));
    fs::write(&ok, "").unwrap();
    world.done("deploy --resume");
    let seen = fs::read_to_string(world.tree.release("B").join("seen")).unwrap();
    assert!(seen.contains("STOPPED"), "{seen}");
    world.is_well("B", &["web", "worker"]);
}

#[test]
fn a_resumed_deploy_whose_steps_stop_nothing_asks_nothing_of_supervisord() {
    let mut world = World::new();
    let (conf, ok) = (sleeper("web", ""), world.tree.beside("ok"));
    let recipe = format!("[[step]]\nname = 'work'\nphase = 'finish'\nrun = 'test -e {}'\n", ok.display());
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[("releasectl.toml", &recipe)]);
    world.done("activate A");
    world.ends(5, "deploy --release B");
    world.kill();
    fs::write(&ok, "").unwrap();
    world.done("deploy --resume");
    assert_eq!(world.tree.live().as_deref(), Some("B"));
}

//! supervisord that is down, hung, or does not let us in: it is found before anything is changed, not confirmed and told;
//! going back by hand always works.

use crate::patience::eventually;
use crate::supervised::{World, script, sleeper};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// B is live, A was before it.
fn world() -> World {
    let world = World::new();
    let conf = sleeper("web", "") + &sleeper("worker", "");
    for id in ["A", "B", "C"] {
        world.build(id, &conf, &[]);
    }
    world.done("activate A");
    world.done("activate B");
    world
}

/// Whatever is wrong: `activate` flips nothing and says so, `rollback --no-restart` works.
#[track_caller]
fn is_not_confirmed(world: &World, word: &str) {
    // Who looks waits for nobody's turn.
    let looks = ["status", "doctor", "ps"].map(|words| crate::sandbox::Started::new(world.command(words)));
    for (words, to) in [("activate C", "C"), ("rollback", "A")] {
        let document = world.json(5, words);
        let (error, message) = (&document["error"], document["error"]["message"].as_str().unwrap());
        assert_eq!((&error["kind"], &error["exit"]), (&"not_confirmed".into(), &5.into()), "{error}");
        assert!(message.starts_with("not confirmed: ") && message.contains(word), "{message}");
        assert!(message.ends_with("nothing was flipped: B is still live, the programs were not touched"), "{message}");
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("`rollback --no-restart` and `activate --no-restart`"), "{hint}");
        let flags = ["changed", "confirmed", "rolled_back"].map(|name| document[name].as_bool().unwrap());
        assert_eq!((&document["from"], &document["to"], flags), (&"B".into(), &to.into(), [false; 3]), "{document}");
        assert_eq!(world.tree.live().as_deref(), Some("B"));
    }
    assert_eq!(world.history(), ["activate A done", "activate B done"]);
    assert_eq!(world.tree.states().values().collect::<Vec<_>>(), ["ready"; 3], "nobody's fault is a release's");
    let [status, doctor, ps] = looks.map(crate::sandbox::Started::answer);
    assert_eq!([status.code, doctor.code, ps.code], [0, 6, 0], "{}{}{}", status.stderr, doctor.stderr, ps.stderr);
    assert!(status.stderr.contains("warning: "), "{}", status.stderr);
    let document = world.json(0, "rollback --no-restart");
    assert_eq!((&document["changed"], &document["confirmed"]), (&true.into(), &false.into()));
    assert_eq!(world.tree.live().as_deref(), Some("A"));
    assert_eq!(world.history().last().unwrap(), "rollback A done");
}

#[test]
fn down() {
    let mut world = world();
    world.kill();
    is_not_confirmed(&world, "cannot reach supervisord");
    for words in ["restart", "restart web", "start", "stop web"] {
        let error = world.json(5, words)["error"].clone();
        assert!(error["message"].as_str().unwrap().starts_with("cannot reach supervisord"), "{words}: {error}");
        assert_eq!(error["kind"], "not_confirmed", "{words}: {error}");
    }
    world.start();
    eventually("the programs are up", || world.states().values().all(|state| state == "RUNNING"));
    world.is_well("A", &["web", "worker"]);
    world.done("restart");
    world.is_well("A", &["web", "worker"]);
}

#[test]
fn what_is_restarted_or_started_and_does_not_come_up_is_not_confirmed() {
    let world = World::new();
    let lame = "test ! -e lame || exit 1\nexec sleep 1000\n";
    world.build("A", &script("web", "lame.sh", "startretries=0"), &[("lame.sh", lame)]);
    world.done("activate A");
    fs::write(world.tree.release("A").join("lame"), "").unwrap();
    for words in ["restart web", "start web", "restart"] {
        let answer = world.ends(5, words);
        assert!(answer.stderr.contains("web did not come up"), "{words}: {}", answer.stderr);
    }
    fs::remove_file(world.tree.release("A").join("lame")).unwrap();
    world.done("start web");
    world.is_well("A", &["web"]);
}

#[test]
fn hung() {
    let world = world();
    world.signal("STOP");
    is_not_confirmed(&world, "did not answer");
    world.signal("CONT");
    assert_eq!(world.works_in("web"), "B", "nobody told it to move");
    let document = world.json(0, "activate A");
    assert_eq!((&document["confirmed"], &document["to"]), (&true.into(), &"A".into()));
    world.is_well("A", &["web", "worker"]);
    assert_eq!(world.json(0, "activate A")["changed"], false);
}

#[test]
fn with_the_wrong_password() {
    let mut world = world();
    world.kill();
    let text = fs::read_to_string(world.config()).unwrap();
    let guarded = text.replacen("s.sock\n", "s.sock\nusername=admin\npassword=right\n", 1);
    let right = guarded.replace("[supervisorctl]\n", "[supervisorctl]\nusername=admin\npassword=right\n");
    fs::write(world.config(), &right).unwrap();
    world.start();
    fs::write(
        world.config(),
        right.replace(
            "[supervisorctl]\nusername=admin\npassword=right",
            "[supervisorctl]\nusername=admin\npassword=wrong",
        ),
    )
    .unwrap();
    is_not_confirmed(&world, "refuses the user name and password");
    fs::write(world.config(), right).unwrap();
    world.done("restart");
    world.is_well("A", &["web", "worker"]);
}

#[test]
fn with_something_else_at_its_socket() {
    let world = world();
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text.replace("serverurl=unix://%(here)s/s.sock", "serverurl=unix://%(here)s/gone.sock"))
        .unwrap();
    is_not_confirmed(&world, "cannot reach supervisord");
    fs::write(world.config(), text).unwrap();
    world.done("restart");
    world.is_well("A", &["web", "worker"]);
}

#[test]
fn a_deploy_is_not_confirmed_and_goes_on_when_supervisord_is_back() {
    let mut world = World::new();
    let source = world.tree.source("app");
    fs::create_dir_all(source.join("services/supervisor")).unwrap();
    let root = world.tree.root();
    let conf = sleeper("web", "").replace("ROOT", root.to_str().unwrap());
    fs::write(source.join("services/supervisor/app.conf"), conf).unwrap();
    world.kill();
    let document = world.json(5, &format!("deploy {}", source.display()));
    assert_eq!((&document["changed"], &document["confirmed"]), (&false.into(), &false.into()));
    assert_eq!(document["steps"].as_array().unwrap().last().unwrap()["status"], "failed", "{document}");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing was flipped: nothing is live"), "{message}");
    assert_eq!(world.tree.live(), None);
    world.start();
    world.done("deploy --resume");
    world.is_well(&world.tree.live().unwrap(), &["web"]);
    assert_eq!(world.tree.states().len(), 1);
}

#[test]
fn killed_in_the_middle_it_is_said_what_was_done_and_what_was_not() {
    let mut world = World::new();
    let slow = "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.05; done\n";
    let conf = script("one", "slow.sh", "priority=1") + &script("two", "slow.sh", "priority=2");
    for id in ["A", "B"] {
        world.build(id, &conf, &[("slow.sh", slow)]);
    }
    world.done("activate A");
    let child = world.command("activate B").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the first is being stopped", || world.states()["one"] != "RUNNING");
    world.kill();
    let answer: crate::sandbox::Answer = child.wait_with_output().unwrap().into();
    assert_eq!(answer.code, 5, "{}", answer.stderr);
    let said = ["release B did not come up", "done before that", "not done: ", "release A is live again, but"];
    assert!(said.iter().all(|part| answer.stderr.contains(part)), "{}", answer.stderr);
    assert_eq!(world.tree.live().as_deref(), Some("A"));
    world.start();
    eventually("the programs are up", || world.states().values().all(|state| state == "RUNNING"));
    world.done("restart");
    world.is_well("A", &["one", "two"]);
}

#[test]
fn while_it_restarts_the_programs_end_up_on_what_is_live() {
    let world = world();
    world.signal("HUP");
    let answer = world.run("activate C");
    assert!([0, 5].contains(&answer.code), "{}", answer.stderr);
    eventually("it is back", || world.run("restart").code == 0);
    let live = world.tree.live().unwrap();
    world.is_well(&live, &["web", "worker"]);
}

/// A root run works as the tree's user; supervisord and its files stay root's. Only where these tests run as root.
#[test]
fn p16_as_root_for_a_user_only_supervisord_is_asked_as_root() {
    if !crate::sandbox::is_root() {
        return;
    }
    let world = World::new();
    fs::set_permissions(world.tree.beside(""), fs::Permissions::from_mode(0o755)).unwrap();
    let root = world.tree.root();
    let given = std::process::Command::new("chown").args(["-R", "nobody"]).arg(&root).status().unwrap();
    assert!(given.success());
    world.host("user = \"nobody\"\n[hooks]\ndrain = \"id -un >> drained\"\n");
    let conf = sleeper("web", "user=nobody");
    world.build("A", &conf, &[]);
    world.build("B", &conf, &[]);
    world.done("activate A");
    world.done("activate B");
    world.is_well("B", &["web"]);
    let drained = fs::read_to_string(world.tree.release("B").join("drained")).unwrap();
    assert_eq!(drained, "nobody\n");
    let strangers = walkdir::WalkDir::new(&root)
        .into_iter()
        .flatten()
        .filter(|entry| std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap()) == 0);
    assert_eq!(strangers.map(|entry| entry.path().to_owned()).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    // Whoever may not use the socket is told so, and can go back without it.
    let told = |code: i32, words: &str, what: &str| {
        let mut command = world.tree.clean("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", crate::sandbox::PROGRAM]);
        command.arg("--config").arg(world.tree.beside("app.toml")).args(words.split(' '));
        let answer: crate::sandbox::Answer = command.output().unwrap().into();
        assert_eq!(answer.code, code, "{words}: {}", answer.stderr);
        assert!(answer.stderr.contains(what), "{words}: {}", answer.stderr);
    };
    told(5, "rollback", "cannot reach supervisord");
    told(0, "rollback --no-restart", "");
    world.done("restart");
    world.is_well("A", &["web"]);
    // Whoever may is told what else is hidden from them: the file with its passwords, and its environment.
    assert!(
        std::process::Command::new("chown").arg("nobody").arg(world.tree.beside("s.sock")).status().unwrap().success()
    );
    world.build("C", &sleeper("web", "user=nobody\nenvironment=A=\"%(ENV_NOT_THERE)s\""), &[]);
    assert!(world.ends(3, "activate C").stderr.contains("hint: correct services/supervisor"));
    told(3, "activate C", "hint: run it as root: only supervisord's own user sees the environment");
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o600)).unwrap();
    told(3, "activate B", "hint: run it as whoever may read that file, usually root");
    fs::remove_file(world.config()).unwrap();
    assert!(world.ends(3, "activate B").stderr.contains("hint: is supervisor installed?"));
}

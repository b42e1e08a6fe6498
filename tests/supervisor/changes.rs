//! Releases that add, remove or break programs, and the way back. Each of the outages that others had is here once.

use crate::patience::eventually;
use crate::sandbox::{Sandbox, Version, sleeper};
use releasectl::supervisor::conf::Declared;
use releasectl::supervisor::roll::Unexpected;
use releasectl::supervisor::rpc::methods::State;
use releasectl::supervisor::rpc::{Fault, RpcError};
use releasectl::supervisor::{Limits, Plainly, Supervisor, SupervisorError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

on_both_versions!(
    programs_come_change_and_go_with_their_release,
    a_log_that_is_named_no_more_is_given_up,
    a_dangling_current_stops_nothing,
    a_broken_file_after_the_flip_stops_nothing,
    a_program_that_dies_is_reported_with_its_last_lines_and_undone,
    a_command_that_is_missing_is_a_failure,
    a_program_that_failed_before_is_tried_again,
    a_program_that_ends_well_at_once_came_up,
    a_program_that_dies_after_it_came_up_is_noticed,
    a_hung_supervisord_is_given_up_and_says_what_was_done,
    the_way_back_leaves_alone_what_was_not_touched,
    what_a_failed_change_removed_stands_as_it_did,
    what_moves_to_another_group_stands_as_it_did,
    a_supervisord_that_was_restarted_starts_from_the_files,
);

fn failing(name: &str, words: &str) -> String {
    let command = format!("/bin/sh -c 'echo starting; echo \"{words}\" >&2; sleep 0.1; exit 3'");
    format!("[program:{name}]\ncommand={command}\nstartsecs=1\nstartretries=1\n")
}

fn release_of(sandbox: &Sandbox, id: &str) -> PathBuf {
    fs::canonicalize(sandbox.release("production", id)).unwrap()
}

fn programs_come_change_and_go_with_their_release(version: Version) {
    let sandbox = Sandbox::new(version);
    let one = sandbox.deploy("production", "a", &(sleeper("web", "") + &sleeper("old", "") + &sleeper("worker", "")));
    let two =
        sandbox.make("production", "b", &(sleeper("web", "") + &sleeper("new", "") + &sleeper("worker", "priority=5")));
    for (live, before, after, [removed, replaced, added]) in
        [("b", &one, &two, ["old", "worker", "new"]), ("a", &two, &one, ["new", "worker", "old"])]
    {
        sandbox.flip("production", live);
        let done = sandbox.apply(before, after).unwrap();
        assert_eq!([&done.removed[..], &done.replaced[..], &done.added[..]], [[removed], [replaced], [added]]);
        assert_eq!(done.restarted, ["web:web"]);
        assert_eq!(sandbox.pids().len(), 3);
        for id in sandbox.pids().keys() {
            assert_eq!(sandbox.works_in(id), release_of(&sandbox, live), "{id}");
        }
    }
}

fn a_log_that_is_named_no_more_is_given_up(version: Version) {
    let sandbox = Sandbox::new(version);
    let log = format!("stdout_logfile={}", sandbox.path().join("web.log").display());
    let one = sandbox.deploy("production", "a", &(sleeper("web", &log) + &sleeper("worker", "")));
    let two = sandbox.make("production", "b", &(sleeper("web", "") + &sleeper("worker", "")));
    for (live, before, after) in [("b", &one, &two), ("a", &two, &one)] {
        sandbox.flip("production", live);
        let done = sandbox.apply(before, after).unwrap();
        assert_eq!(
            (&done.replaced[..], &done.restarted[..]),
            (&["web".to_owned()][..], &["worker:worker".to_owned()][..])
        );
    }
}

fn a_dangling_current_stops_nothing(version: Version) {
    let sandbox = Sandbox::new(version);
    let release = sandbox.deploy("production", "a", &sleeper("web", ""));
    // Until it has entered its directory supervisord would find none, and try again as another process.
    assert!(sandbox.works_in("web:web").ends_with("releases/a"));
    let pids = sandbox.pids();
    sandbox.flip("production", "gone");
    let failure = sandbox.apply(&release, &release).unwrap_err();
    let vanished = Unexpected::Vanished { groups: vec!["web".to_owned()] };
    assert!(matches!(&failure.cause, SupervisorError::Unexpected(why) if *why == vanished), "{failure}");
    assert_eq!(sandbox.pids(), pids);
    // Neither does a release whose files are not where the include looks.
    sandbox.make("production", "b", "");
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&release, &Declared::default()).unwrap_err();
    assert!(matches!(&failure.cause, SupervisorError::Unexpected(Unexpected::NothingDeclared { .. })), "{failure}");
    sandbox.flip("production", "a");
    sandbox.go_back(&Declared::default(), &release, &failure);
    assert_eq!(sandbox.state("web:web"), State::Running);
}

fn a_broken_file_after_the_flip_stops_nothing(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &sleeper("web", ""));
    let pids = sandbox.pids();
    let after = sandbox.make("production", "b", &sleeper("web", "user=no-such-user"));
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&before, &after).unwrap_err();
    assert!(
        matches!(&failure.cause, SupervisorError::Rpc(error) if error.fault() == Some(Fault::CantReread)),
        "{failure}"
    );
    assert!(failure.to_string().contains("no-such-user"), "{failure}");
    sandbox.flip("production", "a");
    let done = sandbox.go_back(&after, &before, &failure);
    assert_eq!(done.summary(), None);
    assert_eq!(sandbox.pids(), pids);
}

fn a_program_that_dies_is_reported_with_its_last_lines_and_undone(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &(sleeper("web", "") + &sleeper("worker", "")));
    let conf = failing("web", "no module named wsgi") + &sleeper("worker", "") + &sleeper("new", "");
    let after = sandbox.make("production", "b", &conf);
    sandbox.check("production", "b", &after).unwrap();
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&before, &after).unwrap_err();
    let SupervisorError::NotUp { program, log, .. } = &failure.cause else { panic!("{failure}") };
    assert_eq!((program.as_str(), log.trim()), ("web:web", "no module named wsgi"));
    assert_eq!(failure.left(), ["web", "new", "worker:worker"]);
    sandbox.flip("production", "a");
    sandbox.go_back(&after, &before, &failure);
    assert_eq!(sandbox.pids().into_keys().collect::<Vec<_>>(), ["web:web", "worker:worker"]);
    for id in ["web:web", "worker:worker"] {
        assert_eq!(sandbox.works_in(id), release_of(&sandbox, "a"));
    }
}

fn a_command_that_is_missing_is_a_failure(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = "[program:web]\ncommand=ROOT/current/bin/web\ndirectory=ROOT/current\nstartsecs=0\n";
    let make = |id: &str, has: bool| {
        let declared = sandbox.make("production", id, conf);
        fs::create_dir_all(sandbox.release("production", id).join("bin")).unwrap();
        if has {
            std::os::unix::fs::symlink("/bin/yes", sandbox.release("production", id).join("bin/web")).unwrap();
        }
        declared
    };
    let before = make("a", true);
    sandbox.flip("production", "a");
    sandbox.apply(&Declared::default(), &before).unwrap();
    let after = make("b", false);
    assert!(sandbox.check("production", "b", &after).unwrap_err().contains("bin/web"));
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&before, &after).unwrap_err();
    assert!(matches!(&failure.cause, SupervisorError::NotUp { program, .. } if program == "web:web"), "{failure}");
    assert!(failure.to_string().contains("bin/web"), "{failure}");
    // It is stopped now, as if by an operator; that it was up before is what brings it back.
    sandbox.flip("production", "a");
    let done = sandbox.go_back(&after, &before, &failure);
    assert_eq!(done.started, ["web:web"]);
    assert_eq!(sandbox.works_in("web:web"), release_of(&sandbox, "a"));
}

fn a_program_that_failed_before_is_tried_again(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.make("production", "a", &failing("web", "broken"));
    sandbox.flip("production", "a");
    sandbox.apply(&Declared::default(), &before).unwrap_err();
    eventually("it is given up", || sandbox.state("web:web") == State::Fatal);
    let after = sandbox.make("production", "b", &sleeper("web", ""));
    sandbox.flip("production", "b");
    sandbox.apply(&before, &after).unwrap();
    assert_eq!(sandbox.state("web:web"), State::Running);
}

fn a_program_that_ends_well_at_once_came_up(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", "") + "[program:once]\ncommand=/bin/true\nstartsecs=0\nautorestart=false\n";
    let release = sandbox.deploy("production", "a", &conf);
    eventually("it has ended", || sandbox.state("once:once") == State::Exited);
    let done = sandbox.apply(&release, &release).unwrap();
    assert_eq!((done.restarted, done.at_rest), (vec!["web:web".to_owned()], vec!["once:once".to_owned()]));
}

fn a_program_that_dies_after_it_came_up_is_noticed(version: Version) {
    let sandbox = Sandbox::new(version);
    let dies = "[program:a_dies]\ncommand=/bin/sh -c 'sleep 0.2; echo bye; exit 7'\nstartsecs=0\nautorestart=false\n";
    let slow = "[program:slow]\ncommand=/bin/sleep 1000\nstartsecs=2\n";
    let release = sandbox.make("production", "a", &format!("{dies}{slow}"));
    sandbox.flip("production", "a");
    let failure = sandbox.apply(&Declared::default(), &release).unwrap_err();
    let SupervisorError::NotUp { program, state, log, .. } = &failure.cause else { panic!("{failure}") };
    assert_eq!((program.as_str(), *state, log.as_str()), ("a_dies:a_dies", State::Exited, "bye"));
}

fn a_hung_supervisord_is_given_up_and_says_what_was_done(version: Version) {
    let sandbox = Sandbox::new(version);
    let release = sandbox.deploy("production", "a", &(sleeper("one", "priority=1") + &sleeper("two", "priority=2")));
    struct Hang<'a>(&'a Sandbox);
    impl releasectl::supervisor::Around for Hang<'_> {
        fn note(&mut self, what: &str) {
            if what.contains("two") {
                self.0.signal("STOP");
            }
        }
    }
    let limits = Limits { call: Duration::from_millis(500), ..Limits::default() };
    let supervisor = Supervisor::connect(&sandbox.config(), limits).unwrap();
    let change = releasectl::supervisor::Change {
        thorough: false,
        before: &release,
        after: &release,
        wanted: BTreeSet::new(),
        held: BTreeSet::new(),
        already: BTreeMap::new(),
        restart: releasectl::recipe::Restart::Rolling,
    };
    let failure = supervisor.apply(&change, &mut Hang(&sandbox)).unwrap_err();
    sandbox.signal("CONT");
    assert!(matches!(&failure.cause, SupervisorError::Rpc(RpcError::Overdue { .. })), "{failure}");
    assert_eq!(
        (&failure.done.restarted[..], failure.left()),
        (&["one:one".to_owned()][..], vec!["two:two".to_owned()])
    );
    let told = failure.to_string();
    assert!(
        told.contains("did not answer") && told.contains("restarted one:one") && told.contains("not done: two:two")
    );
    // Whether it still did what it was asked is not known; what was up before comes up again.
    eventually("it answers again", || sandbox.connect().is_ok());
    let back = releasectl::supervisor::Change { wanted: failure.done.up_before.clone(), ..change };
    sandbox.supervisor().apply(&back, &mut Plainly).unwrap();
    assert!(sandbox.pids().values().all(Option::is_some));
}

fn the_way_back_leaves_alone_what_was_not_touched(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("a", "priority=1") + &sleeper("b", "priority=3");
    let web = |release: &str| {
        format!("[program:web]\ncommand=/bin/sh ROOT/current/web\npriority=2\nstartsecs=1\n;{release}\n")
    };
    let before = sandbox.make("production", "a", &(conf.clone() + &web("a")));
    fs::write(sandbox.release("production", "a").join("web"), "exec sleep 1000\n").unwrap();
    sandbox.flip("production", "a");
    sandbox.apply(&Declared::default(), &before).unwrap();
    let pids = sandbox.pids();
    let after = sandbox.make("production", "b", &(conf + &web("b")));
    fs::write(sandbox.release("production", "b").join("web"), "echo no database; exit 1\n").unwrap();
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&before, &after).unwrap_err();
    assert!(failure.to_string().contains("no database"), "{failure}");
    assert_eq!(
        (&failure.done.restarted[..], failure.left()),
        (&["a:a".to_owned()][..], vec!["b:b".into(), "web:web".into()])
    );
    sandbox.flip("production", "a");
    let done = sandbox.go_back(&after, &before, &failure);
    assert_eq!(sandbox.pids()["b:b"], pids["b:b"]);
    assert_eq!(sandbox.works_in("a:a"), release_of(&sandbox, "a"));
    assert_eq!(sandbox.state("web:web"), State::Running);
    assert!(!done.restarted.contains(&"b:b".to_owned()));
}

fn a_supervisord_that_was_restarted_starts_from_the_files(version: Version) {
    let mut sandbox = Sandbox::new(version);
    let one = sandbox.deploy("production", "a", &sleeper("web", ""));
    let two = sandbox.make("production", "b", &(sleeper("web", "") + &sleeper("new", "")));
    sandbox.check("production", "b", &two).unwrap();
    sandbox.flip("production", "b");
    sandbox.kill();
    assert!(sandbox.connect().is_err());
    sandbox.start();
    eventually("both are up", || sandbox.pids().values().filter(|pid| pid.is_some()).count() == 2);
    let done = sandbox.apply(&one, &two).unwrap();
    assert_eq!(done.restarted.len(), 2);
    assert_eq!(sandbox.works_in("new:new"), release_of(&sandbox, "b"));
}

/// A release `a` of which an operator has started one program, which does not start by itself, and stopped another.
fn with_a_will_of_its_own(version: Version) -> (Sandbox, Declared) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", "") + &sleeper("byhand", "") + &sleeper("manual", "autostart=false");
    let release = sandbox.deploy("production", "a", &conf);
    sandbox.supervisor().stop(&release, &["byhand".to_owned()], &mut Plainly).unwrap();
    sandbox.supervisor().start(&release, &["manual".to_owned()], &mut Plainly).unwrap();
    (sandbox, release)
}

fn what_a_failed_change_removed_stands_as_it_did(version: Version) {
    let (sandbox, before) = with_a_will_of_its_own(version);
    let after = sandbox.make("production", "b", &(sleeper("web", "") + &failing("bad", "no")));
    sandbox.flip("production", "b");
    let failure = sandbox.apply(&before, &after).unwrap_err();
    assert_eq!(failure.done.removed, ["byhand", "manual"]);
    sandbox.flip("production", "a");
    let done = sandbox.go_back(&after, &before, &failure);
    assert_eq!((&done.added[..], &done.at_rest[..]), (&names("byhand manual")[..], &names("byhand:byhand")[..]));
    assert_eq!(sandbox.state("byhand:byhand"), State::Stopped);
    assert_eq!(sandbox.works_in("manual:manual"), release_of(&sandbox, "a"));
}

fn what_moves_to_another_group_stands_as_it_did(version: Version) {
    let (sandbox, before) = with_a_will_of_its_own(version);
    let group = "[group:all]\nprograms=byhand,manual\n";
    let conf = sleeper("web", "") + &sleeper("byhand", "") + &sleeper("manual", "autostart=false") + group;
    let after = sandbox.make("production", "b", &conf);
    for (live, from, to, group) in [("b", &before, &after, ["all"; 2]), ("a", &after, &before, ["byhand", "manual"])] {
        sandbox.flip("production", live);
        sandbox.apply(from, to).unwrap();
        assert_eq!(sandbox.state(&format!("{}:byhand", group[0])), State::Stopped);
        assert_eq!(sandbox.works_in(&format!("{}:manual", group[1])), release_of(&sandbox, live));
    }
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

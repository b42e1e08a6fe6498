//! Programs brought onto the live release.

use crate::patience::{PATIENCE, eventually};
use crate::sandbox::{Sandbox, Version, signal, sleeper};
use releasectl::recipe::Restart;
use releasectl::supervisor::conf::Declared;
use releasectl::supervisor::rpc::methods::State;
use releasectl::supervisor::{Around, Change, Plainly, SupervisorError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

on_both_versions!(
    a_rolling_restart_keeps_one_of_two_processes_up,
    together_one_half_stops_after_the_other,
    together_the_second_half_stays_up_if_the_first_cannot_be_started,
    together_the_second_half_stays_up_if_the_first_fails,
    together_a_program_alone_is_restarted_like_any,
    what_an_operator_stopped_stays_stopped,
    what_an_operator_stopped_stays_stopped_when_its_group_changes,
    what_failed_and_was_stopped_then_stays_stopped,
    what_we_stopped_ourselves_comes_up_again,
    a_worker_that_takes_long_to_stop_is_waited_for,
    what_is_on_its_way_down_is_started_when_it_is_there,
    drain_and_undrain_go_around_each_process,
    what_was_drained_is_undrained_in_whatever_group_it_comes_up,
    a_failing_drain_hook_stops_nothing,
    p19_programs_of_other_environments_keep_their_pids,
    verbs_act_on_named_programs_only,
    a_group_of_several_programs_is_restarted_in_its_order,
);

const TWO: &str = "numprocs=2\nprocess_name=%(program_name)s_%(process_num)d";

fn a_rolling_restart_keeps_one_of_two_processes_up(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", TWO).replace("startsecs=0", "startsecs=1");
    let before = sandbox.deploy("production", "a", &conf);
    let after = sandbox.make("production", "b", &conf);
    sandbox.flip("production", "b");
    let outcome = watched(&sandbox, &[State::Running], || sandbox.apply(&before, &after));
    assert_eq!(outcome.unwrap().restarted, ["web:web_0", "web:web_1"]);
    for id in ["web:web_0", "web:web_1"] {
        assert_eq!(sandbox.works_in(id), fs::canonicalize(sandbox.release("production", "b")).unwrap());
    }
}

/// Does `act`, during all of which a program is in one of the states `up`.
fn watched<T>(sandbox: &Sandbox, up: &[State], act: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let states: Vec<State> = sandbox.supervisor().programs().unwrap().iter().map(|p| p.state).collect();
                assert!(states.iter().any(|state| up.contains(state)), "{states:?}");
                looks += 1;
            }
            looks
        });
        let outcome = act();
        done.store(true, Ordering::Relaxed);
        assert!(watch.join().unwrap() > 0);
        outcome
    })
}

/// Notes what happens, and what state every program has at that moment.
struct Witness<'a> {
    sandbox: &'a Sandbox,
    seen: Vec<String>,
    fails: bool,
}

impl Witness<'_> {
    fn see(&mut self, what: &str, program: &str) -> Result<(), String> {
        let running = self.sandbox.supervisor().programs().unwrap();
        let running = running.iter().filter(|p| p.state == State::Running).count();
        self.seen.push(format!("{what} {program} {running}"));
        if self.fails { Err("the balancer is away".to_owned()) } else { Ok(()) }
    }
}

impl Around for Witness<'_> {
    fn drain(&mut self, program: &str) -> Result<(), String> {
        self.see("drain", program)
    }

    fn undrain(&mut self, program: &str) -> Result<(), String> {
        self.see("undrain", program)
    }
}

/// Notes for every hook how many processes are others than at first, and waits when it is told what comes next.
struct Halves<'a, F> {
    sandbox: &'a Sandbox,
    first: BTreeMap<String, Option<i32>>,
    seen: Vec<String>,
    wait: F,
}

impl<F> Halves<'_, F> {
    fn see(&mut self, what: &str, program: &str) -> Result<(), String> {
        let now = self.sandbox.pids();
        let others = now.iter().filter(|(id, pid)| pid.is_some() && self.first[*id] != **pid).count();
        self.seen.push(format!("{what} {program} {others}"));
        Ok(())
    }
}

impl<F: FnMut(&str)> Around for Halves<'_, F> {
    fn drain(&mut self, program: &str) -> Result<(), String> {
        self.see("drain", program)
    }

    fn undrain(&mut self, program: &str) -> Result<(), String> {
        self.see("undrain", program)
    }

    fn note(&mut self, what: &str) {
        (self.wait)(what);
    }
}

fn together_one_half_stops_after_the_other(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", "numprocs=3\nprocess_name=%(process_num)d").replace("startsecs=0", "startsecs=1");
    let release = sandbox.deploy("production", "a", &conf);
    let mut around = Halves { sandbox: &sandbox, first: sandbox.pids(), seen: Vec::new(), wait: |_: &str| {} };
    let act = || sandbox.apply_around(&release, &release, Restart::Together, &mut around);
    let done = watched(&sandbox, &[State::Starting, State::Running], act).unwrap();
    assert_eq!(done.restarted, ["web:0", "web:1", "web:2"]);
    let hooks =
        ["drain web:0 0", "drain web:1 0", "drain web:2 2", "undrain web:0 3", "undrain web:1 3", "undrain web:2 3"];
    assert_eq!(around.seen, hooks);
    assert!(sandbox.supervisor().programs().unwrap().iter().all(|program| program.state == State::Running));
}

fn together_the_second_half_stays_up_if_the_first_cannot_be_started(version: Version) {
    let sandbox = Sandbox::new(version);
    let program = sandbox.path().join("program");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let first = sleeper("first", "priority=1").replace("/bin/sleep", program.to_str().unwrap());
    let release = sandbox.deploy("production", "a", &(first + &sleeper("second", "priority=2")));
    let second = sandbox.pid("second:second");
    fs::remove_file(&program).unwrap();
    let failure = sandbox.apply_around(&release, &release, Restart::Together, &mut Plainly).unwrap_err();
    assert!(matches!(&failure.cause, SupervisorError::NotUp { program, .. } if program == "first:first"), "{failure}");
    assert_eq!(sandbox.pid("second:second"), second);
    assert_eq!(failure.left(), ["first:first", "second:second"]);
}

fn together_the_second_half_stays_up_if_the_first_fails(version: Version) {
    let sandbox = Sandbox::new(version);
    let broken = sandbox.path().join("broken");
    let script = format!("test ! -e {} && exec sleep 1000", broken.display());
    let first = format!("[program:first]\ncommand=/bin/sh -c '{script}'\npriority=1\nstartsecs=1\nstartretries=0\n");
    let release = sandbox.deploy("production", "a", &(first + &sleeper("second", "priority=2")));
    let second = sandbox.pid("second:second");
    fs::write(&broken, "").unwrap();
    let wait = |what: &str| {
        if what == "restarting second:second" {
            eventually("the first failed", || !matches!(sandbox.state("first:first"), State::Starting));
        }
    };
    let mut around = Halves { sandbox: &sandbox, first: sandbox.pids(), seen: Vec::new(), wait };
    let failure = sandbox.apply_around(&release, &release, Restart::Together, &mut around).unwrap_err();
    assert!(matches!(&failure.cause, SupervisorError::NotUp { program, .. } if program == "first:first"), "{failure}");
    assert_eq!(around.seen, ["drain first:first 0"]);
    assert_eq!(sandbox.pid("second:second"), second);
}

fn together_a_program_alone_is_restarted_like_any(version: Version) {
    let sandbox = Sandbox::new(version);
    let release = sandbox.deploy("production", "a", &sleeper("web", ""));
    let pid = sandbox.pid("web:web");
    let done = sandbox.apply_around(&release, &release, Restart::Together, &mut Plainly).unwrap();
    assert_eq!(done.restarted, ["web:web"]);
    assert_ne!(sandbox.pid("web:web"), pid);
}

fn what_an_operator_stopped_stays_stopped(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("web", "") + &sleeper("worker", "") + &sleeper("beat", "autostart=false");
    let release = sandbox.deploy("production", "a", &conf);
    assert_eq!(sandbox.state("beat:beat"), State::Stopped);
    sandbox.supervisor().client().stop("worker:worker").unwrap();
    eventually("it is down", || sandbox.state("worker:worker") == State::Stopped);
    let done = sandbox.apply(&release, &release).unwrap();
    assert_eq!(
        (done.restarted, done.at_rest),
        (vec!["web:web".into()], vec!["beat:beat".into(), "worker:worker".into()])
    );
    assert_eq!(sandbox.state("worker:worker"), State::Stopped);
}

fn what_an_operator_stopped_stays_stopped_when_its_group_changes(version: Version) {
    let sandbox = Sandbox::new(version);
    let ran = sandbox.path().join("ran");
    let conf = |more: &str| {
        let script = format!("sleep 0.5; echo $0 >> {}; exec sleep 1000", ran.display());
        format!("[program:web]\ncommand=/bin/sh -c '{script}' web_%(process_num)d\nstartsecs=0\n{TWO}\n{more}\n")
    };
    let before = sandbox.deploy("production", "a", &conf(""));
    eventually("both ran once", || fs::read_to_string(&ran).is_ok_and(|text| text.lines().count() == 2));
    sandbox.supervisor().client().stop("web:web_1").unwrap();
    eventually("it is down", || sandbox.state("web:web_1") == State::Stopped);
    fs::remove_file(&ran).unwrap();
    let after = sandbox.make("production", "b", &conf("stopwaitsecs=3"));
    sandbox.flip("production", "b");
    let done = sandbox.apply(&before, &after).unwrap();
    assert_eq!((done.replaced, done.at_rest), (vec!["web".to_owned()], vec!["web:web_1".to_owned()]));
    assert_eq!((sandbox.state("web:web_0"), sandbox.state("web:web_1")), (State::Running, State::Stopped));
    eventually("the other one ran", || fs::read_to_string(&ran).is_ok_and(|text| !text.is_empty()));
    assert_eq!(fs::read_to_string(&ran).unwrap(), "web_0\n", "the one that was stopped did nothing");
    // It is as an operator's stop leaves it: the next release does not start it either, an operator can.
    sandbox.apply(&after, &after).unwrap();
    assert_eq!(sandbox.state("web:web_1"), State::Stopped);
    sandbox.supervisor().start(&after, &["web:web_1".to_owned()], &mut Plainly).unwrap();
    assert_eq!(sandbox.state("web:web_1"), State::Running);
}

fn what_failed_and_was_stopped_then_stays_stopped(version: Version) {
    let sandbox = Sandbox::new(version);
    let broken = "[program:broken]\ncommand=/bin/false\nstartretries=0\nautostart=false\n";
    let release = sandbox.deploy("production", "a", &(sleeper("web", "") + broken));
    let supervisor = sandbox.supervisor();
    let names = ["broken".to_owned()];
    supervisor.start(&release, &names, &mut Plainly).unwrap_err();
    eventually("it has failed for good", || sandbox.state("broken:broken") == State::Fatal);
    sandbox.apply(&release, &release).unwrap_err();
    eventually("it has failed again", || sandbox.state("broken:broken") == State::Fatal);
    assert_eq!(supervisor.stop(&release, &names, &mut Plainly).unwrap().stopped, ["broken:broken"]);
    assert_eq!(supervisor.stop(&release, &names, &mut Plainly).unwrap().stopped, names[..0]);
    let done = sandbox.apply(&release, &release).unwrap();
    assert_eq!((done.restarted, done.at_rest), (vec!["web:web".to_owned()], vec!["broken:broken".to_owned()]));
    assert_eq!(sandbox.state("broken:broken"), State::Stopped);
}

fn what_we_stopped_ourselves_comes_up_again(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &(sleeper("web", "") + &sleeper("worker", "")));
    let stopped = sandbox.supervisor().stop(&before, &["worker".to_owned()], &mut Plainly).unwrap();
    assert_eq!(stopped.stopped, ["worker:worker"]);
    let wanted = BTreeSet::from(["worker".to_owned()]);
    let change = Change {
        before: &before,
        after: &before,
        wanted,
        held: BTreeSet::new(),
        already: BTreeMap::new(),
        restart: Restart::Rolling,
        thorough: false,
    };
    let done = sandbox.supervisor().apply(&change, &mut Plainly).unwrap();
    assert_eq!((done.restarted, done.started), (vec!["web:web".to_owned()], vec!["worker:worker".to_owned()]));
    assert_eq!(sandbox.state("worker:worker"), State::Running);
}

fn a_worker_that_takes_long_to_stop_is_waited_for(version: Version) {
    let sandbox = Sandbox::new(version);
    let script = sandbox.path().join("worker");
    let finished = sandbox.path().join("finished");
    let text = format!("trap 'sleep 2; touch {}; exit 0' TERM; while :; do sleep 0.05; done\n", finished.display());
    fs::write(&script, text).unwrap();
    let conf = format!("[program:worker]\ncommand=/bin/sh {}\nstartsecs=1\nstopwaitsecs=600\n", script.display());
    let release = sandbox.deploy("production", "a", &conf);
    let pid = sandbox.pid("worker:worker");
    let done = sandbox.apply(&release, &release).unwrap();
    assert!(finished.exists(), "it could finish what it was doing");
    assert_eq!(done.restarted, ["worker:worker"]);
    assert_ne!(sandbox.pid("worker:worker"), pid);
    signal(sandbox.pid("worker:worker").cast_unsigned(), "KILL");
}

fn what_is_on_its_way_down_is_started_when_it_is_there(version: Version) {
    let sandbox = Sandbox::new(version);
    let script = sandbox.path().join("worker");
    let release = sandbox.path().join("release");
    let wait = format!("while ! test -e {}; do sleep 0.05; done", release.display());
    fs::write(&script, format!("trap '{wait}; exit 0' TERM; while :; do sleep 0.05; done\n")).unwrap();
    let conf = format!("[program:worker]\ncommand=/bin/sh {}\nstartsecs=1\nstopwaitsecs=600\n", script.display());
    let declared = sandbox.deploy("production", "a", &conf);
    let pid = sandbox.pid("worker:worker");
    sandbox.supervisor().client().stop("worker:worker").unwrap();
    let started = std::thread::scope(|scope| {
        let started = scope.spawn(|| sandbox.supervisor().start(&declared, &["worker".to_owned()], &mut Plainly));
        assert_eq!(sandbox.state("worker:worker"), State::Stopping);
        fs::write(&release, "").unwrap();
        started.join().unwrap().unwrap()
    });
    assert_eq!(started.started, ["worker:worker"]);
    assert_ne!(sandbox.pid("worker:worker"), pid);
    signal(sandbox.pid("worker:worker").cast_unsigned(), "KILL");
}

fn drain_and_undrain_go_around_each_process(version: Version) {
    let sandbox = Sandbox::new(version);
    let release = sandbox.deploy("production", "a", &sleeper("web", TWO));
    let mut around = Witness { sandbox: &sandbox, seen: Vec::new(), fails: false };
    sandbox.apply_around(&release, &release, Restart::Rolling, &mut around).unwrap();
    assert_eq!(around.seen, ["drain web:web_0 2", "undrain web:web_0 2", "drain web:web_1 2", "undrain web:web_1 2"]);
}

fn what_was_drained_is_undrained_in_whatever_group_it_comes_up(version: Version) {
    let sandbox = Sandbox::new(version);
    let before = sandbox.deploy("production", "a", &(sleeper("web", "") + &sleeper("worker", TWO)));
    sandbox.supervisor().stop(&before, &["worker:worker_0".to_owned()], &mut Plainly).unwrap();
    let conf = sleeper("site", "") + &sleeper("worker", &TWO.replace("=2", "=1"));
    let after = sandbox.make("production", "b", &conf);
    sandbox.flip("production", "b");
    let mut around = Witness { sandbox: &sandbox, seen: Vec::new(), fails: false };
    let wanted = BTreeSet::from(["worker:worker_0".to_owned()]);
    let restart = Restart::Rolling;
    let change = Change {
        before: &before,
        after: &after,
        wanted,
        held: BTreeSet::new(),
        already: BTreeMap::new(),
        restart,
        thorough: false,
    };
    sandbox.supervisor().apply(&change, &mut around).unwrap();
    let seen = ["drain web:web 2", "drain worker:worker_1 1", "undrain worker:worker_0 1", "undrain site:site 2"];
    assert_eq!(around.seen, seen);
}

fn a_failing_drain_hook_stops_nothing(version: Version) {
    let sandbox = Sandbox::new(version);
    let release = sandbox.deploy("production", "a", &sleeper("web", ""));
    let pids = sandbox.pids();
    let mut around = Witness { sandbox: &sandbox, seen: Vec::new(), fails: true };
    let failure = sandbox.apply_around(&release, &release, Restart::Rolling, &mut around).unwrap_err();
    assert!(matches!(failure.cause, SupervisorError::Hook { hook: "drain", .. }), "{failure}");
    assert_eq!(failure.left(), ["web:web"]);
    assert!(failure.to_string().contains("done before that: nothing"), "{failure}");
    assert_eq!(sandbox.pids(), pids);
}

fn p19_programs_of_other_environments_keep_their_pids(version: Version) {
    let sandbox = Sandbox::new(version);
    let theirs = sandbox.deploy("staging", "a", &(sleeper("their_web", TWO) + &sleeper("their_worker", "")));
    let pids = sandbox.pids();
    let first = sandbox.deploy("production", "a", &(sleeper("web", "") + &sleeper("old", "")));
    let second = sandbox.make("production", "b", &(sleeper("web", "priority=2") + &sleeper("new", "")));
    // Meanwhile staging is half-way through a change of its own, and its link dangles.
    sandbox.make("staging", "a", &sleeper("their_web", &format!("{TWO}\npriority=2")));
    sandbox.flip("production", "b");
    sandbox.apply(&first, &second).unwrap();
    sandbox.flip("staging", "gone");
    sandbox.flip("production", "a");
    sandbox.apply(&second, &first).unwrap();
    sandbox.supervisor().restart(&first, &[], Restart::Together, &mut Plainly).unwrap();
    let after = sandbox.pids();
    for (id, pid) in &pids {
        assert_eq!(after.get(id), Some(pid), "{id}");
    }
    assert_eq!(after.keys().filter(|id| !pids.contains_key(*id)).collect::<Vec<_>>(), ["old:old", "web:web"]);
    assert_eq!(sandbox.supervisor().owned(&theirs).unwrap().len(), 3);
}

fn verbs_act_on_named_programs_only(version: Version) {
    let sandbox = Sandbox::new(version);
    sandbox.deploy("staging", "a", &sleeper("theirs", ""));
    let conf = sleeper("web", TWO) + &sleeper("worker", "");
    let release = sandbox.deploy("production", "a", &conf);
    let supervisor = sandbox.supervisor();
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let error = supervisor.stop(&release, &names("web theirs"), &mut Plainly).unwrap_err();
    assert!(
        matches!(&error.cause, SupervisorError::Unknown { name, programs } if name == "theirs" && programs.len() == 3)
    );
    assert_eq!(sandbox.state("web:web_0"), State::Running);
    let done = supervisor.stop(&release, &names("web:web_1 worker"), &mut Plainly).unwrap();
    assert_eq!(done.stopped, ["web:web_1", "worker:worker"]);
    assert_eq!(supervisor.restart(&release, &[], Restart::Rolling, &mut Plainly).unwrap().restarted, ["web:web_0"]);
    let done = supervisor.restart(&release, &names("web"), Restart::Rolling, &mut Plainly).unwrap();
    assert_eq!((done.restarted, done.started), (names("web:web_0"), names("web:web_1")));
    assert_eq!(supervisor.start(&release, &[], &mut Plainly).unwrap().started, ["worker:worker"]);
    assert_eq!(supervisor.start(&release, &[], &mut Plainly).unwrap().summary(), None);
    supervisor.stop(&release, &[], &mut Plainly).unwrap();
    assert_eq!(sandbox.state("theirs:theirs"), State::Running);
    assert!(supervisor.owned(&release).unwrap().iter().all(|p| p.state == State::Stopped));
    assert!(supervisor.stop(&Declared::default(), &[], &mut Plainly).unwrap().stopped.is_empty());
}

fn a_group_of_several_programs_is_restarted_in_its_order(version: Version) {
    let sandbox = Sandbox::new(version);
    let conf = sleeper("a", "priority=30") + &sleeper("b", "priority=10") + &sleeper("c", "priority=20");
    let release = sandbox.deploy("production", "a", &format!("{conf}[group:all]\nprograms=a,b,c\n"));
    let begun = Instant::now();
    let done = sandbox.apply(&release, &release).unwrap();
    assert_eq!(done.restarted, ["all:b", "all:c", "all:a"]);
    assert!(begun.elapsed() < PATIENCE);
}

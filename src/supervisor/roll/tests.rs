use super::*;
use crate::supervisor::conf::declared;

/// `group:name STATE [pid] [exit]`, one a line; `!` before it: never started.
fn processes(text: &str) -> Vec<Process> {
    let line = |line: &str| {
        let mut words = line.trim_start_matches('!').split_whitespace();
        let (group, name) = words.next().unwrap().split_once(':').unwrap();
        let state = match words.next().unwrap() {
            "STOPPED" => State::Stopped,
            "STARTING" => State::Starting,
            "RUNNING" => State::Running,
            "BACKOFF" => State::Backoff,
            "STOPPING" => State::Stopping,
            "EXITED" => State::Exited,
            "FATAL" => State::Fatal,
            other => panic!("{other}"),
        };
        let number = words.next().map(|n| n.parse().unwrap());
        Process {
            group: group.into(),
            name: name.into(),
            state,
            pid: number.filter(|_| state == State::Running),
            uptime: None,
            started: i64::from(!line.starts_with('!')),
            exit_status: i64::from(number.unwrap_or_default()),
            spawn_error: String::new(),
            description: String::new(),
            own_logs: [true; 2],
        }
    };
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

fn release(programs: &str) -> Declared {
    let text: String = programs.split_whitespace().map(|name| format!("[program:{name}]\n")).collect();
    declared([("a.conf", text.as_str())]).unwrap()
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Before, after, processes, added / changed / removed, and what is wanted.
fn plan(before: &str, after: &str, running: &str, reread: [&str; 3], wanted: &str) -> Result<Plan, Unexpected> {
    let [added, changed, removed] = reread.map(names);
    decide(&Situation {
        before: &release(before),
        after: &release(after),
        processes: &processes(running),
        reread: &Reread { added, changed, removed },
        settings: &[],
        held: &BTreeSet::new(),
        wanted: &names(wanted).into_iter().collect(),
        already: &BTreeMap::from([("web:1".to_owned(), 11)]),
    })
}

#[test]
fn what_is_unchanged_and_runs_is_restarted() {
    let plan = plan("web", "web", "web:0 RUNNING 10\nweb:2 STARTING\nweb:3 BACKOFF", ["", "", ""], "").unwrap();
    assert_eq!(plan.restart, ["web:0", "web:2", "web:3"]);
    assert!(plan.remove.is_empty() && plan.replace.is_empty() && plan.add.is_empty() && plan.start.is_empty());
}

#[test]
fn what_runs_from_the_live_release_already_is_left_alone() {
    assert_eq!(plan("web", "web", "web:1 RUNNING 11", ["", "", ""], "").unwrap().already, ["web:1"]);
    assert_eq!(plan("web", "web", "web:1 RUNNING 12", ["", "", ""], "").unwrap().restart, ["web:1"]);
}

#[test]
fn what_an_operator_stopped_stays_stopped_and_what_failed_is_tried_again() {
    let running = "web:0 STOPPED\n!web:1 STOPPED\nweb:2 STOPPING\nweb:3 FATAL\nweb:4 EXITED 0\nweb:5 EXITED 1";
    let plan = plan("web", "web", running, ["", "", ""], "").unwrap();
    assert_eq!(plan.at_rest, ["web:0", "web:1", "web:2", "web:4"]);
    assert_eq!(plan.start, ["web:3", "web:5"]);
    assert_eq!(plan.up.iter().collect::<Vec<_>>(), ["web:3", "web:5"]);
}

#[test]
fn what_is_up_can_be_recorded_before_a_change() {
    let running = "web:0 RUNNING 1\nweb:1 STOPPED\nweb:2 FATAL\ntheirs:0 RUNNING 2\n!web:3 STOPPED";
    let up = up(&release("web"), &processes(running));
    assert_eq!(up.iter().collect::<Vec<_>>(), ["web:0", "web:2"]);
}

#[test]
fn what_we_stopped_ourselves_is_started_by_whatever_name() {
    for wanted in ["web:0", "web", "web:*", "0"] {
        let plan = plan("web", "web", "web:0 STOPPED", ["", "", ""], wanted).unwrap();
        assert_eq!(plan.start, ["web:0"], "{wanted}");
    }
    assert_eq!(plan("web", "web", "web:0 STOPPED", ["", "", ""], "we web:00 *").unwrap().start, [""; 0]);
}

#[test]
fn groups_that_come_change_and_go_are_told_apart() {
    let running = "old:a RUNNING 1\nweb:a RUNNING 2\nweb:b STOPPED\nweb:c EXITED 0\n!web:d STOPPED";
    let plan = plan("old web", "web new", running, ["new", "web", "old"], "").unwrap();
    assert_eq!((plan.remove, plan.replace, plan.add), (names("old"), names("web"), names("new")));
    assert_eq!(plan.hold.iter().collect::<Vec<_>>(), ["web:b"]);
    assert_eq!(plan.finished.iter().collect::<Vec<_>>(), ["web:c"]);
    assert_eq!(plan.up.iter().collect::<Vec<_>>(), ["old:a", "web:a"]);
    assert_eq!(plan.restart, [""; 0]);
}

#[test]
fn p19_what_others_changed_added_or_removed_is_never_acted_on() {
    let running = "web:a RUNNING 1\ntheirs:a RUNNING 2\ngone:a RUNNING 3";
    let plan = plan("web", "web", running, ["soon", "theirs", "gone"], "theirs").unwrap();
    assert_eq!((plan.remove, plan.replace, plan.add), (names(""), names(""), names("")));
    assert_eq!(plan.restart, ["web:a"]);
    assert_eq!((plan.start, plan.at_rest), (names(""), names("")));
}

#[test]
fn groups_of_the_live_release_that_supervisord_does_not_see_stop_everything() {
    let vanished = plan("web", "web", "web:a RUNNING 1", ["", "", "web"], "").unwrap_err();
    assert_eq!(vanished, Unexpected::Vanished { groups: names("web") });
    let unread = plan("web", "web new", "web:a RUNNING 1", ["", "", ""], "").unwrap_err();
    assert_eq!(unread, Unexpected::Unread { groups: names("new") });
    let unread = plan("", "new", "", ["", "", ""], "").unwrap_err();
    assert_eq!(unread, Unexpected::Unread { groups: names("new") });
}

#[test]
fn a_release_without_programs_is_refused_only_while_there_are_some() {
    let nothing = plan("web", "", "web:a RUNNING 1", ["", "", "web"], "").unwrap_err();
    assert_eq!(nothing, Unexpected::NothingDeclared { running: names("web:a") });
    assert_eq!(plan("web", "", "web:a STOPPED", ["", "", "web"], "").unwrap().remove, ["web"]);
    assert!(plan("", "", "theirs:a RUNNING 1", ["", "", ""], "").unwrap().is_empty());
}

#[test]
fn a_group_that_now_comes_from_elsewhere_is_let_go() {
    let plan = plan("web old", "web", "web:a RUNNING 1\nold:a RUNNING 2", ["", "", ""], "").unwrap();
    assert_eq!((plan.remove, plan.restart), (names(""), names("web:a")));
}

#[test]
fn what_was_done_is_said_in_one_line() {
    assert_eq!(Done::default().summary(), None);
    let done = Done { removed: names("old"), restarted: names("web:0 web:1"), ..Done::default() };
    assert_eq!(done.summary().as_deref(), Some("removed old; restarted web:0, web:1"));
}

#[test]
fn what_is_on_its_way_down_and_is_wanted_is_waited_for_before_it_is_started() {
    let plan = plan("web", "web", "web:0 STOPPING\nweb:2 STOPPING", ["", "", ""], "web:0").unwrap();
    assert_eq!((plan.restart, plan.at_rest), (names("web:0"), names("web:2")));
}

//! An activation that fails and goes back by itself, killed before every call by which it changes something, on disk or at
//! supervisord: every command works afterwards, history and `current` agree, and the next `activate` or `restart` brings
//! the programs to what `current` names.

use crate::sandbox::PROGRAM;
use crate::supervised::{Version, World, sleeper};
use crate::trace::{Call, parse};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each has a supervisord of its own; most of what they do is waiting.
const WORLDS: usize = 4;
/// Runs in which a place is looked for.
const ATTEMPTS: usize = 20;
/// Every call that changes something on disk or at supervisord. What is opened to be made holds nothing before it is written.
const CALLS: &str = "sendto,write,pwrite64,mkdirat,symlinkat,linkat,renameat,renameat2,unlinkat,fchmod,ftruncate,fsync,\
                     fdatasync,syncfs,flock";

/// A place to be killed at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    call: String,
    nth: u32,
    /// What it would do there.
    does: String,
}

/// A is live and well; B never is, unless there is a file `well` in the tree. Of the programs one stays and two only
/// change their files, one comes and one goes.
fn world() -> World {
    let health = "[health]\ncommand = 'test -e well || test -e ../../well'\ntimeout = '1s'\n";
    let world = World::of(Version::Debian, health);
    let conf = |own: &str, priority: &str| sleeper("web", "") + &sleeper(own, "") + &sleeper("worker", priority);
    world.build("A", &conf("old", "priority=1"), &[("well", "")]);
    world.build("B", &conf("new", "priority=2"), &[]);
    world.done("activate A");
    world
}

const OF_A: [&str; 3] = ["old", "web", "worker"];
const OF_B: [&str; 3] = ["new", "web", "worker"];

/// `activate B` under strace, which follows nothing that it starts; its calls go into a file.
fn activate_b(world: &World, options: &[&str]) -> (Command, PathBuf) {
    let log = world.tree.beside("trace");
    let mut command = world.tree.clean("strace");
    command.args(["-qq", "-y", "-s", "2000", "-o"]).arg(&log).args(options);
    command.arg(PROGRAM).arg("--config").arg(world.tree.beside("app.toml")).args(["activate", "B"]);
    (command, log)
}

/// What a call would change; nothing if it only looks.
fn change(world: &World, call: &Call) -> Option<String> {
    if call.name == "sendto" {
        let words = |tag: &'static str| call.arguments.split(tag).skip(1).filter_map(|rest| rest.split('<').next());
        let method = words("<methodName>").next()?;
        let looks = method.split('.').nth(1).is_some_and(|verb| verb.starts_with("get") || verb.starts_with("read"));
        return (!looks).then(|| words("<string>").fold(method.to_owned(), |all, word| all + " " + word));
    }
    let path = call.path_in(world.tree.root().to_str().unwrap())?;
    call.changes_disk().then(|| format!("{} {path}", call.name))
}

/// The places that `log` tells of, in order; what is done several times is counted.
fn places_in(world: &World, log: &Path) -> Vec<Place> {
    let text: String = fs::read_to_string(log).unwrap().lines().map(|line| format!("1 {line}\n")).collect();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let place = |call: Call| {
        let change = change(world, &call)?;
        let count = times.entry(change.clone()).or_default();
        *count += 1;
        Some(Place { does: format!("{change} #{count}"), nth: call.nth, call: call.name })
    };
    parse(&text).into_iter().filter_map(place).collect()
}

/// Every place of an undisturbed run.
fn places(world: &World) -> Vec<Place> {
    let (mut command, log) = activate_b(world, &["-e", &format!("trace={CALLS}")]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    places_in(world, &log)
}

/// Kills it there. How often it looks at supervisord before it changes something differs from run to run, so it may take
/// several runs; each is a kill as good as another. Returns whether the place was met in the end.
fn killed_at(world: &World, place: &Place, number: usize) -> bool {
    let mut nth = place.nth;
    for attempt in 0..ATTEMPTS {
        let (seen, killed) = killed_before(world, &place.call, nth, number + attempt);
        match seen.iter().find(|other| other.does == place.does) {
            Some(met) if met.nth == nth && killed => return true,
            Some(earlier) => nth = earlier.nth,
            None => nth += 1,
        }
    }
    false
}

/// Kills it before the `nth` call of that name, looks at what is left and mends it. Returns what it did or was about to do
/// by such calls, and whether it was killed.
fn killed_before(world: &World, call: &str, nth: u32, number: usize) -> (Vec<Place>, bool) {
    let fault = format!("inject={call}:signal=SIGKILL:when={nth}");
    let (mut command, log) = activate_b(world, &["-e", &format!("trace={call}"), "-e", &fault]);
    let output = command.output().unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.code() == Some(5), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
    let live = world.tree.live().unwrap_or_default();
    assert!(["A", "B"].contains(&live.as_str()), "{fault}: {live:?} is live");
    assert_eq!(world.json(0, "status")["current"], live.as_str(), "{fault}");
    let well = world.tree.at("well");
    fs::write(&well, "").unwrap();
    let next = if number.is_multiple_of(2) { "restart".to_owned() } else { format!("activate {live}") };
    world.done(&next);
    world.runs(&live, if live == "A" { &OF_A } else { &OF_B });
    let history = world.history();
    let made = history.iter().rfind(|entry| !entry.ends_with(" interrupted")).unwrap();
    assert!(made.ends_with(&format!(" {live} done")), "{fault}: {live} is live, but {history:?}");
    fs::remove_file(well).unwrap();
    if live == "B" {
        world.done("activate A");
    }
    (places_in(world, &log), killed)
}

#[test]
fn a_failing_activation_killed_at_any_change_leaves_what_the_next_command_makes_whole() {
    let places = places(&world());
    let needed = ["symlinkat", "renameat", "fsync", "pwrite64 .releasectl/journal.jsonl", "supervisor.reloadConfig"];
    for needed in needed {
        assert!(places.iter().any(|place| place.does.starts_with(needed)), "{needed}: {places:?}");
    }
    let missed = |worker: usize| {
        let world = world();
        let own = places.iter().enumerate().skip(worker).step_by(WORLDS);
        own.filter(|(number, place)| !killed_at(&world, place, *number)).map(|(_, place)| place).collect::<Vec<_>>()
    };
    let missed: Vec<&Place> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORLDS).map(|worker| scope.spawn(move || missed(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    // What is asked of supervisord shifts less once the other worlds are gone.
    let world = world();
    let never: Vec<_> = missed.into_iter().filter(|place| !killed_at(&world, place, 0)).collect();
    assert!(never.is_empty(), "of {} places these were never met: {never:?}", places.len());
}

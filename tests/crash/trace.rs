//! The system calls of a run, from a clean strace of it: each is a point where the same run can be killed, refused or
//! stopped. strace counts the calls of each name for each process by itself, so a point is a name and a number.

use crate::lab::Waiting;
use crate::sandbox::{Answer, PROGRAM, Sandbox, is_root};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZero;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One call as strace shows it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The how manieth of that name in its process, from 1.
    pub nth: u32,
    /// Its arguments, descriptors with their paths.
    pub arguments: String,
    /// What it answered: `0`, `-1 ENOENT (No such file or directory)`, `?`.
    pub answer: String,
}

/// A point of a run, as strace's `inject` wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The call's name.
    pub name: String,
    /// The how manieth.
    pub nth: u32,
    /// What it does, for messages.
    pub does: String,
}

/// Calls that change, sync or lock something on disk, or start another process, whatever their arguments.
pub const CHANGES: &[&str] = &[
    "mkdir",
    "mkdirat",
    "mknodat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "lchown",
    "chown",
    "utimensat",
    "futimesat",
    "truncate",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "sendfile",
    "fsync",
    "fdatasync",
    "sync",
    "syncfs",
    "sync_file_range",
    "flock",
    "execve",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "setxattr",
    "fsetxattr",
    "lsetxattr",
];
pub const WRITES: &[&str] = &["write", "writev", "pwrite64", "pwritev", "pwritev2"];

impl Call {
    /// Whether it may leave another disk than was there before it, or durable what was not. A kill before any other call
    /// leaves what a kill before the next of these leaves.
    pub fn changes_disk(&self) -> bool {
        let name = self.name.as_str();
        if WRITES.contains(&name) {
            return self
                .arguments
                .split_once('<')
                .is_some_and(|(_, on)| on.starts_with('/') && !on.starts_with("/dev/"));
        }
        let opens = ["open", "openat", "openat2", "creat"].contains(&name);
        CHANGES.contains(&name)
            || opens && ["O_CREAT", "O_TRUNC", "O_TMPFILE"].iter().any(|f| self.arguments.contains(f))
    }

    /// The first path below `root` that it names, relative to it; empty for the root itself.
    pub fn path_in<'a>(&'a self, root: &str) -> Option<&'a str> {
        let rest = &self.arguments[self.arguments.find(root)? + root.len()..];
        let end = rest.find(['>', '"', ','])?;
        Some(rest[..end].trim_start_matches('/'))
    }

    fn point(&self, root: &str) -> Point {
        let on =
            self.path_in(root).map_or(String::new(), |path| format!(" {}", if path.is_empty() { "." } else { path }));
        let names: String = self.arguments.split('"').skip(1).step_by(2).map(|name| format!(" {name:.40}")).collect();
        let names = if self.name.ends_with("at") || self.name == "renameat2" { names } else { String::new() };
        Point { name: self.name.clone(), nth: self.nth, does: format!("{}#{}{on}{names}", self.name, self.nth) }
    }
}

/// Runs the program once on `tree` and returns the calls it made from its own execve on, and how it ended.
#[track_caller]
pub fn calls(tree: &Sandbox, arguments: &[String]) -> (Vec<Call>, Answer) {
    calls_with(&[], tree, arguments)
}

/// The same with these variables.
#[track_caller]
pub fn calls_with(variables: &[(&str, &str)], tree: &Sandbox, arguments: &[String]) -> (Vec<Call>, Answer) {
    let log = tree.beside("trace");
    let mut command = tree.clean("strace");
    command.envs(variables.iter().copied());
    command.args(["-f", "-y", "-qq", "-s", "4096", "-o"]).arg(&log).arg(PROGRAM);
    let answer: Answer = command.arg("--root").arg(tree.root()).args(arguments).output().unwrap().into();
    assert!(!answer.stderr.contains("strace: "), "{}", answer.stderr);
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    (parse(&text), answer)
}

/// The calls of strace's output, in the order in which they began.
pub fn parse(text: &str) -> Vec<Call> {
    let mut counts: BTreeMap<(&str, String), u32> = BTreeMap::new();
    let mut begun: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls: Vec<Call> = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let end = resumed.split_once("resumed>").map_or("", |(_, end)| end);
            if let Some(call) = begun.remove(pid).and_then(|at| calls.get_mut(at)) {
                let (arguments, answer) = split(end);
                call.arguments.push_str(arguments);
                call.answer = answer.to_owned();
            }
            continue;
        }
        // `--- SIGCHLD …` and `+++ exited with 0 +++` are no calls.
        let Some((name, rest)) = rest.split_once('(').filter(|(name, _)| !name.contains([' ', '-', '+'])) else {
            continue;
        };
        let nth = counts.entry((pid, name.to_owned())).or_default();
        *nth += 1;
        let (arguments, answer) = match rest.split_once(" <unfinished ...>") {
            Some((arguments, _)) => {
                begun.insert(pid, calls.len());
                (arguments, "?")
            }
            None => split(rest),
        };
        calls.push(Call {
            name: name.to_owned(),
            nth: *nth,
            arguments: arguments.to_owned(),
            answer: answer.to_owned(),
        });
    }
    calls
}

/// `a, b) = 0` is (`a, b`, `0`).
fn split(text: &str) -> (&str, &str) {
    let (arguments, answer) = text.rsplit_once(" = ").unwrap_or((text, "?"));
    (arguments.trim_end().trim_end_matches(')'), answer)
}

/// The points of a run in its order, each once: first those that change something, then the others. The program's own
/// execve cannot be hit.
pub fn points(calls: &[Call], tree: &Sandbox) -> (Vec<Point>, Vec<Point>) {
    let root = tree.root().display().to_string();
    let key = |call: &Call| (call.name.clone(), call.nth);
    let changing: BTreeSet<_> = calls.iter().filter(|call| call.changes_disk()).map(key).collect();
    let mut seen = BTreeSet::from([("execve".to_owned(), 1)]);
    let once = calls.iter().filter(|call| seen.insert(key(call))).collect::<Vec<_>>();
    let (changing, others): (Vec<&Call>, Vec<&Call>) = once.into_iter().partition(|call| changing.contains(&key(call)));
    let points = |calls: Vec<&Call>| calls.into_iter().map(|call| call.point(&root)).collect();
    (points(changing), points(others))
}

/// The program on `tree` under strace, which does to the call at `point` what `fault` says: `signal=SIGKILL`,
/// `error=ENOSPC`, `delay_enter=1000`. With `ever` to every later call of that name too.
pub fn inject(tree: &Sandbox, point: &Point, fault: &str, ever: bool, arguments: &[String]) -> Command {
    let (name, nth) = (&point.name, point.nth);
    let mut command = tree.clean("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}")]);
    command.args(["-e", &format!("inject={name}:{fault}:when={nth}{}", if ever { "+" } else { "" })]);
    command.arg(PROGRAM).arg("--root").arg(tree.root()).args(arguments);
    command
}

/// Whether every point is taken, not only those that matter and a sample.
pub fn full() -> bool {
    std::env::var_os("RELEASECTL_CRASH").is_some_and(|value| value == "full")
}

/// Each `stride`th of `points`, beginning with another one in each run.
pub fn sample(points: &[Point], stride: usize) -> Vec<Point> {
    let stride = if full() { 1 } else { stride };
    let begin = usize::try_from(std::process::id()).unwrap() % stride;
    points.iter().skip(begin).step_by(stride).cloned().collect()
}

/// Does `act` for each of `all` on as many threads as there are processors, each in a room of its own. Returns what it
/// complained of.
pub fn each<T: Sync>(all: &[T], act: impl Fn(usize, &T) -> Vec<String> + Sync) -> Vec<String> {
    share_out(all, || Some(Room::enter()), act)
}

/// The same in no room: for what makes namespaces of its own, or signals what it starts by its number.
pub fn each_outside<T: Sync>(all: &[T], act: impl Fn(usize, &T) -> Vec<String> + Sync) -> Vec<String> {
    share_out(all, || None, act)
}

fn share_out<T: Sync>(
    all: &[T],
    enter: impl Fn() -> Option<Room> + Sync,
    act: impl Fn(usize, &T) -> Vec<String> + Sync,
) -> Vec<String> {
    let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _room = enter();
                while let (at, Some(one)) = take(all, &next) {
                    let found = act(at, one);
                    complaints.lock().unwrap().extend(found);
                }
            });
        }
    });
    complaints.into_inner().unwrap()
}

fn take<'a, T>(all: &'a [T], next: &AtomicUsize) -> (usize, Option<&'a T>) {
    let at = next.fetch_add(1, Ordering::Relaxed);
    (at, all.get(at))
}

/// Does `act` in a room of its own.
pub fn aside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let act = || {
            let _room = Room::enter();
            act()
        };
        scope.spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where every run makes the same calls: on one processor, so that a deletion has one worker, and among no processes but
/// its own, so that whoever looks at all of them sees the same few. The second only root can arrange. It is of the thread
/// that entered it, and ends with it.
struct Room {
    _first: Option<Waiting>,
}

impl Room {
    fn enter() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut one = CpuSet::new();
        one.set(allowed[NEXT.fetch_add(1, Ordering::Relaxed) % allowed.len()]).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        if !is_root() {
            return Self { _first: None };
        }
        unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        // The first process of a namespace keeps it alive. It mounts /proc, which is of the namespace of whoever mounts.
        let mut first = Command::new("sh");
        first.args(["-ec", "mount -t proc proc /proc; echo ready; exec cat"]);
        Self { _first: Some(Waiting::start(&mut first)) }
    }
}

#[test]
fn calls_are_read_and_counted_as_strace_counts_them() {
    let text = "7 openat(3</t>, \"a\", O_RDONLY|O_CREAT, 0600) = 4</t/a>\n7 write(4</t/a>, \"x\", 1 <unfinished ...>\n\
                8 write(1<pipe:[1]>, \"y\", 1) = 1\n7 <... write resumed>) = -1 ENOSPC (No space left on device)\n\
                7 --- SIGCHLD {si_signo=SIGCHLD} ---\n7 write(4</t/a>, \"z = 3\", 5) = 5\n7 +++ exited with 0 +++\n";
    let calls = parse(text);
    let seen: Vec<_> = calls.iter().map(|c| (c.name.as_str(), c.nth, c.answer.as_str(), c.changes_disk())).collect();
    let wanted = [
        ("openat", 1, "4</t/a>", true),
        ("write", 1, "-1 ENOSPC (No space left on device)", true),
        ("write", 1, "1", false),
        ("write", 2, "5", true),
    ];
    assert_eq!(seen, wanted);
}

//! The flip: never seen half-way by any reader, made in the order that survives a kill, and settled after one.

use crate::sandbox::{Answer, PROGRAM, Sandbox};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads through `current` until told to stop, as a server that serves it would. Returns how many times it read.
fn read_without_pause(tree: &Sandbox, stop: &AtomicBool) -> usize {
    // Four that never pause would leave nothing of a small machine to the one who flips.
    let thread = nix::unistd::gettid().to_string();
    assert!(tree.clean("renice").args(["-n", "19", "-p", &thread]).output().unwrap().status.success());
    let current = tree.at("current");
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let word = fs::read_to_string(current.join("version")).unwrap();
        assert!(word == "A" || word == "B", "{word:?}");
        assert!(fs::metadata(current.join("app/main.py")).unwrap().is_file());
        assert!(fs::symlink_metadata(&current).unwrap().is_symlink());
        // Whoever keeps to the release they came into finds one release, whole.
        let release = fs::canonicalize(&current).unwrap();
        let word = fs::read_to_string(release.join("version")).unwrap();
        assert_eq!(release.file_name().unwrap().to_str(), Some(word.as_str()));
        assert_eq!(fs::read_to_string(release.join("app/main.py")).unwrap(), format!("print({word:?})\n"));
        reads += 1;
    }
    reads
}

#[test]
fn p01_two_thousand_flips_are_never_seen_half_way() {
    let tree = Sandbox::in_memory();
    tree.done(&["init"]);
    ["A", "B"].iter().for_each(|id| tree.create(id));
    tree.done(&["activate", "B"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [(); 4].map(|()| scope.spawn(|| read_without_pause(&tree, &stop)));
        for flip in 0..2000 {
            let id = if flip % 2 == 0 { "A" } else { "B" };
            let answer = tree.run(&["activate", id]);
            if answer.code != 0 || readers.iter().any(|reader| reader.is_finished()) {
                stop.store(true, Ordering::Relaxed);
                assert_eq!(answer.code, 0, "{}", answer.stderr);
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    let document = tree.json(&["history", "-n", "2000"]);
    let flips = document["entries"].as_array().unwrap().iter().filter(|entry| entry["operation"] == "activate");
    assert!(flips.clone().count() >= 1999 && flips.clone().all(|entry| entry["outcome"] == "done"));
}

/// A system call of a run that locks, writes, syncs or changes names in the tree.
struct Call {
    /// What it does, to what.
    does: String,
    /// What makes strace kill the run before this call.
    fault: String,
}

/// Those calls of one run, in order.
fn calls(tree: &Sandbox, arguments: &[&str]) -> Vec<Call> {
    let trace = tree.beside("trace");
    let mut command = tree.clean("strace");
    let wanted =
        "trace=flock,syncfs,fsync,fdatasync,ftruncate,write,pwrite64,unlinkat,symlinkat,linkat,renameat,renameat2";
    command.args(["-f", "-y", "-qq", "-s", "64", "-e", wanted, "-o"]).arg(&trace);
    command.arg(PROGRAM).arg("--root").arg(tree.root()).args(arguments);
    let answer: Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let mut counts = BTreeMap::new();
    let text = fs::read_to_string(&trace).unwrap();
    text.lines().filter_map(|line| call(line, &tree.root(), &mut counts)).collect()
}

/// `123 pwrite64(4</tree/.releasectl/journal.jsonl>, "{\"seq\"…", 9, 0) = 9` is `pwrite64 .releasectl/journal.jsonl begin`.
fn call(line: &str, root: &Path, counts: &mut BTreeMap<String, u32>) -> Option<Call> {
    let (name, rest) = line.split_once(' ')?.1.trim_start().split_once('(')?;
    // strace counts the calls of each name, wherever they go.
    let count = counts.entry(name.to_owned()).or_default();
    *count += 1;
    let on = rest.split_once('<')?.1.split_once('>')?.0;
    let on = Path::new(on).strip_prefix(root).ok()?.to_str()?;
    let on = if on.is_empty() { "root" } else { on };
    let event = ["begin", "done"].into_iter().find(|event| rest.contains(&format!(r#"\"event\":\"{event}\""#)));
    let names = rest.split('"').skip(1).step_by(2).filter(|_| name.ends_with("at"));
    let does = [name, on].into_iter().chain(event).chain(names).collect::<Vec<_>>().join(" ");
    Some(Call { does, fault: format!("{name}:signal=SIGKILL:when={count}") })
}

/// A tree where A, B and C were live in turn, and C is.
fn three() -> Sandbox {
    Sandbox::with_live(&["A", "B", "C"])
}

#[test]
fn p02_an_activation_makes_its_system_calls_in_the_order_that_survives_a_power_cut() {
    let tree = three();
    let wanted = [
        "flock .releasectl/lock",
        "ftruncate .releasectl/lock",
        "pwrite64 .releasectl/lock",
        "unlinkat root .current.releasectl",
        "syncfs releases/B",
        "pwrite64 .releasectl/journal.jsonl begin",
        "fsync .releasectl/journal.jsonl",
        "unlinkat root .current.releasectl",
        "symlinkat root releases/B .current.releasectl",
        "fsync root",
        "renameat root .current.releasectl current",
        "fsync root",
        "pwrite64 .releasectl/journal.jsonl done",
        "ftruncate .releasectl/lock",
    ];
    let made: Vec<String> = calls(&tree, &["activate", "B"]).into_iter().map(|call| call.does).collect();
    assert_eq!(made, wanted);
    assert_eq!(fs::read_link(tree.at("current")).unwrap(), Path::new("releases/B"));
}

/// Kills `verb`, which goes from C to B, before each of its calls in turn, and hands what is left to `check`, with
/// whether B is live.
fn killed_everywhere(verb: &[&str], check: impl Fn(&Sandbox, bool, &str)) {
    let all = calls(&three(), verb);
    let at = |what: &str| all.iter().position(|call| call.does.contains(what)).unwrap();
    let (begin, rename, done) = (at(" begin"), at("renameat root .current"), at(" done"));
    for (point, call) in all.iter().enumerate() {
        let (tree, does) = (three(), call.does.as_str());
        tree.killed(&call.fault, verb);
        let made = point > rename;
        let live = if made { "B" } else { "C" };
        assert_eq!(tree.live().as_deref(), Some(live), "before {does}");
        let unfinished = tree.json(&["status"])["unfinished"].as_array().unwrap().len();
        assert_eq!(unfinished, usize::from(point > begin && point <= done), "before {does}");
        // Any command that takes the lock settles it.
        assert_eq!(tree.json(&["activate", live])["changed"], false, "before {does}");
        assert_eq!(tree.live().as_deref(), Some(live), "before {does}");
        assert_eq!(tree.json(&["status"])["unfinished"], serde_json::json!([]), "before {does}");
        let outcome = if made { "done" } else { "interrupted" };
        let entry = format!("{} C B {outcome}", verb[0]);
        assert_eq!(tree.history().last() == Some(&entry), point > begin, "before {does}: {:?}", tree.history());
        assert!(fs::symlink_metadata(tree.at(".current.releasectl")).is_err(), "before {does}");
        check(&tree, made, does);
    }
}

#[test]
fn p03_an_activation_killed_at_any_call_is_settled_by_the_next_command() {
    killed_everywhere(&["activate", "B"], |tree, made, before| {
        tree.done(&["rollback"]);
        assert_eq!(tree.live().as_deref(), Some(if made { "C" } else { "B" }), "before {before}");
    });
}

#[test]
fn p03_a_rollback_killed_at_any_call_is_settled_by_the_next_command() {
    killed_everywhere(&["rollback"], |tree, made, before| {
        let state = tree.states()["C"].clone();
        assert_eq!(state, if made { "bad" } else { "ready" }, "before {before}");
        tree.done(&["activate"]);
        assert_eq!(tree.live().as_deref(), Some(if made { "B" } else { "C" }), "before {before}");
        tree.done(&["rollback"]);
        assert_eq!(tree.live().as_deref(), Some(if made { "A" } else { "B" }), "before {before}");
    });
}

#[test]
fn p02_a_stale_temporary_link_is_never_published() {
    let tree = three();
    symlink("releases/A", tree.at(".current.releasectl")).unwrap();
    tree.done(&["activate", "B"]);
    assert_eq!(fs::read_link(tree.at("current")).unwrap(), Path::new("releases/B"));
    assert!(fs::symlink_metadata(tree.at(".current.releasectl")).is_err());
    // Not even if the new one cannot be made.
    symlink("releases/A", tree.at(".current.releasectl")).unwrap();
    let answer: Answer = tree.faulty("symlinkat:error=EIO", &["activate", "C"]).output().unwrap().into();
    assert_eq!(answer.code, 1, "{}", answer.stderr);
    assert_eq!(tree.live().as_deref(), Some("B"));
    assert_eq!(tree.history().last().unwrap(), "activate B C failed");
}

//! How big the program is, on disk and in memory. The binary measured is the one that is shipped: static.

use crate::patience::eventually;
use crate::sandbox::{PROGRAM, Sandbox};
use releasectl::clock::Timestamp;
use releasectl::operation::{Begin, Chain, Done, Event, Operation, Outcome, Record};
use releasectl::release::{Manifest, ReleaseId};
use releasectl::sealed::{seal, unseal};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const MOST_BYTES: u64 = 3_000_000;
const MOST_RESIDENT_KIB: u64 = 20 << 10;
const MOST_KIB_OF_ANY: u64 = 40_000_000 >> 10;
/// The kind of an ELF segment that names a dynamic linker.
const PT_INTERP: usize = 3;
/// What a pipe holds.
const PIPE: usize = 64 << 10;

fn shipped() -> PathBuf {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let built = Path::new(PROGRAM).parent().and_then(Path::parent).unwrap().join(&target).join("release/releasectl");
    assert!(built.exists(), "{} is not built: run packaging/build", built.display());
    built
}

#[test]
fn the_binary_has_at_most_3_mb_and_needs_no_library() {
    let binary = fs::read(shipped()).unwrap();
    assert!(binary.len() as u64 <= MOST_BYTES, "{} bytes", binary.len());
    let number =
        |at: usize, len: usize| binary[at..at + len].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let (table, each, count) = (number(32, 8), number(54, 2), number(56, 2));
    let mut segments = (0..count).map(|n| number(table + n * each, 4));
    assert!(count > 0 && !segments.any(|kind| kind == PT_INTERP), "it wants a dynamic linker");
}

#[test]
fn a_thousand_releases_are_listed_in_less_than_20_mib_of_memory() {
    let tree = Sandbox::with_releases(&["R0"]);
    let text = fs::read(tree.release("R0").join(".releasectl/release.json")).unwrap();
    let first: Manifest = unseal(&text).unwrap();
    let mut journal = fs::OpenOptions::new().append(true).open(tree.at(".releasectl/journal.jsonl")).unwrap();
    for n in 1..1000 {
        let id: ReleaseId = format!("R{n}").parse().unwrap();
        let state = tree.release(id.as_str()).join(".releasectl");
        fs::create_dir_all(&state).unwrap();
        let sequence = first.sequence + 10 * n;
        let manifest = Manifest { id: id.clone(), sequence, ..first.clone() };
        fs::write(state.join("release.json"), seal(&manifest).unwrap() + "\n").unwrap();
        journal.write_all(activation(sequence, &id).as_bytes()).unwrap();
    }
    std::os::unix::fs::symlink("releases/R999", tree.at("current")).unwrap();
    for verb in ["list", "status"] {
        let resident = resident_at_the_end(&tree, &[verb]);
        assert!(resident < MOST_RESIDENT_KIB, "{verb}: {resident} KiB");
    }
    assert_eq!(tree.states().len(), 1000);
    assert_eq!(tree.json(&["status"])["previous"], "R998");
}

#[test]
fn a_history_of_ten_thousand_activations_is_told_in_less_than_40_mb_of_memory() {
    let tree = Sandbox::with_releases(&["R0"]);
    let lines = (1..=10_000).map(|n| activation(2 * n, &format!("R{n}").parse().unwrap()));
    fs::write(tree.at(".releasectl/journal.jsonl"), lines.collect::<String>()).unwrap();
    let resident = resident_at_the_end(&tree, &["history", "-n", "10000"]);
    assert!(resident < MOST_KIB_OF_ANY, "{resident} KiB");
    assert_eq!(tree.json(&["history", "-n", "10000"])["entries"].as_array().map(Vec::len), Some(10_000));
}

/// The journal's two lines of one activation, with as long a chain as there can be.
fn activation(seq: u64, to: &ReleaseId) -> String {
    let at = Timestamp::parse("2026-11-22_23.40").unwrap();
    let newest: u64 = to.as_str()[1..].parse().unwrap();
    let chain: Chain = (0..=newest).rev().take(64).map(|n| format!("R{n}").parse::<ReleaseId>().unwrap()).collect();
    let (to, from, chain) = (Some(to.clone()), format!("R{}", newest - 1).parse().ok(), Some(chain));
    let begin = Begin { from, to, chain, ..Begin::of(Operation::Activate, "tester") };
    let begin = Record { seq, at, event: Event::Begin(begin) };
    let done = Event::Done(Done { of: seq, outcome: Outcome::Done, seconds: 0.01, note: None });
    let done = Record { seq: seq + 1, at, event: done };
    seal(&begin).unwrap() + "\n" + &seal(&done).unwrap() + "\n"
}

/// The most memory that a verb has had, in KiB, when all its work is done and only its answer is left to be written: it
/// cannot be, since the pipe is full, so the kernel can be asked in peace.
fn resident_at_the_end(tree: &Sandbox, verb: &[&str]) -> u64 {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'-'; PIPE]).unwrap();
    let mut command = tree.clean(shipped());
    let mut child =
        command.arg("--root").arg(tree.root()).args(verb).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    eventually("its answer", || fs::read_to_string(process.join("wchan")).unwrap_or_default().contains("pipe_w"));
    let status = fs::read_to_string(process.join("status")).unwrap();
    reader.read_to_end(&mut Vec::new()).unwrap();
    assert!(child.wait().unwrap().success());
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    peak.unwrap_or_else(|| panic!("no VmHWM in {status}"))
}

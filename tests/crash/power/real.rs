//! The same on real file systems: killed before a call, then the power is cut (FS_IOC_SHUTDOWN without a flush of the
//! log), mounted again and judged. They show less than the model, which is stricter than they are, but what they show is real.

use crate::checker::Checker;
use crate::disk::{Kind, alone, command, mount_image, unmount};
use crate::kill::wired;
use crate::lab::as_root_or_left_out;
use crate::sandbox::{PROGRAM, Sandbox};
use crate::states::{Start, State};
use crate::trace::{self, Point};
use crate::verbs::{self, Verb};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The commands, from where, and of how many points one is taken by default.
const CUTS: [(&Verb, State, usize); 7] = [
    (&verbs::ACTIVATE, State::Three, 1),
    (&verbs::ROLLBACK, State::Three, 1),
    (&verbs::CREATE, State::One, 6),
    (&verbs::CLEAN, State::Three, 6),
    (&verbs::REMOVE, State::Three, 6),
    (&verbs::PIN, State::Three, 3),
    (&verbs::WIRE, State::Three, 3),
];

/// The ioctl _IOR('X', 125, u32) with flag 2: nothing more reaches the disk.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// Lays a copy of `start` on the disk, durably.
fn lay(disk: &Sandbox, start: &Start) {
    let script = r#"rm -rf -- "$1"/* "$1"/.releasectl; cp -a "$2"/. "$1"; sync -f "$1""#;
    let (root, made) = (disk.root(), start.made.root());
    command(disk, "sh", &["-ec", script, "sh", root.to_str().unwrap(), made.to_str().unwrap()]);
}

/// Cuts the disk's power, and mounts it again.
pub(super) fn cut_power(disk: &Sandbox) {
    let (root, image) = (disk.root(), disk.beside("image"));
    let (at, image) = (root.to_str().unwrap(), image.to_str().unwrap());
    command(disk, "python3", &["-c", SHUTDOWN, at]);
    unmount(&root);
    command(disk, "mount", &["-o", "loop", image, at]);
}

/// The releases, their pins, and what supervisord reads: what was promised of them outlives the power.
fn kept(disk: &Sandbox) -> Vec<PathBuf> {
    let is_kept = |path: &Path| {
        let mut names = path.iter().map(|name| name.to_str().unwrap());
        match (names.next(), names.next(), names.next()) {
            (Some("releases"), _, name) => name.is_none_or(|name| name.starts_with("KEEP_UNTIL__")),
            _ => false,
        }
    };
    disk.picture().into_keys().filter(|path| is_kept(path)).collect()
}

/// supervisord's directory, on the same disk as the tree as long as this is there.
struct Etc<'d>(&'d Sandbox);

impl<'d> Etc<'d> {
    fn enter(disk: &'d Sandbox) -> Self {
        let (own, etc) = (disk.at("etc"), verbs::etc(disk));
        [&own, &etc].iter().for_each(|path| fs::create_dir_all(path).unwrap());
        command(disk, "mount", &["--bind", own.to_str().unwrap(), etc.to_str().unwrap()]);
        Self(disk)
    }
}

impl Drop for Etc<'_> {
    fn drop(&mut self) {
        unmount(&verbs::etc(self.0));
    }
}

/// Cuts power before `point` of `verb`, or after its end. Returns the complaints.
fn cut(disk: &Sandbox, start: &Start, verb: &Verb, point: Option<&Point>, after: Option<&String>) -> Vec<String> {
    lay(disk, start);
    let wires = verb.name == verbs::WIRE.name;
    let etc = wires.then(|| Etc::enter(disk));
    let (before, words) = (disk.live(), (verb.words)(start, disk));
    command(disk, "sync", &["--file-system", disk.root().to_str().unwrap()]);
    let mut checker = Checker::new(disk);
    match point {
        Some(point) => drop(trace::inject(disk, point, "signal=SIGKILL", false, &words).output().unwrap()),
        None => drop(checker.works(&words)),
    }
    let promised = kept(disk);
    drop(etc);
    cut_power(disk);
    let (live, found, over) = (disk.live(), kept(disk), point.is_none());
    checker.must(!over || live.as_ref() == after, || format!("it was over, and {live:?} is live"));
    checker.must(!over || found == promised, || format!("it was over, and there is {found:?}, not {promised:?}"));
    if wires {
        let _etc = Etc::enter(disk);
        let durable = fs::read_to_string(verbs::etc(disk).join("supervisord.conf")).unwrap_or_default();
        checker.must(!over || durable != verbs::UNWIRED, || "it was over, and it is not wired".to_owned());
        wired(&mut checker, &words);
    }
    if wires {
        // The tree is judged by itself.
        fs::remove_dir_all(disk.at("etc")).unwrap();
    }
    checker.everything(&[before, after.cloned()]);
    let at = point.map_or("after its end", |point| &point.does);
    checker.complaints().into_iter().map(|what| format!("{} cut at {at}: {what}", verb.name)).collect()
}

/// An activation and a pin whose syncs are all left out do not outlive the power: else nothing would be shown here.
#[track_caller]
fn is_lost_without_syncs(disk: &Sandbox) {
    let start = Start::new(State::Three);
    lay(disk, &start);
    let before = kept(disk);
    for words in [&["activate", "A"][..], &["pin", "A", "--forever"]] {
        let mut strace = disk.clean("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,syncfs", "-e", "inject=fsync,syncfs:retval=0"]);
        strace.arg(PROGRAM).arg("--root").arg(disk.root()).args(words);
        assert!(strace.output().unwrap().status.success());
    }
    assert_eq!(disk.live().as_deref(), Some("A"));
    assert_ne!(kept(disk), before);
    cut_power(disk);
    assert_eq!(disk.live().as_deref(), Some("C"));
    assert_eq!(kept(disk), before);
}

#[track_caller]
fn cut_on(kind: Kind, floor: usize) {
    if !as_root_or_left_out(&format!("power cuts on {kind:?}")) {
        return;
    }
    let (mut cuts, mut complaints) = (0, Vec::new());
    alone(|| {
        let disk = Sandbox::new();
        mount_image(&disk, kind, None);
        for (verb, state, stride) in CUTS {
            let start = Start::new(state);
            let tree = start.copy();
            let (calls, _) = trace::calls(&tree, &(verb.words)(&start, &tree));
            let (after, points) = (tree.live(), trace::points(&calls, &tree).0);
            for point in trace::sample(&points, stride).iter().map(Some).chain([None]) {
                complaints.extend(cut(&disk, &start, verb, point, after.as_ref()));
                cuts += 1;
            }
        }
        is_lost_without_syncs(&disk);
        unmount(&disk.root());
    });
    let told = format!("power: {kind:?}: {cuts} cuts, {} complaints", complaints.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    assert!(complaints.is_empty(), "{told}\n{}", complaints.join("\n"));
    assert!(cuts >= floor, "{told}; there were {floor}");
}

#[test]
fn p01_power_cuts_on_ext4() {
    cut_on(Kind::Ext4, 50);
}

#[test]
fn p01_power_cuts_on_xfs() {
    cut_on(Kind::Xfs, 50);
}

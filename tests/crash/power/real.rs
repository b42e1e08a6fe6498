//! The same on real file systems: killed before a call, then the power is cut (FS_IOC_SHUTDOWN without a flush of the
//! log), mounted again and judged. They show less than the model, which is stricter than they are, but what they show is real.

use crate::checker::Checker;
use crate::disk::{Kind, alone, command, mount_image};
use crate::lab::as_root_or_left_out;
use crate::sandbox::{PROGRAM, Sandbox};
use crate::states::{Start, State};
use crate::trace::{self, Point};
use crate::verbs::{self, Verb};
use std::io::Write;

/// Of the points of a build, one in so many is taken by default.
const STRIDE: usize = 6;

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
fn cut_power(disk: &Sandbox) {
    let (root, image) = (disk.root(), disk.beside("image"));
    let (root, image) = (root.to_str().unwrap(), image.to_str().unwrap());
    command(disk, "python3", &["-c", SHUTDOWN, root]);
    command(disk, "umount", &[root]);
    command(disk, "mount", &["-o", "loop", image, root]);
}

/// Cuts power before `point` of `verb`, or after its end. Returns the complaints.
fn cut(disk: &Sandbox, start: &Start, verb: &Verb, point: Option<&Point>, after: Option<&String>) -> Vec<String> {
    lay(disk, start);
    let (before, words) = (disk.live(), (verb.words)(start, disk));
    let mut checker = Checker::new(disk);
    match point {
        Some(point) => drop(trace::inject(disk, point, "signal=SIGKILL", false, &words).output().unwrap()),
        None => drop(checker.works(&words)),
    }
    cut_power(disk);
    let (live, over) = (disk.live(), point.is_none());
    checker.must(!over || live.as_ref() == after, || format!("it was over, and {live:?} is live"));
    checker.everything(&[before, after.cloned()]);
    let at = point.map_or("after its end", |point| &point.does);
    checker.complaints().into_iter().map(|what| format!("{} cut at {at}: {what}", verb.name)).collect()
}

/// An activation whose syncs are all left out does not outlive the power: else nothing would be shown here.
#[track_caller]
fn is_lost_without_syncs(disk: &Sandbox) {
    let start = Start::new(State::Three);
    lay(disk, &start);
    let mut strace = disk.clean("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,syncfs", "-e", "inject=fsync,syncfs:retval=0"]);
    strace.arg(PROGRAM).arg("--root").arg(disk.root()).args(["activate", "A"]);
    assert!(strace.output().unwrap().status.success());
    assert_eq!(disk.live().as_deref(), Some("A"));
    cut_power(disk);
    assert_eq!(disk.live().as_deref(), Some("C"));
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
        for (verb, state, stride) in [
            (&verbs::ACTIVATE, State::Three, 1),
            (&verbs::ROLLBACK, State::Three, 1),
            (&verbs::CREATE, State::One, STRIDE),
        ] {
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
        command(&disk, "umount", &[disk.root().to_str().unwrap()]);
    });
    let told = format!("power: {kind:?}: {cuts} cuts, {} complaints", complaints.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    assert!(complaints.is_empty(), "{told}\n{}", complaints.join("\n"));
    assert!(cuts >= floor, "{told}; there were {floor}");
}

#[test]
fn p01_power_cuts_on_ext4() {
    cut_on(Kind::Ext4, 30);
}

#[test]
fn p01_power_cuts_on_xfs() {
    cut_on(Kind::Xfs, 30);
}

//! Disks of a test's own: the tree lies on a file system that nobody else sees and that goes with the test, however it
//! ends, since it is mounted in a namespace that only the test's thread and what it starts are in.

use crate::lab::left_out;
use crate::patience::eventually;
use crate::sandbox::{Sandbox, is_root};
use nix::errno::Errno;
use nix::mount::{self, MsFlags};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A file system in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    /// How large it is made; XFS is not made smaller. Only what is written is really there.
    fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 160 << 20,
        }
    }
}

/// Does `act` in a mount namespace of its own. What is mounted in it is gone when it returns or panics.
pub fn alone<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount::mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        act()
    };
    let done = std::thread::scope(|scope| scope.spawn(entered).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Set for a test that was started once more, in a namespace where an ordinary user may mount.
const INSIDE: &str = "RELEASECTL_INSIDE";

/// Whether the test named `name` may mount a tmpfs here. For an ordinary user it is started once more by `unshare`, in
/// which it may; then its answer is the test's own, and the caller has nothing left to do.
pub fn may_mount(name: &str) -> bool {
    if is_root() || std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--map-current-user", "--keep-caps", "--mount"]).arg(own).args(["--exact", name, "--nocapture"]);
    let output = again.env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unshare failed") || said.contains("Operation not permitted") && !said.contains("running 1 test") {
        left_out(name, "an ordinary user may not make a namespace here");
    } else {
        assert!(output.status.success(), "{said}");
    }
    false
}

/// Runs `program`; it must succeed.
#[track_caller]
pub fn command(tree: &Sandbox, program: &str, arguments: &[&str]) {
    let output = tree.clean(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Unmounts what is at `path`. A process that another test is just starting holds what is open here until it executes its
/// program, and so keeps the file system busy for that moment.
#[track_caller]
pub fn unmount(path: &Path) {
    eventually("the end of a mount", || match mount::umount(path) {
        Err(Errno::EBUSY) => false,
        done => done == Ok(()) || panic!("umount {path:?}: {done:?}"),
    });
}

/// Mounts a new file system of this kind at the tree's root. `inodes` is for ext4: so many and no more.
#[track_caller]
pub fn mount_image(tree: &Sandbox, kind: Kind, inodes: Option<u32>) {
    let (image, root) = (tree.beside("image"), tree.root());
    let (at, on) = (image.to_str().unwrap(), root.to_str().unwrap());
    fs::File::create(&image).unwrap().set_len(kind.bytes()).unwrap();
    let inodes = inodes.map(|count| format!("{count}"));
    match kind {
        Kind::Ext4 => {
            let mut arguments = vec!["-q", "-m", "0", "-F"];
            arguments.extend(inodes.iter().flat_map(|count| ["-N", count]));
            command(tree, "mkfs.ext4", &[&arguments[..], &[at]].concat());
        }
        Kind::Xfs => command(tree, "mkfs.xfs", &["-q", "-i", "maxpct=1", at]),
        Kind::Btrfs => command(tree, "mkfs.btrfs", &["-q", at]),
    }
    fs::create_dir(&root).unwrap();
    command(tree, "mount", &["-o", "loop", at, on]);
    let lost = root.join("lost+found");
    if lost.exists() {
        fs::remove_dir(lost).unwrap();
    }
}

/// Mounts a new tmpfs at the tree's root, or gives the one that is there other limits.
#[track_caller]
pub fn tmpfs(tree: &Sandbox, limits: &str) {
    let root = tree.root();
    let flags = if root.exists() { MsFlags::MS_REMOUNT } else { MsFlags::empty() };
    let _ = fs::create_dir(&root);
    mount::mount(Some("none"), &root, Some("tmpfs"), flags, Some(limits)).unwrap();
}

/// Writes into `directory` until not another byte fits: whole blocks, then files so small that they need none.
pub fn fill_blocks(directory: &Path) {
    let piece = vec![b'x'; 1 << 20];
    let mut number = fs::read_dir(directory).unwrap().count();
    loop {
        let before = number;
        for size in [1 << 20, 64 << 10, 4096, 1] {
            while fs::write(directory.join(format!("fill-{number}")), &piece[..size]).is_ok() {
                number += 1;
            }
            // What was made of it is room for others.
            let _ = fs::remove_file(directory.join(format!("fill-{number}")));
        }
        // What was only promised is found to be too much, or less than it was believed to be.
        let _ = Command::new("sync").arg("--file-system").arg(directory).status();
        if number < before + 2 {
            return;
        }
    }
}

/// Makes empty files in `directory` until not another one can be made.
pub fn fill_inodes(directory: &Path) {
    assert!(
        (0..200_000).any(|at| fs::File::create_new(directory.join(format!("node-{at}"))).is_err()),
        "no last inode"
    );
}

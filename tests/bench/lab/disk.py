"""File systems like those of servers: journaled, in sparse images below target/bench, without the host's page cache."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from . import CACHE, ended, run

# How each is made and mounted. The inode tables are written at once: nothing in the background disturbs a round.
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"], []),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"], []),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-K"], []),
}
GIB = 1 << 30


def need_root():
    """Ends a benchmark that only root can run."""
    if os.geteuid() != 0:
        sys.exit("this benchmark makes file systems of its own, which only root may do")


@contextmanager
def disk(kind, size=8 * GIB):
    """A new file system of `kind`, mounted; gone again afterwards, whatever happens."""
    need_root()
    make, options = KINDS[kind]
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=CACHE) as place:
        image, mounted = Path(place, "image"), Path(place, "mounted")
        mounted.mkdir()
        with open(image, "wb") as file:
            file.truncate(size)
        run(*make, image)
        loop = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        try:
            run("mount", *options, loop, mounted)
            yield mounted
        finally:
            # A second signal, or one to the whole group, must not leave a mount behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if os.path.ismount(mounted):
                unmount(mounted)
            run("losetup", "--detach", loop)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, ended)


def unmount(mounted):
    """Unmounts; a process that lingers in it does not keep the loop device for ever."""
    if subprocess.run(["umount", mounted], capture_output=True).returncode:
        run("umount", "--lazy", mounted)

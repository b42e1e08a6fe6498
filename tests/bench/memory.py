"""The most memory that any verb takes, on a large release and on a tree of 10,000 releases."""

import subprocess
import time
from pathlib import Path

from lab import CACHE, PROGRAM, Bench, environment, run
from lab.building import Building
from lab.disk import disk
from lab.inputs import git, large
from lab.trees import release_id, tree

MOST, RELEASES = 40, 10_000
NOTE = "resident, of releasectl itself: what the kernel keeps as its peak, looked at every millisecond until the end"


def peak(words, stdin):
    """Runs a command that must succeed; the most memory it had itself, in bytes, without that of git and others it starts."""
    most = 0
    with subprocess.Popen(words, env=environment(), stdin=stdin, stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            told = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            most = max([most, *(int(line[1]) * 1024 for line in told)])
            time.sleep(0.001)
    if process.returncode:
        raise RuntimeError(f"{words}: status {process.returncode}")
    return most


def measured(bench, words, what="", stdin=subprocess.DEVNULL, **facts):
    """Runs a verb once and adds a row; `words` are the whole command."""
    bench.value(f"memory: {what}", peak(list(map(str, words)), stdin) / 1e6, MOST, "MB", note=NOTE, **facts)


def building_verbs(bench, place):
    """What is done with releases of more than 20,000 files, one after the other."""
    building = Building(place, large())
    repository, facts = building.repository, dict(disk="ext4", files=building.files)

    def verb(what, *words, **more):
        measured(bench, building.ours(*words), what, **facts, **more)

    verb("create from git, cold mirror", "create", repository, "--ref", building.old, "--id", "first")
    verb("create from git", "create", repository, "--ref", building.new, "--id", "second")
    tar = CACHE / "memory.tar"
    git(repository, "archive", "--output", tar, building.new)
    with open(tar, "rb") as stdin:
        verb("create from a tar", "create", "-", "--id", "third", stdin=stdin)
    tar.unlink()
    verb("create from a directory", "create", repository, "--as", "dir", "--id", "fourth")
    for release in ("first", "second"):
        verb("activate", "activate", release)
    verb("verify", "verify", "second")
    verb("rollback", "rollback")
    verb("remove", "remove", "fourth")
    verb("deploy", "deploy", repository, "--ref", building.new)
    verb("clean", "clean", "--keep", "0")
    for words in (["list"], ["status"], ["history"], ["show"], ["doctor"]):
        verb(words[0], *words)


def linked_verbs(bench, place):
    place.mkdir()
    building = Building(place, large(), "[source]\nlink = 'hardlink'\n")
    building.go_live()
    facts = dict(disk="ext4", files=building.files)
    for what, words in (("create", ["--id", "next"]), ("deploy", [])):
        words = building.ours(what, building.repository, "--ref", building.new, *words)
        measured(bench, words, f"{what}, linked", **facts)


def many_releases(bench, root):
    """A tree with a long past."""
    note = dict(disk="ext4", files=RELEASES)
    tree(root, RELEASES)
    newest, before = release_id(RELEASES - 1), release_id(RELEASES - 2)
    for words in (
        ["list"],
        ["--json", "list"],
        ["status"],
        ["history", "-n", str(2 * RELEASES)],
        ["activate", before],
        ["activate", newest],
        ["rollback"],
        ["clean", "--dry-run", "--keep", "10"],
        ["remove", release_id(1)],
        ["clean", "--keep", str(RELEASES - 200)],
        ["doctor"],
    ):
        what = " ".join(word for word in words if word not in (before, newest, release_id(1)))
        measured(bench, [PROGRAM, "--root", root, *words], f"{what}, {RELEASES:,} releases", **note)


with Bench("memory") as bench:
    with disk("ext4") as place:
        building_verbs(bench, place)
        linked_verbs(bench, place / "linked")
        many_releases(bench, place / "many")

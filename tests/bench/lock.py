"""How long clean holds the tree lock, for a small and for large releases; and what a deploy's clean does before the new release
is live and confirmed. Both are read from what strace tells of the system calls."""

import json
import re
import tempfile
from pathlib import Path

from lab import CACHE, PROGRAM, Bench, Side, environment, run
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, git, large

MOST = 0.020
TAKEN = re.compile(r'^\S+ openat\(.*"lock", .* = (\d+) <')
LOCKED = re.compile(r"^(\S+) flock\((\d+), LOCK_EX\|LOCK_NB\) = 0 <(\S+)>")
CLOSED = re.compile(r"^(\S+) close\((\d+)\)")
NOTE = "under strace, which makes it slower; from the answer of flock to the close of the file, the longest time of the run"
# The lines of the journal that tell of the flip and of its confirmation, and the calls that move and delete a release.
LIVE = re.compile(r'pwrite64\(.*journal\.jsonl>, .*\\"event\\":\\"step\\",.*\\"name\\":\\"activate\\",\\"status\\":\\"done\\"')
CLEANING = re.compile(r"(renameat2|unlinkat)\(.*\.releasectl/trash")


def few(place):
    """A repository with ten files."""
    repository = place / "sources" / "few"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet")
    for commit in range(2):
        for number in range(10):
            (repository / f"file{number}").write_text(f"{number} of {commit}\n")
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", f"commit {commit}")
    return repository


def traced(place, *words, calls, options=()):
    """Runs a command under strace and returns what it printed, and the lines of its first thread if each has a file."""
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        strace = ["strace", "-qq", "--seccomp-bpf", f"--trace={calls}", "-o", Path(temporary, "trace"), *options]
        said = run(*strace, *words, env=environment())
        first = min(Path(temporary).iterdir(), key=lambda file: int(file.suffix[1:] or 0))
        return said, first.read_text().splitlines()


def holds(lines):
    """The seconds of each time the lock was held."""
    taken, since = None, {}
    for line in lines:
        if opened := TAKEN.match(line):
            taken = opened[1]
        elif (locked := LOCKED.match(line)) and locked[2] == taken:
            since[taken] = float(locked[1]) + float(locked[3])
        elif (closed := CLOSED.match(line)) and closed[2] in since:
            yield float(closed[1]) - since.pop(closed[2])
            taken = None
    assert not since, "the lock was not given back"


def cleaning(building):
    """A release more than is wanted, and clean with it gone."""

    def before(number):
        run(*building.ours("create", building.repository, "--ref", building.new, "--id", f"r{number}"))
        building.settle()

    def act(number):
        words = building.ours("clean", "--keep", "0")
        said, lines = traced(CACHE, *words, calls="openat,flock,close", options=["-ff", "-ttt", "-T"])
        assert [gone["id"] for gone in json.loads(said)["removed"]] == [f"r{number}"], said
        return max(holds(lines))

    return Side(act, before)


def before_live(building):
    """How many calls of a deploy's cleaning come before its release is live and confirmed, and how many after."""
    words = building.ours("deploy", building.repository, "--ref", building.new)
    options = ["-f", "-y", "-s", "400"]
    _, lines = traced(CACHE, *words, calls="pwrite64,unlinkat,renameat2", options=options)
    [live] = [at for at, line in enumerate(lines) if LIVE.search(line)]
    counts = [sum(1 for line in part if CLEANING.search(line)) for part in (lines[:live], lines[live:])]
    assert counts[1] > building.files, f"nothing was cleaned: {counts}"
    return counts


with Bench("lock") as bench:
    for kind in ("ext4", "xfs"):
        with disk(kind) as place:
            for repository in (few(place), django(), large()):
                building = Building(place, repository)
                building.go_live()
                facts = dict(disk=kind, files=building.files)
                bench.limit("clean holds the tree lock", cleaning(building), MOST, note=NOTE, **facts)
            # As many as are kept by default.
            for _ in range(3):
                run(*building.ours("deploy", building.repository, "--ref", building.old))
            early, late = before_live(building)
            note = f"{late:,} such calls follow; all calls of one deploy, in their order, by strace"
            what = "deploy: calls that clean, before its release is live and confirmed"
            bench.value(what, early, 0, "calls", disk=kind, files=building.files, note=note)

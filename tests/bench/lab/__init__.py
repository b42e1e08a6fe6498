"""What every benchmark needs: the program, a stopwatch, rounds that alternate, and rows for the table.

A benchmark is a file beside this package. It opens one `Bench`, compares, and every row goes at once into
target/bench/results/NAME.json, from which `table` makes tests/bench/RESULTS.md.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).resolve()
# Inputs, tools and images; everything here can be made again.
CACHE = TARGET / "bench"
PROGRAM = os.path.abspath(os.environ.get("RELEASECTL", TARGET / "x86_64-unknown-linux-musl/release/releasectl"))
ROUNDS = int(os.environ.get("ROUNDS", "7"))

def ended(number, _):
    """Killed or hung up, a benchmark still takes its mounts and loop devices away."""
    sys.exit(128 + number)


for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, ended)


def environment(**more):
    """What programs are started with: nothing inherited that would change what they do."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSL_CERT_FILE") if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    who = {"GIT_AUTHOR_NAME": "Bench", "GIT_AUTHOR_EMAIL": "bench@example.org"}
    who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
    return kept | who | {"LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"} | more


def run(*words, env=None, **more):
    """Runs a program that must succeed; returns what it printed."""
    done = subprocess.run(
        [str(word) for word in words], env=env or environment(), capture_output=True, text=True, **more
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def shell(script, *arguments, env=None, **more):
    """Runs a script with `sh -e`; it must succeed."""
    return run("sh", "-ec", script, "sh", *arguments, env=env, **more)


def releasectl(root, *words, **more):
    """Runs the program on the tree `root` and returns its document."""
    return json.loads(run(PROGRAM, "--json", "--quiet", "--root", root, *words, **more))


def compiled(name):
    """A C program of this package or of a benchmark, as a static binary."""
    source = next(place / f"{name}.c" for place in (HERE, HERE.parent) if (place / f"{name}.c").exists())
    binary = CACHE / "tools" / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        binary.parent.mkdir(parents=True, exist_ok=True)
        run("cc", "-O2", "-static", "-pthread", "-o", binary, source)
    return binary


@dataclass
class Run:
    """One run of a program."""

    seconds: float
    memory: int  # bytes, resident, at most


def timed(*words, times=1, env=None, cwd=None, stdin=subprocess.DEVNULL):
    """Runs a program `times` times, one after the other; each must succeed. What it prints is thrown away."""
    with tempfile.NamedTemporaryFile(mode="r") as told:
        command = [compiled("stopwatch"), told.name, str(times), *map(str, words)]
        with tempfile.TemporaryFile() as errors:
            subprocess.run(
                command, check=True, env=env or environment(), cwd=cwd, stdin=stdin, stdout=subprocess.DEVNULL, stderr=errors
            )
            errors.seek(0)
            runs = [tuple(map(int, line.split())) for line in told.read().splitlines()]
            if any(status for _, _, status in runs):
                raise RuntimeError(f"{' '.join(map(str, words))}: status {runs}\n{errors.read().decode()}")
    return [Run(nanoseconds / 1e9, kibibytes * 1024) for nanoseconds, kibibytes, _ in runs]


def seconds(*words, **more):
    """Seconds of one run of a program."""
    return timed(*words, **more)[0].seconds


def drop_caches():
    """Writes out and forgets everything the kernel has read, so that the next reader waits for the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def count(directory):
    """Files, links and directories below `directory`."""
    return sum(len(files) + len(directories) for _, directories, files in os.walk(directory))


def blocks(directory):
    """Bytes in use on the file system that holds `directory`, once everything is written out."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.sync()
        space = os.fstatvfs(fd)
    finally:
        os.close(fd)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


@dataclass
class Side:
    """One of those compared. `act` is timed, or returns the seconds itself; `before` and `after` are not timed.
    Each is given the number of the round, which is -1 for the one that only warms up."""

    act: Callable[[int], Optional[float]]
    before: Callable[[int], object] = lambda number: None
    after: Callable[[int], object] = lambda number: None

    def round(self, number):
        self.before(number)
        started = time.perf_counter()
        told = self.act(number)
        taken = time.perf_counter() - started
        self.after(number)
        return taken if told is None else told


@dataclass
class Against:
    """What is compared with, and how much of its time may be taken."""

    name: str
    target: float
    side: Side


@dataclass
class Bench:
    """The rows of one benchmark; used as a context, so that what was measured before an error is kept."""

    name: str
    rows: list = field(default_factory=list)

    def __enter__(self):
        self.file.unlink(missing_ok=True)
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and not isinstance(error, KeyboardInterrupt):
            why = (str(error).strip() or kind.__name__).splitlines()[0]
            self.add(what="(it did not finish)", note=why[:200], met=False)

    @property
    def file(self):
        return CACHE / "results" / f"{self.name}.json"

    def add(self, **row):
        """Keeps a row; it is on the disk at once."""
        self.rows.append(row)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.rows, indent=1) + "\n")

    def compare(self, what, ours, *against, disk="", files=None, rounds=None, warm_up=True, note=""):
        """Alternates between `ours` and everything it is compared with, and adds a row for each of those."""
        sides = [ours, *(one.side for one in against)]
        rounds = ROUNDS if rounds is None else rounds
        if warm_up:
            for side in sides:
                side.round(-1)
        times = [[] for _ in sides]
        for number in range(rounds):
            # Who is first in a round may have it easier or harder: that changes from round to round.
            order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
            for index in order:
                times[index].append(sides[index].round(number))
        for one, theirs in zip(against, times[1:]):
            ratio = statistics.median(times[0]) / statistics.median(theirs)
            row = dict(what=what, against=one.name, disk=disk, files=files, rounds=rounds, note=note)
            row |= dict(ours=spread(times[0]), theirs=spread(theirs), ratio=ratio, target=one.target)
            self.add(**row, met=ratio <= one.target)
            print(
                f"{what} [{disk or '-'}] {shown(times[0])} against {one.name} {shown(theirs)}: "
                f"{ratio:.3f} ×, wanted ≤ {one.target} ×",
                flush=True,
            )
        return times

    def limit(self, what, ours, most, disk="", files=None, rounds=None, note=""):
        """Measures `ours` alone; its median may take `most` seconds."""
        rounds = ROUNDS if rounds is None else rounds
        ours.round(-1)
        times = [ours.round(number) for number in range(rounds)]
        met = statistics.median(times) <= most
        self.add(what=what, disk=disk, files=files, rounds=rounds, note=note, ours=spread(times), most=most, met=met)
        print(f"{what} [{disk or '-'}] {shown(times)}, wanted ≤ {most * 1000:g} ms", flush=True)
        return times

    def value(self, what, value, most, unit, disk="", files=None, against="", note=""):
        """A figure that is no time: a size, a share, a count."""
        row = dict(what=what, value=value, most=most, unit=unit, disk=disk, files=files, against=against, note=note)
        self.add(**row, met=value <= most)
        print(f"{what} [{disk or '-'}] {value:.4g} {unit}, wanted ≤ {most:g} {unit}", flush=True)


def spread(times):
    return dict(median=statistics.median(times), least=min(times), most=max(times))


def shown(times):
    return f"{statistics.median(times) * 1000:.2f} ms ({min(times) * 1000:.2f}–{max(times) * 1000:.2f})"

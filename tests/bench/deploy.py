"""A deploy of code alone, on the host: create of the next commit with a warm mirror, flip, one old release cleaned away;
against what other tools have the host do for the same."""

from lab import Against, Bench, seconds
from lab.deploying import Hosted, Upstream, ours
from lab.disk import disk
from lab.inputs import django, git
from lab.others import FABRICS, OTHERS

MODES = {"copied": ("", 0.50), "linked": ("[source]\nlink = 'hardlink'\n", 0.25)}
FABRIC = 0.10
NOTE = (
    "each of the others' commands runs in a shell of its own, as over ssh, and nothing of the way there is counted; "
    "ours is on the disk when it ends. A login shell alone costs {:.0f} ms here"
)


def others(place, upstream):
    """Every other tool: how it is told, what it does, and whether Fabric's target is its own."""
    for number, other in enumerate([*OTHERS, *FABRICS]):
        hosted = Hosted(place / f"other{number}", upstream, other)
        yield other.name, hosted.side(), other in FABRICS
        if other in OTHERS:
            yield f"{other.name}, then sync --file-system", hosted.side(synced=True), False


def against(there, target):
    return [Against(name, FABRIC if fabric else target, side) for name, side, fabric in there]


with Bench("deploy") as bench:
    note = NOTE.format(min(seconds("bash", "-l", "-c", ":") for _ in range(5)) * 1000)
    for kind in ("ext4", "xfs"):
        with disk(kind) as place:
            upstream = Upstream(place, django())
            files = len(git(upstream.path, "ls-tree", "-r", "--name-only", "main").splitlines())
            there = list(others(place, upstream))
            for mode, (settings, target) in MODES.items():
                side = ours(place / mode, upstream, settings)
                what = f"deploy of code, {mode}"
                bench.compare(what, side, *against(there, target), disk=kind, files=files, note=note)

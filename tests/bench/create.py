"""`create` from git with a warm mirror: the first release, and the next commit beside a live one."""

from lab import Against, Bench
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, large

# Against `git archive | tar x`, by the number of files.
TARGETS = ((django, 0.40), (large, 0.55))
SYNCED = "the same, then sync --file-system"


def others(building, target):
    yield Against("git archive | tar x", target, building.archive())
    yield Against(SYNCED, target, building.archive('sync --file-system "$1"'))
    yield Against("clone of current, reset, submodules, clean", 0.35, building.clone())


with Bench("create") as bench:
    for kind in ("ext4", "xfs"):
        for repository, target in TARGETS:
            with disk(kind) as place:
                building = Building(place, repository())
                building.warm()
                facts = dict(disk=kind, files=building.files)
                others_here = list(others(building, target))
                bench.compare("create from git, no release before", building.create(), *others_here[:2], **facts)
                building.go_live()
                bench.compare("create from git, the next commit", building.create(), *others_here, **facts)

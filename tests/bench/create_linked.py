"""`create` of the next commit with `link = "hardlink"`: what has not changed is the release before's own."""

from lab import Against, Bench
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, large

# Against `git archive | tar x`, by the number of files.
TARGETS = ((django, 0.15), (large, 0.25))
BLOCKS = 0.15

with Bench("create_linked") as bench:
    for kind in ("ext4", "xfs"):
        for repository, target in TARGETS:
            with disk(kind) as place:
                building = Building(place, repository(), "[source]\nlink = 'hardlink'\n")
                building.go_live()
                facts = dict(disk=kind, files=building.files)
                archive = Against("git archive | tar x", target, building.archive())
                synced = Against("the same, then sync", target, building.archive('sync --file-system "$1"'))
                clone = Against("clone of current, reset, submodules, clean", target, building.clone())
                bench.compare("create, linked, the next commit", building.create(), archive, synced, clone, **facts)
                share = building.growth(building.create()) / building.growth(building.archive())
                bench.value("create, linked: new blocks", share, BLOCKS, "×", against="git archive | tar x", **facts)

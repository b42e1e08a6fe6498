"""`create` of the next commit where the file system shares blocks: unchanged files are the release's own, their blocks not."""

from lab import Against, Bench
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, large

TARGET, BLOCKS = 0.35, 0.15

with Bench("create_reflink") as bench:
    for kind in ("xfs", "btrfs"):
        for repository in (django, large):
            with disk(kind) as place:
                building = Building(place, repository())
                building.go_live()
                facts = dict(disk=kind, files=building.files)
                archive = Against("git archive | tar x", TARGET, building.archive())
                synced = Against("the same, then sync", TARGET, building.archive('sync --file-system "$1"'))
                clone = Against("clone of current, reset, submodules, clean", TARGET, building.clone())
                bench.compare("create, reflinks, the next commit", building.create(), archive, synced, clone, **facts)
                share = building.growth(building.create()) / building.growth(building.archive())
                bench.value("create, reflinks: new blocks", share, BLOCKS, "×", against="git archive | tar x", **facts)

"""What of `create` is the kernel's: the files of the next commit made from memory (or linked, or cloned), synced, and no more.
Where that alone takes more than a target of `create` allows, the target is out of reach of whoever makes these files here."""

from lab import Against, Bench
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, large

LINKED = "[source]\nlink = 'hardlink'\n"
# How, with which settings and where, and what `create` is to take of the time of `git archive | tar x` by the repository.
WAYS = (
    ("copy", "", ("ext4", "xfs"), {django: 0.40, large: 0.55}),
    ("link", LINKED, ("ext4", "xfs"), {django: 0.15, large: 0.25}),
    ("clone", "", ("xfs", "btrfs"), {django: 0.35, large: 0.35}),
)
# How much longer than the kernel alone we may take, git, every check and the records included.
OURS = 2.0
NOTE = "the column releasectl has the kernel's time here: two threads, nothing looked up, checked, dated or recorded"

with Bench("create_bound") as bench:
    for way, settings, kinds, targets in WAYS:
        for kind in kinds:
            for repository, target in targets.items():
                with disk(kind) as place:
                    building = Building(place, repository(), settings)
                    building.go_live()
                    facts = dict(disk=kind, files=building.files)
                    kernel, what = building.kernel(way), f"the kernel alone, {way}"
                    archive = Against("git archive | tar x", target, building.archive())
                    bench.compare(what, kernel, archive, note=NOTE, **facts)
                    bench.compare(f"create, {way}, the next commit", building.create(), Against(what, OURS, kernel), **facts)

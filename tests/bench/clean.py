"""The deletion itself: `remove` of one release, caches warm and cold, against `rm -rf` of the same files."""

from lab import PROGRAM, Against, Bench, Side, drop_caches, run, seconds
from lab.building import Building
from lab.disk import disk
from lab.inputs import django

TARGETS = {"ext4": 0.65, "xfs": 1.05}


def sides(building, cold):
    def settle():
        building.settle()
        if cold:
            drop_caches()

    def fill(number):
        run(*building.ours("create", building.repository, "--ref", building.new, "--id", f"r{number}"))
        settle()

    def copy(number):
        run("cp", "-a", building.release("live"), building.place / f"other{number}")
        settle()

    ours = Side(lambda number: seconds(*building.ours("remove", f"r{number}")), fill)
    theirs = Side(lambda number: seconds("rm", "-rf", building.place / f"other{number}"), copy)
    return ours, theirs


with Bench("clean") as bench:
    for kind, target in TARGETS.items():
        with disk(kind) as place:
            building = Building(place, django())
            run(*building.ours("create", building.repository, "--ref", building.new, "--id", "rlive"))
            for cold in (False, True):
                ours, theirs = sides(building, cold)
                what = "remove of a release, " + ("cold" if cold else "warm")
                bench.compare(what, ours, Against("rm -rf", target, theirs), disk=kind, files=building.files)

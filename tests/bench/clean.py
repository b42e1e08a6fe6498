"""Deleting a release, caches warm and cold, against `rm -rf` of the same files. `remove` does more than delete: the rest,
which is the same for a release of one file, is measured beside it and taken off in the rows called deletion."""

from lab import Against, Bench, Side, drop_caches, run, seconds
from lab.building import Building
from lab.disk import disk
from lab.inputs import django

TARGETS = {"ext4": 0.65, "xfs": 1.05}


class Deleting:
    """What is deleted in a round, written and settled before; `cold` says whether it has to be read from the disk again."""

    def __init__(self, building, cold):
        self.building, self.cold = building, cold
        self.small = building.place / "small"
        self.small.mkdir(exist_ok=True)
        (self.small / "file").write_text("one\n")

    def settle(self):
        self.building.settle()
        if self.cold:
            drop_caches()

    def remove(self, name):
        return seconds(*self.building.ours("remove", name))

    def fill(self, number):
        run(*self.building.ours("create", self.building.repository, "--ref", self.building.new, "--id", f"r{number}"))
        self.settle()

    def fill_both(self, number):
        run(*self.building.ours("create", self.small, "--id", f"s{number}"))
        self.fill(number)

    def whole(self):
        return Side(lambda number: self.remove(f"r{number}"), self.fill)

    def deletion(self):
        return Side(lambda number: self.remove(f"r{number}") - self.remove(f"s{number}"), self.fill_both)

    def rm(self):
        """The same files, written by the same command: how they were written is seen in how long they take to delete."""

        def other(number):
            return self.building.place / f"other{number}"

        def fill(number):
            self.fill(number)
            self.building.release(number).rename(other(number))

        return Side(lambda number: seconds("rm", "-rf", other(number)), fill)


with Bench("clean") as bench:
    for kind, target in TARGETS.items():
        with disk(kind) as place:
            building = Building(place, django())
            building.warm()
            for cold in (False, True):
                deleting, caches = Deleting(building, cold), "cold" if cold else "warm"
                rm = Against("rm -rf", target, deleting.rm())
                facts = dict(disk=kind, files=building.files)
                bench.compare(f"deletion, {caches}", deleting.deletion(), rm, **facts)
                bench.compare(f"remove, the whole command, {caches}", deleting.whole(), rm, **facts)

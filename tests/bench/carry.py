"""Carrying node_modules over from the live release: the build's step, as releasectl times it, against `cp -r`."""

import json

from lab import Against, Bench, Side, count, run
from lab.building import Building
from lab.disk import disk
from lab.inputs import git, large

FILES, TARGET = 20_000, 0.6


def app(place):
    """Code that carries node_modules over."""
    code = place / "code"
    code.mkdir()
    (code / "releasectl.toml").write_text("[shared]\ncarry = ['node_modules']\n")
    return code


def fill(building, modules):
    """Twenty thousand small files in many directories, on the disk."""
    names = git(building.repository, "ls-tree", "-r", "-z", "--name-only", building.new).split("\0")[:FILES]
    chosen = building.place / "names"
    chosen.write_text("".join(f"{name}\0" for name in names))
    modules.mkdir()
    script = 'git --git-dir "$1" archive "$2" | tar -x -C "$3" --null --files-from "$4"'
    run("sh", "-ec", script, "sh", building.mirror, building.new, modules, chosen)
    building.settle()


def carrying(building, code):
    """The seconds of the step alone; what surrounds it is there without node_modules too."""
    plain = building.create()

    def act(number):
        steps = json.loads(run(*building.ours("create", code, "--id", f"r{number}")))["steps"]
        return next(step["seconds"] for step in steps if step["name"] == "carry")

    return Side(act, plain.before, plain.after)


with Bench("carry") as bench:
    for kind in ("ext4", "xfs", "btrfs"):
        with disk(kind) as place:
            building = Building(place, large())
            code = app(building.place)
            run(*building.ours("create", code, "--id", "live"))
            run(*building.ours("activate", "live", "--no-restart"))
            modules = building.root / "releases/live/node_modules"
            fill(building, modules)
            copy = Against("cp -r", TARGET, building.shell('cp -r "$2" "$1"', modules))
            facts = dict(disk=kind, files=count(modules))
            bench.compare("carry of node_modules", carrying(building, code), copy, **facts)

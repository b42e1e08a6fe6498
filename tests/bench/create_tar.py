"""`create -` from a tar on standard input against `tar x` of the same; ours is on the disk when it ends."""

from lab import CACHE, Against, Bench, Side, seconds
from lab.building import Building
from lab.disk import disk
from lab.inputs import django, git, large

TARGET = 1.0


def fed(building, tar):
    """Our command with the tar on its standard input."""

    def act(number):
        with open(tar, "rb") as source:
            return seconds(*building.ours("create", "-", "--id", f"r{number}"), stdin=source)

    plain = building.create()
    return Side(act, plain.before, plain.after)


def tar_x(building, tar, then=":"):
    return building.shell(f'tar -x -C "$1" <"$2"; {then}', tar)


with Bench("create_tar") as bench:
    for kind in ("ext4", "xfs"):
        for repository in (django, large):
            with disk(kind) as place:
                building = Building(place, repository())
                tar = CACHE / f"{building.repository.name}.tar"
                git(building.repository, "archive", "--output", tar, building.new)
                facts = dict(disk=kind, files=building.files)
                plain = Against("tar x", TARGET, tar_x(building, tar))
                synced = Against("tar x, then sync", TARGET, tar_x(building, tar, 'sync --file-system "$1"'))
                bench.compare("create from a tar on standard input", fed(building, tar), plain, synced, **facts)
                tar.unlink()

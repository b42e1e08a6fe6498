"""Activating, without supervisor, the whole process: against a shell's `ln`, `mv` and `sync`, and with a long history."""

from lab import PROGRAM, Against, Bench, Side, run, seconds
from lab.disk import disk
from lab.trees import release_id, tree

SHELL = 'ln -s "releases/$1" .next && mv -T .next other && sync .'


def activating(root, releases):
    """Goes to and fro between the two newest."""
    names = [release_id(releases - 1 - number) for number in range(2)]
    turn = iter(range(1 << 30))
    return Side(lambda _: seconds(PROGRAM, "--root", root, "activate", names[(next(turn) + 1) % 2]))


with Bench("activate") as bench:
    for kind in ("ext4", "xfs"):
        with disk(kind) as place:
            short, long = place / "short", place / "long"
            tree(short, 10, 10)
            tree(long, 10_000, 100_000)
            run("sync", "--file-system", place)
            by_hand = Side(lambda _: seconds("sh", "-c", SHELL, "sh", release_id(9), cwd=short))
            bench.compare("activate", activating(short, 10), Against("sh: ln, mv, sync", 0.5, by_hand), disk=kind)
            few = Against("10 releases, 30 lines of journal", 1.2, activating(short, 10))
            what = "activate, 10,000 releases, 100,000 lines of journal"
            bench.compare(what, activating(long, 10_000), few, disk=kind)

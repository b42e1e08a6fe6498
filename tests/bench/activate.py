"""Activating, without supervisor, the whole process: against a C program of the durable steps alone, against a shell's
`ln`, `mv` and `sync`, and with many releases and a long history."""

from lab import PROGRAM, Against, Bench, Side, compiled, run, seconds
from lab.disk import disk
from lab.trees import release_id, tree

SHELL = 'ln -s "releases/$1" .next && mv -T .next other && sync .'
BARE = "a C program of the same durable steps"
MANY = "activate, 10,000 releases, 100,000 lines of journal"


def to_and_fro(act, releases):
    """Calls `act` with each of the two newest releases in turn."""
    names = [release_id(releases - 1 - number) for number in range(2)]
    turn = iter(range(1 << 30))
    return Side(lambda _: act(names[(next(turn) + 1) % 2]))


def activating(root, releases):
    return to_and_fro(lambda name: seconds(PROGRAM, "--root", root, "activate", name), releases)


with Bench("activate") as bench:
    for kind in ("ext4", "xfs"):
        with disk(kind) as place:
            # What is measured makes a journal longer: each comparison has trees of its own.
            first, short, long = place / "first", place / "short", place / "long"
            tree(first, 10)
            lines = tree(short, 10)
            tree(long, 10_000, 100_000)
            run("sync", "--file-system", place)
            steps = to_and_fro(lambda name: seconds(compiled("durable_steps"), first, name), 10)
            by_hand = to_and_fro(lambda name: seconds("sh", "-c", SHELL, "sh", name, cwd=first), 10)
            bare, shell = Against(BARE, 1.3, steps), Against("sh: ln, mv, sync", 0.5, by_hand)
            bench.compare("activate", activating(first, 10), bare, shell, disk=kind)
            few = Against(f"10 releases, {lines} lines of journal", 1.2, activating(short, 10))
            bench.compare(MANY, activating(long, 10_000), few, disk=kind)

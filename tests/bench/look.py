"""Looking: list with 10,000 releases, caches warm and cold; status, path and history with a journal of 100,000 lines."""

from lab import PROGRAM, Bench, Side, drop_caches, timed
from lab.disk import disk
from lab.trees import tree

RELEASES, LINES = 10_000, 100_000
TIMES = 20  # short ones, a round


def look(root, *words, times=1, cold=False, most_memory=None):
    def act(number):
        runs = timed(PROGRAM, "--root", root, *words, times=times)
        if most_memory is not None:
            most_memory.append(max(run.memory for run in runs))
        return sum(run.seconds for run in runs) / times

    return Side(act, before=(lambda number: drop_caches()) if cold else (lambda number: None))


def lists(bench, kind, place):
    root, memory = place / "tree", []
    lines = tree(root, RELEASES)
    note = f"{RELEASES:,} releases, {lines:,} lines of journal"
    entries = sum(1 for _ in (root / "releases").iterdir())
    assert entries == RELEASES
    bench.limit("list, warm", look(root, "list", most_memory=memory), 0.030, disk=kind, files=RELEASES, note=note)
    warm_json = look(root, "--json", "list", most_memory=memory)
    bench.limit("list --json, warm", warm_json, 0.030, disk=kind, files=RELEASES)
    cold = look(root, "list", cold=True, most_memory=memory)
    bench.limit("list, cold", cold, 0.300, disk=kind, files=RELEASES)
    bench.value("list, memory", max(memory) / 1e6, 30, "MB", disk=kind)


def short_looks(bench, kind, place):
    root = place / "long"
    lines = tree(root, RELEASES, LINES)
    note = f"{RELEASES:,} releases, {lines:,} lines of journal; means of {TIMES} runs a round"
    for words in (["status"], ["path", "previous"], ["history", "-n", "10"]):
        bench.limit(" ".join(words), look(root, *words, times=TIMES), 0.002, disk=kind, note=note)


with Bench("look") as bench:
    for kind in ("ext4", "xfs"):
        with disk(kind) as place:
            lists(bench, kind, place)
    with disk("ext4") as place:
        short_looks(bench, "ext4", place)

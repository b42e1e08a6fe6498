"""Makes tests/bench/RESULTS.md of what the benchmarks have left in target/bench/results. What was not measured anew keeps the
rows it has there."""

import json
import os
import platform
import re
import time
from pathlib import Path

from . import CACHE, HERE, run

INTRODUCTION = """\
# What it costs

Measured by `tests/bench/run`: releasectl and the alternative side by side, taking turns, on file systems of their own
(ext4 with its journal, XFS, btrfs) in loop images. Each time is a median, with the least and the most in brackets; a ratio is
releasectl's median by the other's. Durability, the refusal of links and every check stay on in every figure."""
LIMITS = "What limits it"
RESULTS = HERE.parent / "RESULTS.md"
# The order of the table.
ORDER = ["start", "activate", "look", "create", "carry", "clean", "python_env", "supervisor", "deploy"]


def machine():
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    kernel = platform.release().split("-")[0]
    tools = ", ".join([run("git", "--version").strip(), f"Python {platform.python_version()}"])
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {kernel}, {tools}"


def duration(seconds):
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"


def times(spread):
    least, most = duration(spread["least"]), duration(spread["most"])
    return f"{duration(spread['median'])} ({least}–{most})"


def cells(row):
    """What, against, file system, files, rounds, ours, theirs, result, wanted, met."""
    named = [row["what"], row.get("against") or "–", row.get("disk") or "–"]
    named += [f"{row['files']:,}" if row.get("files") else "–", str(row.get("rounds") or "–")]
    met = "yes" if row["met"] else "**no**"
    if "ratio" in row:
        return [*named, times(row["ours"]), times(row["theirs"]), f"{row['ratio']:.3g} ×", f"≤ {row['target']:g} ×", met]
    if "ours" in row:
        return [*named, times(row["ours"]), "–", duration(row["ours"]["median"]), f"≤ {duration(row['most'])}", met]
    if "value" in row:
        unit = row["unit"]
        return [*named, "–", "–", f"{row['value']:.3g} {unit}", f"≤ {row['most']:g} {unit}", met]
    return [*named, "–", "–", "–", "–", met]


def section(file):
    """The rows that one benchmark has left."""
    rows = json.loads(file.read_text())
    head = ["what", "against", "on", "files", "rounds", "releasectl", "the other", "result", "wanted", "met"]
    day = time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime))
    lines = [f"## {file.stem}", "", f"{day}; {machine()}.", ""]
    lines += ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in rows]
    notes = dict.fromkeys(f"{row['what']}: {row['note']}" for row in rows if row.get("note"))
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip()


def sections():
    """By the benchmark's name: what was there before, and what has been measured since."""
    before = re.split(r"(?m)^## ", RESULTS.read_text())[1:] if RESULTS.exists() else []
    found = {part.split("\n", 1)[0]: "## " + part.rstrip() for part in before}
    found |= {file.stem: section(file) for file in (CACHE / "results").glob("*.json")}
    found.pop(LIMITS, None)
    return [found[name] for name in sorted(found, key=lambda name: (place_in_order(name), name))]


def place_in_order(name):
    return next((at for at, first in enumerate(ORDER) if name.startswith(first)), len(ORDER))


def write():
    remarks = (HERE.parent / "REMARKS.md").read_text().rstrip()
    parts = [INTRODUCTION, *sections(), f"## {LIMITS}\n\n{remarks}"]
    RESULTS.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    write()

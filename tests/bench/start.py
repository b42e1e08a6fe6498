"""Starting: `--version`, a whole process, against a static program that says hello; and the size of the binary."""

import os

from lab import PROGRAM, Against, Bench, Side, compiled, timed

TIMES = 200  # a round


def starts(*words):
    return Side(lambda number: sum(run.seconds for run in timed(*words, times=TIMES)) / TIMES)


with Bench("start") as bench:
    hello = Against("a static hello world", 1.5, starts(compiled("hello")))
    bench.compare("start (--version)", starts(PROGRAM, "--version"), hello, note=f"means of {TIMES} starts a round")
    bench.value("size of the binary", os.path.getsize(PROGRAM) / 1e6, 3.0, "MB")

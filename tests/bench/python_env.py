"""python_env of a Django application: the first build against the next one with unchanged requirements.

Seven pairs, each on a tree of its own with an empty cache, so that the first build is a first build. What is compared is
what releasectl itself reports for its step "python".
"""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ROUNDS = 7
PROGRAM = os.path.abspath(os.environ["RELEASECTL"])
REQUIREMENTS = "Django==5.1.4\ngunicorn==23.0.0\ncelery==5.4.0\n"


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def python_seconds(root, source):
    answer = json.loads(run(PROGRAM, "--json", "--quiet", "--root", root, "deploy", source))
    return next(step["seconds"] for step in answer["steps"] if step["name"] == "python")


def one_pair(place):
    source = place / "app"
    source.mkdir()
    (source / "requirements.txt").write_text(REQUIREMENTS)
    first = python_seconds(place / "tree", source)
    return first, python_seconds(place / "tree", source)


def main():
    pairs = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="releasectl-bench-") as place:
            pairs.append(one_pair(Path(place)))
    firsts, nexts = zip(*pairs)
    for name, times in (("first build", firsts), ("unchanged requirements", nexts)):
        print(f"{name:24} median {statistics.median(times):7.3f} s   {min(times):.3f} to {max(times):.3f}")
    ratio = statistics.median(nexts) / statistics.median(firsts)
    print(f"{'ratio':24} {ratio:.3f}   (wanted: under 0.2)")


main()

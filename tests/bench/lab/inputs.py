"""Real code with a history, made once from source distributions on PyPI and kept below target/bench/inputs."""

import shutil
import sys
import tempfile
from pathlib import Path

from . import CACHE, environment, run

# Each commit is one list of source distributions, unpacked side by side.
DJANGO = [["Django==5.1.1"], ["Django==5.1.2"], ["Django==5.1.3"], ["Django==5.1.4"]]
LARGE = [["ansible==3.3.0"], ["ansible==3.4.0"]]


def django():
    """A repository with a work tree: four releases of Django, about 7,000 files."""
    return repository("django", DJANGO)


def large():
    """A repository with a work tree of more than 20,000 files and two commits."""
    return repository("large", LARGE)


def repository(name, history):
    """The repository `name`, made if it is not there yet. `HEAD~1` is the commit before the newest."""
    place = CACHE / "inputs" / name
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        work = Path(temporary, name)
        work.mkdir()
        git(work, "init", "--quiet", "--initial-branch", "main")
        git(work, "config", "gc.auto", "0")
        for number, distributions in enumerate(history):
            clear(work)
            for distribution in distributions:
                unpack(sdist(distribution), work / distribution.split("==")[0] if len(distributions) > 1 else work)
            date = f"2026-11-{number + 1:02} 12:00:00 +0000"
            git(work, "add", "--all", "--force")
            git(work, "commit", "--quiet", "--message", " ".join(distributions), "--date", date)
        git(work, "repack", "-a", "-d", "--quiet")
        work.rename(place)
    return place


def commits(repository):
    """Its commits, the oldest first."""
    return git(repository, "rev-list", "--reverse", "HEAD").split()


def git(repository, *words):
    """Runs git in a repository."""
    return run("git", "-C", repository, *words, env=environment(GIT_COMMITTER_DATE="2026-11-01 12:00:00 +0000"))


def clear(work):
    for entry in work.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def sdist(distribution):
    """A source distribution, downloaded once."""
    name, version = distribution.split("==")
    kept = CACHE / "sdists" / f"{name}-{version}.tar.gz"
    if not kept.exists():
        print(f"downloading {distribution}", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            words = "-m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest"
            run(sys.executable, *words.split(), temporary, distribution)
            # Some are named with other capitals or dashes than they are asked for.
            [file] = Path(temporary).iterdir()
            file.rename(kept)
    return kept


def unpack(archive, into):
    """Unpacks a source distribution without the directory that it is wrapped in."""
    into.mkdir(exist_ok=True)
    run("tar", "-x", "-f", archive, "-C", into, "--strip-components", "1", "--no-same-owner")

"""Trees to which the same code is deployed again and again, by releasectl and by others; each deploy is of another commit
than the one before it, and one old release goes."""

from pathlib import Path

from . import PROGRAM, Side, environment, run, seconds, shell
from .inputs import commits, git

SHARED_DIRECTORIES, SHARED_FILES = ["log", "media", "tmp/pids"], [".env", "localsettings.py"]
SETTINGS = f"[shared]\ndirs = {SHARED_DIRECTORIES}\nfiles = {SHARED_FILES}\n[clean]\nkeep = 3\n"
# Deploys until as many releases are there as are kept.
FILLING = 3


class Upstream:
    """Where everybody gets the code from: a bare repository whose `main` is moved to and fro between two commits. `told` is
    a file that tells them apart."""

    def __init__(self, place, repository, told="django/__init__.py"):
        self.path, self.told = place / "upstream.git", told
        run("git", "clone", "--quiet", "--bare", repository, self.path)
        *_, old, new = commits(repository)
        self.commits = [new, old]

    def commit(self, number):
        return self.commits[number % 2]

    def move(self, number):
        """Somebody pushes."""
        git(self.path, "update-ref", "refs/heads/main", self.commit(number))

    def check(self, tree, number, kept):
        """Is the right code live, and nothing there that should not be?"""
        wanted = git(self.path, "show", f"{self.commit(number)}:{self.told}")
        live = Path(tree, "current", self.told).read_text()
        releases = sorted(entry.name for entry in Path(tree, "releases").iterdir())
        assert live == wanted, f"{tree}: {self.told} of another commit is live"
        assert len(releases) == kept, f"{tree}: {releases} and not {kept}"

    def side(self, tree, deploy, kept, prepare=lambda: None):
        """Deploys to `tree`, seconds each by `deploy`; the tree is filled before."""

        def before(number):
            self.move(number)
            prepare()
            run("sync", "--file-system", tree)

        for number in range(-FILLING - 1, -1):
            before(number)
            deploy()
        return Side(lambda _: deploy(), before, lambda number: self.check(tree, number, kept))


def shared(tree):
    for directory in SHARED_DIRECTORIES:
        Path(tree, "shared", directory).mkdir(parents=True)
    for file in SHARED_FILES:
        Path(tree, "shared", file).write_text("# as it is on this host\n")


def ours(place, upstream, settings="", kept=3):
    """`releasectl deploy` to a tree in `place`; `settings` begin the host's file."""
    place.mkdir()
    root, config = place / "tree", place / "host.toml"
    config.write_text(f"root = '{root}'\n{settings}{SETTINGS}")
    words = [PROGRAM, "--json", "--quiet", "--config", config]
    run(*words, "init")
    shared(root)
    return upstream.side(root, lambda: seconds(*words, "deploy", upstream.path, "--ref", "main"), kept)


class Hosted:
    """A tree of another tool in `place`; `facts` are what its commands want to know beside that."""

    def __init__(self, place, upstream, other, **facts):
        self.root, self.upstream, self.other, self.count = place, upstream, other, 0
        for directory in ("releases", "tmp"):
            (place / directory).mkdir(parents=True)
        shared(place)
        self.facts = environment(to=str(place), repo=str(upstream.path), **facts)
        shell(other.first, env=self.facts, cwd=place)

    def decide(self):
        """What the tool decides at home for its next deploy."""
        self.count += 1
        name = self.other.names.format(self.count)
        there = sorted((self.root / "releases").iterdir(), key=lambda path: int(path.name.split("-")[-1]))
        old = there[: max(0, len(there) + 1 - self.other.kept)]
        commit = git(self.upstream.path, "rev-parse", "main").strip()
        self.facts |= dict(name=name, release=str(self.root / "releases" / name), commit=commit)
        self.facts |= dict(old=" ".join(map(str, old)), all=" ".join(path.name for path in there))

    def side(self, synced=False):
        script = self.other.script(synced)

        def deploy():
            return seconds("sh", "-ec", script, env=self.facts)

        return self.upstream.side(self.root, deploy, self.other.kept, self.decide)

"""Trees in which releases are built from a repository, and what others do to get the same code onto a disk."""

import shutil
from pathlib import Path

from . import PROGRAM, Side, blocks, compiled, run, seconds
from .inputs import commits, git


class Building:
    """A tree on `disk` for releases of `repository`, its mirror warm, and a bare mirror beside it for the others.
    `settings` are those of the host's file."""

    def __init__(self, disk, repository, settings=""):
        self.place = Path(disk, repository.name + ("-settings" if settings else ""))
        self.place.mkdir()
        self.repository, self.root = repository, self.place / "tree"
        *_, self.old, self.new = commits(repository)
        self.config = self.place / "host.toml"
        self.config.write_text(f"root = '{self.root}'\n{settings}")
        self.mirror = self.place / "mirror.git"
        run("git", "clone", "--quiet", "--mirror", repository, self.mirror)
        run(*self.ours("init"))

    def ours(self, *words):
        return [PROGRAM, "--json", "--quiet", "--config", self.config, *words]

    def warm(self):
        """Fills our mirror, and leaves no release behind."""
        run(*self.ours("create", self.repository, "--ref", self.old, "--id", "warm"))
        run(*self.ours("remove", "warm"))
        self.settle()

    def go_live(self):
        """Makes a release of the commit before the newest live."""
        run(*self.ours("create", self.repository, "--ref", self.old, "--id", "live"))
        run(*self.ours("activate", "live", "--no-restart"))
        self.settle()

    def settle(self):
        """Waits until nothing of what was done before is still to be written."""
        run("sync", "--file-system", self.place)

    def release(self, number):
        return self.root / "releases" / f"r{number}"

    def create(self, source=None, ref=None):
        """A release of the newest commit: the whole command, until everything is on the disk."""

        def act(number):
            source_words = [source] if source else [self.repository, "--ref", ref or self.new]
            return seconds(*self.ours("create", *source_words, "--id", f"r{number}"))

        return Side(act, lambda _: self.settle(), lambda number: run("rm", "-rf", self.release(number)))

    def shell(self, script, *arguments):
        """A script that fills the directory $1, new in each round and on the same file system."""

        def target(number):
            return self.place / f"other{number}"

        def before(number):
            target(number).mkdir()
            self.settle()

        def act(number):
            return seconds("sh", "-ec", script, "sh", target(number), *arguments)

        return Side(act, before, lambda number: shutil.rmtree(target(number)))

    def archive(self, then=":"):
        """Capistrano's way."""
        return self.shell(f'git --git-dir "$2" archive "$3" | tar -x -C "$1"; {then}', self.mirror, self.new)

    def clone(self):
        """Fabric's way: a clone of what is live, brought to the newest commit."""
        live = self.place / "fabric"
        run("git", "clone", "--quiet", self.repository, live)
        git(live, "reset", "--quiet", "--hard", self.old)
        script = """
            git clone --quiet --recursive "$2/.git" "$1"
            cd "$1"
            git remote set-url origin "$3"
            git fetch origin --tags --quiet
            git reset --quiet --hard "$4"
            git submodule sync --quiet
            git submodule update --init --recursive --quiet
            git clean -ffd --quiet
        """
        return self.shell(script, live, self.mirror, self.new)

    def kernel(self, way):
        """The same files made by the kernel alone, out of memory ("copy"), as second names ("link") or of the same
        blocks ("clone"), and synced."""
        source = self.place / "bare"
        source.mkdir()
        run("sh", "-c", 'git --git-dir "$1" archive "$2" | tar -x -C "$3"', "sh", self.mirror, self.new, source)

        def target(number):
            return self.place / f"bare{number}"

        def act(number):
            return int(run(compiled("bare_files"), way, source, target(number))) / 1e9

        return Side(act, lambda _: self.settle(), lambda number: run("rm", "-rf", target(number)))

    def growth(self, side):
        """Bytes of disk that one round of `side` takes."""
        side.before("growth")
        before = blocks(self.place)
        side.act("growth")
        grown = blocks(self.place) - before
        side.after("growth")
        return grown

    @property
    def files(self):
        return len(git(self.repository, "ls-tree", "-r", "--name-only", self.new).splitlines())

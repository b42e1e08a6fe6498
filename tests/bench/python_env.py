"""python_env of a Django application with a hundred packages: a whole `create`, bytecode included and everything on the
disk, against what others do and leave unwritten. All have the same wheels, and warm caches on the same disk."""

import shutil

from lab import PROGRAM, Against, Bench, Side, count, run, seconds
from lab.building import Building
from lab.disk import disk
from lab.inputs import django
from lab.python import CHANGED, PACKAGES, PYTHON, index, offer_uv, tool

FABRIC, PIP, UV, FIRST, CHANGE = 0.06, 0.01, 0.05, 0.2, 1.1
PIP_INSTALL = "-m pip --isolated --quiet --disable-pip-version-check install --requirement"
UV_SYNC = """
    export UV_CACHE_DIR="$2" UV_LINK_MODE=hardlink UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
    "$3" venv --quiet --no-project --no-config --python "$4" "$1/env"
    "$3" pip sync --quiet --python "$1/env/bin/python" "$5" $6
"""


class Application:
    """Code that is nothing but its list of packages, live with its environment; and the ways to its next environment."""

    def __init__(self, place, head):
        self.building, self.head = Building(place, django()), head
        self.place, self.root = self.building.place, self.building.root
        self.same, self.changed = self.source("same", PACKAGES), self.source("changed", CHANGED)
        for code in (self.changed, self.same):
            run(*self.building.ours("create", code, "--id", code.name))
        run(*self.building.ours("activate", "same", "--no-restart"))
        run(*self.building.ours("remove", "changed"))

    def source(self, name, packages):
        code = self.place / name
        code.mkdir()
        (code / "requirements.txt").write_text(self.head + packages)
        return code

    def create(self, code):
        return self.building.create(code)

    def first(self):
        """On a host that has nothing yet."""

        def root(number):
            return self.place / f"first{number}"

        def act(number):
            return seconds(PROGRAM, "--quiet", "--root", root(number), "create", self.same)

        return Side(act, lambda _: self.building.settle(), lambda number: shutil.rmtree(root(number)))

    def fabric(self):
        """A copy of the live environment, which leaves the bytecode out, and what may have changed."""
        live = self.place / "fabric"
        run(PYTHON, "-m", "venv", live)
        run(live / "bin/python", *PIP_INSTALL.split(), self.same / "requirements.txt")
        script = f'"$2" "$3" "$1/env"; "$1/env/bin/python" {PIP_INSTALL} "$4"'
        words = [tool("virtualenv-clone") / "virtualenv-clone", live, self.same / "requirements.txt"]
        return self.building.shell(script, *words)

    def pip(self):
        script = f'"$2" -m venv "$1/env"; "$1/env/bin/python" {PIP_INSTALL} "$3" --cache-dir "$4"'
        return self.building.shell(script, PYTHON, self.same / "requirements.txt", self.place / "pip")

    def uv(self, code, *options, then=":"):
        words = [self.place / "uv", tool("uv") / "uv", PYTHON, code / "requirements.txt", *options]
        return self.building.shell(UV_SYNC + then, *words)


def unchanged(bench, app, facts, slow):
    others = [
        Against("virtualenv-clone, pip install", FABRIC, app.fabric()),
        Against("uv venv, uv pip sync --compile-bytecode", UV, app.uv(app.same, "--compile-bytecode")),
    ]
    if slow:
        others += [
            Against("venv, pip install", PIP, app.pip()),
            Against("the first build of all, caches empty", FIRST, app.first()),
        ]
    bench.compare("python_env, unchanged requirements", app.create(app.same), *others, **facts)


def changed(bench, app, facts):
    plain = app.uv(app.changed)
    synced = app.uv(app.changed, then='sync --file-system "$1"')
    compiled = app.uv(app.changed, "--compile-bytecode")
    others = [
        Against("uv venv, uv pip sync, which compiles nothing", CHANGE, plain),
        Against("the same, then sync --file-system", CHANGE, synced),
        Against("uv venv, uv pip sync --compile-bytecode", CHANGE, compiled),
    ]
    bench.compare("python_env, one requirement changed", app.create(app.changed), *others, **facts)


with Bench("python_env") as bench:
    offer_uv()
    with index() as head:
        for kind in ("ext4", "xfs"):
            with disk(kind) as place:
                app = Application(place, head)
                facts = dict(disk=kind, files=count(app.root / "releases/same/python_env"))
                changed(bench, app, facts)
                unchanged(bench, app, facts, slow=kind == "ext4")

"""A Django application's hundred packages: their wheels, fetched once and served on this host as an index would serve them,
and the tools that install them."""

import ctypes
import os
import re
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from . import CACHE, HERE, run

# Where a root run of releasectl looks for programs; the first of them is empty on most hosts.
PLACES = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
PYTHON = shutil.which("python3", path=":".join(PLACES))
TOOLS = {
    "uv": ["uv==0.13.9"],
    "virtualenv-clone": ["virtualenv-clone==0.5.7"],
    "supervisor": ["supervisor==4.3.0", "setuptools<81"],
}
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS

PACKAGES = (HERE / "requirements.txt").read_text()
# The same but for one package.
CHANGED = re.sub(r"(?m)^djangorestframework==.*$", "djangorestframework==3.18.2", PACKAGES)


def tool(name):
    """The directory of a tool's programs, installed from PyPI once."""
    place = CACHE / "tools" / name
    whole = place / "whole"
    if not whole.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        run(PYTHON, "-m", "venv", place)
        run(place / "bin/pip", "install", "--quiet", *TOOLS[name])
        whole.touch()
    return place / "bin"


def offer_uv():
    """Lets a root run of releasectl find uv: in a view of the file systems that this process and its children alone have."""
    offered = CACHE / "tools" / "offered"
    offered.mkdir(parents=True, exist_ok=True)
    if not (offered / "uv").exists():
        (offered / "uv").hardlink_to(tool("uv") / "uv")
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "cannot have mounts of its own")
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", offered, PLACES[0])


def wheels():
    """A directory of the wheels of all packages, downloaded once."""
    place = CACHE / "wheels"
    whole = place / "whole"
    asked = PACKAGES + CHANGED
    if not whole.exists() or whole.read_text() != asked:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        print("downloading the packages of an application", flush=True)
        list_of_all = place / "list"
        for packages in (PACKAGES, CHANGED):
            list_of_all.write_text(packages)
            words = "download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest"
            run(tool("uv") / "pip", *words.split(), place, "--requirement", list_of_all)
        list_of_all.unlink()
        whole.write_text(asked)
    return place


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and tells nobody."""

    def log_message(self, *_):
        pass


@contextmanager
def index():
    """The wheels, served on this host; gives the lines that a list of requirements begins with to get them there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=wheels()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"--no-index\n--find-links http://127.0.0.1:{server.server_port}/\n"
    finally:
        server.shutdown()
        server.server_close()

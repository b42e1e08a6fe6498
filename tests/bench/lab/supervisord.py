"""A real supervisord from PyPI that runs the programs of a tree's live release."""

import subprocess
import time
from contextlib import contextmanager

from . import environment
from .python import tool

CONFIGURATION = """
[unix_http_server]
file=%(here)s/sock
[supervisorctl]
serverurl=unix://%(here)s/sock
[supervisord]
logfile=%(here)s/log
pidfile=%(here)s/pid
childlogdir=%(here)s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files=ROOT/current/services/supervisor/*.conf
"""


def ctl():
    """The program that scripts talk to it with."""
    return tool("supervisor") / "supervisorctl"


def configured(own, root):
    """The configuration of one for the tree `root`; its socket and logs lie in `own`, which only root may write."""
    conf = own / "supervisord.conf"
    conf.write_text(CONFIGURATION.replace("ROOT", str(root)))
    return conf


@contextmanager
def supervisord(conf, programs):
    """It runs, and that many programs are up; it ends, and they with it, when we do. Gives its process id."""
    words = ["setpriv", "--pdeathsig", "TERM", tool("supervisor") / "supervisord", "-n", "-c", conf]
    process = subprocess.Popen(words, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until_up(conf, programs)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def until_up(conf, programs):
    limit = time.monotonic() + 60
    while not (conf.parent / "sock").exists() or status(conf).count("RUNNING") < programs:
        if time.monotonic() > limit:
            raise RuntimeError("supervisord or its programs do not come up: " + status(conf))
        time.sleep(0.2)


def status(conf):
    return subprocess.run([ctl(), "-c", conf, "status"], env=environment(), capture_output=True, text=True).stdout

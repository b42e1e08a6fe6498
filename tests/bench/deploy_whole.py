"""A whole deploy on the host: code, an environment of a hundred packages that have not changed, four programs under a real
supervisord, one old release cleaned away; against what Fabric has the host do for the same."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from lab import Against, Bench, count, run, shell
from lab.deploying import Hosted, Upstream, ours
from lab.disk import disk
from lab.inputs import django, git
from lab.others import WHOLE_FABRICS
from lab.python import PACKAGES, PYTHON, index, offer_uv, tool
from lab.supervisord import configured, ctl, supervisord, until_up

PROGRAMS, TARGET = 4, 0.12
PROGRAM_SECTION = "[program:worker{}]\ncommand=/bin/sleep 100000\nstartsecs={}\n"
MODES = {"copied": "", "linked": "[source]\nlink = 'hardlink'\n"}
# How long supervisord watches a program before it calls it running, and the ways to deploy measured with that.
WAYS = {
    0: [("copied", "rolling"), ("linked", "rolling")],
    1: [("linked", "rolling"), ("linked", "together")],
}
KINDS = {"ext4": (0, 1), "xfs": (0,)}
NOTE = (
    "a second of startsecs is waited for once a program where they are restarted rolling, once for all where together and by "
    "the script, whose own sleep of 5 s is left out; a hundred packages"
)
PIP = "--isolated --quiet --disable-pip-version-check"
# Two commits of the application: each is a commit of the code, the list of packages and the programs' sections.
COMMITS = """
for commit in HEAD~1 HEAD; do
    git -C "$1" archive "$commit" | tar -x -C "$2"
    git -C "$2" add --all --force
    git -C "$2" commit --quiet --message "$commit"
done
"""


def application(place, head, startsecs):
    work = place / "application"
    (work / "services/supervisor").mkdir(parents=True)
    git(work, "init", "--quiet", "--initial-branch", "main")
    (work / "requirements.txt").write_text(head + PACKAGES)
    for number in range(PROGRAMS):
        (work / f"services/supervisor/worker{number}.conf").write_text(PROGRAM_SECTION.format(number, startsecs))
    shell(COMMITS, django(), work)
    return work


class Hosts:
    """Trees, each with a supervisord of its own, until the end."""

    def __init__(self, stack):
        self.stack, self.trees = stack, []

    def supervised(self, root):
        own = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        os.chmod(own, 0o755)
        conf = configured(own, root)
        self.stack.enter_context(supervisord(conf, 0))
        self.trees.append((root, conf))
        return conf

    def check(self):
        """Do all programs run, and has each live release an environment of its own?"""
        for root, conf in self.trees:
            until_up(conf, PROGRAMS)
            environment = root / "current/python_env"
            prefix = run(environment / "bin/python", "-c", "import django, sys; print(sys.prefix)").strip()
            assert Path(prefix).resolve() == environment.resolve(), f"{environment} is {prefix}"

    def ours(self, place, upstream, settings, restart):
        conf = self.supervised(place / "tree")
        settings += f"[supervisor]\nconfig = '{conf}'\nrestart = '{restart}'\n"
        side = ours(place, upstream, settings)
        until_up(conf, PROGRAMS)
        return side

    def fabric(self, place, upstream, other):
        conf = self.supervised(place)
        clone = tool("virtualenv-clone") / "virtualenv-clone"
        facts = dict(python=PYTHON, clone=str(clone), pip=PIP, ctl=f"{ctl()} -c {conf}")
        side = Hosted(place, upstream, other, **facts).side()
        until_up(conf, PROGRAMS)
        return Against(other.name, TARGET, side)


def compare(bench, kind, place, head, startsecs):
    """Programs with that many startsecs, deployed in each of its ways."""
    place.mkdir()
    upstream = Upstream(place, application(place, head, startsecs))
    with ExitStack() as stack:
        hosts = Hosts(stack)
        fabrics = [hosts.fabric(place / f"fabric{at}", upstream, other) for at, other in enumerate(WHOLE_FABRICS)]
        for mode, restart in WAYS[startsecs]:
            tree = place / f"{mode}-{restart}"
            side = hosts.ours(tree, upstream, MODES[mode], restart)
            facts = dict(disk=kind, files=count(tree / "tree/current/"), note=NOTE)
            bench.compare(f"whole deploy, {mode}, {restart}, startsecs {startsecs}", side, *fabrics, **facts)
        hosts.check()


with Bench("deploy_whole") as bench:
    offer_uv()
    with index() as head:
        for kind, all_startsecs in KINDS.items():
            with disk(kind) as place:
                for startsecs in all_startsecs:
                    compare(bench, kind, place / f"startsecs{startsecs}", head, startsecs)

"""A supervisor round: twelve running programs brought over to the next release and confirmed, against what a deploy script
has supervisorctl do; and how many of them are down at once meanwhile."""

import os
import tempfile
import threading
from pathlib import Path

from lab import PROGRAM, Against, Bench, Side, run, seconds
from lab.disk import disk
from lab.supervisord import configured, ctl, supervisord

PROGRAMS, TARGET = 12, 0.5
PROGRAM_SECTION = "[program:NAME]\ncommand=/bin/sleep 100000\ndirectory=ROOT/current\nstartsecs=1\n"
# How programs are restarted, and what limits that.
WAYS = {
    "rolling": "one program at a time: its startsecs (1, supervisord's own default) are waited out for each",
    "together": "startsecs (1, supervisord's own default) are waited out once, as the script does",
}
ROUND = "for words in 'stop all' reread update 'start all'; do \"$1\" -c \"$2\" $words; done"


class Host:
    """A tree with two releases of the same programs, and a supervisord that runs them."""

    def __init__(self, place, own):
        self.place, self.root = place, place / "tree"
        self.conf = configured(own, self.root)
        code = place / "code/services/supervisor"
        code.mkdir(parents=True)
        names = [f"worker{number}" for number in range(PROGRAMS)]
        for name in names:
            (code / f"{name}.conf").write_text(PROGRAM_SECTION.replace("NAME", name).replace("ROOT", str(self.root)))
        run(PROGRAM, "--root", self.root, "init")
        for release in ("a", "b"):
            run(PROGRAM, "--root", self.root, "create", place / "code", "--id", release)
        run(PROGRAM, "--root", self.root, "activate", "a", "--no-restart")
        self.turn = 0

    def running(self):
        """How many processes its programs have at this moment."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(is_alive(child) for child in children)

    def ours(self, restart):
        """To the other release, by a configuration with that way to restart."""
        config = self.place / f"{restart}.toml"
        config.write_text(f"root = '{self.root}'\n[supervisor]\nconfig = '{self.conf}'\nrestart = '{restart}'\n")

        def act(_):
            self.turn += 1
            return seconds(PROGRAM, "--quiet", "--config", config, "activate", "ab"[self.turn % 2])

        return Side(act)

    def theirs(self):
        return Side(lambda _: seconds("sh", "-ec", ROUND, "sh", ctl(), self.conf))

    def down_at_once(self, side):
        """The most programs that have no process at the same time during a round, and how often that was looked at."""
        least, looks, over = PROGRAMS, 0, threading.Event()

        def watch():
            nonlocal least, looks
            while not over.wait(0.002):
                least, looks = min(least, self.running()), looks + 1

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            side.round(0)
        finally:
            over.set()
            watcher.join()
        return PROGRAMS - least, looks


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


with Bench("supervisor") as bench, disk("ext4") as place, tempfile.TemporaryDirectory() as own:
    os.chmod(own, 0o755)
    host = Host(place, Path(own))
    with supervisord(host.conf, PROGRAMS) as host.pid:
        theirs = host.theirs()
        script = Against("supervisorctl stop all, reread, update, start all", TARGET, theirs)
        down_with_script, _ = host.down_at_once(theirs)
        for restart, limit in WAYS.items():
            what = f"supervisor round, {PROGRAMS} programs, {restart}"
            bench.compare(what, host.ours(restart), script, disk="ext4", note=limit)
            down, looks = host.down_at_once(host.ours(restart))
            note = f"in {looks:,} looks at the processes during one round; {down_with_script} with the script"
            bench.value(f"programs down at once, {restart}", down, PROGRAMS - 1, f"of {PROGRAMS}", disk="ext4", note=note)

"""How many commands a deploy sends over ssh: counted for releasectl by a real sshd, which tells of each command it starts."""

import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from lab import PROGRAM, Bench, environment, run
from lab.inputs import git
from lab.others import CAPISTRANO, DEPLOYER, FABRIC_WHOLE, each

# Started by root, sshd wants a directory below /run; it gets a /run of its own, so that nothing is left there.
OWN_RUN = 'mount -t tmpfs none /run; mkdir -m 755 /run/sshd; exec /usr/sbin/sshd -D -e -f "$1"'
CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {place}/host
PidFile none
AuthorizedKeysFile {place}/client.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
LogLevel VERBOSE
"""
CLIENT = (
    "-F none -q -p {port} -i {place}/client -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes "
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1"
)
NOTE = (
    "ours counted by an sshd on this host; theirs are the commands of a deploy of code with two files and three directories "
    "shared, as they stand in lab/others.py; Fabric's with its virtualenv and supervisor. Mina sends one script, as we do"
)


@contextmanager
def sshd(place):
    """A real one on loopback; gives the words of a client."""
    for key in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "sshd_config").write_text(CONFIGURATION.format(port=port, place=place))
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", OWN_RUN, "sh", place / "sshd_config"]
    with open(place / "log", "w") as log:
        server = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *words], env=environment(), stderr=log)
    try:
        while server.poll() is None and "listening" not in (place / "log").read_text():
            time.sleep(0.05)
        yield ["ssh", *CLIENT.format(port=port, place=place).split()]
    finally:
        server.terminate()
        server.wait()


def started(place):
    """How many commands sshd has started so far, as it tells itself."""
    return (place / "log").read_text().count("Starting session: command")


def code(place):
    repository = place / "code"
    repository.mkdir()
    git(repository, "init", "--quiet")
    (repository / "file").write_text("code\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "code")
    return repository


with Bench("round_trips") as bench, tempfile.TemporaryDirectory() as temporary:
    place = Path(temporary)
    repository, root = code(place), place / "tree"
    run(PROGRAM, "--root", root, "init")
    with sshd(place) as ssh:
        run(*ssh, PROGRAM, "--root", root, "deploy", repository)
        assert (root / "current/file").read_text() == "code\n"
        theirs = {"Capistrano": each(CAPISTRANO), "Deployer": each(DEPLOYER), "Fabric": FABRIC_WHOLE}
        against = ", ".join(f"{name} {len(commands)}" for name, commands in theirs.items())
        bench.value("ssh round trips of a deploy", started(place), 1, "commands", against=against, note=NOTE)

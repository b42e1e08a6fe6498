"""Trees with many releases and a long history, as years of deploys leave them; written as the program writes them."""

import json
import zlib
from datetime import datetime, timedelta, timezone

BEGAN = datetime(2024, 1, 1, tzinfo=timezone.utc)
LONGEST_CHAIN = 64
# What stands at the top of an application: as many names as a directory of a release has to be read for.
FILES = ["manage.py", "README.md", "requirements.txt", "setup.cfg", "localsettings.py"]
DIRECTORIES = ["app", "docs", "locale", "static", "tests"]


def sealed(record):
    """A line that carries its own checksum."""
    line = json.dumps(record, separators=(",", ":"))[:-1]
    return f'{line},"crc":"{zlib.crc32(line.encode()):08x}"}}\n'


def moment(number):
    return BEGAN + timedelta(minutes=20 * number)


def release_id(number):
    return moment(number).strftime("%Y-%m-%d_%H.%M")


class History:
    """The lines of a journal."""

    def __init__(self):
        self.lines, self.chain, self.live = [], [], None

    def write(self, at, **event):
        number = len(self.lines) + 1
        self.lines.append(sealed({"seq": number, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), **event}))
        return number

    def done(self, at, of):
        self.write(at, event="done", of=of, outcome="done", seconds=1.5)

    def operate(self, at, operation, **more):
        of = self.write(at, event="begin", operation=operation, by="deployer", **more)
        self.done(at, of)
        return of

    def create(self, number):
        source = {"from": self.live} if self.live else {}
        return self.operate(moment(number), "create", **source, to=release_id(number), cause="create")

    def activate(self, number):
        new, source = release_id(number), {"from": self.live} if self.live else {}
        self.chain = [new, *self.chain][:LONGEST_CHAIN]
        self.operate(moment(number), "activate", **source, to=new, chain=self.chain, cause="activate")
        self.live = new


def tree(place, releases, lines=0):
    """Lays a tree of `releases` ready releases out in `place`, the newest live, one in a hundred pinned. The journal has
    the line of every create and activation, and is filled up to `lines` with pins in between, before the last ones."""
    state = place / ".releasectl"
    for directory in ("releases", "shared", "log"):
        (place / directory).mkdir(parents=True)
    for directory in ("cache", "mirror", "trash"):
        (state / directory).mkdir(parents=True)
    state.chmod(0o700)
    history = History()
    history.operate(moment(0), "init")
    for number in range(releases):
        if number == max(0, releases - 3):
            for _ in range((lines - len(history.lines)) // 2 - 4 * (releases - number)):
                history.operate(moment(number), "pin", to=release_id(max(0, number - 1)))
        sequence = history.create(number)
        lay_release(place / "releases", number, sequence)
        history.activate(number)
    (state / "journal.jsonl").write_text("".join(history.lines))
    (state / "lock").touch(0o600)
    (state / "ballast").write_bytes(b"-" * (1 << 20))
    for file in ("journal.jsonl", "ballast"):
        (state / file).chmod(0o600)
    (place / "current").symlink_to(f"releases/{history.live}")
    return len(history.lines)


def lay_release(releases, number, sequence):
    name, at = release_id(number), moment(number).strftime("%Y-%m-%dT%H:%M:%SZ")
    release = releases / name
    own = release / ".releasectl"
    own.mkdir(parents=True)
    own.chmod(0o700)
    for directory in DIRECTORIES:
        (release / directory).mkdir()
    for file in FILES:
        (release / file).write_text(f"{file} of {name}\n")
    if number % 100 == 0:
        (release / f"KEEP_UNTIL__{release_id(number + 1000)}").touch()
    steps = [{"name": step, "status": "done", "seconds": 1.25} for step in ("source", "python", "static-files")]
    origin = {"kind": "git", "location": "https://git.example.org/app.git", "ref": "master", "revision": f"{number:040x}"}
    manifest = {"schema": 1, "id": name, "sequence": sequence, "created_at": at, "by": "deployer", "origin": origin}
    manifest |= {"steps": steps, "recipe": "00000000", "ready_at": at, "entries": 7000, "bytes": 90_000_000}
    (own / "release.json").write_text(sealed(manifest))
    (own / "release.json").chmod(0o600)

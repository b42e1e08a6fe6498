# Reads supervisord's configuration as supervisord itself would if `candidate` were live, and says what it makes of it.
# Run by the interpreter that runs supervisord, Python 2.7 or later. In: one JSON document on standard input. Out: a line
# "releasectl:" and JSON.
import fnmatch
import json
import os
import re
import sys


def text(value):
    """A text as this Python has them: those of Python 2 are bytes."""
    return value.encode("utf-8") if str is bytes and isinstance(value, type(u"")) else value


def escape(path):
    """A pattern that finds only `path`."""
    return re.sub("([*?[])", "[\\1]", path)


ask = json.load(sys.stdin, object_hook=lambda read: {text(name): text(value) for name, value in read.items()})


def tell(**answer):
    sys.stdout.write("\nreleasectl:" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # What the interpreter takes down otherwise, the kernel does faster.


if ask["environment"] is not None:
    os.environ.clear()
    os.environ.update(ask["environment"])
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path.startswith("/")]
try:
    import shlex

    from supervisor import datatypes, options
except Exception as why:
    tell(absent=str(why))

glob = options.glob
root, candidate, copies = os.path.realpath(ask["root"]), ask["candidate"], ask["copies"]


def behind_current(path):
    """What follows <root>/current in `path`, if it leads there."""
    parts = os.path.normpath(path).split("/")
    for i in range(1, len(parts)):
        if parts[i] == "current" and os.path.realpath("/".join(parts[:i]) or "/") == root:
            return parts[i + 1 :]
    return None


def as_candidate(path):
    """The file that stands for `path` once the candidate is live; None if there is none."""
    target = path
    if os.path.islink(path):
        target = os.path.join(os.path.dirname(path), os.readlink(path))
    behind = behind_current(target)
    if behind is None:
        return path
    moved = os.path.join(candidate, *behind)
    return moved if target is not path and os.path.exists(moved) else None


def of_candidate(pattern):
    """The candidate's files that `pattern` will find below <root>/current."""
    parts = os.path.normpath(pattern).split("/")
    for i in range(1, len(parts) - 1):
        if fnmatch.fnmatchcase("current", parts[i]):
            above = glob.glob("/".join(parts[:i]) or "/")
            if any(os.path.realpath(path) == root for path in above):
                return glob.glob("/".join([escape(candidate)] + parts[i + 1 :]))
    return []


def copied(pattern):
    """The candidate's files whose copies `pattern` will find."""
    directory, prefix = os.path.split(copies)
    wanted, name = os.path.split(pattern)
    if not any(os.path.realpath(path) == os.path.realpath(directory) for path in glob.glob(wanted)):
        return []
    found = glob.glob(os.path.join(escape(candidate), ask["directory"], "*.conf"))
    return [path for path in found if fnmatch.fnmatchcase(prefix + os.path.basename(path), name)]


class Glob:
    @staticmethod
    def glob(pattern):
        if copies is None:
            return [path for path in map(as_candidate, glob.glob(pattern)) if path] + of_candidate(pattern)
        own = os.path.realpath(os.path.dirname(copies)) + "/" + os.path.basename(copies)
        real = lambda path: os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)
        return [path for path in glob.glob(pattern) if not real(path).startswith(own)] + copied(pattern)


Original, existing_dirpath = options.UnhosedConfigParser, datatypes.existing_dirpath
files = []


def logged(path):
    """The path of a log, whose directory must be there once the candidate is live."""
    path = os.path.expanduser(path)
    behind = behind_current(path)
    if not ask["unfinished"]:
        existing_dirpath(path if behind is None else os.path.join(candidate, *behind))
    return path


class Parser(Original):
    """Remembers which sections come from which file."""

    def read(self, filenames, **kwargs):
        for path in [filenames] if isinstance(filenames, str) else filenames:
            note(path)
        return Original.read(self, filenames, **kwargs)


def note(path):
    alone = Original()
    alone.read([path])
    files.append({"path": path, "sections": alone.sections()})


class Options(options.ServerOptions):
    def usage(self, message):
        raise ValueError(message)


def first_word(command):
    try:
        return shlex.split(command)[0]
    except (ValueError, IndexError):
        return ""


options.UnhosedConfigParser, options.glob = Parser, Glob
datatypes.existing_dirpath = logged
try:
    note(ask["config"])
    read = Options()
    read.realize(["-c", ask["config"]])
except Exception as why:
    tell(refused=str(why) or repr(why))
tell(
    files=files,
    groups=[
        {
            "name": group.name,
            "processes": [
                {"name": process.name, "executable": first_word(process.command), "directory": process.directory}
                for process in group.process_configs
            ],
        }
        for group in read.process_group_configs
    ],
)

"""The old tasks, each a few calls of the releasectl that every host has.

    fab production deploy
    fab production deploy --resume
    fab production rollback
    fab production rollback --to 2026-11-22_23.40       # where it stopped half-way

`fleet.toml` beside this file, or the file that FLEET names, says which hosts an environment has; those come first that
are to be deployed first, which is where migrations are run:

    [production]
    hosts = ["deploy@web1.example.org", "deploy@web2.example.org"]

A release has the same id on every host. It is made live on one host after the other, and on none unless all have built
it from the same code. Needs Python 3.11 and Fabric 3.
"""

import json
import os
import shlex
import tomllib
from datetime import datetime, timezone
from pathlib import Path

from fabric import Connection, ThreadingGroup
from fabric.exceptions import GroupException
from invoke import Collection, Exit, task

FLEET = Path(os.environ.get("FLEET") or Path(__file__).parent / "fleet.toml")
CHOSEN = []


class Fleet:
    """The hosts of one environment."""

    def __init__(self, c, env, hosts, sudo=False):
        self.env, self.prefix = env, "sudo -n " if sudo else ""
        self.hosts = [Connection(host, config=c.config) for host in hosts]

    def words(self, words, document=True):
        program = ["releasectl", "-e", self.env] + (["--json"] if document else [])
        return self.prefix + shlex.join(program + [str(word) for word in words])

    def ask(self, host, *words, may_refuse=False):
        """The document that a command prints on one host; None where a refusal (status 3) is an answer too."""
        answer = host.run(self.words(words), hide=True, warn=True, in_stream=False)
        return document(host, words, answer, may_refuse)

    def ask_all(self, *words, may_refuse=False):
        """The same on all hosts at once, in their order. Every host's failure is told before it ends."""
        group = ThreadingGroup.from_connections(self.hosts)
        try:
            answers = group.run(self.words(words), hide=True, warn=True, in_stream=False)
        except GroupException as failed:
            lost = [f"{host.original_host}: {error!r}" for host, error in failed.result.failed.items()]
            raise Exit("\n".join(lost), 1) from failed
        documents, errors = [], []
        for host in self.hosts:
            try:
                documents.append(document(host, words, answers[host], may_refuse))
            except Exit as error:
                errors.append(error)
        if errors:
            raise Exit("\n".join(error.message for error in errors), errors[0].code)
        return documents

    def tell_all(self, *words):
        """Runs a command on one host after the other, its output shown."""
        for host in self.hosts:
            self.tell(host, *words)

    def tell(self, host, *words):
        print(f"[{host.original_host}] {' '.join(map(str, words))}")
        answer = host.run(self.words(words, document=False), warn=True, in_stream=False)
        if not answer.ok:
            raise Exit(f"{host.original_host}: {words[0]} ended with status {answer.return_code}", answer.return_code)

    def alike(self, what, values):
        """The value that all hosts have; ends if they differ."""
        if len(set(values)) != 1:
            seen = ", ".join(f"{host.original_host}: {value or 'none'}" for host, value in zip(self.hosts, values))
            raise Exit(f"not all hosts {what}: {seen}; nothing was changed", 3)
        return values[0]


def document(host, words, answer, may_refuse):
    try:
        told = json.loads(answer.stdout)
    except ValueError:
        raise Exit(f"{host.original_host}: {words[0]}: {answer.stderr.strip() or 'no document'}", answer.return_code or 1)
    if answer.return_code == 3 and may_refuse:
        return None
    if not answer.ok:
        error = told.get("error", {})
        raise Exit(f"{host.original_host}: {words[0]}: {error.get('message')}\n  {error.get('hint') or ''}", answer.return_code)
    return told


def fleet(c):
    """The hosts that the task before this one has chosen."""
    if isinstance(c, Connection):
        raise Exit(f"leave -H out: Fabric would deploy one host to its end before the next is asked; use {FLEET}", 2)
    if not CHOSEN:
        raise Exit("name the environment first, for example: fab production deploy", 2)
    return CHOSEN[-1]


def environment(name, table):
    @task(name=name)
    def choose(c):
        CHOSEN.append(Fleet(c, name, table["hosts"], table.get("sudo", False)))

    choose.__doc__ = f"Choose {', '.join(table['hosts'])}"
    return choose


@task
def setup_release(c, keep_days=None, ref=None):
    """Build a private release on all hosts"""
    print(build(fleet(c), keep_days, ref))


def build(all_hosts, keep_days=None, ref=None):
    name = datetime.now(timezone.utc).strftime("%Y-%m-%d_%H.%M.%S")
    words = ["create", "--id", name]
    words += ["--keep-days", keep_days] if keep_days else []
    words += ["--ref", ref] if ref else []
    all_hosts.ask_all(*words)
    return name


@task
def deploy(c, resume=False, keep_days=None, ref=None):
    """Build a release on all hosts, then make it live on one after the other"""
    hosts = fleet(c)
    name = unfinished(hosts) if resume else build(hosts, keep_days, ref)
    built = hosts.ask_all("show", name)
    hosts.alike("have built the same code", [one["release"]["revision"] for one in built])
    seen = hosts.ask_all("status")
    back = [one["previous"] if one["current"] == name else one["current"] for one in seen]
    hosts.alike("would go back to the same release", back)
    for host, one in zip(hosts.hosts, seen):
        hosts.tell(host, "deploy", "--release", name, "--resume", "--expect-current", one["current"] or "none")


def unfinished(hosts):
    """The newest release of any host, built everywhere."""
    listings = [listing["releases"] for listing in hosts.ask_all("list")]
    if not any(listings):
        raise Exit("there is no deploy to go on with", 3)
    name = max((one["created_at"] or "", one["id"]) for releases in listings for one in releases)[1]
    for host, releases in zip(hosts.hosts, listings):
        listing = {one["id"]: one["state"] for one in releases}
        if name not in listing:
            hosts.ask(host, "create", "--id", name)
        elif listing[name] == "incomplete":
            hosts.ask(host, "create", "--resume", name)
    return name


@task
def update_current(c, release="latest"):
    """Make a release live that all hosts have"""
    hosts = fleet(c)
    name = hosts.alike("have it", [one["release"]["id"] for one in hosts.ask_all("show", release)])
    hosts.tell_all("activate", name)


@task
def unlink_current(c):
    """Remove current"""
    fleet(c).tell_all("deactivate", "--yes")


@task
def rollback(c, to=None):
    """Make the release live that was live before, if it is the same one on all hosts; --to goes on where that stopped"""
    hosts = fleet(c)
    seen = hosts.ask_all("status")
    if to:
        hosts.ask_all("rollback", "--to", to, "--dry-run")
        # Where it is live already that looks whether it is up.
        for host, one in zip(hosts.hosts, seen):
            hosts.tell(host, "rollback", "--to", to, "--expect-current", one["current"] or "none")
        return
    plans = hosts.ask_all("rollback", "--dry-run", may_refuse=True)
    hosts.alike("are alike", [(one["current"], one.get("fingerprint")) for one in seen])
    to = hosts.alike("would go back to the same release", [plan and plan["to"] for plan in plans])
    if to is None:
        raise Exit("there is nothing to go back to", 3)
    hosts.tell_all("rollback", "--to", to, "--expect-current", seen[0]["current"])


@task
def clean_releases(c, keep=None):
    """Remove releases that nobody needs"""
    fleet(c).tell_all("clean", *(["--keep", keep] if keep else []))


@task
def hotfix_deploy(c, ref):
    """A new release from the live one with only the code changed"""
    hosts = fleet(c)
    hosts.alike("are alike", [one["current"] for one in hosts.ask_all("status")])
    hosts.tell_all("hotfix", "--ref", ref)


@task
def apply_patch(c, patch):
    """A new release from the live one with a patch applied; PATCH is a file on the hosts"""
    fleet(c).tell_all("hotfix", "--patch", patch)


@task
def reverse_patch(c, patch):
    """The same with the patch undone"""
    fleet(c).tell_all("hotfix", "--patch", patch, "--reverse")


@task
def manage(c, command):
    """Run a management command in the live release of the first host"""
    hosts = fleet(c)
    hosts.tell(hosts.hosts[0], "manage", *shlex.split(command))


@task
def supervisorctl(c, command):
    """Run supervisorctl on all hosts"""
    fleet(c).tell_all("supervisorctl", *shlex.split(command))


@task
def set_supervisor_config(c):
    """Render the live release's supervisor configuration anew"""
    fleet(c).tell_all("supervisor", "render")


@task
def check_status(c):
    """What is live, and whether all is well"""
    hosts = fleet(c)
    hosts.tell_all("status")
    hosts.tell_all("doctor")


def named(name, words, about):
    """A task that is nothing but a call on all hosts."""

    @task(name=name)
    def call(c):
        fleet(c).tell_all(*words)

    call.__doc__ = about
    return call


NAMED = [
    ("restart-services", ["restart"], "Restart this environment's programs"),
    ("stop-celery", ["stop", "celery"], "Stop the group celery"),
    ("start-celery", ["start", "celery"], "Start the group celery"),
    ("stop-pillows", ["stop", "pillowtop"], "Stop the group pillowtop"),
    ("start-pillows", ["start", "pillowtop"], "Start the group pillowtop"),
    ("preindex-views", ["task", "preindex_views"], "Run the recipe's task preindex_views"),
    ("force-update-static", ["task", "force_update_static"], "Run the recipe's task force_update_static"),
    ("kill-stale-celery-workers", ["task", "kill_stale_celery_workers"], "Run the task kill_stale_celery_workers"),
]

ns = Collection(
    setup_release, deploy, update_current, unlink_current, rollback, clean_releases, hotfix_deploy, apply_patch,
    reverse_patch, manage, supervisorctl, set_supervisor_config, check_status,
)  # fmt: skip
for one in NAMED:
    ns.add_task(named(*one))
for env, table in (tomllib.loads(FLEET.read_text()) if FLEET.exists() else {}).items():
    ns.add_task(environment(env, table))

#!/usr/bin/python
"""One state of a release tree, brought about by the host's releasectl."""

from __future__ import annotations

DOCUMENTATION = r"""
module: releasectl
short_description: Build, activate, roll back and clean releases
description:
  - Asks the host's releasectl for a state and does nothing where it holds already.
  - In check mode it only looks and tells what would change.
author: The releasectl developers (@releasectl)
options:
  state:
    description:
      - V(laid_out), there is a tree.
      - V(wired), supervisord includes the live release's files.
      - V(created), the release O(id) is built. One that was not finished is gone on with.
      - V(live), the release O(id) is live and has come up. The recipe's steps are run before and after, those of them
        that are not done, and only those for a role of this host.
      - V(rolled_back), the release O(to) is live again.
      - V(cleaned), releases that nobody needs are gone.
    type: str
    required: true
    choices: [laid_out, wired, created, live, rolled_back, cleaned]
  id:
    description: The release, the same on every host.
    type: str
  source:
    description: Where its code comes from; by default what the host's configuration says.
    type: str
  ref:
    description: The branch, tag or commit.
    type: str
  keep_days:
    description: Keep the release for so many days.
    type: int
  steps:
    description: Whether V(live) runs the recipe's steps. Without them a release that is bad may be made live, too.
    type: bool
    default: true
  to:
    description: The release to go back to.
    type: str
  expect_current:
    description: Change nothing unless this release is live, or V(none).
    type: str
  keep:
    description: How many good releases stay when V(cleaned).
    type: int
  wait:
    description: How long to wait for another operation on the host, for example V(5m).
    type: str
  env:
    description: The environment; by default the only one that is configured on the host.
    type: str
  root:
    description: The tree, where the host has no configuration file.
    type: path
  config:
    description: The host's configuration file.
    type: path
  executable:
    description: The program.
    type: str
    default: releasectl
attributes:
  check_mode:
    description: It looks and tells what would change.
    support: full
  diff_mode:
    description: It shows what is live, or which releases there are, before and after.
    support: full
"""

EXAMPLES = r"""
- name: Build the release
  releasectl.fleet.releasectl:
    env: production
    state: created
    id: 2026-11-22_23.40

- name: Make it live unless somebody was faster
  releasectl.fleet.releasectl:
    env: production
    state: live
    id: 2026-11-22_23.40
    expect_current: 2026-11-20_09.15
"""

RETURN = r"""
document:
  description: What releasectl printed about what it did; in check mode what it was seen to be.
  returned: when it had something to print
  type: dict
release:
  description: The release that was built, or is there.
  returned: when created and not in check mode
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.releasectl.fleet.plugins.module_utils.program import PLACE, Program

OPTIONS = dict(
    state=dict(
        type="str",
        required=True,
        choices=["laid_out", "wired", "created", "live", "rolled_back", "cleaned"],
    ),
    id=dict(type="str"),
    source=dict(type="str"),
    ref=dict(type="str"),
    keep_days=dict(type="int"),
    steps=dict(type="bool", default=True),
    to=dict(type="str"),
    expect_current=dict(type="str"),
    keep=dict(type="int"),
    wait=dict(type="str"),
)


class Host:
    """The states of one host's tree. Each returns whether it changed, before, after, and what else is to be told."""

    def __init__(self, module):
        self.module = module
        self.check = module.check_mode
        self.program = Program(module)
        self.given = module.params

    def act(self, *words):
        """Does it; in check mode nothing is done, and there is no document."""
        if self.check:
            return {}
        if self.given["wait"]:
            words = (f"--wait={self.given['wait']}",) + words
        return self.program.ask(*words)

    def option(self, name):
        """An option as the program takes it, if it was given."""
        value = self.given[name]
        return [] if value is None else [f"--{name.replace('_', '-')}", str(value)]

    def laid_out(self):
        there = self.program.look("status") is not None
        document = {} if there else self.act("init")
        return not there, "no tree" if not there else "a tree", "a tree", dict(document=document)

    def wired(self):
        seen = self.program.look("supervisor", "status") or {}
        before = seen.get("wired") or "not wired"
        if before != "not wired":
            return False, before, before, dict(document=seen)
        document = self.act("supervisor", "wire")
        return True, before, document.get("wired", "wired"), dict(document=document)

    def created(self):
        name = self.given["id"]
        seen = self.program.look("show", name) or {}
        release = seen.get("release", {})
        before = release.get("state", "absent")
        # The program says who builds it, if somebody does.
        if before not in ("absent", "incomplete", "building"):
            return False, f"{name} {before}", f"{name} {before}", dict(document=seen, release=release)
        words = ["create"] + ([self.given["source"]] if self.given["source"] else [])
        words += ["--id", name] if before == "absent" else ["--resume", name]
        document = self.act(*words, *self.option("ref"), *self.option("keep_days"))
        release = document.get("release", {})
        return True, f"{name} {before}", f"{name} ready", dict(document=document, release=release)

    def live(self):
        name = self.given["id"]
        seen, before = self.current()
        self.expect(before, name)
        expected = ["--expect-current", before]
        if not self.given["steps"]:
            return self.moved(seen, before, name, "activate", name, *expected)
        begun = [one for one in seen.get("unfinished", []) if one["operation"] != "create"]
        if before == name and not begun and not self.stopped(name):
            return False, before, before, dict(document=seen)
        document = self.act("deploy", "--release", name, "--resume", *expected)
        return True, before, name, dict(document=document)

    def stopped(self, name):
        """Whether the last deploy of this release did not come to its end, as when a step failed after the activation."""
        entries = self.program.ask("history", "-n", "1000")["entries"]
        deploys = [one for one in entries if one["operation"] == "deploy" and one["to"] == name]
        return bool(deploys) and deploys[-1]["outcome"] != "done"

    def moved(self, seen, before, to, *words):
        """Makes `to` live. Where it is so already, the program sees whether it is up, and brings it up if it is not."""
        document = self.act(*words)
        changed = before != to or document.get("changed", False)
        return changed, before, to, dict(document=document or seen)

    def rolled_back(self):
        to = self.given["to"]
        seen, before = self.current()
        self.expect(before, to)
        if self.program.installed:
            self.program.ask("rollback", "--to", to, "--dry-run")
        return self.moved(seen, before, to, "rollback", "--to", to, "--expect-current", before)

    def cleaned(self):
        plan = self.program.look("clean", "--dry-run", *self.option("keep")) or {}
        going, staying = ([one["id"] for one in plan.get(word, [])] for word in ("removed", "kept"))
        before = "\n".join(sorted(going + staying))
        document = self.act("clean", *self.option("keep")) if going else {}
        return bool(going), before, "\n".join(sorted(staying)), dict(document=document or plan)

    def current(self):
        """The status, and the name of what is live, `none` if nothing is."""
        seen = self.program.look("status") or {}
        return seen, seen.get("current") or "none"

    def expect(self, live, wanted):
        """Fails where another release is live than was expected, in check mode too."""
        expected = self.given["expect_current"]
        if expected not in (None, live, wanted):
            self.module.fail_json(msg=f"{live} is live, not {expected} as expected; nothing was changed", rc=3)


def main():
    module = AnsibleModule(
        argument_spec=dict(PLACE, **OPTIONS),
        required_if=[("state", "created", ["id"]), ("state", "live", ["id"]), ("state", "rolled_back", ["to"])],
        supports_check_mode=True,
    )
    changed, before, after, told = getattr(Host(module), module.params["state"])()
    diff = dict(before=f"{before}\n", after=f"{after}\n")
    module.exit_json(changed=changed, diff=diff, **told)


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""What releasectl says of one host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: releasectl_info
short_description: Look at a release tree
description:
  - Tells what is live on a host, where a rollback would go and which releases there are. It changes nothing.
author: The releasectl developers (@releasectl)
options:
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
    description: It only looks.
    support: full
  diff_mode:
    description: It only looks.
    support: none
"""

EXAMPLES = r"""
- name: Look
  releasectl.fleet.releasectl_info:
    env: production
  register: seen

- name: Say what is live
  ansible.builtin.debug:
    var: seen.current
"""

RETURN = r"""
installed:
  description: Whether the program is there.
  returned: always
  type: bool
current:
  description: The release that is live, or nothing.
  returned: always
  type: str
rollback_to:
  description: The release that a rollback would go to, or nothing.
  returned: always
  type: str
fingerprint:
  description: What hosts that are alike have in common, or nothing where the program does not tell.
  returned: always
  type: str
releases:
  description: The releases there are, oldest first, each with its id and state.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.releasectl.fleet.plugins.module_utils.program import PLACE, Program


def main():
    module = AnsibleModule(argument_spec=PLACE, supports_check_mode=True)
    program = Program(module)
    listing = program.look("list") or {}
    status = program.look("status") or {}
    back = program.look("rollback", "--dry-run") or {}
    module.exit_json(
        changed=False,
        installed=program.installed,
        current=status.get("current"),
        rollback_to=back.get("to"),
        fingerprint=status.get("fingerprint"),
        releases=listing.get("releases", []),
    )


if __name__ == "__main__":
    main()

"""The releasectl of one host, asked for documents."""

from __future__ import annotations

import json
import os

PLACE = dict(
    env=dict(type="str"),
    root=dict(type="path"),
    config=dict(type="path"),
    executable=dict(type="str", default="releasectl"),
)


class Program:
    """Runs `releasectl --json`. What it refuses fails the module, in its own words."""

    def __init__(self, module):
        self.module = module
        self.path = module.get_bin_path(module.params["executable"])
        self.installed = self.path is not None
        env = module.params["env"]
        file = module.params["config"] or (f"/etc/releasectl/{env}.toml" if env else None)
        there = file is None or module.params["root"] is not None or os.path.exists(file)
        # In check mode it is not written yet.
        self.configured = there or not module.check_mode

    def ask(self, *words, may_refuse=False):
        """The document that a command prints; None where a refusal (status 3) is an answer too."""
        if not self.installed:
            self.module.fail_json(msg=f"{self.module.params['executable']} is not installed on this host")
        argv = [self.path, "--json"]
        for name in ("env", "root", "config"):
            if self.module.params[name]:
                argv += [f"--{name}", self.module.params[name]]
        status, out, err = self.module.run_command(argv + list(words))
        try:
            document = json.loads(out)
        except ValueError:
            self.module.fail_json(msg="releasectl printed no document", rc=status, stdout=out, stderr=err)
        if status == 3 and may_refuse:
            return None
        if status != 0:
            error = document.get("error", {})
            msg = ": ".join([" ".join(words[:1]), error.get("message", "it failed")])
            self.module.fail_json(msg=msg, hint=error.get("hint"), rc=status, error=error, stderr=err)
        return document

    def look(self, *words):
        """The same of a command that only looks; None where there is nothing to look at, be it the program itself, or, in
        check mode, its configuration."""
        return self.ask(*words, may_refuse=True) if self.installed and self.configured else None

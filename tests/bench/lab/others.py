"""What other deploy tools have a host do for a deploy of code alone, as shell commands in the order in which they come.

A line is one command sent over ssh, and is run in a shell of its own, as sshd runs it. What the tool decides at home from
the answers is given: `$to` is the tree, `$repo` where the code comes from (its branch `main`, of which `$commit` is the tip),
`$name` the new release, `$release` its path, `$old` the releases to be removed, `$all` those there are. Each tool shares the
same two files and three directories. Where a tool goes on whatever the answer is, there stands `|| :`.
"""

import shlex
from dataclasses import dataclass

# Capistrano 3.20 with its plugin for git: `cap production deploy`.
CAPISTRANO = """
/usr/bin/env mkdir -p "$to/tmp"
printf '#!/bin/sh -e\\nexec /usr/bin/env ssh "$@"\\n' >"$to/tmp/git-ssh.sh"
/usr/bin/env chmod 700 "$to/tmp/git-ssh.sh"
( export GIT_ASKPASS=/bin/echo GIT_SSH="$to/tmp/git-ssh.sh" ; /usr/bin/env git ls-remote "$repo" HEAD )
/usr/bin/env mkdir -p "$to/shared" "$to/releases"
/usr/bin/env mkdir -p "$to/shared/log" "$to/shared/media" "$to/shared/tmp/pids"
/usr/bin/env mkdir -p "$to/shared"
[ -f "$to/shared/.env" ]
[ -f "$to/shared/localsettings.py" ]
[ -f "$to/current/REVISION" ] || :
/usr/bin/env cat "$to/current/REVISION" 2>/dev/null || :
[ -f "$to/repo/HEAD" ]
if test ! -d "$to/repo"; then echo "Directory does not exist" >&2; false; fi
cd "$to/repo" && ( export GIT_ASKPASS=/bin/echo GIT_SSH="$to/tmp/git-ssh.sh" ; /usr/bin/env git remote set-url origin "$repo" )
cd "$to/repo" && ( export GIT_ASKPASS=/bin/echo GIT_SSH="$to/tmp/git-ssh.sh" ; /usr/bin/env git remote update --prune )
if test ! -d "$to/repo"; then echo "Directory does not exist" >&2; false; fi
cd "$to/repo" && ( export GIT_ASKPASS=/bin/echo ; /usr/bin/env mkdir -p "$release" )
cd "$to/repo" && ( export GIT_ASKPASS=/bin/echo ; /usr/bin/env git archive main | /usr/bin/env tar -x -f - -C "$release" )
if test ! -d "$to/repo"; then echo "Directory does not exist" >&2; false; fi
cd "$to/repo" && ( export GIT_ASKPASS=/bin/echo ; /usr/bin/env git rev-list --max-count=1 main )
if test ! -d "$release"; then echo "Directory does not exist" >&2; false; fi
cd "$release" && /usr/bin/env echo "$commit" >REVISION
/usr/bin/env mkdir -p "$release"
[ -L "$release/.env" ] || :
[ -f "$release/.env" ] || :
/usr/bin/env ln -s "$to/shared/.env" "$release/.env"
[ -L "$release/localsettings.py" ] || :
[ -f "$release/localsettings.py" ] || :
/usr/bin/env ln -s "$to/shared/localsettings.py" "$release/localsettings.py"
/usr/bin/env mkdir -p "$release" "$release/tmp"
[ -L "$release/log" ] || :
[ -d "$release/log" ] || :
/usr/bin/env ln -s "$to/shared/log" "$release/log"
[ -L "$release/media" ] || :
[ -d "$release/media" ] || :
/usr/bin/env ln -s "$to/shared/media" "$release/media"
[ -L "$release/tmp/pids" ] || :
[ -d "$release/tmp/pids" ] || :
/usr/bin/env ln -s "$to/shared/tmp/pids" "$release/tmp/pids"
/usr/bin/env ln -s "$release" "$to/releases/current"
/usr/bin/env mv "$to/releases/current" "$to"
/usr/bin/env ls -x "$to/releases"
[ -d "$to/current" ]
/usr/bin/env readlink "$to/current"
/usr/bin/env rm -rf $old
if test ! -d "$to/releases"; then echo "Directory does not exist" >&2; false; fi
cd "$to/releases" && /usr/bin/env echo "Branch main (at $commit) deployed as release $name by bench" >>"$to/revisions.log"
"""

# Deployer 7: `dep deploy` with the common recipe; code by git archive, which is its default.
DEPLOYER = """
cd "$to"; [ -d .dep ] || mkdir .dep; [ -d releases ] || mkdir releases; [ -d shared ] || mkdir shared
if [ ! -L "$to/current" ] && [ -d "$to/current" ]; then echo +true; fi
[ -f "$to/.dep/deploy.lock" ] && echo +locked || echo bench >"$to/.dep/deploy.lock"
cd "$to" && if [ -h release ]; then echo +true; fi
cd "$to" && if [ -d releases ] && [ "$(ls -A releases)" ]; then echo +true; fi
cd "$to" && cd releases && ls -t -1 -d */ || :
cd "$to" && if [ -f .dep/releases_log ]; then echo +true; fi
cd "$to" && tail -n 8 .dep/releases_log || :
cd "$to" && cat .dep/latest_release || echo 0
cd "$to" && if [ -d "releases/$name" ]; then echo +true; fi
cd "$to" && echo "$name" >.dep/latest_release
cd "$to" && echo "{\\"created_at\\":\\"2026-11-01T12:00:00+0000\\",\\"release_name\\":\\"$name\\"}" >>.dep/releases_log
cd "$to" && mkdir -p "releases/$name"
(man ln 2>&1 || ln -h 2>&1 || ln --help 2>&1) | grep -- --relative || true
cd "$to" && ln -nfs --relative "releases/$name" "$to/release"
command -v git || which git || type -p git
[ -d "$to/.dep/repo" ] || mkdir -p "$to/.dep/repo"
[ -f "$to/.dep/repo/HEAD" ] || git clone --mirror "$repo" "$to/.dep/repo" 2>&1
cd "$to/.dep/repo" && git config --get remote.origin.url
cd "$to/.dep/repo" && git remote update 2>&1
if [ -h "$to/release" ]; then echo +true; fi
readlink "$to/release"
cd "$to/.dep/repo" && git archive main | tar -x -f - -C "$release" 2>&1
cd "$to/.dep/repo" && git rev-list main -1
cd "$to/.dep/repo" && echo "$commit" >"$release/REVISION"
if [ -h "$to/release" ]; then echo +true; fi
cd "$release" && if [ ! -e .env ] && [ -f .env.example ]; then echo +true; fi
if [ -d "$to/shared/log" ]; then echo +true; fi
rm -rf "$release/log"
mkdir -p `dirname "$release/log"`
ln -nfs --relative "$to/shared/log" "$release/log"
if [ -d "$to/shared/media" ]; then echo +true; fi
rm -rf "$release/media"
mkdir -p `dirname "$release/media"`
ln -nfs --relative "$to/shared/media" "$release/media"
if [ -d "$to/shared/tmp/pids" ]; then echo +true; fi
rm -rf "$release/tmp/pids"
mkdir -p `dirname "$release/tmp/pids"`
ln -nfs --relative "$to/shared/tmp/pids" "$release/tmp/pids"
if [ -d "$to/shared/." ]; then echo +true; fi
if [ -f "$to/shared/.env" ]; then echo +true; fi
if [ -f $(echo "$release/.env") ]; then rm -rf "$release/.env"; fi
if [ ! -d $(echo "$release/.") ]; then mkdir -p "$release/."; fi
[ -f "$to/shared/.env" ] || touch "$to/shared/.env"
ln -nfs --relative "$to/shared/.env" "$release/.env"
if [ -d "$to/shared/." ]; then echo +true; fi
if [ -f "$to/shared/localsettings.py" ]; then echo +true; fi
if [ -f $(echo "$release/localsettings.py") ]; then rm -rf "$release/localsettings.py"; fi
if [ ! -d $(echo "$release/.") ]; then mkdir -p "$release/."; fi
[ -f "$to/shared/localsettings.py" ] || touch "$to/shared/localsettings.py"
ln -nfs --relative "$to/shared/localsettings.py" "$release/localsettings.py"
(man mv 2>&1 || mv -h 2>&1 || mv --help 2>&1) | grep -- --no-target-directory || true
mv -T "$to/release" "$to/current"
rm -f "$to/.dep/deploy.lock"
rm -rf $old
cd "$to" && if [ -e release ]; then rm release; fi
"""

# Mina 1.2 sends one script.
MINA = """
cd "$to" || exit 16
if [ -e deploy.lock ]; then exit 17; fi
[ -h current ] && [ -d current ] && previous_path=$(cd current >/dev/null && pwd -LP)
build_path="./tmp/build-`date +%s`$RANDOM"
version=$((`cat "$to/last_version" 2>/dev/null`+1))
release_path="$to/releases/$version"
if [ -e "$build_path" ]; then exit 18; fi
touch deploy.lock
(
  mkdir -p "$build_path" && cd "$build_path" && (
    (cd "$to/scm" && git fetch "$repo" main:main --force) &&
    git clone "$to/scm" . --recursive --branch main &&
    git rev-parse HEAD >.mina_git_revision &&
    git --no-pager log --format="%aN (%h):%n> %s" -n 1 &&
    rm -rf .git &&
    for shared in log media tmp/pids; do
      mkdir -p `dirname "./$shared"` && rm -rf "./$shared" && ln -s "$to/shared/$shared" "./$shared" || exit
    done &&
    for shared in .env localsettings.py; do
      rm -f "./$shared" && ln -s "$to/shared/$shared" "./$shared" || exit
    done &&
    cd "$to/releases" &&
    count=$(ls -A1 | sort -rn | wc -l) &&
    remove=$((count > 3 ? count - 3 : 0)) &&
    ls -A1 | sort -rn | tail -n $remove | xargs rm -rf {}
  )
) && (
  mv "$build_path" "$release_path"
  ln -nfs "$release_path" current
) && (
  rm -f deploy.lock
  echo "$version" >last_version
)
"""

# The Fabric deploy of CommCare HQ, without sudo and without the `git gc` it leaves to at: the code.
FABRIC_CODE = """
mkdir -p "$release"
stat "$to/current"
cd "$to/current" && git submodule foreach "git fetch origin"
stat "$to/current"
cd "$to/current" && git submodule | awk '{ print $2 }'
stat "$to/current"
cd "$to/current" && git submodule | awk '{ print $2 }'
cd "$to/current" && git clone "$to/current/.git" "$release"
cd "$release" && git config receive.denyCurrentBranch updateInstead
cd "$release" && git submodule update --init --recursive
cd "$release" && git remote set-url origin "$repo"
cd "$release" && git remote prune origin
cd "$release" && (git fetch origin --tags -q || git fetch origin --tags -q)
cd "$release" && git checkout "$commit"
cd "$release" && git reset --hard "$commit"
cd "$release" && git submodule sync
cd "$release" && git submodule update --init --recursive -q
cd "$release" && git clean -ffd
cd "$release" && find . -name '*.pyc' -delete
"""
# The packages: `$clone` is virtualenv-clone, `$pip` what pip is told of itself.
FABRIC_PACKAGES = """
stat "$to/current/python_env"
stat "$release/python_env" || :
readlink -f "$to/current/python_env"
"$clone" "$(readlink -f "$to/current/python_env")" "$release/python_env"
sed -i -e "s~$to/current/python_env~$release/python_env~g" $(find "$release/python_env/bin/" -type f)
cd "$release" && source "$release/python_env/bin/activate" && pip $pip install --timeout 60 --requirement requirements.txt
"""
# What makes it live.
FABRIC_LIVE = """
cp "$to/current/localsettings.py" "$release/localsettings.py"
stat "$release"
ln -nfs "$release" "$to/current"
"""
# The programs: `$ctl` is supervisorctl with its configuration. The sleep of five seconds before the last is left out.
FABRIC_PROGRAMS = """
$ctl stop all
$ctl reread
$ctl update
$ctl start all
"""
# What is written down and thrown away.
FABRIC_CLEAN = """
cd "$to" && stat RELEASES.txt
cd "$to" && egrep "^$release\\$" RELEASES.txt || :
cd "$to" && echo "$release" >>RELEASES.txt
ls "$to/releases"
readlink "$to/current"
cd "$to" && set -- $all && egrep "$1" RELEASES.txt || :
cd "$to" && set -- $all && egrep "$2" RELEASES.txt || :
cd "$to" && set -- $all && egrep "$3" RELEASES.txt || :
rm -rf $old
"""


@dataclass
class Other:
    """A deploy tool. `names` is the form of its releases' names, `first` what its tree looks like before the first deploy."""

    name: str
    commands: list
    names: str
    first: str
    kept: int = 3
    shell: str = "bash -c"

    def script(self, synced=False):
        """All its commands, for `sh -e`."""
        lines = [f"{self.shell} {shlex.quote(command)}" for command in self.commands]
        return "\n".join([*lines, *(['sync --file-system "$to"'] if synced else [])])


def each(commands):
    return [line for line in commands.splitlines() if line]


FABRIC = each(FABRIC_CODE + FABRIC_LIVE + FABRIC_CLEAN)
FABRIC_WHOLE = each(FABRIC_CODE + FABRIC_PACKAGES + FABRIC_LIVE + FABRIC_PROGRAMS + FABRIC_CLEAN)
# Mina cleans before it adds.
OTHERS = [
    Other("Capistrano", each(CAPISTRANO), "202611{:08}", 'git clone --quiet --mirror "$repo" repo'),
    Other("Deployer", each(DEPLOYER), "{}", 'mkdir -p .dep && git clone --quiet --mirror "$repo" .dep/repo'),
    Other("Mina", [MINA], "{}", 'git clone --quiet --bare "$repo" scm', kept=4),
]
FIRST = (
    'git clone --quiet "$repo" releases/0 && ln -s "$PWD/releases/0" current && '
    "touch current/localsettings.py && touch RELEASES.txt"
)
FIRST_PACKAGES = (
    '"$python" -m venv releases/0/python_env && '
    "releases/0/python_env/bin/pip $pip install -r releases/0/requirements.txt"
)
SHELLS = {"Fabric": "bash -c", "Fabric, login shells": "bash -l -c"}
FABRICS = [Other(name, FABRIC, "2026-11-{:08}", FIRST, shell=shell) for name, shell in SHELLS.items()]
WHOLE_FABRICS = [
    Other(name, FABRIC_WHOLE, "2026-11-{:08}", f"{FIRST} && {FIRST_PACKAGES}", shell=shell) for name, shell in SHELLS.items()
]

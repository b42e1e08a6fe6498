# Installs, upgrades, removes and purges the package on this system's own files, and yet not: everything that is written
# goes into a tmpfs and is gone with the mount namespace that this runs in.
# $1: the program (unused, the package brings its own)   $2: the .deb   $3: an empty directory

deb=$2 room=$3 stage=begin
trap '[ $? = 0 ] || echo "it went wrong at: $stage" >&2' EXIT
wrong() { echo "wrong: $*" >&2; exit 1; }
is() { [ "$2" = "$3" ] || wrong "$1: $2, not $3"; }
here() { for file; do [ -e "$file" ] || wrong "$file is not there"; done; }
gone() { for file; do [ ! -e "$file" ] || wrong "$file is there"; done; }

mount -t tmpfs tmpfs "$room"
for place in etc usr var; do
    mkdir "$room/$place" "$room/$place.work"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$room/$place,workdir=$room/$place.work" "/$place"
done
for place in /run /srv; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
dpkg() { command dpkg --force-unsafe-io --force-confdef --force-confold --no-triggers "$@" >/run/dpkg.log 2>&1 ||
    wrong "dpkg $*: $(cat /run/dpkg.log)"; }

stage="install"
dpkg-deb -R "$deb" /run/older
sed -i 's/^Version: .*/Version: 0.0.1~before/' /run/older/DEBIAN/control
echo "# as it was" >>/run/older/etc/cron.d/releasectl
echo "as it was" >>/run/older/etc/releasectl/README
dpkg-deb --root-owner-group -Znone -b /run/older /run/older.deb >/dev/null
dpkg -i /run/older.deb
is "the configuration's directory" "$(stat -c '%A %U %G' /etc/releasectl)" "drwxr-xr-x root root"
releasectl --version >/dev/null

stage="a tree"
echo 'app:x:4242:4242::/srv/app:/bin/sh' >>/etc/passwd
echo 'other:x:4343:4343::/:/bin/sh' >>/etc/passwd
mkdir -m 755 /srv/app /srv/code
echo code >/srv/code/file
chown 4242:4242 /srv/app
printf 'root = "/srv/app"\nuser = "app"\n[clean]\nkeep = 1\n' >/etc/releasectl/production.toml
for id in A B C; do
    releasectl -e production create /srv/code --id $id >/dev/null
    releasectl -e production activate $id >/dev/null
done 2>/dev/null
# Everything in the tree but the lock's note.
picture() { find /srv/app ! -name lock -printf '%p %M %U:%G %s %l %T@\n' | sort; find /srv/app -type f ! -name lock -exec sha256sum {} + | sort; }
releases() { (cd /srv/app/releases && echo *); }
before=$(picture)

stage="upgrade"
sed -i 's/^17 4/18 5/' /etc/cron.d/releasectl
dpkg -i "$deb"
is "the version" "$(dpkg-query -W -f '${Version} ${Status}' releasectl)" "$(dpkg-deb -f "$deb" Version) install ok installed"
grep -q '^18 5' /etc/cron.d/releasectl || wrong "an upgrade changed what the operator had changed"
! grep -q "as it was" /etc/releasectl/README || wrong "an upgrade did not bring the new text of what nobody had changed"
here /etc/releasectl/production.toml
is "the tree" "$(picture)" "$before"

stage="the timer's command, with no more rights than its unit gives"
unit=/usr/lib/systemd/system/releasectl-clean@.service
command=$(sed -n 's/^ExecStart=//p' "$unit" | sed 's/%i/production/g')
rights=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr ' ' '\n' | sed 's/^CAP_/+/' | tr 'A-Z\n' 'a-z,')
timer() { setpriv --bounding-set "-all,${rights%,}" --no-new-privs $command; }
# This text is this shell's command line: with the whole path in it the shell would count as a user of the release too.
old=/srv/app/releases/"A"
(cd "$old" && exec setpriv --reuid 4343 --regid 4343 --clear-groups sleep 600) &
sleeper=$!
until [ "$(readlink /proc/$sleeper/cwd)" = "$old" ] && grep -q sleep /proc/$sleeper/comm; do sleep 0.02; done
timer
is "while another user's process runs from it" "$(releases)" "A B C"
kill $sleeper
wait $sleeper || true
timer
is "after the timer" "$(releases)" "B C"
is "files of root in the tree" "$(find /srv/app -user 0)" ""

stage="cron's command"
releasectl -e production create /srv/code --id D >/dev/null 2>&1
releasectl -e production activate D >/dev/null
line=$(grep '^18 5' /etc/cron.d/releasectl | cut -f 3-)
is "its user" "$(grep '^18 5' /etc/cron.d/releasectl | cut -f 2)" root
cron() { env -i PATH="$(sed -n 's/^PATH=//p' /etc/cron.d/releasectl)" sh -c "$line"; }
mkdir -p /run/systemd/system
is "what it says where systemd runs" "$(cron 2>&1)" ""
is "where systemd runs" "$(releases)" "B C D"
rm -r /run/systemd
is "what it says" "$(cron 2>&1)" ""
is "where systemd does not run" "$(releases)" "C D"

stage="the units"
systemd-analyze verify --man=no releasectl-clean@production.timer releasectl-clean@production.service >/run/verify 2>&1 ||
    wrong "$(cat /run/verify)"
is "what systemd-analyze says of them" "$(cat /run/verify)" ""
exposure=$(systemd-analyze security --offline=true "$unit" | sed -n 's/^.*Overall exposure level.*: \([0-9.]*\).*/\1/p')
[ -n "$exposure" ] && awk "BEGIN { exit !($exposure <= 1.5) }" || wrong "its exposure is '$exposure', not at most 1.5"
for page in $(sed -n 's/^Documentation=//p' "$unit"); do
    name=${page#man:} section=${page##*\(}
    here "/usr/share/man/man${section%)}/${name%(*}.${section%)}.gz"
done

stage="what the examples say"
visudo -qcf /usr/share/doc/releasectl/examples/sudoers
sed 's|/home/cchq/www/\*/log|/srv/app/log|; s/cchq/app/g' /usr/share/doc/releasectl/examples/logrotate >/etc/logrotate.app
echo 'app:x:4242:' >>/etc/group
setpriv --reuid 4242 --regid 4242 --clear-groups sh -c 'echo line >/srv/app/log/web.log'
logrotate --force --state /run/logrotate /etc/logrotate.app
is "the logs" "$(cd /srv/app/log && stat -c '%n %s %U' web.log*)" "web.log 0 app
web.log.1 5 app"

stage="remove"
before=$(picture)
mkdir -p /etc/systemd/system/timers.target.wants
ln -s "$unit" /etc/systemd/system/timers.target.wants/releasectl-clean@production.timer
dpkg -r releasectl
gone /usr/bin/releasectl "$unit" /usr/share/man/man8/releasectl.8.gz
here /etc/cron.d/releasectl /etc/releasectl/README /etc/releasectl/production.toml
is "what cron says afterwards" "$(cron 2>&1)" ""
is "the tree" "$(picture)" "$before"

stage="installed once more"
mkdir -p /run/systemd/system
printf '#!/bin/sh\necho "$*" >>/run/invoked\n' >/usr/sbin/deb-systemd-invoke
chmod 755 /usr/sbin/deb-systemd-invoke
dpkg -i "$deb"
is "the timer that a removal stopped" "$(cat /run/invoked)" "start releasectl-clean@production.timer"
rm -r /run/systemd /usr/sbin/deb-systemd-invoke

stage="purge"
dpkg -P releasectl
gone /etc/cron.d/releasectl /etc/releasectl /etc/systemd/system/timers.target.wants/releasectl-clean@production.timer
is "the tree" "$(picture)" "$before"
left=$(find "$room/etc" "$room/usr" "$room/var" -name '*releasectl*' ! -type c)
is "what is left" "$left" ""

stage="a second time, and purged at once"
dpkg -i "$deb"
dpkg -P releasectl
gone /usr/bin/releasectl /etc/releasectl /etc/cron.d/releasectl

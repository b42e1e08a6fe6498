//! A world of a test's own: namespaces that end with it, whatever becomes of it. Nothing outside is touched, nothing is left.

use crate::host::Host;
use crate::tooling;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Says to the test program that it is started inside, and where its place is.
const INSIDE: &str = "RELEASECTL_FLEET_PLACE";
/// The longest a test may take: a machine that does nothing else needs a fraction of it.
const LIMIT: Duration = Duration::from_secs(900);

/// Where the tests' own machine is, from which everything is driven.
pub const HERE: &str = "10.77.0.1";

/// A bridge, and a network of each host's own behind it. /run holds the names of the namespaces; it is this world's alone.
const NETWORK: &str = r#"
mount -t tmpfs none /run
ip link set lo up
ip link add br0 type bridge
ip address add 10.77.0.1/24 dev br0
ip link set br0 up
for n in 1 2 3; do
    ip netns add web$n
    ip link add veth$n type veth peer name eth0 netns web$n
    ip link set veth$n master br0 up
    ip -n web$n address add 10.77.0.1$n/24 dev eth0
    ip -n web$n link set eth0 up
    ip -n web$n link set lo up
done
"#;

/// Runs the test `name` once more, in a world of its own, and there `scenario`. Only root can make one.
#[track_caller]
pub fn in_a_world(name: &str, scenario: fn(&World)) {
    if let Some(place) = std::env::var_os(INSIDE) {
        return scenario(&World::make(place.into()));
    }
    if !nix::unistd::Uid::effective().is_root() {
        let _ = writeln!(std::io::stderr(), "left out: {name}: only root can make hosts");
        return;
    }
    // What comes from PyPI is fetched outside: inside there is no way to it.
    tooling::orchestrators();
    crate::packages::uv();
    crate::packages::wheelhouse(&[], TempDir::new().unwrap().path());
    let place = tempfile::Builder::new().prefix("releasectl-fleet-").tempdir().unwrap();
    let log = place.path().join("log");
    // The world dies with unshare, unshare with this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork"]);
    command.args(["--mount-proc", "--kill-child"]).arg(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, place.path());
    let told = fs::File::create(&log).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(told.try_clone().unwrap()).stderr(told).spawn().unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > LIMIT {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let told = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    assert!(status.is_some_and(|status| status.success()), "{name}: {status:?}\n{told}");
    assert!(told.contains("1 passed"), "{name} was not run: {told}");
}

/// Three hosts and the place from which they are driven.
pub struct World {
    place: PathBuf,
    pub hosts: Vec<Host>,
}

impl World {
    fn make(place: PathBuf) -> Self {
        done(Command::new("sh").args(["-euc", NETWORK]));
        for key in ["host", "client"] {
            let mut keygen = Command::new("ssh-keygen");
            done(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(place.join(key)));
        }
        fs::copy(crate::packages::uv().join("uv"), place.join("uv")).unwrap();
        let hosts = (1..=3).map(|number| Host::start(&place, number)).collect();
        let world = Self { place, hosts };
        world.write_ssh_config();
        for host in &world.hosts {
            // One connection for all that follows; a login costs more than most of what is asked.
            done(world.here("ssh").args(["-M", "-N", "-f", &host.name]).stdout(Stdio::null()).stderr(Stdio::null()));
        }
        world
    }

    /// How the hosts are reached; whatever is run here finds an `ssh` that reads it.
    fn write_ssh_config(&self) {
        let public = fs::read_to_string(self.at("host.pub")).unwrap();
        let (mut known, mut config) = (String::new(), String::new());
        for host in &self.hosts {
            known += &format!("{},{} {public}", host.name, host.address);
            config += &format!("Host {}\n  HostName {}\n", host.name, host.address);
        }
        let shown = self.place.display();
        config += &format!(
            "Host *\n  User root\n  IdentityFile {shown}/client\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n  \
             UserKnownHostsFile {shown}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  ControlPath {shown}/to-%h\n"
        );
        fs::write(self.at("known_hosts"), known).unwrap();
        fs::write(self.at("ssh_config"), config).unwrap();
        fs::create_dir_all(self.at("bin")).unwrap();
        self.script("bin/ssh", &format!("exec /usr/bin/ssh -F {shown}/ssh_config \"$@\"\n"));
    }

    /// A path in the test's own place.
    pub fn at(&self, path: &str) -> PathBuf {
        self.place.join(path)
    }

    /// Writes a shell script.
    pub fn script(&self, path: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.at(path), format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program on the machine that drives the hosts, in a clean environment, in the test's own place.
    pub fn here(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let bin = self.at("bin");
        let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display(), tooling::orchestrators().display());
        command.env_clear().env("PATH", path).env("HOME", &self.place).env("LANG", "C.UTF-8").env("NO_COLOR", "1");
        command.current_dir(&self.place).stdin(Stdio::null());
        command
    }

    /// Runs a command line on one host by ssh.
    pub fn ssh(&self, host: &Host, words: &str) -> Output {
        self.here("ssh").args([&host.name, words]).output().unwrap()
    }

    /// The same; it must succeed.
    #[track_caller]
    pub fn on(&self, host: &Host, words: &str) -> String {
        let output = self.ssh(host, words);
        assert!(output.status.success(), "{}: {words}: {}", host.name, told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Copies a file to a host.
    #[track_caller]
    pub fn copy(&self, file: &Path, host: &Host, to: &str) {
        let config = self.at("ssh_config");
        done(self.here("scp").args(["-q", "-F"]).arg(config).arg(file).arg(format!("{}:{to}", host.name)));
    }

    /// The document that `releasectl` prints on a host.
    #[track_caller]
    pub fn document(&self, host: &Host, words: &str) -> serde_json::Value {
        let output = self.ssh(host, &format!("releasectl --json {words}"));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)))
    }

    /// What is live on each host.
    pub fn live(&self) -> Vec<Option<String>> {
        let live = |host: &Host| self.document(host, "status")["current"].as_str().map(str::to_owned);
        self.hosts.iter().map(live).collect()
    }
}

/// All that a program said.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command; it must succeed.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    told(&output)
}

/// Waits until `holds`; what does not hold in two minutes never will.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came: {what}");
}

/// The project's own file.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

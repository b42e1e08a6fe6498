//! A real sshd on loopback, with a configuration and keys of its own.

use crate::lab::left_out;
use crate::patience::eventually;
use crate::sandbox::Sandbox;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

/// Started by root, sshd wants a directory below /run; it gets a /run of its own, so that nothing is left there.
const OWN_RUN: &str = "mount -t tmpfs none /run; mkdir -m 755 /run/sshd; exec \"$@\"";

/// Lets bash take itself for one within another: the first reads the user's `.bashrc`, whatever that says or does.
const NOT_THE_FIRST: &str = "SetEnv SHLVL=2\n";

/// An sshd on loopback with a configuration and keys of its own. It ends with the test.
pub struct Host {
    sshd: Child,
    options: Vec<String>,
}

impl Host {
    /// Starts it; `restriction` is what authorized_keys says before the client's key. Says so where there is none.
    pub fn start(tree: &Sandbox, restriction: &str) -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let Some(sshd) = sshd else {
            left_out("what is done over ssh", "sshd is not installed");
            return None;
        };
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap();
        let Some(user) = user.filter(|user| !["nologin", "false"].iter().any(|no| user.shell.ends_with(no))) else {
            left_out("what is done over ssh", "this user cannot log in");
            return None;
        };
        let dir = tree.beside("ssh");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        for key in ["host", "client"] {
            let mut keygen = tree.clean("ssh-keygen");
            let keygen = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
            assert!(keygen.status().unwrap().success());
        }
        let public = fs::read_to_string(dir.join("client.pub")).unwrap();
        fs::write(dir.join("authorized_keys"), format!("{restriction} {public}")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = dir.display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {shown}/host\nPidFile none\nAuthorizedKeysFile {shown}/authorized_keys\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\n{NOT_THE_FIRST}"
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = if crate::sandbox::is_root() {
            let mut command = tree.clean("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-ec", OWN_RUN, "sh", sshd]);
            command
        } else {
            tree.clean(sshd)
        };
        let sshd = command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stderr(log).spawn().unwrap();
        let words = format!(
            "-F none -q -p {port} -i {shown}/client -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {}@127.0.0.1",
            user.name
        );
        let host = Self { sshd, options: words.split(' ').map(str::to_owned).collect() };
        eventually("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(host)
    }

    /// A client with these options, which still wants to be told what to ask for.
    pub fn client(&self, tree: &Sandbox, options: &[&str]) -> Command {
        let mut command = tree.clean("ssh");
        command.args(options).args(&self.options);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

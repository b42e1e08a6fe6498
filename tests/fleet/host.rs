//! A host: the machine's own files with a layer of its own above them, a name, a network, processes of its own, a real sshd
//! and a real supervisord.

use crate::world::until;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Makes the file system, in which nothing of the machine's can be changed, and becomes the host's first process.
const BOOT: &str = r#"
name=$1 place=$2
hostname "$name"
mkdir -p "$place/$name"
mount -t tmpfs none "$place/$name"
cd "$place/$name"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=upper,workdir=work" root
cp "$place/host" root/etc/ssh/ssh_host_ed25519_key
cp "$place/sshd_config" root/etc/ssh/sshd_config
install -m 755 "$place/uv" root/usr/local/bin/uv
# What the machine's root has his shell do at each start is no part of a host.
rm -rf root/root/.ssh root/root/.bash* root/root/.profile root/etc/releasectl root/srv
install -d -m 700 root/root/.ssh root/srv/old
chmod 755 root/srv
install -m 600 "$place/client.pub" root/root/.ssh/authorized_keys
mount -t proc none root/proc
mount --rbind /dev root/dev
mount -t tmpfs none root/tmp
mount -t tmpfs -o mode=755 none root/run
chmod 1777 root/tmp
mkdir root/run/sshd
cd root
pivot_root . srv/old
umount -l srv/old
rmdir srv/old
useradd --create-home --shell /bin/sh site
echo "127.0.0.1 localhost $name" >/etc/hosts
/usr/bin/supervisord -c /etc/supervisor/supervisord.conf -n >/var/log/supervisord.log 2>&1 &
/usr/sbin/sshd -D -e 2>/var/log/sshd.log &
wait
"#;

const SSHD: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nPidFile none\nPasswordAuthentication no\n\
     KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nMaxStartups 100\n\
     Subsystem sftp internal-sftp\n";

/// A running host.
pub struct Host {
    pub name: String,
    pub address: String,
    process: Child,
}

impl Host {
    /// Starts the host of this number, whose network is there, and waits for its sshd.
    pub fn start(place: &Path, number: usize) -> Self {
        let (name, address) = (format!("web{number}"), format!("10.77.0.1{number}"));
        fs::write(place.join("sshd_config"), SSHD).unwrap();
        let log = fs::File::create(place.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]);
        command.args(["--propagation", "private", "sh", "-euc", BOOT, "sh", &name]).arg(place);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LANG", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut host = Self { name, address, process };
        let log = place.join(format!("{}.log", host.name));
        until("the host's sshd", || {
            let ended = host.process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
            TcpStream::connect((host.address.as_str(), 22)).is_ok()
        });
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

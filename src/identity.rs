//! Who asks, and as whom the work is done. A root run becomes the tree's user before it touches the tree; only looking
//! at other users' processes and the wiring into supervisor go back to root, for that long.

use crate::directory::{Dir, PathError};
use crate::tools::{ToolError, Tools};
use nix::unistd::{Gid, Uid, User, getgrouplist, seteuid, setgroups, setresgid, setresuid};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Why a run cannot go on as the user it should.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such user, or the answer made no sense.
    #[error("there is no user {0:?} on this host")]
    UnknownUser(String),
    /// The system refused the change.
    #[error("cannot become user {user}: {cause}")]
    Refused {
        /// The user.
        user: String,
        /// The system's answer.
        cause: nix::Error,
    },
    /// Somebody else could swap what we are led to.
    #[error("{} is not safe to work under as {who}: {why}", path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// The user we run as.
        who: String,
        /// Who could do it.
        why: String,
        /// The command that mends it.
        mend: String,
    },
    /// A directory on the way could not be looked at.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The number.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The home directory.
    pub home: PathBuf,
}

/// Whether this process was started as root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Who typed the command: `sudo_user` (SUDO_USER) of a root run, or else the user we were started as.
pub fn caller(sudo_user: Option<String>) -> String {
    let own = Uid::current();
    let sudo = sudo_user.filter(|name| own.is_root() && !name.is_empty() && !name.contains(char::is_control));
    sudo.or_else(|| User::from_uid(own).ok().flatten().map(|user| user.name)).unwrap_or_else(|| own.to_string())
}

/// The account `name`; asked of `getent` too, for users that are not in /etc/passwd.
pub fn account(name: &str, tools: &Tools) -> Result<Account, IdentityError> {
    if let Ok(Some(user)) = User::from_name(name) {
        return Ok(Account { name: user.name, uid: user.uid, gid: user.gid, home: user.dir });
    }
    let unknown = || IdentityError::UnknownUser(name.to_owned());
    let answer: Result<Vec<u8>, ToolError> = tools.program("getent").args(["passwd", "--", name]).capture();
    let line = String::from_utf8(answer.map_err(|_| unknown())?).map_err(|_| unknown())?;
    parse_passwd(line.trim_end()).filter(|account| account.name == name).ok_or_else(unknown)
}

/// The account with this number, if it has a name.
pub fn account_of(uid: u32, tools: &Tools) -> Option<Account> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Some(Account { name: user.name, uid: user.uid, gid: user.gid, home: user.dir }),
        _ => {
            let line = tools.program("getent").args(["passwd", "--", &uid.to_string()]).capture().ok()?;
            parse_passwd(String::from_utf8(line).ok()?.trim_end())
        }
    }
}

fn parse_passwd(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account { name, uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), home: PathBuf::from(fields.nth(1)?) })
}

/// Makes this process that user's, groups included, for everything it does and starts. Only [`as_root`] goes back.
pub fn assume(account: &Account) -> Result<(), IdentityError> {
    let refused = |cause| IdentityError::Refused { user: account.name.clone(), cause };
    let name = CString::new(account.name.as_str()).map_err(|_| IdentityError::UnknownUser(account.name.clone()))?;
    let groups = getgrouplist(&name, account.gid).unwrap_or_else(|_| vec![account.gid]);
    setgroups(&groups).map_err(refused)?;
    setresgid(account.gid, account.gid, account.gid).map_err(refused)?;
    // The saved id stays root for `as_root`; what we start loses it, since exec copies the effective id over it.
    setresuid(account.uid, account.uid, Uid::from_raw(0)).map_err(refused)
}

/// Does `act` as root, if this was a root run; as ourselves otherwise. Nothing in a tree may be touched in it.
pub fn as_root<T>(act: impl FnOnce() -> T) -> T {
    let own = Uid::effective();
    let elevated = !own.is_root() && seteuid(Uid::from_raw(0)).is_ok();
    let outcome = act();
    if elevated && seteuid(own).is_err() {
        // Going on as root would break the promise that a tree is never touched as root.
        std::process::abort();
    }
    outcome
}

/// Does `act` as the tree's user within [`as_root`]: an operator's command must not run as root there.
pub fn as_user<T>(act: impl FnOnce() -> T) -> T {
    let own = Uid::current();
    let lowered = Uid::effective().is_root() && !own.is_root();
    if lowered && seteuid(own).is_err() {
        std::process::abort();
    }
    let outcome = act();
    if lowered {
        // Without it what follows is refused by the system, and told.
        let _ = seteuid(Uid::from_raw(0));
    }
    outcome
}

/// Opens the directory `path`, absolute and without links, component by component, as seen from a root run that works as
/// `uid`: no directory on the way may let an untrusted user swap one that a trusted user owns.
pub fn open_trusted(path: &Path, uid: Uid) -> Result<Dir, IdentityError> {
    let trusted = |owner: u32| owner == 0 || owner == uid.as_raw();
    let mut at = Dir::open(Path::new("/"))?;
    let mut danger: Option<(PathBuf, String, String)> = None;
    for name in path.iter().skip(1) {
        let next = at.open_dir(name)?;
        let stat = next.own_stat()?;
        if let (Some((path, why, mend)), true) = (&danger, trusted(stat.st_uid)) {
            let (path, why, mend, who) = (path.clone(), why.clone(), mend.clone(), uid.to_string());
            return Err(IdentityError::Untrusted { path, who: format!("uid {who}"), why, mend });
        }
        let shown = next.path().display();
        let open_to_all = stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0 && uid.is_root();
        if !trusted(stat.st_uid) {
            let why = format!("it belongs to uid {}", stat.st_uid);
            danger = Some((next.path().to_owned(), why, format!("chown root {shown}")));
        } else if open_to_all {
            let why = "its group or others may write to it".to_owned();
            danger = Some((next.path().to_owned(), why, format!("chmod go-w {shown}")));
        }
        at = next;
    }
    Ok(at)
}

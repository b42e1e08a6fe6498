//! Directories opened once, and everything done relative to them: no path is resolved twice, no last component that is a
//! link is followed, and every error names the path it is about. What makes a change survive a crash is in durable.rs.

mod error;
mod names;

pub use error::{NotAFile, PathError};
pub use names::{Named, Names};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat};
use nix::sys::stat::utimensat;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, linkat, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Shorthand of this floor.
pub type Result<T, E = PathError> = std::result::Result<T, E>;

/// A file's identity, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// What room there is.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Free bytes.
    pub bytes: u64,
    /// Free inodes; `None` where the file system makes them as it needs them.
    pub inodes: Option<u64>,
}

/// The type bits of a file's mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// An open directory. Everything is done relative to its descriptor; the path is for messages.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(SAFE);
const SAFE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

impl Dir {
    /// Opens a directory by its path; its last component must not be a link.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(|e| PathError::new("open", path, e))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let fd = openat(self, name.as_ref(), DIRECTORY, Mode::empty()).map_err(self.fail("open", &name))?;
        Ok(Self { fd, path: self.path.join(name.as_ref()) })
    }

    /// Opens a directory below this one; no component is followed if it is a link. Where the kernel cannot do that in one
    /// call (before 5.6), or has an answer that does not name the component, it is done for one after the other.
    pub fn open_below(&self, relative: &Path) -> Result<Self> {
        let plain = |part| matches!(part, Component::Normal(_));
        if relative.components().all(plain) && relative.components().nth(1).is_some() {
            let how = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
            if let Ok(fd) = openat2(self, relative, how) {
                return Ok(Self { fd, path: self.path.join(relative) });
            }
        }
        let mut at = self.duplicate()?;
        for part in relative.components() {
            match part {
                Component::Normal(name) => at = at.open_dir(name)?,
                Component::CurDir => {}
                _ => return Err(PathError::new("open", self.path.join(relative), Errno::EINVAL)),
            }
        }
        Ok(at)
    }

    /// Opens the directory `name` unless something is mounted on it (EXDEV), a bind mount of the same device included.
    /// Kernels without openat2 (before 5.6) compare the mount ids the kernel shows for the two descriptors.
    pub fn open_dir_here(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let how =
            OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(self, name.as_ref(), how) {
            Ok(fd) => Ok(Self { fd, path: self.path.join(name.as_ref()) }),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let dir = self.open_dir(&name)?;
                let same = mount_id(self)? == mount_id(&dir)?;
                if same { Ok(dir) } else { Err(self.fail("open", &name)(Errno::EXDEV)) }
            }
            Err(errno) => Err(self.fail("open", &name)(errno)),
        }
    }

    /// Opens this directory's parent, which must be the directory `expected`; an error if it has been moved.
    pub fn open_parent(&self, expected: Identity, path: PathBuf) -> Result<Self> {
        let fd = openat(self, "..", DIRECTORY, Mode::empty()).map_err(|e| PathError::new("open", &path, e))?;
        let parent = Self { fd, path };
        if parent.identity()? == expected {
            return Ok(parent);
        }
        Err(PathError::new("return to", parent.path, io::Error::other("a directory in it was moved meanwhile")))
    }

    /// Gives the owner full access to the directory `name`, reached by a descriptor that cannot be led elsewhere.
    pub fn unlock_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(self, name.as_ref(), flags, Mode::empty()).map_err(self.fail("open", &name))?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        fchmodat(nix::fcntl::AT_FDCWD, link.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
            .map_err(self.fail("change the mode of", &name))
    }

    /// A second descriptor of the same directory.
    pub fn duplicate(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|e| PathError::new("open", &self.path, e))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// The path it was opened by, for messages and for programs that need one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own status.
    pub fn own_stat(&self) -> Result<FileStat> {
        fstat(self).map_err(|e| PathError::new("look at", &self.path, e))
    }

    /// Its own device and inode.
    pub fn identity(&self) -> Result<Identity> {
        self.own_stat().map(|stat| Identity::from(&stat))
    }

    /// Status of `name`, a link's own; `None` if there is no such file.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<FileStat>> {
        absent(fstatat(self, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW)).map_err(self.fail("look at", &name))
    }

    /// Fails if `name` (`.` for the directory itself) is there and may not be written to: by its mode or attributes, or by
    /// its file system.
    pub fn ensure_writable(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let path = || self.path.join(name.as_ref()).components().collect::<PathBuf>();
        let may = faccessat(self, name.as_ref(), AccessFlags::W_OK, AtFlags::AT_EACCESS);
        absent(may).map(drop).map_err(|errno| PathError::new("write to", path(), errno))
    }

    /// The identity of what `name` leads to, links followed; `None` if it leads nowhere.
    pub fn resolve(&self, name: impl AsRef<OsStr>) -> Result<Option<Identity>> {
        match absent(fstatat(self, name.as_ref(), AtFlags::empty())) {
            Ok(stat) => Ok(stat.as_ref().map(Identity::from)),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(self.fail("follow", &name)(errno)),
        }
    }

    /// Where the link `name` points; `None` if there is no such file.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> Result<Option<OsString>> {
        absent(readlinkat(self, name.as_ref())).map_err(self.fail("read the link", &name))
    }

    /// The whole of the regular file `name`, at most `limit` bytes; `None` if there is no such file.
    pub fn read_file(&self, name: impl AsRef<OsStr>, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, stat)) = self.open_seen(&name)? else { return Ok(None) };
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        read_all(&file, size, limit).map(Some).map_err(self.fail_io("read", &name))
    }

    /// Opens the regular file `name` for reading; `None` if there is no such file. A FIFO or device is an error.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> Result<Option<File>> {
        Ok(self.open_seen(name)?.map(|(file, _)| file))
    }

    /// The same with its status.
    pub fn open_seen(&self, name: impl AsRef<OsStr>) -> Result<Option<(File, FileStat)>> {
        self.open_regular(name.as_ref(), OFlag::O_RDONLY, Mode::empty())
    }

    /// Opens the regular file `name` for reading and writing, made with `mode` if there is none.
    pub fn open_or_create(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = self.open_regular(name.as_ref(), flags, Mode::from_bits_truncate(mode))?;
        let file = file.map(|(file, _)| file);
        file.ok_or_else(|| PathError::new("open", self.path.join(name.as_ref()), Errno::ENOENT))
    }

    fn open_regular(&self, name: &OsStr, flags: OFlag, mode: Mode) -> Result<Option<(File, FileStat)>> {
        let no_file = || PathError::new("open", self.path.join(name), io::Error::other(NotAFile));
        let fd = match absent(openat(self, name, flags | SAFE, mode)) {
            Err(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => return Err(no_file()),
            opened => opened.map_err(self.fail("open", name))?,
        };
        let Some(fd) = fd else { return Ok(None) };
        let stat = fstat(&fd).map_err(self.fail("look at", name))?;
        if kind(&stat) != SFlag::S_IFREG {
            return Err(no_file());
        }
        Ok(Some((File::from(fd), stat)))
    }

    /// Makes the file `name`, which must not exist, open for writing.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | SAFE;
        let fd = openat(self, name.as_ref(), flags, Mode::from_bits_truncate(mode));
        fd.map(File::from).map_err(self.fail("create", &name))
    }

    /// Makes the directory `name`, which must not exist, and opens it. Durable after [`Dir::sync`] of this one.
    pub fn make_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self> {
        self.add_dir(&name, mode)?;
        self.open_dir(name)
    }

    /// The same without opening it.
    pub fn add_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
        mkdirat(self, name.as_ref(), Mode::from_bits_truncate(mode)).map_err(self.fail("create", &name))
    }

    /// Opens the directory `name`, made if it is not there.
    pub fn ensure_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self> {
        match self.make_dir(&name, mode) {
            Err(e) if e.cause.kind() == io::ErrorKind::AlreadyExists => self.open_dir(name),
            made => made,
        }
    }

    /// Opens a directory below this one, made where it is missing; no component is followed if it is a link.
    pub fn ensure_below(&self, relative: &Path, mode: u32) -> Result<Self> {
        relative.components().try_fold(self.duplicate()?, |at, part| match part {
            Component::Normal(name) => at.ensure_dir(name, mode),
            Component::CurDir => Ok(at),
            _ => Err(PathError::new("open", self.path.join(relative), Errno::EINVAL)),
        })
    }

    /// Makes the link `name`, which must not exist.
    pub fn symlink(&self, name: impl AsRef<OsStr>, target: &OsStr) -> Result<()> {
        symlinkat(target, self, name.as_ref()).map_err(self.fail("link", &name))
    }

    /// Gives the file `name` the same name in another directory, where it must be free. A link is linked itself.
    pub fn hard_link(&self, name: impl AsRef<OsStr>, into: &Self) -> Result<()> {
        linkat(self, name.as_ref(), into, name.as_ref(), AtFlags::empty()).map_err(into.fail("link", &name))
    }

    /// Gives the file `name` a second name in the directory `into`; `true` if it was free, `false` if it was taken.
    pub fn hard_link_into(&self, name: impl AsRef<OsStr>, into: &Self, new: impl AsRef<OsStr>) -> Result<bool> {
        match linkat(self, name.as_ref(), into, new.as_ref(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.fail("link", &name)(errno)),
        }
    }

    /// Removes the file or link `name`; `false` if there was none.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        let gone = absent(unlinkat(self, name.as_ref(), UnlinkatFlags::NoRemoveDir));
        gone.map(|done| done.is_some()).map_err(self.fail("remove", &name))
    }

    /// Removes the empty directory `name`; `false` if there was none.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<bool> {
        let gone = absent(unlinkat(self, name.as_ref(), UnlinkatFlags::RemoveDir));
        gone.map(|done| done.is_some()).map_err(self.fail("remove", &name))
    }

    /// Renames within this directory, replacing what had the new name. Durable after [`Dir::sync`].
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Result<()> {
        renameat(self, from.as_ref(), self, to.as_ref()).map_err(self.fail("rename", &from))
    }

    /// Renames into another directory, where the new name must be free. Durable after both are synced.
    pub fn move_to(&self, name: impl AsRef<OsStr>, into: &Self, new: impl AsRef<OsStr>) -> Result<()> {
        rename_noreplace(self, name.as_ref(), into, new.as_ref()).map_err(self.fail("rename", &name))
    }

    /// Sets this directory's own permission bits. If it hands its group on to what is made in it, it goes on doing so.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let mode = mode | self.own_stat()?.st_mode & Mode::S_ISGID.bits();
        fchmod(self, Mode::from_bits_truncate(mode)).map_err(|e| PathError::new("change the mode of", &self.path, e))
    }

    /// Sets the permission bits of `file`, which was opened as `name` of this directory.
    pub fn set_file_mode(&self, file: &File, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
        fchmod(file, Mode::from_bits_truncate(mode)).map_err(self.fail("change the mode of", &name))
    }

    /// Sets the modification time of `name`, a link's own.
    pub fn set_mtime(&self, name: impl AsRef<OsStr>, seconds: i64, nanoseconds: i64) -> Result<()> {
        let time = nix::sys::time::TimeSpec::new(seconds, nanoseconds);
        utimensat(self, name.as_ref(), &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(self.fail("set the time of", &name))
    }

    /// Room for us on its file system.
    pub fn space(&self) -> Result<Space> {
        let found = fstatvfs(self).map_err(|e| PathError::new("measure", &self.path, e))?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        Ok(Space { bytes, inodes: (found.files() > 0).then(|| found.files_available()) })
    }

    /// Makes the error of doing `action` to `name`, from an errno.
    pub(crate) fn fail(&self, action: &'static str, name: impl AsRef<OsStr>) -> impl Fn(Errno) -> PathError {
        move |errno| PathError::new(action, self.path.join(name.as_ref()), errno)
    }

    /// The same from an I/O error.
    pub(crate) fn fail_io(&self, action: &'static str, name: impl AsRef<OsStr>) -> impl Fn(io::Error) -> PathError {
        move |cause| PathError::new(action, self.path.join(name.as_ref()), cause)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All of a file of about `size` bytes; EFBIG if it has more than `limit`.
fn read_all(file: &File, size: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit) + 1).unwrap_or_default());
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Errno::EFBIG.into()) } else { Ok(bytes) }
}

fn absent<T>(answer: nix::Result<T>) -> nix::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The id of the mount `dir` lies on, as `/proc/self/fdinfo` gives it.
fn mount_id(dir: &Dir) -> Result<Option<String>> {
    let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&dir.fd));
    let text = std::fs::read_to_string(&path).map_err(|e| PathError::new("read", path, e))?;
    Ok(text.lines().find(|line| line.starts_with("mnt_id:")).map(str::to_owned))
}

/// renameat2 with RENAME_NOREPLACE. Called by number: musl has no name for it.
#[expect(unsafe_code, reason = "the C library has no wrapper everywhere; all pointers outlive the call")]
fn rename_noreplace(from: &Dir, name: &OsStr, into: &Dir, new: &OsStr) -> nix::Result<()> {
    use nix::libc::{RENAME_NOREPLACE, SYS_renameat2, syscall};
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let text = |s: &OsStr| std::ffi::CString::new(s.as_bytes()).map_err(|_| Errno::EINVAL);
    let (name, new) = (text(name)?, text(new)?);
    let (from, into) = (from.fd.as_raw_fd(), into.fd.as_raw_fd());
    let answer = unsafe { syscall(SYS_renameat2, from, name.as_ptr(), into, new.as_ptr(), RENAME_NOREPLACE) };
    Errno::result(answer).map(drop)
}

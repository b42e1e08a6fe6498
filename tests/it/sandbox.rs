//! A tree of its own for each test, below a temporary directory that goes with it, and the program run on it.

use crate::patience::eventually;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_releasectl");

/// A tree, and a place beside it for sources.
pub struct Sandbox {
    place: TempDir,
}

/// What a run of the program answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Sandbox {
    /// Nothing is there yet.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Nothing is there yet; it lies in memory if it can, for tests of thousands of flips and not of what a disk keeps.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    fn below(directory: &Path) -> Self {
        let place = tempfile::Builder::new().prefix("releasectl-").tempdir_in(directory).unwrap();
        fs::create_dir(place.path().join("home")).unwrap();
        // Whatever is killed leaves its temporary files here. Programs of another user make some too.
        let temporary = place.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)).unwrap();
        Self { place }
    }

    /// A tree that is laid out.
    pub fn laid_out() -> Self {
        let sandbox = Self::new();
        sandbox.done(&["init"]);
        sandbox
    }

    /// A tree with these releases, ready in this order; none is live.
    pub fn with_releases(ids: &[&str]) -> Self {
        let sandbox = Self::laid_out();
        ids.iter().for_each(|id| sandbox.create(id));
        sandbox
    }

    /// A tree with these releases, activated in turn.
    pub fn with_live(ids: &[&str]) -> Self {
        let sandbox = Self::with_releases(ids);
        ids.iter().for_each(|id| drop(sandbox.done(&["activate", id])));
        sandbox
    }

    /// A path beside the tree.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.place.path().canonicalize().unwrap().join(name)
    }

    /// The tree's root.
    pub fn root(&self) -> PathBuf {
        self.beside("tree")
    }

    /// A path in the tree.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A release's directory.
    pub fn release(&self, id: &str) -> PathBuf {
        self.at("releases").join(id)
    }

    /// A small directory to build releases from, which says whose it is.
    pub fn source(&self, word: &str) -> PathBuf {
        let source = self.beside(&format!("source-{word}"));
        fs::create_dir_all(source.join("app")).unwrap();
        fs::write(source.join("version"), word).unwrap();
        fs::write(source.join("app/main.py"), format!("print({word:?})\n")).unwrap();
        source
    }

    /// Builds the release `id`.
    pub fn create(&self, id: &str) {
        let source = self.source(id);
        self.done(&["create", source.to_str().unwrap(), "--id", id]);
    }

    /// The program with these arguments, on this tree and in a clean environment, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = self.clean(PROGRAM);
        command.arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// The program under strace, which does to one of its system calls what `fault` says, for example
    /// `renameat:signal=SIGKILL:when=1` (killed before the call is made) or `renameat:error=EIO`.
    pub fn faulty<A: AsRef<OsStr>>(&self, fault: &str, arguments: &[A]) -> Command {
        let mut command = self.clean("strace");
        let call = fault.split(':').next().unwrap();
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={fault}"),
        ]);
        command.arg(PROGRAM).arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// Runs the program until strace kills it with `fault`.
    #[track_caller]
    pub fn killed<A: AsRef<OsStr>>(&self, fault: &str, arguments: &[A]) {
        let output = self.faulty(fault, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{fault}: {said}");
    }

    /// Any program in a clean environment, in the sandbox's directory.
    pub fn clean(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.beside("home")).env("LANG", "C.UTF-8").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("TMPDIR", self.beside("tmp"));
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A. Tester").env(format!("GIT_{who}_EMAIL"), "tester@example.org");
        }
        command.current_dir(self.place.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program and returns its answer, whatever it is.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Answer {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs it; it must end with `code`.
    #[track_caller]
    pub fn ends<A: AsRef<OsStr>>(&self, code: i32, arguments: &[A]) -> Answer {
        let answer = self.run(arguments);
        let words: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        assert_eq!(answer.code, code, "{}\n{}{}", words.join(" "), answer.stdout, answer.stderr);
        answer
    }

    /// Runs it; it must succeed. Returns its standard output.
    #[track_caller]
    pub fn done<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        self.ends(0, arguments).stdout
    }

    /// Runs it; it must refuse (3) with an error and a hint. Returns its standard error.
    #[track_caller]
    pub fn refused<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let stderr = self.ends(3, arguments).stderr;
        assert!(stderr.contains("error: ") && stderr.contains("hint: "), "{stderr}");
        stderr
    }

    /// Runs it with `--json`; whatever its end, there is exactly one document.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Value {
        let mut words = vec![OsStr::new("--json")];
        words.extend(arguments.iter().map(AsRef::as_ref));
        let answer = self.run(&words);
        serde_json::from_str(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", answer.stdout, answer.stderr))
    }

    /// Makes everything below `path` nobody's, if this runs as root: what an ordinary user meets is then met here too.
    pub fn give_to_nobody(&self, path: &Path) {
        if is_root() {
            let owned = self.clean("chown").args(["-R", "-h", "nobody:"]).arg(path).status().unwrap();
            assert!(owned.success());
            // The way there must be open for him.
            fs::set_permissions(self.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// The release that `current` leads to.
    pub fn live(&self) -> Option<String> {
        let target = fs::canonicalize(self.at("current")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The releases of `list` and their states.
    pub fn states(&self) -> BTreeMap<String, String> {
        let listing = self.json(&["list"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let releases = listing["releases"].as_array().unwrap().iter();
        releases.map(|release| (text(&release["id"]), text(&release["state"]))).collect()
    }

    /// Waits until the build of `id` is under way and no longer holds the tree lock, under which it got its name.
    pub fn until_building(&self, id: &str) {
        eventually("the build", || self.states().get(id).is_some_and(|state| state == "building"));
        let lock = fs::File::open(self.at(".releasectl/lock")).unwrap();
        eventually("the tree lock", || lock.try_lock().is_ok());
        // Not by closing it: a process that another test is just starting would keep it for a moment.
        lock.unlock().unwrap();
    }

    /// The operations of `history`, oldest first: operation, from, to and outcome.
    pub fn history(&self) -> Vec<String> {
        let document = self.json(&["history", "-n", "100000"]);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let line = |entry: &Value| ["operation", "from", "to", "outcome"].map(|name| text(&entry[name])).join(" ");
        document["entries"].as_array().unwrap().iter().map(line).collect()
    }

    /// Everything in the tree: path → kind, mode, and content or target. Locks' notes are left out.
    pub fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = picture(&self.root());
        picture.remove(Path::new(".releasectl/lock"));
        picture
    }

    /// Runs git in `directory`; it must succeed. Returns its output.
    #[track_caller]
    pub fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = self.clean("git").current_dir(directory).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A repository with one commit of a few files.
    pub fn repository(&self, name: &str) -> PathBuf {
        let repository = self.beside(name);
        fs::create_dir_all(&repository).unwrap();
        self.git(&repository, &["init", "--quiet", "--initial-branch=master"]);
        fs::write(repository.join("version"), "1\n").unwrap();
        self.commit(&repository, "one");
        repository
    }

    /// Commits everything in a repository. Returns the commit.
    pub fn commit(&self, repository: &Path, message: &str) -> String {
        self.git(repository, &["add", "--all"]);
        self.git(repository, &["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(repository, &["rev-parse", "HEAD"])
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // What a test made unreadable could not be deleted by an ordinary user.
        let walk = walkdir::WalkDir::new(self.place.path()).into_iter();
        for entry in walk.flatten().filter(|entry| entry.file_type().is_dir()) {
            let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
        }
        if std::thread::panicking() {
            // The library's way of deleting gives up on what a failed test may leave: thousands of levels.
            let _ = Command::new("rm").arg("-rf").arg(self.place.path()).status();
        }
    }
}

/// A process that lives no longer than its test.
pub struct Started(pub Child);

impl Started {
    /// Starts `command` with its output kept.
    pub fn new(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it as `kill -9` does and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }

    /// Waits for its end.
    pub fn answer(mut self) -> Answer {
        drop(self.0.stdin.take());
        let mut text = [String::new(), String::new()];
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut text[0]).unwrap();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut text[1]).unwrap();
        let code = self.0.wait().unwrap().code().unwrap_or(-1);
        let [stdout, stderr] = text;
        Answer { code, stdout, stderr }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything below `directory`: path → kind, mode, and content or target.
pub fn picture(directory: &Path) -> BTreeMap<PathBuf, String> {
    let entries = walkdir::WalkDir::new(directory).min_depth(1).into_iter().flatten();
    let describe = |entry: walkdir::DirEntry| {
        let metadata = entry.metadata().unwrap();
        let mode = metadata.mode();
        let content = if metadata.is_symlink() {
            fs::read_link(entry.path()).unwrap().display().to_string()
        } else if metadata.is_file() {
            content(&fs::read(entry.path()).unwrap_or_default())
        } else {
            String::new()
        };
        (entry.path().strip_prefix(directory).unwrap().to_owned(), format!("{mode:o} {content}"))
    };
    entries.map(describe).collect()
}

/// A file's content; of a large one or one that is no text its length and sum, which is enough to see a difference.
fn content(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() < 10_000 => text.to_owned(),
        _ => format!("{} bytes, {:08x}", bytes.len(), crc32fast::hash(bytes)),
    }
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

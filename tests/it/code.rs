//! Code with a recipe, a host's file, and runs that are followed and killed.

use crate::patience::eventually;
use crate::sandbox::{Answer, Sandbox};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Nobody's number, on any Linux: who is meant where an ordinary user is.
pub const NOBODY: u32 = 65534;

/// The beginning of every step of a recipe here: `$place` is the sandbox, `tell` writes a line that outlives the release,
/// `gate` stops for ever where the test said so. All of it is built in, so that a killed shell leaves nothing behind.
pub const SHELL: &str = r#"
place=$RELEASECTL_ROOT/..
tell() { echo "$*" >>"$place/told"; }
gate() {
    read -r stop <"$place/stop" || return 0
    [ "$stop" = "$*" ] || return 0
    : >"$place/reached"
    read -r _ <"$place/fifo"
}
"#;

impl Sandbox {
    /// A directory of code with this recipe and these files; its path.
    pub fn code(&self, name: &str, recipe: &str, files: &[(&str, &str)]) -> String {
        let source = self.beside(name);
        for (path, text) in files.iter().chain([("releasectl.toml", recipe)].iter()) {
            let file = source.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::write(self.beside("shell"), SHELL).unwrap();
        source.to_str().unwrap().to_owned()
    }

    /// Writes the host's file; its path is for `--config`.
    pub fn host(&self, text: &str) -> String {
        let file = self.beside("host.toml");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// The lines that steps told.
    pub fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.beside("told")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// The next run stops for ever at this gate.
    pub fn stop_at(&self, gate: &str) {
        let _ = fs::remove_file(self.beside("reached"));
        let fifo = self.beside("fifo");
        if !fifo.exists() {
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        }
        fs::write(self.beside("stop"), format!("{gate}\n")).unwrap();
    }

    /// Runs the program until it stands at this gate.
    #[track_caller]
    pub fn run_to(&self, gate: &str, arguments: &[&str]) -> Run {
        self.stop_at(gate);
        let run = Run::start(&mut self.command(arguments));
        eventually(gate, || self.beside("reached").exists());
        fs::remove_file(self.beside("stop")).unwrap();
        run
    }

    /// Lets what stands at the gate go on.
    pub fn open_gate(&self) {
        fs::write(self.beside("fifo"), "\n").unwrap();
    }

    /// The sandbox and everything in it becomes nobody's.
    pub fn give_all_to_nobody(&self) {
        let place = self.beside("");
        for entry in walkdir::WalkDir::new(place) {
            let path = entry.unwrap().into_path();
            std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// The program, run by nobody.
    pub fn command_by_nobody(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    /// The tail of the newest release's log.
    pub fn log(&self) -> String {
        self.done(&["log"])
    }
}

/// The program under way. It dies with the test.
pub struct Run(Option<Child>);

impl Run {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self(Some(child))
    }

    pub fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Kills it as nothing can prevent.
    pub fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn answer(mut self) -> Answer {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A recipe's step.
pub fn step(name: &str, phase: &str, run: &str) -> String {
    format!("[[step]]\nname = {name:?}\nphase = {phase:?}\nrun = '''\n. \"$RELEASECTL_ROOT/../shell\"\n{run}'''\n")
}

/// What is in a file, trimmed.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

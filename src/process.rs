//! What /proc shows of processes. A process may have ended by then, and its number be another's.

use std::io;
use std::path::PathBuf;

/// The numbers of all that are shown.
pub fn all() -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Where it is shown.
pub fn place(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Its command line, each word ended by a NUL; empty where it is not shown.
pub fn command(pid: u32) -> Vec<u8> {
    std::fs::read(place(pid).join("cmdline")).unwrap_or_default()
}

/// A command line in one line.
pub fn in_a_line(command: &[u8]) -> String {
    String::from_utf8_lossy(command).replace('\0', " ").trim_end().to_owned()
}

/// Its field of this number in `stat`, counted from its state, which is 0, and the parent, 1.
pub fn field(pid: u32, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(place(pid).join("stat")).ok()?;
    // What it calls itself comes before, in parentheses, and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number).map(str::to_owned)
}

/// The process that started it, or that took it over.
pub fn parent(pid: u32) -> Option<u32> {
    field(pid, 1)?.parse().ok()
}

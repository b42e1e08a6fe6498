//! What the README shows of a session is what the program says.

use crate::world::{done, project};
use std::fs;
use std::process::Command;

/// Sizes are the file system's affair: they are left out, and so is the space before them.
fn without_sizes(text: &str) -> String {
    let words =
        |line: &str| line.split_whitespace().filter(|word| word.parse::<f64>().is_err()).collect::<Vec<_>>().join(" ");
    text.lines().map(|line| words(line) + "\n").collect()
}

#[test]
fn the_recorded_session_is_what_the_program_says_and_what_the_readme_shows() {
    let recorded = fs::read_to_string(project("packaging/recording.txt")).unwrap();
    let said = done(Command::new(project("packaging/record")).arg(env!("CARGO_BIN_EXE_releasectl")));
    assert_eq!(without_sizes(&said), without_sizes(&recorded), "packaging/record >packaging/recording.txt");
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let shown: String = recorded.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect();
    assert!(readme.contains(&shown), "the README shows another session than packaging/recording.txt");
}

//! Where the program wants something synced, by reading its source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What marks a function that syncs for whoever calls it.
const MARK: &str = "#[cfg_attr(debug_assertions, track_caller)]";

/// Every line that calls such a function and is in none itself, by its place: `src/tree/build.rs:100`.
pub fn all() -> BTreeMap<String, String> {
    let files = files();
    let calls: BTreeSet<String> = files.values().flat_map(|text| marked(text)).map(|(call, _)| call).collect();
    let mut places = BTreeMap::new();
    for (file, text) in &files {
        let own: Vec<_> = marked(text).into_iter().map(|(_, lines)| lines).collect();
        for (at, line) in text.lines().enumerate().filter(|(at, _)| !own.iter().any(|lines| lines.contains(at))) {
            let code = line.split("//").next().unwrap();
            if calls.iter().any(|call| is_called(code, call)) {
                places.insert(format!("{file}:{}", at + 1), code.to_owned());
            }
        }
    }
    places
}

/// Whether `code` calls `.method(` or `function(`.
fn is_called(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let is_method = before.is_alphanumeric() || ['_', '.'].contains(&before);
        call.starts_with('.') || !is_method && !code[..at].ends_with("fn ")
    })
}

/// The functions that are marked: how each is called, and its lines.
fn marked(text: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let lines: Vec<&str> = text.lines().collect();
    let marks = lines.iter().enumerate().filter(|(_, line)| line.trim() == MARK);
    marks
        .map(|(at, mark)| {
            let indent = &mark[..mark.find('#').unwrap()];
            let end = lines[at..].iter().position(|line| *line == format!("{indent}}}")).unwrap();
            let (_, signature) = lines[at + 1].split_once("fn ").unwrap();
            let name = signature.split(['(', '<']).next().unwrap();
            let call = if signature.contains("(&self") { format!(".{name}(") } else { format!("{name}(") };
            (call, at..at + end)
        })
        .collect()
}

/// The program's files and their text, without unit tests.
fn files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let walk = walkdir::WalkDir::new(root.join("src")).into_iter().map(Result::unwrap);
    let code = walk.filter(|entry| entry.file_type().is_file() && entry.file_name() != "tests.rs");
    code.map(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (entry.path().strip_prefix(root).unwrap().display().to_string(), text)
    })
    .collect()
}

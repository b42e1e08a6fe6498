//! Edits of supervisord's files as pure functions, text in and text out. Every byte that is not edited stays: comments,
//! white space, line ends.
//!
//! Wiring adds one continuation line to the value of `[include] files`, ended by a comment that names the environment:
//!
//! ```text
//! [include]
//! files = /etc/supervisor/conf.d/*.conf ; the host's own
//!     /home/cchq/www/production/current/services/supervisor/*.conf ; releasectl production
//! ```
//!
//! supervisord strips inline comments from continuation lines too (tried with 4.2.5 and 4.3.0), so the tag is no part of
//! the value. A second `[include]` would silently replace the first, so one is made, at the end and marked as ours, only
//! where there is none. A last line without an end keeps having none: it moves to the line that is added.

use super::ini::{Entry, Ini, IniError, Section, comment, expand, is_space, lines};
use crate::layout::CURRENT;
use std::path::Path;

/// How an `[include]` relates to an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wired {
    /// By the line that wiring adds.
    Yes,
    /// The same files are included by a line somebody wrote.
    ByHand,
    /// There is a tagged line, but it names other files.
    Elsewhere,
    /// Not at all.
    No,
}

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It cannot be read.
    #[error(transparent)]
    Broken(#[from] IniError),
    /// It can be read, but not edited safely.
    #[error("{0}")]
    Unsafe(String),
}

/// The include pattern for the release that is live in the tree `root`, written so that supervisord reads exactly this path:
/// it splits at white space, expands `%` and then globs.
pub fn pattern(root: &Path) -> Result<String, EditError> {
    let wrong = |why| EditError::Unsafe(format!("{}: {why}", root.display()));
    let text = root.to_str().ok_or_else(|| wrong("a path that is not UTF-8 cannot be written into an [include]"))?;
    if !root.is_absolute() || text.chars().any(|c| c.is_control()) {
        return Err(wrong("only an absolute path without control characters can be written into an [include]"));
    }
    let mut pattern = String::new();
    for c in text.trim_end_matches('/').chars() {
        match c {
            '%' => pattern.push_str("%%"),
            '[' | '*' | '?' => pattern.extend(['[', c, ']']),
            c if is_space(c) => pattern.push('?'),
            c => pattern.push(c),
        }
    }
    // supervisord replaces the text %(here)s before it looks at %%.
    let pattern = pattern.replace("%%(", "[%%](");
    Ok(format!("{pattern}/{CURRENT}/{}/*.conf", super::DIRECTORY))
}

/// How `text` relates to the environment `owner`, whose files are `pattern`.
pub fn status(text: &str, pattern: &str, owner: &str) -> Result<Wired, EditError> {
    let ini = Ini::parse(text)?;
    let Some(files) = include(&ini)? else { return Ok(Wired::No) };
    let tagged = tagged_line(files, text, owner);
    let named = |token: &str| token == pattern || plain(token) == plain(pattern);
    let listed = words(&files.value).any(named);
    Ok(match (tagged, listed) {
        (Some((_, value)), _) if named(&value) => Wired::Yes,
        (Some(_), _) => Wired::Elsewhere,
        (None, true) => Wired::ByHand,
        (None, false) => Wired::No,
    })
}

/// `text` with the files `pattern` of `owner` included. A fixed point: what is wired already comes back unchanged.
pub fn wire(text: &str, pattern: &str, owner: &str) -> Result<String, EditError> {
    if owner.is_empty() || owner.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(EditError::Unsafe(format!("{owner:?} cannot be the name of an environment")));
    }
    match status(text, pattern, owner)? {
        Wired::Yes | Wired::ByHand => return Ok(text.to_owned()),
        Wired::Elsewhere => return wire(&unwire(text, owner)?, pattern, owner),
        Wired::No => {}
    }
    let ini = Ini::parse(text)?;
    let mut all: Vec<String> = lines(text).map(str::to_owned).collect();
    let before: Vec<&str> = include(&ini)?.map(|files| words(&files.value).collect()).unwrap_or_default();
    match include(&ini)? {
        Some(files) => {
            let last = files.lines.last().copied().unwrap_or_default();
            let indent = match files.lines.len() {
                1 => format!("{}    ", white(&all[last])),
                _ => white(&all[last]).to_owned(),
            };
            insert(&mut all, last + 1, &format!("{indent}{pattern} ; {}", tag(owner)));
        }
        None => {
            for line in
                [format!("[include] ; {OURS}"), format!("files = ; {OURS}"), format!("    {pattern} ; {}", tag(owner))]
            {
                let end = all.len();
                insert(&mut all, end, &line);
            }
        }
    }
    let wired = all.concat();
    let after = Ini::parse(&wired)?;
    let listed: Vec<&str> = include(&after)?.map(|files| words(&files.value).collect()).unwrap_or_default();
    if listed == [before, vec![pattern]].concat() {
        return Ok(wired);
    }
    Err(EditError::Unsafe("its [include] cannot be extended by a line; add the files by hand".to_owned()))
}

/// `text` without what [`wire`] added for `owner`: byte for byte what it was.
pub fn unwire(text: &str, owner: &str) -> Result<String, EditError> {
    let ini = Ini::parse(text)?;
    let Some(files) = include(&ini)? else { return Ok(text.to_owned()) };
    let Some((line, _)) = tagged_line(files, text, owner) else { return Ok(text.to_owned()) };
    let mut all: Vec<String> = lines(text).map(str::to_owned).collect();
    remove(&mut all, line);
    let first = files.lines.first().copied().unwrap_or_default();
    let ours = |line: &String| comment(line) == Some(OURS);
    let section = ini.named("include").next().map(|section| (section.line, section.entries.len()));
    if let Some((header, 1)) = section
        && files.lines.len() == 2
        && first == header + 1
        && all.get(header).is_some_and(ours)
        && all.get(first).is_some_and(ours)
    {
        remove(&mut all, first);
        remove(&mut all, header);
    }
    Ok(all.concat())
}

/// `text` with `user = name` in each of its programs, and nobody else's name in any.
pub fn set_user(text: &str, name: &str) -> Result<String, IniError> {
    let ini = Ini::parse(text)?;
    let mut all: Vec<String> = lines(text).map(str::to_owned).collect();
    let kinds = ["program:", "fcgi-program:", "eventlistener:"];
    let program = |section: &Section| kinds.iter().any(|kind| section.name.starts_with(kind));
    for (place, section) in ini.sections.iter().enumerate().rev().filter(|(_, section)| program(section)) {
        let (users, others): (Vec<&Entry>, Vec<&Entry>) = section.entries.iter().partition(|entry| entry.key == "user");
        // If what follows, a key or the next header, were indented deeper, it would be taken for more of the name.
        let key = others.first().and_then(|entry| entry.lines.first().copied());
        let follows = key.or_else(|| ini.sections.get(place + 1).map(|next| next.line));
        let indent = follows.and_then(|line| all.get(line)).map(|line| white(line).to_owned()).unwrap_or_default();
        for line in users.into_iter().flat_map(|entry| entry.lines.iter()).rev() {
            remove(&mut all, *line);
        }
        insert(&mut all, section.line + 1, &format!("{indent}user = {name}"));
    }
    Ok(all.concat())
}

/// Marks a section that was made for wiring.
const OURS: &str = "releasectl";

fn tag(owner: &str) -> String {
    format!("{OURS} {owner}")
}

/// The entry that says what is included; `None` if there is no `[include]`.
fn include(ini: &Ini) -> Result<Option<&Entry>, EditError> {
    let sections: Vec<_> = ini.named("include").collect();
    let [section] = sections.as_slice() else {
        let Some(second) = sections.get(1) else { return Ok(None) };
        return Err(EditError::Unsafe(format!(
            "it has two [include] sections, in lines {} and {}; supervisord uses the files of the last one only: merge them",
            sections[0].line + 1,
            second.line + 1
        )));
    };
    let files = section.entries.iter().rfind(|entry| entry.key == "files");
    files
        .map(Some)
        .ok_or_else(|| EditError::Unsafe("its [include] has no files; supervisord would not start".to_owned()))
}

/// The continuation line tagged for `owner`, and what it includes.
fn tagged_line(files: &Entry, text: &str, owner: &str) -> Option<(usize, String)> {
    let tag = tag(owner);
    let all: Vec<&str> = lines(text).collect();
    let found = files.lines.iter().skip(1).find(|line| all.get(**line).and_then(|l| comment(l)) == Some(tag.as_str()));
    let value = |line: &str| words(line).next().unwrap_or_default().to_owned();
    found.map(|line| (*line, value(all[*line])))
}

/// What stands between white space, as Python's `str.split` has it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

fn plain(token: &str) -> Option<String> {
    expand(token, &|_| None).ok()
}

fn white(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches(is_space).len()]
}

fn end_of(line: &str) -> &str {
    &line[line.trim_end_matches(['\n', '\r']).len()..]
}

/// Inserts a line; where the text does not end in a line end, neither does it afterwards.
fn insert(all: &mut Vec<String>, at: usize, line: &str) {
    let style = all.iter().map(|line| end_of(line)).find(|end| !end.is_empty()).unwrap_or("\n").to_owned();
    match all[..at].last_mut() {
        Some(previous) if end_of(previous).is_empty() => {
            previous.push_str(&style);
            all.insert(at, line.to_owned());
        }
        Some(previous) => {
            let line = format!("{line}{}", end_of(previous));
            all.insert(at, line);
        }
        None => all.insert(at, format!("{line}{style}")),
    }
}

/// Removes a line, and the end of the one before it if it had none itself.
fn remove(all: &mut Vec<String>, at: usize) {
    if end_of(&all.remove(at)).is_empty()
        && let Some(previous) = at.checked_sub(1).and_then(|before| all.get_mut(before))
    {
        let kept = previous.len() - end_of(previous).len();
        previous.truncate(kept);
    }
}

#[cfg(test)]
mod tests;

//! The ini dialect of supervisord, read as its own parser reads it (`UnhosedConfigParser`, Python's `configparser` with
//! `strict=False` and inline comments), with the lines each value stands in, so that an edit touches no other.
//!
//! A full-line comment begins with `#` or `;` after any white space. An inline comment begins with `;` or `#` after a
//! white space character, in continuation lines and section headers too. A line indented deeper than the key's continues its
//! value, whatever it looks like: `  [include]` below a key is text. Keys are case-insensitive, a key given again replaces
//! the value, a section given again continues the first.

/// What cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct IniError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: &'static str,
}

/// A file, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ini {
    /// Its section headers in order; the same name may come again.
    pub sections: Vec<Section>,
}

/// What follows one section header.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// The line of the header, counted from 0.
    pub line: usize,
    /// Its keys in order; the same key may come again.
    pub entries: Vec<Entry>,
}

/// One key and its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// In lower case.
    pub key: String,
    /// Without comments; lines joined by a newline.
    pub value: String,
    /// The lines that contribute to the value, counted from 0. Never empty.
    pub lines: Vec<usize>,
    /// How many characters of white space precede the key.
    pub indent: usize,
}

impl Ini {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, IniError> {
        let mut sections: Vec<Section> = Vec::new();
        let mut indent = 0;
        // Whether a continuation line has a value to continue.
        let mut continues = false;
        for (line, raw) in lines(text).enumerate() {
            let fail = |message| IniError { line: line + 1, message };
            let (value, commented) = strip_comment(raw);
            let entry = sections.last_mut().and_then(|s| s.entries.last_mut()).filter(|_| continues);
            if value.is_empty() {
                if let (Some(entry), false) = (entry, commented) {
                    entry.value.push('\n');
                }
                continue;
            }
            let own = raw.chars().take_while(|c| is_space(*c)).count();
            if let Some(entry) = entry.filter(|_| own > indent) {
                entry.value.push('\n');
                entry.value.push_str(value);
                entry.lines.push(line);
                continue;
            }
            indent = own;
            if let Some(name) = header(value) {
                sections.push(Section { name: name.to_owned(), line, entries: Vec::new() });
                continues = false;
                continue;
            }
            let section = sections.last_mut().ok_or(fail("it stands before the first section"))?;
            let (key, value) =
                value.split_once(['=', ':']).ok_or(fail("it is neither a section nor a key with a value"))?;
            let key = trim(key).to_lowercase();
            if key.is_empty() {
                return Err(fail("it has no key"));
            }
            section.entries.push(Entry { key, value: trim(value).to_owned(), lines: vec![line], indent });
            continues = true;
        }
        for entry in sections.iter_mut().flat_map(|s| &mut s.entries) {
            entry.value.truncate(entry.value.trim_end_matches(is_space).len());
        }
        Ok(Self { sections })
    }

    /// The parts of the section `name`.
    pub fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.name == name)
    }

    /// The entry that counts for `key` in the section `name`: the last one; `[DEFAULT]` stands in for a missing one.
    pub fn entry(&self, name: &str, key: &str) -> Option<&Entry> {
        self.named(name).next()?;
        let last = |name| self.named(name).rev().flat_map(|s| s.entries.iter().rev()).find(|entry| entry.key == key);
        last(name).or_else(|| last("DEFAULT"))
    }

    /// The value that counts for `key` in the section `name`.
    pub fn get(&self, name: &str, key: &str) -> Option<&str> {
        self.entry(name, key).map(|entry| entry.value.as_str())
    }
}

/// The lines of `text` with their ends, split where Python's universal newlines split: at `\n`, `\r\n` and `\r`.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.find(['\n', '\r']) {
            None if rest.is_empty() => return None,
            None => rest.len(),
            Some(at) if rest[at..].starts_with("\r\n") => at + 2,
            Some(at) => at + 1,
        };
        let (line, tail) = rest.split_at(end);
        rest = tail;
        Some(line)
    })
}

/// The text of a line without its comment and surrounding white space, and whether there was a comment.
fn strip_comment(line: &str) -> (&str, bool) {
    if trim(line).starts_with(['#', ';']) {
        return ("", true);
    }
    let mut before = None;
    for (at, c) in line.char_indices() {
        if matches!(c, ';' | '#') && before.is_some_and(is_space) {
            return (trim(&line[..at]), true);
        }
        before = Some(c);
    }
    (trim(line), false)
}

/// The comment that ends `line`, without its first character and surrounding white space.
pub fn comment(line: &str) -> Option<&str> {
    let (text, commented) = strip_comment(line);
    if !commented {
        return None;
    }
    let start = if text.is_empty() { 0 } else { line.find(text).unwrap_or(0) + text.len() };
    line[start..].find([';', '#']).map(|at| trim(&line[start + at + 1..]))
}

fn header(value: &str) -> Option<&str> {
    let inside = value.strip_prefix('[')?;
    inside.rfind(']').map(|end| &inside[..end]).filter(|name| !name.is_empty())
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// White space as Python's `str.isspace` has it.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Replaces `%(name)s` by what `names` knows and `%%` by `%`, as Python's `%` operator does; the error is what is wrong.
pub fn expand(text: &str, names: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            out.push('%');
            rest = tail;
            continue;
        }
        let named =
            rest.strip_prefix('(').and_then(|r| r.split_once(')')).and_then(|(n, r)| Some((n, r.strip_prefix('s')?)));
        let (name, tail) = named.ok_or_else(|| format!("{text:?} has a % that is neither %% nor %(name)s"))?;
        out.push_str(&names(name).ok_or_else(|| format!("{text:?} names {name}, which is not known"))?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_continuations_and_cases_are_read_as_supervisor_reads_them() {
        let text = "; first\n[a] ; why\nKey = one ; two\n# between\n\n  three #four\n  [b]\n[b]\nx:y;z\nk=\n [c]\n";
        let ini = Ini::parse(text).unwrap();
        assert_eq!(ini.get("a", "key"), Some("one\n\nthree\n[b]"));
        assert_eq!(ini.entry("a", "key").unwrap().lines, [2, 5, 6]);
        assert_eq!(ini.get("b", "x"), Some("y;z"));
        assert_eq!(ini.get("b", "k"), Some("\n[c]"));
        assert_eq!(ini.sections.len(), 2);
    }

    #[test]
    fn what_comes_later_counts_and_default_stands_in() {
        let ini = Ini::parse("[DEFAULT]\nz=0\n[a]\nx=1\nx=2\n[b]\n[a]\nx=3\n").unwrap();
        assert_eq!((ini.get("a", "x"), ini.get("b", "z"), ini.get("c", "z")), (Some("3"), Some("0"), None));
    }

    #[test]
    fn lines_end_as_python_ends_them() {
        assert_eq!(lines("a\r\nb\rc\n\nd").collect::<Vec<_>>(), ["a\r\n", "b\r", "c\n", "\n", "d"]);
        let ini = Ini::parse("[a]\rx=1\r y\r\n[b]\r\n").unwrap();
        assert_eq!(ini.get("a", "x"), Some("1\ny"));
    }

    #[test]
    fn a_line_that_is_nothing_is_an_error_with_its_number() {
        assert_eq!(Ini::parse("x=1\n").unwrap_err().line, 1);
        assert_eq!(Ini::parse("[a]\n\nword\n").unwrap_err().line, 3);
        assert_eq!(Ini::parse("[a]\n= 1\n").unwrap_err().message, "it has no key");
    }

    #[test]
    fn a_comment_is_found_only_after_white_space() {
        assert_eq!(comment("files = /x ; releasectl a\n"), Some("releasectl a"));
        assert_eq!(comment("  ;releasectl a"), Some("releasectl a"));
        assert_eq!(comment("files = /x;y"), None);
        assert_eq!(comment(""), None);
    }

    #[test]
    fn percent_signs_are_expanded_or_refused() {
        let names = |name: &str| (name == "here").then(|| "/etc".to_owned());
        assert_eq!(expand("%(here)s/a%%b", &names).unwrap(), "/etc/a%b");
        assert!(expand("%(there)s", &names).unwrap_err().contains("there"));
        assert!(expand("50%", &names).is_err());
    }
}

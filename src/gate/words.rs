//! A command line becomes words, as a shell would split it and without any of a shell's powers. Quotes and backslashes
//! mean what they mean in sh; nothing is expanded, and what sh would act upon is refused, so that a line never means one
//! thing here and another there.

/// What sh acts upon wherever it stands unquoted.
const ACTIVE: &str = ";&|<>()$`*?[";
/// What it acts upon at the beginning of a word.
const ACTIVE_AT_FIRST: &str = "~#";
/// What it acts upon between double quotes.
const ACTIVE_IN_QUOTES: &str = "$`";

/// The words of `line`, or why it has none that could be meant.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return Err("the command holds a control character".to_owned());
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => word.get_or_insert_default().push_str(&single(&mut rest)?),
            '"' => word.get_or_insert_default().push_str(&double(&mut rest)?),
            '\\' => word.get_or_insert_default().push(rest.next().ok_or("the command ends in a backslash")?),
            c if ACTIVE.contains(c) || (word.is_none() && ACTIVE_AT_FIRST.contains(c)) => return Err(active(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn active(c: char) -> String {
    format!("there is no shell here to act upon {c}; quote it if it is meant")
}

/// What stands up to the next single quote.
fn single(rest: &mut std::str::Chars<'_>) -> Result<String, String> {
    let (text, after) = rest.as_str().split_once('\'').ok_or("a quote is not closed")?;
    *rest = after.chars();
    Ok(text.to_owned())
}

/// What stands up to the next double quote, in which a backslash speaks for the quote and for itself.
fn double(rest: &mut std::str::Chars<'_>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match rest.next().ok_or("a quote is not closed")? {
            '"' => return Ok(text),
            c if ACTIVE_IN_QUOTES.contains(c) => return Err(active(c)),
            '\\' => match rest.next().ok_or("a quote is not closed")? {
                c if "\"\\$`".contains(c) => text.push(c),
                c => text.extend(['\\', c]),
            },
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_split_as_sh_would() {
        for (line, words) in [
            ("", vec![]),
            (" \t ", vec![]),
            ("list", vec!["list"]),
            ("  list\t--json ", vec!["list", "--json"]),
            ("a'b c'd \"e 'f'\" ''", vec!["ab cd", "e 'f'", ""]),
            (r#"a\ b \; "\"\\\$\x" '\'"#, vec!["a b", ";", r#""\$\x"#, "\\"]),
            ("a~b a#b HEAD~1 v1^{commit} x=y %s !", vec!["a~b", "a#b", "HEAD~1", "v1^{commit}", "x=y", "%s", "!"]),
            ("';' '$(x)' \"*\"", vec![";", "$(x)", "*"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn what_sh_would_act_upon_is_refused() {
        for line in [
            "a;b",
            "a&",
            "a|b",
            "a>b",
            "<a",
            "(a)",
            "$a",
            "a`b`",
            "*",
            "a?",
            "[a]",
            "~",
            "~root/x",
            "#a",
            "\"$a\"",
            "\"`a`\"",
            "'a",
            "\"a",
            "a\\",
            "\"a\\",
            "a\nb",
            "a\0b",
            "'a\nb'",
            "a\rb",
            "\u{1b}[1m",
            "a\u{85}b",
        ] {
            assert!(split(line).is_err(), "{line:?}");
        }
    }
}

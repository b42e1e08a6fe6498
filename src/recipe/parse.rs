//! Reading the two files, and laying one over the other.

use super::Settings;
use serde::Deserialize;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys that only a host file may hold, as tables and key.
const OF_THE_HOST: [&[&str]; 6] =
    [&["root"], &["user"], &["roles"], &["source"], &["supervisor", "config"], &["supervisor", "wiring"]];

/// What is wrong with a file, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1; 0 if it is no line's.
    pub line: usize,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 { write!(out, "line {}: {}", self.line, self.message) } else { out.write_str(&self.message) }
    }
}

impl Fault {
    fn new(text: &str, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        let line = span.map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Self { line, message: message.into() }
    }
}

/// Checks a host file, or a recipe, on its own: every key known, every value of its type.
pub fn check(text: &str, is_recipe: bool) -> Result<(), Fault> {
    if let Err(error) = toml::from_str::<Settings>(text) {
        return Err(Fault::new(text, error.span(), with_nearest(error.message())));
    }
    if is_recipe { refuse_host_keys(text) } else { Ok(()) }
}

/// Puts `host` over `recipe`, both checked, key by key; lists are replaced whole. Steps and tasks are checked.
pub fn merge(host: &str, recipe: &str) -> Result<Settings, Fault> {
    let fault = |error: toml::de::Error| Fault::new("", None, error.message());
    let mut merged = DeTable::parse(recipe).map_err(fault)?;
    lay_over(merged.get_mut(), DeTable::parse(host).map_err(fault)?.into_inner());
    let settings = Settings::deserialize(toml::de::Deserializer::from(merged)).map_err(fault)?;
    let mut names = std::collections::BTreeSet::new();
    for step in &settings.step {
        let does_something = step.run.is_some() || !step.stop.is_empty() || !step.start.is_empty();
        let message = match step.name.as_str() {
            "" => "a [[step]] has no name".to_owned(),
            name if !does_something => format!("step {name:?} has none of run, stop and start"),
            name if !names.insert(name) => format!("two steps are named {name:?}"),
            _ => continue,
        };
        return Err(Fault { line: 0, message });
    }
    Ok(settings)
}

fn lay_over<'i>(under: &mut DeTable<'i>, over: DeTable<'i>) {
    for (key, value) in over {
        match (under.get_mut(&**key.get_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) => lay_over(below, above),
            (Some(below), above) => *below = above,
            (None, above) => {
                under.insert(key, Spanned::new(0..0, above));
            }
        }
    }
}

fn refuse_host_keys(text: &str) -> Result<(), Fault> {
    let Ok(document) = DeTable::parse(text) else { return Ok(()) };
    for path in OF_THE_HOST {
        let mut table = document.get_ref();
        for (depth, key) in path.iter().enumerate() {
            let Some((name, value)) = table.get_key_value(*key) else { break };
            if depth + 1 == path.len() {
                let message = format!("`{}` is the host's to say, not the recipe's", path.join("."));
                return Err(Fault::new(text, Some(name.span()), message));
            }
            let DeValue::Table(below) = value.get_ref() else { break };
            table = below;
        }
    }
    Ok(())
}

/// Names the nearest known key after "unknown field `x`, expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (true, Some((unknown, known))) = (message.starts_with("unknown field"), names.split_first()) else {
        return message.to_owned();
    };
    let nearest = known.iter().max_by(|a, b| strsim::jaro(unknown, a).total_cmp(&strsim::jaro(unknown, b)));
    nearest.map_or_else(|| message.to_owned(), |key| format!("unknown key `{unknown}`; the nearest known is `{key}`"))
}

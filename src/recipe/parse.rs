//! Reading the two files, and laying one over the other.

use super::Settings;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Keys that only a host file may hold, as tables and key.
const OF_THE_HOST: [&[&str]; 7] = [
    &["root"],
    &["user"],
    &["allow_nfs"],
    &["roles"],
    &["source"],
    &["supervisor", "config"],
    &["supervisor", "wiring"],
];

/// What a deploy does by itself, under names that no step of a recipe may have.
const OWN_STEPS: [&str; 7] = ["source", "shared", "carry", "python", "supervisor", "activate", "clean"];

/// How the application's health is asked for: by one of them.
const QUESTIONS: [&str; 2] = ["url", "command"];

/// What Rust calls a type, and what whoever writes these files does.
const TYPES: [(&str, &str); 7] = [
    ("expected usize", "expected a number from 0 on"),
    ("expected u32", "expected a number from 0 on"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a table"),
    ("type: sequence", "type: list"),
    ("type: map", "type: table"),
    ("wanted string or table", "expected a string"),
];

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
        let before = |span: Range<usize>| &text.as_bytes()[..span.start.min(text.len())];
        let line = span.map_or(0, |span| before(span).iter().filter(|byte| **byte == b'\n').count() + 1);
        Self { line, message: message.into() }
    }
}

/// Reads a host file, or a recipe, on its own: every key known, every value of its type, steps and tasks complete.
pub fn parse(text: &str, is_recipe: bool) -> Result<Settings, Fault> {
    let document = document(text)?;
    if is_recipe {
        refuse_host_keys(text, document.get_ref())?;
    }
    settings(text, document)
}

/// Puts the file `host` over `recipe`, key by key; lists are replaced whole, and so is the question of `[health]`. Each must
/// have passed [`parse`].
pub fn merge(host: &str, recipe: &str) -> Result<Settings, Fault> {
    let (mut merged, over) = (document(recipe)?, document(host)?);
    let asks = |health: &DeTable<'_>| QUESTIONS.iter().any(|question| health.contains_key(*question));
    if let Some(DeValue::Table(health)) = merged.get_mut().get_mut("health").map(toml::Spanned::get_mut)
        && over.get_ref().get("health").and_then(|health| health.get_ref().as_table()).is_some_and(asks)
    {
        QUESTIONS.iter().for_each(|question| drop(health.remove(*question)));
    }
    lay_over(merged.get_mut(), over.into_inner());
    settings(recipe, merged)
}

/// The line, counted from 1, of `text` in which `[supervisor]` names this directory of templates or `[[supervisor.program]]`
/// this template.
pub fn line_naming(text: &str, template: &str) -> Option<usize> {
    let document = document(text).ok()?;
    let DeValue::Table(supervisor) = document.get_ref().get("supervisor")?.get_ref() else { return None };
    let programs = supervisor.get("program").and_then(|programs| programs.get_ref().as_array());
    let named = programs.into_iter().flatten().filter_map(|program| program.get_ref().as_table()?.get("template"));
    let mut all = supervisor.get("templates").into_iter().chain(named);
    let found = all.find(|value| value.get_ref().as_str() == Some(template))?;
    Some(Fault::new(text, Some(found.span()), "").line)
}

/// The one of `known` that looks most like `unknown`.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().max_by(|a, b| strsim::jaro(unknown, a).total_cmp(&strsim::jaro(unknown, b)))
}

type Document<'a> = toml::Spanned<DeTable<'a>>;

fn document(text: &str) -> Result<Document<'_>, Fault> {
    DeTable::parse(text).map_err(|error| Fault::new(text, error.span(), error.message()))
}

fn settings(text: &str, document: Document<'_>) -> Result<Settings, Fault> {
    let steps = document.get_ref().get("step").and_then(|steps| steps.get_ref().as_array());
    let steps: Vec<Range<usize>> = steps.into_iter().flatten().map(toml::Spanned::span).collect();
    let command = document.get_ref().get("health").and_then(|health| health.get_ref().as_table()?.get("command"));
    let command = command.map(toml::Spanned::span);
    let settings = Settings::deserialize(toml::de::Deserializer::from(document));
    let settings = settings.map_err(|error| told(text, &error))?;
    if settings.health.url.is_some() && settings.health.command.is_some() {
        return Err(Fault::new(text, command, "[health] has both url and command: keep one of them"));
    }
    check_steps(text, &settings, &steps)?;
    Ok(settings)
}

/// What is wrong with a value, and of which key.
fn told(text: &str, error: &toml::de::Error) -> Fault {
    let message = with_nearest(error.message());
    let named = error.span().zip(document(text).ok()).and_then(|(span, document)| {
        let mut all = document.get_ref().iter();
        all.find_map(|(key, value)| Some(format!("{key}{}", way_to(value, &span)?)))
    });
    Fault::new(text, error.span(), named.map_or(message.clone(), |key| format!("`{key}`: {message}")))
}

/// The keys below `value` that lead to what stands at `span`: `.for.example`.
fn way_to(value: &toml::Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<String> {
    let below = match value.get_ref() {
        DeValue::Table(table) => table.iter().find_map(|(key, value)| Some(format!(".{key}{}", way_to(value, span)?))),
        DeValue::Array(values) => values.iter().find_map(|value| way_to(value, span)),
        _ => None,
    };
    below.or_else(|| (value.span() == *span).then(String::new))
}

/// Every step has a name of its own and does something; `spans` says where each stands.
fn check_steps(text: &str, settings: &Settings, spans: &[Range<usize>]) -> Result<(), Fault> {
    let mut names = BTreeSet::new();
    for (number, step) in settings.step.iter().enumerate() {
        let does_something = step.run.is_some() || !step.stop.is_empty() || !step.start.is_empty();
        let message = match step.name.as_str() {
            "" => "this [[step]] has no name".to_owned(),
            name if !does_something => format!("step {name:?} has none of run, stop and start"),
            name if OWN_STEPS.contains(&name) => format!("{name:?} is the name of a step of releasectl's own"),
            name if !names.insert(name) => format!("two steps are named {name:?}"),
            _ => continue,
        };
        return Err(Fault::new(text, spans.get(number).cloned(), message));
    }
    Ok(())
}

fn lay_over<'a>(under: &mut DeTable<'a>, over: DeTable<'a>) {
    for (key, value) in over {
        match (under.get_mut(&key).map(toml::Spanned::get_mut), value) {
            (Some(DeValue::Table(below)), value) if value.get_ref().is_table() => {
                if let DeValue::Table(above) = value.into_inner() {
                    lay_over(below, above);
                }
            }
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn refuse_host_keys(text: &str, document: &DeTable<'_>) -> Result<(), Fault> {
    for path in OF_THE_HOST {
        let mut table = document;
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

/// Names the nearest known key after "unknown field `x`, expected one of `a`, `b`"; types have TOML's names, not Rust's.
fn with_nearest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (true, Some((unknown, known))) = (message.starts_with("unknown field"), names.split_first()) else {
        return TYPES.iter().fold(message.to_owned(), |text, (rust, toml)| text.replace(rust, toml));
    };
    nearest(unknown, known.iter().copied())
        .map_or_else(|| message.to_owned(), |key| format!("unknown key `{unknown}`; the nearest known is `{key}`"))
}

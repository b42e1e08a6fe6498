//! One JSON document a run.

use crate::commands::Outcome;
use crate::error::Error;
use crate::exit::Exit;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The version of the documents.
const SCHEMA: u32 = 1;

/// The document of a run of `command` on the tree at `root`: what it found or did, and the error it ended with. One line.
pub fn document(
    command: Option<&str>,
    root: Option<&Path>,
    environment: Option<&str>,
    outcome: Option<&Outcome>,
    error: Option<&Error>,
) -> String {
    let mut document = Map::new();
    document.insert("schema".into(), json!(SCHEMA));
    document.insert("ok".into(), json!(error.is_none()));
    document.insert("command".into(), json!(command));
    document.insert("root".into(), json!(root.map(|root| root.to_string_lossy())));
    document.insert("env".into(), json!(environment));
    if let Some(Ok(Value::Object(fields))) = outcome.map(serde_json::to_value) {
        document.extend(fields);
    }
    if let Some(error) = error {
        document.insert("error".into(), describe(error));
    }
    let mut line = Value::Object(document).to_string();
    line.push('\n');
    line
}

fn describe(error: &Error) -> Value {
    let mut fields = json!({
        "kind": error.kind,
        "exit": Exit::from(error.kind).code(),
        "message": error.message,
        "hint": error.hint,
    });
    if let (Some(holder), Some(fields)) = (&error.holder, fields.as_object_mut()) {
        fields.insert("holder".into(), json!(holder));
    }
    fields
}

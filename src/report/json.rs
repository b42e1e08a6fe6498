//! One JSON document a run.

use crate::commands::Outcome;
use crate::error::Error;
use crate::exit::Exit;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

/// The version of the documents.
const SCHEMA: u32 = 1;

/// The fields of every document; those of the outcome stand between them and the error.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    ok: bool,
    command: Option<&'a str>,
    root: Option<Cow<'a, str>>,
    env: Option<&'a str>,
    #[serde(flatten)]
    outcome: Option<&'a Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// The document of a run of `command` on the tree at `root`: what it found or did, and the error it ended with. One line.
pub fn document(
    command: Option<&str>,
    root: Option<&Path>,
    environment: Option<&str>,
    outcome: Option<&Outcome>,
    error: Option<&Error>,
) -> String {
    let (ok, root, error) = (error.is_none(), root.map(Path::to_string_lossy), error.map(describe));
    let document = Document { schema: SCHEMA, ok, command, root, env: environment, outcome, error };
    // Nothing in it can fail to be written: every key is a string.
    let mut line = serde_json::to_string(&document).unwrap_or_default();
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

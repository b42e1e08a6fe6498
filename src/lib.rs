//! releasectl owns the release tree on a server: it builds a release, flips `current` to it atomically, confirms, rolls
//! back and cleans.
//!
//! Five floors; a module imports only from floors below its own, and on its own floor only from what stands below it
//! here. `tests/architecture.rs` checks it.

// 5 — words: the command line, and what is printed.
pub mod app;
pub mod cli;
pub mod exit;
pub mod report;

// 4 — verbs: compositions of what is below.
pub mod commands;
pub mod error;

// 3 — the world outside, and the tree on disk.
pub mod config;
pub mod health;
pub mod identity;
pub mod journal;
pub mod lock;
pub mod python;
pub mod sharing;
pub mod source;
pub mod steps;
pub mod supervisor;
pub mod tools;
pub mod tree;
pub mod usage;
pub mod workplace;

// 2 — nouns: pure, no input or output, no clock.
pub mod environment;
pub mod layout;
pub mod operation;
pub mod pin;
pub mod recipe;
pub mod release;
pub mod retention;
pub mod standing;

// 1 — ground: time, directories, durable changes.
pub mod clock;
pub mod directory;
pub mod durable;
pub mod removal;
pub mod sealed;
pub mod stage;
pub mod transfer;

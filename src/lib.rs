//! releasectl owns the release tree on a server: it builds a release, flips `current` to it atomically, confirms, rolls
//! back and cleans.
//!
//! Five floors; a module imports only from floors below its own, and on its own floor only from what stands below it
//! here. `tests/architecture.rs` checks it.

// 5 — words: the command line, and what is printed.
pub mod app;
pub mod gate;
pub mod cli;
pub mod report;
pub mod exit;

// 4 — verbs: compositions of what is below.
pub mod commands;
pub mod error;

// 3 — the world outside, and the tree on disk.
pub mod steps;
pub mod supervisor;
pub mod health;
pub mod python;
pub mod sharing;
pub mod source;
pub mod workplace;
pub mod identity;
pub mod tools;
pub mod tree;
pub mod journal;
pub mod lock;
pub mod usage;
pub mod process;
pub mod config;

// 2 — nouns: pure, no input or output, no clock.
pub mod recipe;
pub mod predecessor;
pub mod export;
pub mod layout;
pub mod standing;
pub mod retention;
pub mod operation;
pub mod release;
pub mod environment;
pub mod pin;

// 1 — ground: time, directories, durable changes, memory.
pub mod durable;
pub mod transfer;
pub mod removal;
pub mod walk;
pub mod sealed;
pub mod stage;
pub mod directory;
pub mod clock;
#[cfg(target_env = "musl")]
pub mod memory;

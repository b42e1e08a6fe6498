//! Nothing is lost: every system call of every command that changes a tree is a place where it may be killed, refused or
//! cut off from power. What is left is judged by the program itself, run anew, and by the whole listing of the tree.
//!
//! By default every call that changes or syncs something is a place, and a sample of the others that moves from run to
//! run; `RELEASECTL_CRASH=full` takes them all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

mod checker;
#[path = "../fuzz/checks.rs"]
mod checks;
mod clock;
mod disk;
mod errors;
mod full;
mod hostile;
mod kill;
#[path = "../it/lab.rs"]
#[allow(dead_code, reason = "shared with the target `it`")]
mod lab;
mod privilege;
mod power;
mod properties;
mod races;
#[path = "../it/patience.rs"]
mod patience;
#[path = "../it/sandbox.rs"]
#[allow(dead_code, reason = "shared with the target `it`")]
mod sandbox;
mod soak;
mod states;
mod trace;
mod two_at_once;
mod verbs;

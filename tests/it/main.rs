//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

mod activate;
mod create;
mod flip;
mod git_source;
mod json;
mod locks;
mod real_source;
mod sandbox;
mod tar_source;

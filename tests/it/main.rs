//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

mod activate;
mod clean;
mod code;
mod django;
mod exec;
mod full_disk;
mod hostile_tar;
mod hotfix;
mod lab;
mod packages;
mod pins;
mod python_env;
mod recipe_errors;
mod resume;
mod retention;
mod sandbox;
mod sharing;
mod ssh;
mod unruly_steps;

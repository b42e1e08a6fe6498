//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

mod activate;
mod clean;
mod config;
mod create;
mod deletion;
mod flip;
mod footprint;
mod init;
mod journal;
mod lab;
mod locks;
mod odd_states;
mod pins;
mod retention;
mod sandbox;

//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a test prepares files and processes by hand, and fails by panicking; no module needs all of the sandbox"
)]

/// Makes a test of each function for each version of supervisord.
macro_rules! on_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod debian {
            $(#[test] fn $name() { super::$name(crate::supervised::Version::Debian); })+
        }
        mod pypi {
            $(#[test] fn $name() { super::$name(crate::supervised::Version::Pypi); })+
        }
    };
}

mod activate;
mod sandbox;
mod supervised;
mod supervisor_down;
mod supervisor_outages;
mod supervisor_return;
mod supervisor_rolling;
mod supervisor_wiring;

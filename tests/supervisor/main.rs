//! supervisord for real, in the two versions that are in use: each test starts one of its own in a temporary directory, on
//! a unix socket, and takes it down with everything it started.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test prepares files and processes by hand, and fails by panicking"
)]

/// Makes a test of each function for each version of supervisord.
macro_rules! on_both_versions {
    ($($name:ident),+ $(,)?) => {
        mod debian {
            $(#[test] fn $name() { super::$name(crate::sandbox::Version::Debian); })+
        }
        mod pypi {
            $(#[test] fn $name() { super::$name(crate::sandbox::Version::Pypi); })+
        }
    };
}

mod changes;
#[path = "../it/patience.rs"]
mod patience;
mod rolling;
mod rpc;
mod sandbox;
#[allow(dead_code, reason = "shared with the target `it`")]
mod session;
mod validation;
mod wiring;

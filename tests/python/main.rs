//! Environments made for real: with pip and with uv, offline and from PyPI, afresh and linked.
#![allow(clippy::disallowed_methods, reason = "tests set the scene by other means than the program")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(unreachable_pub, missing_docs, reason = "tests")]

mod build;
mod lock;
mod pypi;
mod reuse;
mod sandbox;

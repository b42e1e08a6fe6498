//! Three hosts, each with namespaces, a file system and an sshd of its own, deployed to by Ansible, by Fabric and by a shell
//! loop, while clients ask a proxy before them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

mod ansible;
mod fabric;
mod host;
mod load;
#[path = "../it/packages.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod packages;
mod recording;
mod scenario;
mod shell;
mod site;
mod tooling;
mod world;

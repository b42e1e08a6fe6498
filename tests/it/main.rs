//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test makes the world that the program finds")]

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
mod clean;
mod code;
mod config;
mod create;
mod deletion;
mod django;
mod doctor;
mod exec;
mod export;
mod flip;
mod footprint;
mod full_disk;
mod gate;
mod git_source;
mod hostile_tar;
mod hotfix;
mod init;
mod journal;
mod json;
mod lab;
mod linked_source;
mod locks;
mod manual;
mod meanwhile;
mod odd_states;
mod packages;
mod packaging;
mod patience;
mod pins;
mod predecessors;
mod python_env;
mod real_source;
mod reached_source;
mod recipe_errors;
mod resume;
mod resume_kills;
mod retention;
mod sandbox;
#[path = "../supervisor/session.rs"]
#[allow(dead_code, reason = "shared with the target `supervisor`")]
mod session;
mod sharing;
mod ssh;
mod sshd;
mod status;
mod supervised;
mod supervisor_down;
mod supervisor_in_vain;
mod supervisor_kills;
mod supervisor_outages;
mod supervisor_return;
mod supervisor_rolling;
mod supervisor_wiring;
mod takeover;
mod tar_source;
mod terminal;
#[path = "../crash/trace.rs"]
#[allow(dead_code, reason = "shared with the target `crash`")]
mod trace;
mod unruly_steps;

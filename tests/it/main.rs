//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

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

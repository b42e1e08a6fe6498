//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

mod activate;
mod create;
mod flip;
mod git_source;
mod json;
mod locks;
mod real_source;
mod sandbox;
mod tar_source;

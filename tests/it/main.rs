//! The program as an operator runs it: real trees, real repositories, real signals. A module for each verb or promise.

mod activate;
mod create;
mod flip;
mod locks;
mod sandbox;

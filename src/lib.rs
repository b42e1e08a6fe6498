//! releasectl owns the release tree on a server.

pub mod clock;
pub mod config;
pub mod directory;
pub mod durable;
pub mod identity;
pub mod journal;
pub mod layout;
pub mod lock;
pub mod operation;
pub mod pin;
pub mod recipe;
pub mod release;
pub mod removal;
pub mod retention;
pub mod sealed;
pub mod source;
pub mod stage;
pub mod standing;
pub mod tools;
pub mod transfer;
pub mod tree;
pub mod usage;

//! x
pub mod clock;
pub mod directory;
pub mod durable;
pub mod health;
pub mod recipe;
pub mod removal;
pub mod supervisor;
pub mod tools;
pub mod transfer;

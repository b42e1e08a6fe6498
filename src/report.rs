//! What is printed: an outcome or an error in, text out, for people or for programs.

mod human;
mod json;
mod progress;

pub use human::{Paint, failure, outcome};
pub use json::document;
pub use progress::Progress;

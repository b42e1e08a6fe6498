//! What long work tells of itself while it runs, to whoever shows it.

/// Someone who shows how far long work has come. Called often; never fails.
pub trait Stages: Sync {
    /// A stage begins: "fetch", "check out", … `total` is how many steps [`Stages::advance`] will count to, if known.
    fn begin(&self, stage: &str, total: Option<u64>);
    /// The present stage has come to `done`.
    fn advance(&self, done: u64);
    /// The present stage is over.
    fn end(&self);
    /// What a program printed.
    fn output(&self, bytes: &[u8]);
    /// One line a person should read: a warning.
    fn warn(&self, message: &str);
}

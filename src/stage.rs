//! What long work tells of itself while it runs, to whoever shows it.

/// Someone who shows how far long work has come. Called often; never fails.
pub trait Stages: Sync {
    /// A stage begins: "fetch", "check out", …
    fn begin(&self, stage: &str);
    /// The present stage has come to `done`.
    fn advance(&self, done: u64);
    /// The present stage is over.
    fn end(&self);
    /// What a program printed.
    fn output(&self, bytes: &[u8]);
    /// One line a person should read: a warning.
    fn warn(&self, message: &str);
}

impl dyn Stages + '_ {
    /// Does `act` as a stage of its own.
    pub fn during<T>(&self, stage: &str, act: impl FnOnce() -> T) -> T {
        self.begin(stage);
        let outcome = act();
        self.end();
        outcome
    }
}

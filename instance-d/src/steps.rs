//! How long each step of an order took, for the log: `receiver=3 applied=1 applier=12`, in milliseconds.

use std::fmt;
use std::time::Instant;

/// The steps of one order so far.
#[derive(Debug)]
pub struct Steps {
    last: Instant,
    done: Vec<(&'static str, u64)>,
}

impl Steps {
    /// The first step begins.
    pub fn begin() -> Self {
        Self { last: Instant::now(), done: Vec::new() }
    }

    /// A step is done, the next begins.
    pub fn done(&mut self, step: &'static str) {
        self.done.push((step, crate::instance::millis(self.last.elapsed())));
        self.last = Instant::now();
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (step, milliseconds)) in self.done.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{step}={milliseconds}")?;
        }
        Ok(())
    }
}

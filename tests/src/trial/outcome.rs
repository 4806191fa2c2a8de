//! What became of a row: one line of `target/faults.jsonl`, from which `faults_table` makes a table.

use std::io::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bench::target;

/// Name of the test that runs here, with its modules.
pub(super) fn test_name() -> String {
    let by_nextest = std::env::var("NEXTEST_TEST_NAME").ok();
    by_nextest.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_else(|| "?".to_owned())
}

/// What became of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Row of FAULTS.md.
    pub row: String,
    /// Name of the test.
    pub test: String,
    /// The longest time from a fault to the first acknowledged write elsewhere; where none was needed, the longest time
    /// without an acknowledgement since the first fault.
    pub seconds: Option<f64>,
    /// How often the primary changed.
    pub changes: Option<usize>,
    /// Acknowledged rows that are not there; none when that could not be found out.
    pub lost: Option<usize>,
    /// `ok`, or what is wrong.
    pub verdict: String,
    /// Seconds that the whole test took.
    pub took: f64,
}

impl Outcome {
    /// Of the test that runs on this thread.
    pub(super) fn new(row: &str) -> Self {
        let test = test_name();
        let verdict = "ok".to_owned();
        Self { row: row.to_owned(), test, seconds: None, changes: None, lost: None, verdict, took: 0.0 }
    }

    /// A few letters for the name of a namespace.
    pub(super) fn slug(&self) -> String {
        let name = self.test.rsplit("::").next().unwrap_or_default();
        let words = name.split_once('_').map_or(name, |(_, words)| words).replace('_', "-");
        words.chars().take(30).collect::<String>().trim_matches('-').to_owned()
    }

    /// The row failed.
    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        self.verdict = format!("{error:#}").chars().take(2000).collect();
    }

    /// Adds the line.
    pub(super) fn append(&self) -> Result<()> {
        let path = target("faults.jsonl");
        let folder = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut file = std::fs::File::options().create(true).append(true).open(&path).context("open faults.jsonl")?;
        let line = format!("{}\n", serde_json::to_string(self)?);
        file.write_all(line.as_bytes()).context("write faults.jsonl")
    }
}

/// All lines; of a test that ran several times the last.
///
/// # Errors
/// When there is no file, or it is not understood.
pub fn read_outcomes() -> Result<Vec<Outcome>> {
    let path = target("faults.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut last = std::collections::BTreeMap::new();
    for line in text.lines() {
        let outcome: Outcome = serde_json::from_str(line).context("faults.jsonl holds something else")?;
        last.insert((outcome.row.clone(), outcome.test.clone()), outcome);
    }
    Ok(last.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn slugs_fit_into_namespaces() {
        let mut outcome = Outcome::new("F01");
        outcome.test = "crash::f01_primary_killed_in_the_middle_of_a_transaction".to_owned();
        assert_eq!(outcome.slug(), "primary-killed-in-the-middle-o");
        outcome.test = "f01".to_owned();
        assert_eq!(outcome.slug(), "f01");
    }
}

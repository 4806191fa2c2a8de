//! Tables of measurements: printed for people, written as `target/bench/<name>.json` for machines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

/// One measured thing.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of the numbers.
    pub unit: &'static str,
    /// How many samples.
    pub n: usize,
    /// Median.
    pub p50: f64,
    /// 99th percentile (the largest of few samples).
    pub p99: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Acknowledged rows that were lost; absent when none were written.
    pub lost: Option<usize>,
    /// What else to know.
    pub note: String,
}

impl Row {
    /// A row of samples.
    pub fn new(name: impl Into<String>, unit: &'static str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let rank = (share * samples.len() as f64).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self {
            name: name.into(),
            unit,
            n: samples.len(),
            p50: at(0.5),
            p99: at(0.99),
            min: at(0.0),
            max: at(1.0),
            lost: None,
            note: String::new(),
        }
    }

    /// With a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// With how many acknowledged rows were lost.
    #[must_use]
    pub fn lost(mut self, lost: usize) -> Self {
        self.lost = Some(lost);
        self
    }
}

/// Prints the rows and writes them to `target/bench/<name>.json`.
///
/// # Errors
/// When the file cannot be written.
pub fn report(name: &str, rows: &[Row]) -> Result<()> {
    println!("\n{name}");
    println!(
        "{:<48} {:>8} {:>4} {:>10} {:>10} {:>10} {:>10} {:>5}  note",
        "", "unit", "n", "p50", "p99", "min", "max", "lost"
    );
    for row in rows {
        println!(
            "{:<48} {:>8} {:>4} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>5}  {}",
            row.name,
            row.unit,
            row.n,
            row.p50,
            row.p99,
            row.min,
            row.max,
            row.lost.map_or("-".to_owned(), |lost| lost.to_string()),
            row.note,
        );
    }
    let folder = target("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let file = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&serde_json::json!({"rows": rows}))?;
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

/// A number that the environment sets; empty is not set.
///
/// # Errors
/// What is set is no number.
pub fn setting(name: &str, usual: u64) -> Result<u64> {
    match std::env::var(name).ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().with_context(|| format!("{name}={text:?} is no number")),
        None => Ok(usual),
    }
}

/// A file or folder in `target` of the workspace, found from where we are; wherever cargo keeps its own products.
pub fn target(name: &str) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let workspace = here.ancestors().find(|folder| folder.join("Cargo.lock").exists()).unwrap_or(&here).to_owned();
    workspace.join("target").join(name)
}

#[cfg(test)]
mod tests {
    use super::Row;

    #[test]
    #[allow(clippy::float_cmp)]
    fn percentiles_are_samples() {
        let row = Row::new("x", "s", vec![3.0, 1.0, 2.0]);
        assert_eq!((row.n, row.p50, row.p99, row.min, row.max), (3, 2.0, 3.0, 1.0, 3.0));
        let row = Row::new("x", "s", (1..=200).map(f64::from).collect());
        assert_eq!((row.p50, row.p99, row.min, row.max), (100.0, 198.0, 1.0, 200.0));
        assert!(Row::new("x", "s", vec![]).p50.is_nan());
    }
}

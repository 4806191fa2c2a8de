//! The table of the fault suite, from `target/faults.jsonl`: a line a test, what was lost in the end. Fails when a row
//! failed.

use std::process::ExitCode;

use anyhow::Result;
use tests::trial::{Outcome, read_outcomes};

/// Most letters of a verdict; the test's own output has all of them.
const WORDS: usize = 140;
/// Rows that break the rule on purpose.
const CONTROL: &str = "F00";

fn line(outcome: &Outcome) -> String {
    let Outcome { row, test, seconds, changes, lost, verdict, took } = outcome;
    let number = |number: Option<usize>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let seconds = seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"));
    let name = test.rsplit("::").next().unwrap_or(test);
    let verdict: String = verdict.replace('\n', " ").chars().take(WORDS).collect();
    format!("{row:<4} {name:<76} {seconds:>8} {:>7} {:>5} {took:>6.0}  {verdict}", number(*changes), number(*lost))
}

fn main() -> Result<ExitCode> {
    let outcomes = read_outcomes()?;
    println!("\n{:<4} {:<76} {:>8} {:>7} {:>5} {:>6}  verdict", "row", "test", "seconds", "changes", "lost", "took");
    for outcome in &outcomes {
        println!("{}", line(outcome));
    }
    let rows: std::collections::BTreeSet<&str> =
        outcomes.iter().map(|outcome| outcome.row.as_str()).filter(|row| *row != CONTROL).collect();
    let lost: usize = outcomes.iter().filter(|outcome| outcome.row != CONTROL).filter_map(|outcome| outcome.lost).sum();
    let failed = outcomes.iter().filter(|outcome| !outcome.verdict.starts_with("ok")).count();
    println!(
        "\n{} rows in {} tests, {failed} of them failed. Seconds: from the fault to the first acknowledged write elsewhere, or the\n\
         longest pause where the primary stayed. Acknowledged rows lost (but for {CONTROL}, which loses on purpose): {lost}",
        rows.len(),
        outcomes.len(),
    );
    Ok(if failed == 0 && lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

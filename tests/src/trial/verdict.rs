//! The verdict on a row: I1 to I9 of FAULTS.md, and what the row expects.
//!
//! | | from |
//! |---|---|
//! | I1 lost, phantom | the log of the writers and of the tries, against the primary's rows |
//! | I2, I3 two at once, an old one | turns of servers in that log, against recorded changes of primary |
//! | I4 errant | GTID sets in the end, and those that clients could see since the last change |
//! | I5 equal | CHECKSUM TABLE on all at equal GTID |
//! | I6 Ready again | status, and writes that are acknowledged |
//! | I7 refusals seen | where the row expects one: [`super::Trial::refused`] |
//! | I8 log lines | [`super::lines`] |
//! | I9 comes back | a server that is made of the bucket alone has the primary's rows |

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Expect, Outcome, READY_AGAIN, Trial, lines, wait_whole};
use crate::Cluster;
use crate::ledger::{Log, Turn, turns};
use crate::probe::Samples;
use crate::timeline::Timeline;

/// After a change of primary answers that were under way may still show what was before.
const AFTER_CHANGE: Duration = Duration::from_secs(2);
/// Rows that have to be acknowledged in the end.
const ROWS: u64 = 20;
/// Most rows and lines that a finding names.
const NAMED: usize = 5;

/// What a verdict found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What is violated, by the name of the invariant; empty when all is well.
    pub violations: Vec<String>,
    /// Acknowledged rows that are not there.
    pub lost: usize,
    /// How often the primary changed.
    pub changes: usize,
    /// See [`Outcome::seconds`].
    pub seconds: Option<f64>,
}

impl Findings {
    fn violated(&mut self, invariant: &str, what: &[String]) {
        // All of them for who looks into it; the first for the summary.
        what.iter().take(60).for_each(|line| println!("{invariant}: {line}"));
        if let Some(first) = what.get(..what.len().min(NAMED)).filter(|first| !first.is_empty()) {
            self.violations.push(format!("{invariant}: {} of them, the first: {}", what.len(), first.join("; ")));
        }
    }

    /// I1 to I5: what clients were told and shown, against what stands.
    pub async fn compare(
        &mut self,
        shop: &Cluster,
        log: &Log,
        samples: &Samples,
        timeline: &Timeline,
        expect: &Expect,
    ) {
        self.changes = timeline.changes();
        if let Some(what) = side_by_side(&turns(&log.entries), timeline.takeovers()) {
            self.violations.push(format!("I2/I3: {what}"));
        }
        if let Some(verdict) = self.failed("I1/I5", log.check_without(shop, &expect.apart).await) {
            self.lost = verdict.lost.len();
            self.violated("I1 lost", &verdict.lost);
            self.violated("I1 phantom", &verdict.phantom);
            self.violated("I4 errant", &verdict.errant);
            self.violated("I5 differing", &verdict.differing);
        }
        if let Some(stands) = self.failed("I4", stands(shop).await) {
            let mut served = samples.errant(timeline.last_change() + AFTER_CHANGE, &stands);
            served.retain(|one| !expect.spoilt.iter().any(|pod| one.starts_with(&format!("{pod} "))));
            self.violated("I4 served", &served);
        }
    }

    fn failed<T>(&mut self, invariant: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.violations.push(format!("{invariant}: {error:#}"))).ok()
    }
}

/// Two servers acknowledged side by side, or an old one after a newer: there are more turns than takeovers explain
/// (invariants 2 and 3).
fn side_by_side(turns: &[Turn], takeovers: usize) -> Option<String> {
    (turns.len() > takeovers + 1).then(|| {
        format!("servers acknowledged in {} turns, but another took over {takeovers} times: {turns:?}", turns.len())
    })
}

impl Trial {
    /// Undoes all faults, lets the cluster come back, and judges.
    pub(super) async fn end(mut self, told: Result<Expect>, outcome: &mut Outcome) -> Result<()> {
        let healed = self.heal().await.context("undo the faults");
        let (expect, told) = match told {
            Ok(expect) => (expect, Ok(())),
            Err(error) => (Expect::anything(), Err(error)),
        };
        let findings = self.judge(&expect).await;
        if let Ok(findings) = &findings {
            outcome.seconds = findings.seconds;
            outcome.changes = Some(findings.changes);
            outcome.lost = Some(findings.lost);
        }
        // What the row saw comes first: the rest may only follow from it.
        let judged = findings.and_then(|findings| {
            let violations = &findings.violations;
            if expect.violates.is_empty() {
                ensure!(violations.is_empty(), "violated: {}", violations.join(" | "));
                return Ok(());
            }
            for wanted in &expect.violates {
                let found = violations.iter().any(|violation| violation.starts_with(wanted));
                ensure!(found, "the rule was broken on purpose and {wanted:?} was not found: {violations:?}");
            }
            outcome.verdict = format!("ok, caught: {}", expect.violates.join(", "));
            Ok(())
        });
        match (told, judged) {
            (Err(error), Err(also)) => Err(error.context(format!("and the verdict: {also:#}"))),
            (told, judged) => told.and(judged).and(healed),
        }
    }

    /// The verdict.
    ///
    /// # Errors
    /// When it could not be made.
    async fn judge(mut self, expect: &Expect) -> Result<Findings> {
        let mut findings = Findings::default();
        let back = self.is_back(expect).await;
        findings.failed("I6", back);

        self.rest().await?;
        let Self { harness, shop, bucket, mut log, watch, probes, tries, since, began_at, seconds, .. } = self;
        let service = log.clone();
        log.merge(Log::new(tries.finish().await?, log.ended));
        let samples = probes.finish().await?;
        let timeline = watch.finish().await?;
        println!("{}\n{}", service.summary(), timeline.lines());

        findings.compare(&shop, &log, &samples, &timeline, expect).await;
        // What was broken on purpose is not in the bucket either.
        if let Some(bucket) = bucket.filter(|_| expect.violates.is_empty()) {
            findings.failed("I9", bucket.restores(&shop).await);
        }
        let lines = lines::unexpected(&harness, &shop.namespace, began_at, &expect.lines).await;
        if let Some(lines) = findings.failed("I8", lines) {
            findings.violated("I8 lines", &lines);
        }
        if !expect.changes.contains(&findings.changes) {
            let primaries = timeline.primaries();
            findings.violations.push(format!("changes of primary: {:?} expected, seen {primaries:?}", expect.changes));
        }
        if expect.flawless {
            let failed: Vec<String> = service.failed().map(|entry| format!("{entry:?}")).collect();
            findings.violated("writes failed", &failed);
        }
        if expect.never_errant && !timeline.errant().is_empty() {
            findings.violations.push(format!("I4: called errant were {:?}", timeline.errant()));
        }
        let gap = since.map(|since| service.longest_gap_between(since, service.ended));
        if let (Some(gap), Some(most)) = (gap, expect.gap)
            && gap > most
        {
            findings.violations.push(format!("writes paused for {gap:.3?}, at most {most:?} was expected"));
        }
        findings.seconds = seconds.into_iter().reduce(f64::max).or(gap.map(|gap| gap.as_secs_f64()));
        Ok(findings)
    }

    /// Waits until the cluster serves again, within its time since the fault's end (I6).
    async fn is_back(&mut self, expect: &Expect) -> Result<()> {
        let left = (self.over + READY_AGAIN).saturating_sub(self.now()).max(Duration::from_secs(1));
        let begun = self.now();
        if expect.apart.is_empty() {
            let instances = match expect.instances {
                Some(instances) => instances,
                None => self.shop.get().await?.spec.instances,
            };
            wait_whole(&self.shop, instances, left).await?;
        } else {
            self.shop.wait_condition("Ready", "True", left).await?;
        }
        let waited = self.now().saturating_sub(begun);
        self.step(&format!(
            "ready, {:.1} s after the fault's end",
            (begun + waited).saturating_sub(self.over).as_secs_f64()
        ));
        if let Some(ledger) = &self.ledger {
            ledger.wait_for(ROWS, Duration::from_secs(30)).await.context("writes after the recovery")?;
        }
        Ok(())
    }
}

async fn stands(shop: &Cluster) -> Result<common::gtid::GtidSet> {
    shop.executed(&shop.primary().await?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_turns_than_changes_are_a_violation() {
        let turn = |server| Turn { server, from: Duration::ZERO };
        assert!(side_by_side(&[], 0).is_none());
        assert!(side_by_side(&[turn(1)], 0).is_none());
        assert!(side_by_side(&[turn(1), turn(2)], 1).is_none());
        assert!(side_by_side(&[turn(1), turn(2)], 0).is_some());
        assert!(side_by_side(&[turn(1), turn(2), turn(1)], 1).is_some());
    }

    #[test]
    fn findings_name_the_first_of_many() {
        let mut findings = Findings::default();
        findings.violated("I1 lost", &[]);
        assert!(findings.violations.is_empty());
        findings.violated("I1 lost", &(0..9).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(findings.violations, ["I1 lost: 9 of them, the first: 0; 1; 2; 3; 4"]);
    }
}

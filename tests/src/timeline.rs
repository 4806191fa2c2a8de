//! What the MySQLCluster said, and when: its status is looked at ten times a second and every change is kept.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use common::crd::{MySQLClusterStatus, OperationKind, OperationPhase};
use tokio::task::JoinHandle;

use crate::Cluster;

/// Between two looks.
const PACE: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What the status said, as far as changes of primary are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When it was first seen.
    pub at: Duration,
    /// The recorded epoch.
    pub epoch: u64,
    /// The recorded primary.
    pub primary: Option<String>,
    /// The recorded ackers.
    pub ackers: Vec<String>,
    /// The operation under way: its id, kind, phase, and whom it promotes.
    pub operation: Option<(String, OperationKind, OperationPhase, Option<String>)>,
    /// Reason of FailoverBlocked, when it is true.
    pub blocked: Option<String>,
    /// Reason of Ready, when it is false.
    pub unready: Option<String>,
    /// Instances that were called errant.
    pub errant: BTreeSet<String>,
}

impl Moment {
    fn of(at: Duration, status: &MySQLClusterStatus) -> Self {
        let reason = |kind: &str, value: &str| {
            status.condition(kind).filter(|found| found.status == value).map(|found| found.reason.clone())
        };
        let errant =
            |instance: &common::crd::InstanceStatus| instance.errant.as_ref().is_some_and(|set| !set.is_empty());
        Self {
            at,
            epoch: status.epoch(),
            primary: status.primary.clone(),
            ackers: status.ackers.clone(),
            operation: status
                .operation
                .as_ref()
                .map(|operation| (operation.id.clone(), operation.kind, operation.phase, operation.to.clone())),
            blocked: reason("FailoverBlocked", "True"),
            unready: reason("Ready", "False"),
            errant: status.instances.iter().filter(|one| errant(one)).map(|one| one.name.clone()).collect(),
        }
    }

    fn differs(&self, other: &Self) -> bool {
        Self { at: other.at, ..self.clone() } != *other
    }
}

/// Everything that was seen, in order; each moment lasts until the next.
#[derive(Clone, Debug, Default)]
pub struct Timeline(pub Vec<Moment>);

impl Timeline {
    /// The primaries that were recorded, one after the other.
    pub fn primaries(&self) -> Vec<(Duration, &str)> {
        let mut primaries: Vec<(Duration, &str)> = Vec::new();
        for moment in &self.0 {
            if let Some(primary) = &moment.primary
                && primaries.last().is_none_or(|(_, last)| last != primary)
            {
                primaries.push((moment.at, primary));
            }
        }
        primaries
    }

    /// How often the primary changed.
    pub fn changes(&self) -> usize {
        self.primaries().len().saturating_sub(1)
    }

    /// How often another may have begun to take writes: a candidate may have opened, and died before it was recorded as the
    /// primary.
    pub fn takeovers(&self) -> usize {
        let mut takers = Vec::new();
        for moment in &self.0 {
            let taker = match &moment.operation {
                Some((_, _, OperationPhase::Promoting, to)) => to.as_deref(),
                Some(_) => None,
                None => moment.primary.as_deref(),
            };
            takers.extend(taker.filter(|taker| takers.last() != Some(taker)));
        }
        takers.len().saturating_sub(1)
    }

    /// When the primary changed last; zero when it never did.
    pub fn last_change(&self) -> Duration {
        self.primaries().iter().skip(1).next_back().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Ids of the operations of a kind.
    pub fn operations(&self, kind: OperationKind) -> BTreeSet<&str> {
        let operations = self.0.iter().filter_map(|moment| moment.operation.as_ref());
        operations.filter(|(_, found, ..)| *found == kind).map(|(id, ..)| id.as_str()).collect()
    }

    /// Whether FailoverBlocked was ever true for this reason.
    pub fn was_blocked(&self, reason: &str) -> bool {
        self.0.iter().any(|moment| moment.blocked.as_deref() == Some(reason))
    }

    /// Instances that were ever called errant.
    pub fn errant(&self) -> BTreeSet<&str> {
        self.0.iter().flat_map(|moment| &moment.errant).map(String::as_str).collect()
    }

    /// One line a moment.
    pub fn lines(&self) -> String {
        let line = |moment: &Moment| {
            let Moment { at, epoch, primary, ackers, operation, blocked, unready, errant } = moment;
            let primary = primary.as_deref().unwrap_or("-");
            let operation = operation.as_ref().map(|(id, _, phase, to)| format!(" {id} {phase:?} to {to:?}"));
            let mut text = format!("{:8.3} s  epoch {epoch} primary {primary} ackers {ackers:?}", at.as_secs_f64());
            text.push_str(&operation.unwrap_or_default());
            for (what, reason) in [("blocked", blocked), ("not ready", unready)] {
                text.push_str(&reason.as_ref().map(|reason| format!("; {what}: {reason}")).unwrap_or_default());
            }
            if !errant.is_empty() {
                write!(text, "; errant: {errant:?}").ok();
            }
            text
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Somebody who looks.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Timeline>,
}

impl Watch {
    /// Begins to look. Times are counted from `origin`.
    pub fn start(cluster: &Cluster, origin: Instant) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (cluster, stopped) = (cluster.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut timeline = Timeline::default();
            while !stopped.load(Ordering::Relaxed) {
                // Without an API server, or an object, what was said last stands.
                if let Ok(Ok(status)) = tokio::time::timeout(ANSWER, cluster.status()).await {
                    let moment = Moment::of(origin.elapsed(), &status);
                    if timeline.0.last().is_none_or(|last| moment.differs(last)) {
                        timeline.0.push(moment);
                    }
                }
                tokio::time::sleep(PACE).await;
            }
            timeline
        });
        Self { stop, task }
    }

    /// Ends it and returns what was seen.
    ///
    /// # Errors
    /// When the task broke.
    pub async fn finish(self) -> Result<Timeline> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the task that watches the status broke")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: u64, primary: Option<&str>, blocked: Option<&str>) -> Moment {
        let text = |text: &str| text.to_owned();
        Moment {
            at: Duration::from_secs(at),
            primary: primary.map(text),
            blocked: blocked.map(text),
            ..Moment::default()
        }
    }

    #[test]
    fn candidate_that_opened_and_was_never_recorded_counts_as_a_takeover() {
        let promoting = |at, primary, to: &str, phase| Moment {
            operation: Some((format!("failover-{at}"), OperationKind::Failover, phase, Some(to.to_owned()))),
            ..moment(at, Some(primary), None)
        };
        let timeline = Timeline(vec![
            moment(1, Some("a"), None),
            promoting(2, "a", "b", OperationPhase::Promoting),
            promoting(3, "a", "c", OperationPhase::Fencing),
            promoting(4, "a", "c", OperationPhase::Promoting),
            moment(5, Some("c"), None),
        ]);
        assert_eq!((timeline.changes(), timeline.takeovers()), (1, 2));
    }

    #[test]
    fn changes_are_between_different_primaries() {
        let timeline = Timeline(vec![
            moment(1, None, None),
            moment(2, Some("a"), None),
            moment(3, Some("a"), Some("QuorumNotProvable")),
            moment(4, Some("b"), None),
            moment(5, None, None),
            moment(6, Some("b"), None),
            moment(7, Some("a"), None),
        ]);
        assert_eq!(timeline.changes(), 2);
        assert_eq!(timeline.last_change(), Duration::from_secs(7));
        assert!(timeline.was_blocked("QuorumNotProvable") && !timeline.was_blocked("SplitHistory"));
        assert_eq!((Timeline::default().changes(), Timeline::default().takeovers()), (0, 0));
        assert_eq!(timeline.lines().lines().count(), 7);
    }
}

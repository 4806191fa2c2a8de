//! What each instance says of itself at its own address, ten times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use common::gtid::GtidSet;
use tokio::task::JoinHandle;

use crate::Cluster;
use crate::door::Door;

/// Between two samples.
const PACE: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// One statement for all of it. `global_status` finds a row by its name.
const QUESTION: &str = "SELECT @@GLOBAL.super_read_only, REPLACE(@@GLOBAL.gtid_executed, '\\n', ''), \
    COALESCE((SELECT VARIABLE_VALUE FROM performance_schema.global_status \
              WHERE VARIABLE_NAME='Rpl_semi_sync_source_status'), ''), \
    COALESCE((SELECT SERVICE_STATE FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME=''), ''), \
    COALESCE((SELECT SERVICE_STATE FROM performance_schema.replication_applier_status WHERE CHANNEL_NAME=''), '')";

/// The columns of the answer.
type Answer = (bool, String, String, String, String);

/// What an instance said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `@@super_read_only`.
    pub read_only: bool,
    /// `@@gtid_executed`.
    pub executed: String,
    /// `Rpl_semi_sync_source_status`: `ON`, `OFF`.
    pub semi_sync: String,
    /// State of the receiver: `ON`, `OFF`, `CONNECTING`; empty when there is no channel.
    pub receiver: String,
    /// State of the applier.
    pub applier: String,
}

/// One look at one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked.
    pub at: Duration,
    /// Who was asked.
    pub pod: String,
    /// What it answered; none when it let nobody in, or said nothing.
    pub said: Option<Said>,
}

/// All samples, by instance and time.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<Sample>);

impl Samples {
    /// Answers of an instance between two moments.
    pub fn answers<'a>(&'a self, pod: &'a str, from: Duration, to: Duration) -> impl Iterator<Item = &'a Said> {
        let wanted = move |sample: &&Sample| sample.pod == pod && (from..=to).contains(&sample.at);
        self.0.iter().filter(wanted).filter_map(|sample| sample.said.as_ref())
    }

    /// Transactions that clients could see on an instance after a moment and that are not in the set that stands in the
    /// end: they were errant (invariant 4).
    pub fn errant(&self, after: Duration, stands: &GtidSet) -> Vec<String> {
        let mut found: Vec<(String, String)> = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.at > after) {
            let Some(set) = sample.said.as_ref().and_then(|said| said.executed.parse::<GtidSet>().ok()) else {
                continue;
            };
            let errant = set.subtract(stands);
            let entry = (sample.pod.clone(), errant.to_string());
            if !errant.is_empty() && !found.contains(&entry) {
                found.push(entry);
            }
        }
        found.into_iter().map(|(pod, set)| format!("{pod} served {set}")).collect()
    }
}

/// Samples being taken.
pub struct Probes {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Sample>>>,
}

impl Probes {
    /// Begins to ask these instances. Times are counted from `origin`.
    ///
    /// # Errors
    /// When an instance cannot be found.
    pub async fn start(cluster: &Cluster, pods: &[String], origin: Instant) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for pod in pods {
            tasks.push(tokio::spawn(one(Door::new(cluster, pod).await?, origin, Arc::clone(&stop))));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends it and returns what was said.
    ///
    /// # Errors
    /// When a task broke.
    pub async fn finish(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Samples::default();
        for task in self.tasks {
            samples.0.extend(task.await.context("a task that takes samples broke")?);
        }
        Ok(samples)
    }
}

async fn one(mut door: Door, origin: Instant, stop: Arc<AtomicBool>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        let at = origin.elapsed();
        if session.is_none() {
            session = door.open().await;
        }
        let mut said = None;
        if let Some(open) = session.as_mut() {
            if let Ok(Some((read_only, executed, semi_sync, receiver, applier))) =
                open.first::<Answer>(QUESTION, ANSWER).await
            {
                said = Some(Said { read_only, executed, semi_sync, receiver, applier });
            } else {
                session = None;
            }
        }
        samples.push(Sample { at, pod: door.pod().to_owned(), said });
        // A login costs more than a question.
        tokio::time::sleep(if session.is_some() { PACE } else { PACE * 3 }).await;
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_served_and_does_not_stand_is_errant() {
        let uuid = "aaaaaaaa-0000-0000-0000-000000000001";
        let said = |set: &str| Said {
            read_only: true,
            executed: format!("{uuid}:{set}"),
            semi_sync: String::new(),
            receiver: String::new(),
            applier: String::new(),
        };
        let sample = |at, set: &str| Sample { at: Duration::from_secs(at), pod: "a".into(), said: Some(said(set)) };
        let silent = Sample { at: Duration::from_secs(9), pod: "a".into(), said: None };
        let samples = Samples(vec![sample(1, "1-9"), sample(5, "1-3"), sample(6, "1-6"), sample(7, "1-6"), silent]);
        let stands: GtidSet = format!("{uuid}:1-5").parse().unwrap_or_default();
        assert_eq!(samples.errant(Duration::from_secs(2), &stands), [format!("a served {uuid}:6")]);
        assert_eq!(samples.errant(Duration::from_secs(7), &stands), Vec::<String>::new());
        assert_eq!(samples.answers("a", Duration::ZERO, Duration::from_secs(5)).count(), 2);
    }
}

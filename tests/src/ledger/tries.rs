//! A commit is tried on each instance at its own address, over and over: nobody but the primary may take it.
//!
//! Its rows are rows of the ledger like any other, so what a server acknowledges here and loses is found, and when two
//! of them acknowledge side by side there are more turns than changes of primary (invariants 2 and 3). Services hide
//! this: they lead to one instance at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::writer::{insert, numbers};
use super::{Entry, Outcome};
use crate::Cluster;
use crate::door::Door;

/// Between two tries on an instance.
const PACE: Duration = Duration::from_millis(200);
/// Rest after a try without an answer: each leaves a session behind that waits.
const REST: Duration = Duration::from_millis(1500);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Tries under way.
pub struct Tries {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Entry>>>,
}

impl Tries {
    /// Begins to try on these instances. Times are counted from `origin`. The ledger's table must be there.
    ///
    /// # Errors
    /// When an instance cannot be found.
    pub async fn start(cluster: &Cluster, pods: &[String], origin: Instant) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let base = numbers();
        let mut tasks = Vec::new();
        for (writer, pod) in (base..).zip(pods) {
            let door = Door::new(cluster, pod).await?;
            tasks.push(tokio::spawn(one(door, writer, origin, Arc::clone(&stop))));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends them and returns what they were told.
    ///
    /// # Errors
    /// When a task broke.
    pub async fn finish(self) -> Result<Vec<Entry>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut entries = Vec::new();
        for task in self.tasks {
            entries.extend(task.await.context("a task that tries to commit broke")?);
        }
        Ok(entries)
    }
}

async fn one(mut door: Door, writer: u32, origin: Instant, stop: Arc<AtomicBool>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        if session.is_none() {
            session = door.open().await;
        }
        let Some(open) = session.as_mut() else {
            tokio::time::sleep(PACE * 2).await;
            continue;
        };
        let (seq, server) = (entries.len() as u64, door.server());
        let uuid = uuid::Uuid::new_v4().to_string();
        let sent = origin.elapsed();
        let result = open.exec(&insert(writer, seq, &uuid, 0), ANSWER).await;
        let answered = origin.elapsed();
        let silent = open.is_closed();
        if silent {
            session = None;
        }
        entries.push(Entry { writer, seq, uuid, server, sent, answered, outcome: Outcome::of(result) });
        tokio::time::sleep(if silent { REST } else { PACE }).await;
    }
    entries
}

//! The write ledger (FAULTS.md): what clients were told, against what is there.
//!
//! Writers insert `(writer, seq, uuid)`, one connection each, through the primary Service, and log what they were told,
//! never repeating a seq. In the end nothing that was acknowledged may be missing (LOST, invariant 1), nothing that was
//! definitely refused may be there (PHANTOM), and all instances hold the same.

mod check;
mod log;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Result;
use pelorus_dev::Node;

pub use self::check::Verdict;
pub use self::log::{Entry, Log, Outcome};
use crate::Cluster;
use crate::node::{InNode, client_node};

/// Schema of the ledger.
pub const SCHEMA: &str = "ledger";

/// How the writers write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writers, one connection each.
    pub writers: u32,
    /// Rest between two inserts of a writer.
    pub rest: Duration,
    /// Node that the writers live on; absent: the last one.
    pub node: Option<Node>,
    /// Longest wait for an answer; then the outcome is unknown.
    pub answer: Duration,
    /// Bytes of payload in each row.
    pub payload: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { writers: 4, rest: Duration::from_millis(15), node: None, answer: Duration::from_secs(20), payload: 0 }
    }
}

/// Writers at work.
pub struct Ledger {
    stop: Arc<AtomicBool>,
    started: Instant,
    acknowledged: Arc<std::sync::atomic::AtomicU64>,
    writers: InNode<Vec<Entry>>,
}

impl Ledger {
    /// Makes the ledger's table and starts the writers; returns once the first row has been acknowledged.
    ///
    /// # Errors
    /// When the primary Service takes no writes.
    pub async fn start(cluster: &Cluster, options: Options) -> Result<Self> {
        cluster.write(&writer::TABLE).await?;
        let target = cluster.primary_service().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::default();
        let started = Instant::now();
        let node = options.node.or_else(|| client_node(&cluster.harness));
        let crew =
            writer::Crew { target, options, started, stop: Arc::clone(&stop), acknowledged: Arc::clone(&acknowledged) };
        let ledger = Self { stop, started, acknowledged, writers: InNode::spawn(node, move || crew.write()) };
        ledger.wait_for(1, Duration::from_secs(30)).await?;
        Ok(ledger)
    }

    /// Rows acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until this many more rows have been acknowledged.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn wait_for(&self, rows: u64, within: Duration) -> Result<()> {
        let goal = self.acknowledged() + rows;
        crate::pace::until(&format!("{rows} more acknowledged rows"), within, async || {
            let now = self.acknowledged();
            let seen = || crate::pace::Look::Not(format!("{now} of {goal}"));
            Ok(if now >= goal { crate::pace::Look::Done(()) } else { seen() })
        })
        .await
    }

    /// Time since the writers started, on the clock of the log.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the writers and returns what they were told.
    ///
    /// # Errors
    /// When a writer broke.
    pub async fn finish(self) -> Result<Log> {
        let ended = self.started.elapsed();
        let started_at = jiff::Timestamp::now().checked_sub(ended).ok();
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(Log { started_at, ..Log::new(self.writers.join().await?, ended) })
    }
}

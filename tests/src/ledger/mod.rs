//! The write ledger (FAULTS.md): what clients were told, against what is there.
//!
//! Writers insert `(writer, seq, uuid)`, one connection each, through the primary Service, and log what they were told,
//! never repeating a seq. In the end nothing that was acknowledged may be missing (LOST, invariant 1), nothing that was
//! definitely refused may be there (PHANTOM), and all instances hold the same. Each entry names the server that was
//! connected, so that it also shows who acknowledged when (invariants 2 and 3).

mod check;
mod log;
mod tally;
mod tries;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use pelorus_dev::Node;

pub use self::check::{Verdict, question, rows};
pub use self::log::{Entry, Log, Outcome};
pub use self::tally::{Tally, Turn, turns};
pub use self::tries::Tries;
use crate::Cluster;
use crate::node::{InNode, client_node};
use crate::pace::{Look, until};

/// Longest wait until a new Service leads somewhere. That is a matter of a second, but after an outage of the API server
/// kube-proxy asks for changes again so long after it at most: client-go doubles its pause up to 30 s, adds up to as
/// much again by chance, and remembers an outage for two minutes.
pub const ROUTED: Duration = Duration::from_secs(100);

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
    /// Longest wait for a login, from the first packet to the first question.
    pub login: Duration,
    /// Each writer is so much more patient than the one before: they do not move in step.
    pub spread: Duration,
    /// Rest after a login that failed.
    pub again: Duration,
    /// Bytes of payload in each row.
    pub payload: usize,
    /// Zero of the log's clock; absent: the start of the writers.
    pub origin: Option<Instant>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            writers: 4,
            rest: Duration::from_millis(15),
            node: None,
            answer: Duration::from_secs(20),
            login: Duration::from_secs(5),
            spread: Duration::ZERO,
            again: Duration::from_millis(10),
            payload: 0,
            origin: None,
        }
    }
}

impl Options {
    /// Clients that give up on a silent server at once and knock again and again, so that the first acknowledgement after
    /// a fault is seen when it becomes possible and not when somebody next cares to try. A packet to a dead address is
    /// lost, and so is every repetition of it: a new connection is routed anew, an old one never.
    pub fn impatient() -> Self {
        Self {
            answer: Duration::from_millis(500),
            login: Duration::from_millis(150),
            spread: Duration::from_millis(40),
            again: Duration::from_millis(4),
            ..Self::default()
        }
    }
}

/// Writers at work.
pub struct Ledger {
    stop: Arc<AtomicBool>,
    started: Instant,
    tally: Arc<Tally>,
    writers: InNode<Vec<Entry>>,
}

impl Ledger {
    /// Makes the ledger's table and starts the writers; returns once the first row has been acknowledged.
    ///
    /// # Errors
    /// When the primary Service takes no writes.
    pub async fn start(cluster: &Cluster, options: Options) -> Result<Self> {
        until("the primary's Service to lead somewhere", ROUTED, async || match cluster.write(&writer::TABLE).await {
            Ok(()) => Ok(Look::Done(())),
            Err(error) => Ok(Look::Not(format!("{error:#}"))),
        })
        .await?;
        let ledger = Self::join(cluster, options).await?;
        ledger.wait_for(1, ROUTED).await?;
        Ok(ledger)
    }

    /// Starts writers on a table that is there, whether rows are acknowledged now or not.
    ///
    /// # Errors
    /// When the primary Service is not there.
    pub async fn join(cluster: &Cluster, options: Options) -> Result<Self> {
        let target = cluster.primary_service().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Tally::default());
        let started = options.origin.unwrap_or_else(Instant::now);
        let node = options.node.or_else(|| client_node(&cluster.harness));
        let crew = writer::Crew { target, options, started, stop: Arc::clone(&stop), tally: Arc::clone(&tally) };
        Ok(Self { stop, started, tally, writers: InNode::spawn(node, move || crew.write()) })
    }

    /// Rows acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.tally.acknowledged()
    }

    /// What was acknowledged so far, and by whom.
    pub fn tally(&self) -> &Tally {
        &self.tally
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

    /// Waits until a server other than `old` has acknowledged a row at or after `since`, and says when it first did, on
    /// the clock of the log.
    ///
    /// # Errors
    /// When none has in time.
    pub async fn wait_elsewhere(&self, since: Duration, old: u32, within: Duration) -> Result<Duration> {
        let what = format!("an acknowledgement by another server than {old}");
        crate::pace::until_often(&what, within, Duration::from_millis(5), async || {
            let found = self.tally.first_elsewhere(since, old);
            Ok(found.map_or_else(|| crate::pace::Look::Not(format!("{:?}", self.tally)), crate::pace::Look::Done))
        })
        .await
    }

    /// Time since the writers started, on the clock of the log.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A moment, on the clock of the log.
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Ends the writers and returns what they were told.
    ///
    /// # Errors
    /// When a writer broke.
    pub async fn finish(self) -> Result<Log> {
        let ended = self.started.elapsed();
        let started_at = jiff::Timestamp::now().checked_sub(ended).ok();
        self.stop.store(true, Ordering::Relaxed);
        Ok(Log { started_at, ..Log::new(self.writers.join().await?, ended) })
    }
}

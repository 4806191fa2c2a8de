//! One row of the fault suite (FAULTS.md): a cluster under writers, a fault, and a verdict in the end.
//!
//! ```text
//! row("F01", async |trial| {                       cluster of three, ready; writers, probes, tries at work
//!     let old = trial.primary.clone();
//!     trial.kill(&old, MYSQLD).await?;             the fault, and its moment
//!     trial.failed_over(SOON).await?;              the first acknowledgement by another server
//!     Ok(Expect::changes(1))                       what the verdict expects beyond I1 to I9
//! })
//! ```
//!
//! In the end faults are undone, the cluster has to be Ready again by itself, and [`verdict`] looks at everything that
//! was written down meanwhile. Its outcome is a line of `target/faults.jsonl`.

mod expect;
mod lines;
mod outcome;
mod setup;
mod verdict;
mod whole;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::LocalBoxFuture;
use pelorus_dev::Node;
use pelorus_dev::fault::Party;

pub use self::expect::Expect;
pub use self::outcome::{Outcome, read_outcomes};
pub use self::setup::Setup;
pub use self::verdict::Findings;
pub use self::whole::{away_from, settled, wait_whole};
use crate::bucket::Bucket;
use crate::faults::{Faults, Undo};
use crate::ledger::{Ledger, Log, Options, Tries};
use crate::pace::{LOOK, Look, until_often};
use crate::probe::Probes;
use crate::scene::guarded;
use crate::timeline::Watch;
use crate::{Cluster, Harness, Scene, run};

/// Longest wait for a failover whose evidence is plain, on a machine that does other things too. How fast it really is, is
/// measured by `bench_failover`.
pub const SOON: Duration = Duration::from_secs(20);
/// A cluster has to be Ready again so soon after the fault's end (I6).
pub const READY_AGAIN: Duration = Duration::from_secs(120);

/// When a fault began, and who acknowledged until then.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: Duration,
    server: u32,
}

/// A row under way.
pub struct Trial {
    /// The Kubernetes.
    pub harness: Harness,
    /// The cluster.
    pub shop: Cluster,
    /// Faults, with their ways back.
    pub faults: Faults,
    /// The primary at the beginning.
    pub primary: String,
    /// The replicas at the beginning.
    pub replicas: Vec<String>,
    /// Where its binlogs go. A row that takes it looks after I9 itself.
    pub bucket: Option<Bucket>,
    origin: Instant,
    began_at: jiff::Timestamp,
    options: Options,
    ledger: Option<Ledger>,
    log: Log,
    watch: Watch,
    probes: Probes,
    tries: Tries,
    fault: Option<Fault>,
    since: Option<Duration>,
    over: Duration,
    seconds: Vec<f64>,
}

/// Runs a row on a cluster of three.
///
/// # Errors
/// Those of the test, and what the verdict finds.
pub fn row<'a>(
    id: &'static str,
    test: impl AsyncFnOnce(&mut Trial) -> Result<Expect> + 'a,
) -> LocalBoxFuture<'a, Result<()>> {
    row_with(id, Setup::default(), test)
}

/// Runs a row.
///
/// # Errors
/// Those of the test, and what the verdict finds.
pub fn row_with<'a>(
    id: &'static str,
    setup: Setup,
    test: impl AsyncFnOnce(&mut Trial) -> Result<Expect> + 'a,
) -> LocalBoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let (mut outcome, begun) = (Outcome::new(id), Instant::now());
        let name = format!("{}-{}", id.to_lowercase(), outcome.slug());
        let result = run(&name, async |scene| {
            let mut trial = Trial::begin(scene, setup).await?;
            let told = guarded(test(&mut trial)).await;
            Box::pin(trial.end(told, &mut outcome)).await
        })
        .await;
        outcome.took = begun.elapsed().as_secs_f64();
        if let Err(error) = &result {
            outcome.fail(error);
        }
        outcome.append()?;
        result
    })
}

impl Trial {
    async fn begin(scene: &Scene, setup: Setup) -> Result<Self> {
        let Setup { mut spec, mut options } = setup;
        let instances = spec.instances;
        if outcome::test_name().starts_with("alone::") {
            // A row that was ended by force may have left faults.
            scene.harness.dev(pelorus_dev::fault::heal).await?;
        }
        let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        spec.archive = Some(bucket.archive());
        let shop = scene.create("shop", spec).await?;
        wait_whole(&shop, instances, Duration::from_secs(60)).await?;
        let (primary, replicas) = (shop.primary().await?, shop.replicas().await?);
        let faults = Faults::new(&shop);
        if options.node.is_none() {
            options.node = Some(away_from(faults.node_of(&primary).await?)?);
        }
        let origin = Instant::now();
        options.origin = Some(origin);
        let ledger = Ledger::start(&shop, options.clone()).await?;
        let pods: Vec<String> = shop.pods().await?.into_keys().collect();
        let trial = Self {
            harness: scene.harness.clone(),
            watch: Watch::start(&shop, origin),
            probes: Probes::start(&shop, &pods, origin).await?,
            tries: Tries::start(&shop, &pods, origin).await?,
            began_at: jiff::Timestamp::now(),
            ledger: Some(ledger),
            log: Log::default(),
            fault: None,
            since: None,
            over: Duration::ZERO,
            seconds: Vec::new(),
            shop,
            faults,
            primary,
            replicas,
            bucket: Some(bucket),
            origin,
            options,
        };
        trial.written(100).await?;
        Ok(trial)
    }

    /// Says what happens now, and when.
    pub fn step(&self, what: &str) {
        println!("[{:8.3} s] {what}", self.now().as_secs_f64());
    }

    /// Now, on the clock of everything that is written down.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn writers(&self) -> Result<&Ledger> {
        self.ledger.as_ref().context("the writers rest")
    }

    /// A fault began at this moment.
    ///
    /// # Errors
    /// When the writers rest.
    pub fn began(&mut self, moment: Instant, what: &str) -> Result<()> {
        let at = moment.saturating_duration_since(self.origin);
        println!("[{:8.3} s] FAULT: {what}", at.as_secs_f64());
        // Making a fault takes its time: who acknowledged when it began, not who does now.
        self.fault = Some(Fault { at, server: self.writers()?.tally().server_at(at) });
        self.since = self.since.or(Some(at));
        self.over = self.over.max(at);
        Ok(())
    }

    /// What the row broke by other means than faults was mended by hand; the fault ends now.
    pub fn mended(&mut self, what: &str) {
        self.over = self.now();
        self.step(&format!("mended: {what}"));
    }

    /// SIGKILL to programs of a pod: a fault.
    ///
    /// # Errors
    /// When they do not run.
    pub async fn kill(&mut self, pod: &str, programs: &[&str]) -> Result<()> {
        let moment = self.faults.kill(pod, programs).await?;
        self.began(moment, &format!("{programs:?} of {pod} killed"))
    }

    /// SIGSTOP to programs of a pod: a fault until it is undone.
    ///
    /// # Errors
    /// When they do not run.
    pub async fn freeze(&mut self, pod: &str, programs: &[&str]) -> Result<()> {
        let moment = self.faults.freeze(pod, programs).await?;
        self.began(moment, &format!("{programs:?} of {pod} frozen"))
    }

    /// Cuts a pod off from everybody but clients: a fault until it is undone.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn isolate(&mut self, pod: &str) -> Result<()> {
        let others: Vec<String> = self.shop.pods().await?.into_keys().filter(|other| other != pod).collect();
        let moment = self.faults.isolate(pod, &others).await?;
        self.began(moment, &format!("{pod} cut off from all but clients"))
    }

    /// Cuts pods off from other parties: a fault until it is undone.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn part(&mut self, pods: &[&str], others: &[Party]) -> Result<()> {
        let moment = self.faults.part(pods, others).await?;
        self.began(moment, &format!("{pods:?} cut off from {others:?}"))
    }

    /// Undoes all faults; the fault ends now.
    ///
    /// # Errors
    /// Those of the host and the API server.
    pub async fn heal(&mut self) -> Result<()> {
        if !self.faults.undone_by().is_empty() {
            self.faults.heal().await?;
            self.over = self.now();
            self.step("healed");
        }
        Ok(())
    }

    /// Undoes one fault, which ends now.
    ///
    /// # Errors
    /// Those of the host and the API server.
    pub async fn undo(&mut self, undo: &Undo) -> Result<()> {
        self.faults.undo(undo).await?;
        self.over = self.now();
        self.step(&format!("undone: {undo:?}"));
        Ok(())
    }

    /// Waits until another server than before the fault has acknowledged; the result is the seconds since the fault.
    ///
    /// # Errors
    /// When none has in time.
    pub async fn failed_over(&mut self, within: Duration) -> Result<f64> {
        let fault = self.fault.context("no fault was made")?;
        let first = self.writers()?.wait_elsewhere(fault.at, fault.server, within).await?;
        let seconds = first.saturating_sub(fault.at).as_secs_f64();
        self.step(&format!("writes go on elsewhere, {seconds:.3} s after the fault"));
        self.seconds.push(seconds);
        Ok(seconds)
    }

    /// Waits until so many more rows are acknowledged.
    ///
    /// # Errors
    /// When they are not within half a minute.
    pub async fn written(&self, rows: u64) -> Result<()> {
        self.written_within(rows, Duration::from_secs(30)).await
    }

    /// Waits until so many more rows are acknowledged.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn written_within(&self, rows: u64, within: Duration) -> Result<()> {
        self.writers()?.wait_for(rows, within).await
    }

    /// Rows acknowledged so far.
    ///
    /// # Errors
    /// When the writers rest.
    pub fn acknowledged(&self) -> Result<u64> {
        Ok(self.writers()?.acknowledged())
    }

    /// The recorded primary is this one the whole time, and nothing is decided about it.
    ///
    /// # Errors
    /// When it is not.
    pub async fn stays(&self, primary: &str, during: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < during {
            // The API server may be what is broken.
            if let Ok(status) = self.shop.status().await {
                let seen = status.primary;
                ensure!(seen.as_deref() == Some(primary), "after {:?} the primary is {seen:?}", started.elapsed());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the cluster is whole again: all instances serve, all replicas are recorded ackers, nothing is under way.
    /// To be called between two faults of a row.
    ///
    /// # Errors
    /// When it is not in time (I6).
    pub async fn whole(&mut self) -> Result<()> {
        let instances = self.shop.get().await?.spec.instances;
        wait_whole(&self.shop, instances, READY_AGAIN).await.context("I6")?;
        self.step("whole again");
        self.written(20).await
    }

    /// A refusal is seen everywhere (I7).
    ///
    /// # Errors
    /// When it is missing somewhere.
    pub async fn refused(&self, reason: &str, within: Duration) -> Result<()> {
        self.shop.refused_visibly(reason, within).await.context("I7")?;
        self.step(&format!("refused for all to see: {reason}"));
        Ok(())
    }

    /// There is no Kubernetes Event of this reason.
    ///
    /// # Errors
    /// When there is one.
    pub async fn never(&self, reason: &str) -> Result<()> {
        let reasons = self.shop.event_reasons().await?;
        ensure!(!reasons.contains(reason), "there is an Event {reason} among {reasons:?}");
        Ok(())
    }

    /// Waits until this is so, with quick looks.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn soon(&self, what: &str, within: Duration, look: impl AsyncFn() -> Result<bool>) -> Result<()> {
        until_often(what, within, Duration::from_millis(20), async || {
            Ok(if look().await? { Look::Done(()) } else { Look::Not("not yet".to_owned()) })
        })
        .await
    }

    /// Ends the writers for now; what they were told is kept.
    ///
    /// # Errors
    /// When one broke.
    pub async fn rest(&mut self) -> Result<()> {
        if let Some(ledger) = self.ledger.take() {
            self.log.merge(ledger.finish().await?);
        }
        Ok(())
    }

    /// Writers that are started again live on this node.
    pub fn move_writers(&mut self, node: Node) {
        self.options.node = Some(node);
    }

    /// Starts writers again, after [`Trial::rest`].
    ///
    /// # Errors
    /// When the primary Service takes no writes.
    pub async fn resume(&mut self) -> Result<()> {
        self.ledger = Some(Ledger::start(&self.shop, self.options.clone()).await?);
        Ok(())
    }
}

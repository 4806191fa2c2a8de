//! The loop of one cluster: streams from whoever is primary, for as long as that is so, and says how it goes.
//!
//! ```text
//! wish -> location, archive, primary -> stream ------> another wish, or an end -> pause -> wish
//!                                          `-> records, condition, metrics, at a pace
//! ```
//!
//! Nothing here is in the way of a failover: what is streamed says nothing about who is primary, and a stream that was cut
//! begins anew from what the archive has.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::Root;
use archive::catalogue::{self, Known};
use common::conditions::{self, Finding};
use common::crd::{MySQLBinlog, MySQLCluster, RESTORABLE, Restorable};
use common::events::{Event, Events};
use common::gtid::GtidSet;
use common::lease::members::{self, Members};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, info, info_span, warn};

use binlog_shipper::purge::Horizon;
use binlog_shipper::ship::{self, Progress, Step, Stream};
use binlog_shipper::source::Until;

use crate::connect;
use crate::decide::{Wish, decide};
use crate::metrics::{self, Metrics};
use crate::record::{News, Origin, Records};
use crate::window::Window;

mod prove;
mod tidy;

/// Field manager of our writes.
const MANAGER: &str = "pelorus/binlog-shipper";
/// Our conditions: whether binlogs go to the bucket, and whether what is there can be restored to the newest. backup-d makes a dump
/// when the latter does not hold.
pub const SHIPPING: &str = "BinlogShipping";
const OURS: [&str; 2] = [SHIPPING, RESTORABLE];
/// Pauses after a stream that ended: doubled from the first to the last.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(15);
/// A stream that went on for so long was a good one.
const GOOD: Duration = Duration::from_secs(60);
/// Pace of what people see.
const PACE: Duration = Duration::from_secs(2);
/// Pace of MySQLBinlog objects, whose numbers move with each segment.
const RECORDS: Duration = Duration::from_secs(10);
/// A transaction that waits longer than this, and than several flushes, is worth saying.
const LATE: Duration = Duration::from_secs(10);
/// A bucket that takes nothing for so long may have another address or other keys by now: they are read again.
const RENEW: Duration = Duration::from_secs(60);
/// Deadline of one call to the API server.
const CALL: Duration = Duration::from_secs(10);

/// What all loops share.
#[derive(Clone)]
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// NATS.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Folder for bytes on their way.
    pub spool: PathBuf,
    /// Bytes that may wait there for each cluster.
    pub spool_max: u64,
}

struct Loop {
    context: Context,
    namespace: String,
    name: String,
    uid: String,
    labels: metrics::Cluster,
    /// The gap that was told last.
    gap: GtidSet,
    /// Our conditions could not be written the last time.
    unwritten: AtomicBool,
    /// What can be restored, as it was proven last. A part of each report: apply takes away what is left out.
    restorable: Mutex<Option<Restorable>>,
}

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] connect::Error),
    #[error(transparent)]
    Ship(#[from] ship::Error),
    #[error("{0}")]
    Bucket(String),
    #[error("the stream ended")]
    Silently,
}

impl Ended {
    fn reason(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Ship(ship::Error::Source { .. }) | Self::Silently => "StreamBroken",
            Self::Ship(ship::Error::Archive(_)) => "ArchiveConflict",
            Self::Ship(ship::Error::Spool(_)) => "SpoolFailed",
            Self::Bucket(_) => "BucketUnreachable",
        }
    }
}

/// What the stream says and the reporter writes.
struct Shared {
    records: Records,
    window: Window,
    horizon: Horizon,
    /// What the primary had purged when the stream began.
    purged: GtidSet,
    progress: Progress,
}

/// Runs until the cluster is gone; ships while it belongs to this replica's share.
pub async fn run(
    context: Context,
    mut cluster: watch::Receiver<Arc<MySQLCluster>>,
    mut members: watch::Receiver<Members>,
) {
    let first = Arc::clone(&cluster.borrow());
    let (namespace, name) = (first.namespace().unwrap_or_default(), first.name_any());
    let uid = first.uid().unwrap_or_default();
    let span = info_span!("cluster", namespace, cluster = name);
    let shares = async {
        loop {
            tokio::select! {
                () = members::when(&mut members, &uid, true) => {}
                () = gone(cluster.clone()) => return,
            }
            let mut this = Loop::new(context.clone(), &cluster.borrow());
            let is_gone = tokio::select! {
                () = Box::pin(this.go(&mut cluster)) => true,
                () = members::when(&mut members, &uid, false) => false,
            };
            this.leave();
            if is_gone {
                return;
            }
            info!("another replica ships it now");
        }
    };
    shares.instrument(span).await;
}

/// Waits until nobody tells of the cluster any more.
async fn gone(mut cluster: watch::Receiver<Arc<MySQLCluster>>) {
    while cluster.changed().await.is_ok() {}
}

impl Loop {
    fn new(context: Context, cluster: &MySQLCluster) -> Self {
        let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        let labels = metrics::Cluster { namespace: namespace.clone(), cluster: name.clone() };
        let restorable = Mutex::new(cluster.status.as_ref().and_then(|status| status.restorable.clone()));
        let uid = cluster.uid().unwrap_or_default();
        let (gap, unwritten) = (GtidSet::default(), AtomicBool::new(false));
        Self { context, namespace, name, uid, labels, gap, unwritten, restorable }
    }

    /// Nothing of it is kept: who ships it next begins from what the archive has.
    fn leave(&self) {
        self.context.metrics.streaming.remove(&self.labels);
        self.context.metrics.oldest_ms.remove(&self.labels);
        if let Err(error) = std::fs::remove_dir_all(self.context.spool.join(&self.uid))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            debug!(%error, "the spool stays");
        }
    }

    async fn go(&mut self, cluster: &mut watch::Receiver<Arc<MySQLCluster>>) {
        let mut pause = AGAIN;
        loop {
            let now = Arc::clone(&cluster.borrow_and_update());
            let wish = decide(&now);
            let began = Instant::now();
            match &wish {
                Wish::Nothing => self.say(&now, Vec::new()).await,
                Wish::Wait { reason, message } => {
                    self.say(&now, vec![Finding::bad(SHIPPING, reason, message.clone())]).await;
                }
                Wish::Stream { .. } => {
                    let ended = tokio::select! {
                        ended = self.stream(cluster.clone(), &wish) => ended,
                        gone = another(cluster.clone(), &wish) => {
                            if gone { return }
                            continue;
                        }
                    };
                    self.context.metrics.streaming.get_or_create(&self.labels).set(0);
                    let finding = Finding::bad(SHIPPING, ended.reason(), ended.to_string());
                    info!(reason = finding.reason, message = finding.message, "the stream is over");
                    let now = Arc::clone(&cluster.borrow());
                    self.say(&now, vec![finding]).await;
                    pause = if began.elapsed() > GOOD { AGAIN } else { (pause * 2).min(AGAIN_MAX) };
                    tokio::select! {
                        () = sleep(pause) => continue,
                        gone = another(cluster.clone(), &wish) => {
                            if gone { return }
                            continue;
                        }
                    }
                }
            }
            if another(cluster.clone(), &wish).await {
                return;
            }
        }
    }

    /// Streams to its end.
    async fn stream(&mut self, cluster: watch::Receiver<Arc<MySQLCluster>>, wish: &Wish) -> Ended {
        match self.try_stream(cluster, wish).await {
            Ok(()) => Ended::Silently,
            Err(ended) => ended,
        }
    }

    async fn try_stream(&mut self, cluster: watch::Receiver<Arc<MySQLCluster>>, wish: &Wish) -> Result<(), Ended> {
        let Wish::Stream { epoch, primary, archive } = wish else { return Ok(()) };
        let client = &self.context.client;
        let location = &archive.location_ref.name;
        let (store, prefix) = connect::bucket(client, &self.namespace, location).await?;
        let root = Root::new(&prefix, &self.namespace, &self.name, &self.uid);
        // The archive before the primary: what is put meanwhile is put twice at worst, and found there.
        let held = catalogue::read(&store, &root).await.map_err(connect::Error::from)?;
        let mut server = connect::primary(client, &self.namespace, &self.name, primary).await?;
        let mut known = Known::of(&held);
        let gap = server.purged.subtract(&known.gtid);
        self.tell_gap(&gap, &known.gtid, primary);
        known.gtid.extend_with(&gap);
        let origin = Origin {
            namespace: self.namespace.clone(),
            cluster: self.name.clone(),
            uid: self.uid.clone(),
            location: location.clone(),
        };
        let shared = Mutex::new(Shared {
            records: Records::new(origin, &held),
            window: Window::new(&held, &connect::dumps(&store, &root).await?, &server.purged),
            purged: server.purged,
            horizon: Horizon::new(&held),
            progress: Progress::default(),
        });
        drop(held);
        let stream = Stream {
            source: server.source,
            server: server.server,
            epoch: *epoch,
            executed: server.executed,
            root,
            store,
            spool: self.context.spool.join(&self.uid),
            flush_every: archive.binlog.flush_every.into(),
            spool_max: self.context.spool_max,
        };
        info!(epoch, primary, "streaming");
        self.context.metrics.streaming.get_or_create(&self.labels).set(1);
        let watch = |step: &Step<'_>, progress: &Progress| self.step(&shared, step, progress);
        let mut shipping = Box::pin(ship::run(&stream, &known, Until::Forever, watch));
        tokio::select! {
            ended = &mut shipping => Ok(ended?),
            problem = self.report(&shared, &cluster, stream.flush_every, primary) => Err(Ended::Bucket(problem)),
            () = self.prove(&shared, &mut server.session, &stream) => Ok(()),
            () = Box::pin(self.tidy(&shared, &cluster, &stream, archive.binlog.keep.into())) => Ok(()),
        }
    }

    fn step(&self, shared: &Mutex<Shared>, step: &Step<'_>, progress: &Progress) {
        let metrics = &self.context.metrics;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Shipped(segment) => {
                shared.records.shipped(segment);
                shared.window.shipped(segment);
                shared.horizon.shipped(segment);
                metrics.segments.get_or_create(&self.labels).inc();
                metrics.bytes.get_or_create(&self.labels).inc_by(segment.key.length());
                let now = u64::try_from(common::clock::now().as_microsecond()).unwrap_or(0);
                if segment.first_commit > 0 {
                    let delay = Duration::from_micros(now.saturating_sub(segment.first_commit));
                    metrics.delay.get_or_create(&self.labels).observe(delay.as_secs_f64());
                }
            }
            Step::Completed(complete) => shared.records.completed(complete),
            Step::Failing => {
                metrics.failures.get_or_create(&self.labels).inc();
            }
        }
        shared.progress = progress.clone();
    }

    /// Writes what people see, at its pace, until the bucket has taken nothing for too long: why.
    async fn report(
        &self,
        shared: &Mutex<Shared>,
        cluster: &watch::Receiver<Arc<MySQLCluster>>,
        flush_every: Duration,
        primary: &str,
    ) -> String {
        let late = LATE.max(flush_every * 5);
        let mut written: Option<Instant> = None;
        loop {
            let is_due = written.is_none_or(|at| at.elapsed() >= RECORDS);
            let (news, oldest, problem, continuity) = {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let waits = shared.progress.oldest.map(|since| since.elapsed());
                let news = if is_due { shared.records.news() } else { Vec::new() };
                (news, waits, shared.progress.problem.clone(), prove::continuity(&shared.window))
            };
            let waits = oldest.unwrap_or_default();
            let millis = i64::try_from(waits.as_millis()).unwrap_or(i64::MAX);
            self.context.metrics.oldest_ms.get_or_create(&self.labels).set(millis);
            let finding = match problem {
                Some(problem) if waits > RENEW.max(late) => return problem,
                Some(problem) if waits > late => Finding::bad(SHIPPING, "BucketUnreachable", problem),
                _ if waits > late => Finding::bad(SHIPPING, "Late", "transactions wait longer than they should"),
                Some(_) | None => Finding::good(SHIPPING, "Shipping", format!("from {primary}")),
            };
            let now = Arc::clone(&cluster.borrow());
            self.say(&now, vec![finding, continuity]).await;
            if !news.is_empty() {
                written = Some(Instant::now());
                if !self.write(news).await {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).records.again();
                }
            }
            sleep(PACE).await;
        }
    }

    /// Applies MySQLBinlog objects; whether all of them were.
    async fn write(&self, news: Vec<News>) -> bool {
        let api: Api<MySQLBinlog> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(MANAGER).force();
        for News { name, object, status } in news {
            let apply = async {
                if let Some(object) = object {
                    api.patch(&name, &parameters, &Patch::Apply(&object)).await?;
                }
                api.patch_status(&name, &parameters, &Patch::Apply(&status)).await
            };
            match timeout(CALL, apply).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    info!(%error, binlog = name, "a MySQLBinlog was not written");
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Our conditions, if they differ; none takes them away.
    async fn say(&self, cluster: &MySQLCluster, findings: Vec<Finding>) {
        let now = Time(common::clock::now());
        let status = cluster.status.as_ref();
        let had = status.is_some_and(|status| status.condition(SHIPPING).is_some());
        let restorable = self.restorable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (conditions, restorable) = if findings.is_empty() {
            if !had {
                return;
            }
            (Vec::new(), None)
        } else {
            let report = conditions::report(&OURS, status, &findings, cluster.metadata.generation, &now);
            if !report.changed && restorable.as_ref() == status.and_then(|status| status.restorable.as_ref()) {
                return;
            }
            (report.conditions, restorable)
        };
        let mut written = json!({"conditions": conditions});
        if let (Some(fields), Some(restorable)) = (written.as_object_mut(), restorable) {
            fields.insert("restorable".to_owned(), json!(restorable));
        }
        let patch = json!({"apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster", "status": written});
        let api: Api<MySQLCluster> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(MANAGER).force();
        match timeout(CALL, api.patch_status(&self.name, &parameters, &Patch::Apply(&patch))).await {
            Ok(Ok(_)) => self.unwritten.store(false, Ordering::Relaxed),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {}
            Ok(Err(error)) => self.not_written(&error),
            Err(_) => self.not_written(&"no answer"),
        }
    }

    /// Once in an outage, which may last: it is tried again every two seconds.
    fn not_written(&self, error: &dyn std::fmt::Display) {
        if !self.unwritten.swap(true, Ordering::Relaxed) {
            warn!(%error, "the condition was not written");
        }
    }

    /// Transactions that no server can give any more. Where an archive begins there always are some, or none.
    fn tell_gap(&mut self, gap: &GtidSet, known: &GtidSet, primary: &str) {
        if gap.is_empty() || known.is_empty() || *gap == self.gap {
            return;
        }
        warn!(%gap, primary, "binlogs were purged before they were shipped: restores need a dump from after them");
        self.context.events.publish(Event {
            namespace: self.namespace.clone(),
            cluster: self.name.clone(),
            kind: "binlog.gap",
            data: json!({"gtid": gap.to_string(), "primary": primary}),
        });
        self.gap = gap.clone();
    }
}

/// Waits until something else is wished for; whether the cluster is gone.
async fn another(mut cluster: watch::Receiver<Arc<MySQLCluster>>, wish: &Wish) -> bool {
    loop {
        if decide(&cluster.borrow_and_update()) != *wish {
            return false;
        }
        if cluster.changed().await.is_err() {
            return true;
        }
    }
}

//! The controller: which clusters are looked at, when, and how many at once.
//!
//! ```text
//! MySQLCluster (each behind a guard: one broken object stalls no other) ──┐
//! StatefulSets, Pods (metadata only, ours by label)                     ──┼─> reconcile ─> pass ─> next look
//! Services, PodDisruptionBudgets, NetworkPolicies (metadata only)       ──┘
//! ```
//!
//! failover-d writes the status often. A look that found all well is not repeated for that: only a change of the spec,
//! of failover-d's facts, or of an object of ours is a reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::crd::{MySQLCluster, MySQLClusterStatus, OperationPhase};
use common::daemon::{Complaint, Patience, everywhere, watching};
use common::events::Events;
use common::instance::Epoch;
use common::names;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config as Pace, Error as RunError};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, instrument, warn};

use crate::build::{Cluster, MANAGED_BY};
use crate::config::Config;
use crate::decide::{Leader, Record};
use crate::error::Error;
use crate::memory::{Fingerprint, Key, Memories, Memory, jittered};
use crate::metrics::{Label, Metrics};
use crate::pass::{Pace as Next, Pass};

type Guarded = DeserializeGuard<MySQLCluster>;

/// Pause between two looks when all is well.
const SETTLED: Duration = Duration::from_secs(22);
/// Shortest and longest pause while something moves.
const MOVING_MIN: Duration = Duration::from_millis(400);
const MOVING_MAX: Duration = Duration::from_secs(8);
/// First and longest pause after a failure.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A paused or broken object is looked at again.
const IDLE: Duration = Duration::from_secs(300);

/// What every reconciliation shares.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// Configuration.
    pub config: Config,
    /// Kubernetes Events.
    pub recorder: Recorder,
    /// NATS events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// What is remembered between looks.
    pub memories: Memories,
}

/// Runs until `stop`; reconciliations that are under way are finished.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.config.watch_namespace.clone());
    let namespace = namespace.as_deref();
    let ours = watching().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    let mark = |touched: bool| {
        let context = Arc::clone(&context);
        move |key: Option<Key>| {
            key.map(|key| {
                context.memories.mark(&key, touched);
                let (namespace, name) = key;
                ObjectRef::<Guarded>::new(&name).within(&namespace)
            })
        }
    };
    let (stirred, touched) = (mark(false), mark(true));
    let (stirred_by_pod, touched_by_budget, touched_by_policy) = (stirred.clone(), touched.clone(), touched.clone());
    let controller = Controller::new(everywhere::<Guarded>(&client, namespace), watching())
        .trigger_backoff(Patience::default())
        .with_config(Pace::default().concurrency(context.config.concurrency))
        .watches(everywhere::<PartialObjectMeta<StatefulSet>>(&client, namespace), ours.clone(), move |object| {
            stirred(key(&object))
        })
        .watches(everywhere::<PartialObjectMeta<Pod>>(&client, namespace), ours.clone(), move |object| {
            stirred_by_pod(key(&object))
        })
        .watches(everywhere::<PartialObjectMeta<Service>>(&client, namespace), ours.clone(), move |object| {
            touched(key(&object))
        })
        .watches(
            everywhere::<PartialObjectMeta<PodDisruptionBudget>>(&client, namespace),
            ours.clone(),
            move |object| touched_by_budget(key(&object)),
        )
        .watches(everywhere::<PartialObjectMeta<NetworkPolicy>>(&client, namespace), ours, move |object| {
            touched_by_policy(key(&object))
        })
        .graceful_shutdown_on(async move { stop.cancelled().await });
    let complaint = Complaint::default();
    controller
        .run(reconcile, error_policy, Arc::clone(&context))
        .for_each(async |outcome| match outcome {
            Ok((object, action)) => debug!(cluster = %object.name, ?action, "looked"),
            Err(RunError::ObjectNotFound(object)) => gone(&context, &object),
            // Logged where the pause is decided.
            Err(RunError::ReconcilerFailed(..)) => {}
            Err(error @ (RunError::QueueError(_) | RunError::RunnerError(_))) => {
                complaint.about("clusters and what is theirs", &error);
            }
        })
        .await;
}

/// The cluster that an object of ours belongs to.
fn key<K: Resource>(object: &K) -> Option<Key> {
    Some((object.namespace()?, object.labels().get(names::LABEL_CLUSTER)?.clone()))
}

/// A MySQLCluster was deleted: owner references take its objects along.
fn gone<K: Resource>(context: &Context, object: &ObjectRef<K>)
where
    K::DynamicType: std::fmt::Debug + std::hash::Hash + Eq + Clone,
{
    let key = (object.namespace.clone().unwrap_or_default(), object.name.clone());
    if !context.memories.forget(&key) {
        return;
    }
    context.metrics.clusters.set(i64::try_from(context.memories.len()).unwrap_or(i64::MAX));
    let (namespace, cluster) = key;
    info!(namespace, cluster, "the cluster was deleted");
    context.events.publish(common::events::Event { namespace, cluster, kind: "cluster.deleted", data: json!({}) });
}

/// failover-d's facts, as the decisions take them.
pub fn record(status: Option<&MySQLClusterStatus>) -> Record {
    let record = status.map(MySQLClusterStatus::record).unwrap_or_default();
    let leader = match &record.operation {
        None => record.primary.clone().map(|name| (name, record.primary_data.clone(), record.epoch)),
        Some(operation) if operation.phase == OperationPhase::Promoting => {
            let epoch = Epoch::try_from(operation.epoch).unwrap_or_default();
            operation.to.clone().map(|name| (name, operation.to_data.clone(), epoch))
        }
        Some(_) => None,
    };
    let reigns = record.unproven.iter().flat_map(|reign| reign.ackers.iter().chain([&reign.primary]));
    let begun = record.operation.iter().flat_map(|operation| &operation.ackers);
    let counted = reigns.chain(begun).chain(&record.ackers).chain(&record.primary).cloned().collect();
    Record {
        leader: leader.map(|(name, data, epoch)| Leader { name, data, epoch }),
        counted,
        epoch: record.epoch,
        primary: record.primary,
        ackers: record.ackers.into_iter().collect(),
        acks_needed: record.acks_needed,
        operation: record.operation.is_some(),
    }
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let object = object.0.as_ref().map_err(|error| Error::InvalidObject(error.to_string()))?;
    let cluster = Cluster::of(object).ok_or(Error::Incomplete("namespace or uid"))?;
    Box::pin(look(object, &cluster, &context)).await
}

#[instrument(name = "reconcile", skip_all, fields(namespace = %cluster.namespace, cluster = %cluster.name, epoch = object.epoch()))]
async fn look(object: &MySQLCluster, cluster: &Cluster, context: &Context) -> Result<Action, Error> {
    let slot = context.memories.slot(&(cluster.namespace.clone(), cluster.name.clone()));
    context.metrics.clusters.set(i64::try_from(context.memories.len()).unwrap_or(i64::MAX));
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut memory = slot.memory.lock().await;
    if memory.uid != cluster.uid {
        *memory = Memory { uid: cluster.uid.clone(), ..Memory::default() };
    }
    if object.spec.paused {
        memory.settled = None;
        return Ok(Action::requeue(IDLE));
    }
    let fingerprint = Fingerprint {
        generation: object.metadata.generation.unwrap_or(0),
        record: record(object.status.as_ref()),
        rebuild: object.annotations().get(names::ANNOTATION_REBUILD).cloned(),
    };
    if let Some(rest) = memory.quiet(&fingerprint.record, Instant::now()) {
        return Ok(Action::requeue(rest));
    }
    let stirred = slot.stirred.swap(false, Ordering::Relaxed);
    if let Some((settled, until)) = &memory.settled
        && !stirred
        && *settled == fingerprint
        && let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    {
        return Ok(Action::requeue(rest));
    }
    let began = Instant::now();
    if let Some(rest) = memory.unsettle(stirred && fingerprint.record.primary.is_some(), began) {
        return Ok(Action::requeue(rest));
    }
    if slot.touched.swap(false, Ordering::Relaxed) {
        memory.applied = None;
    }
    let next = Box::pin(Pass::new(context, object, cluster, &fingerprint.record, &mut memory).run()).await;
    context.metrics.looked(began.elapsed());
    context.metrics.nats_connected.set(i64::from(context.events.connected().unwrap_or(false)));
    let next = next.inspect_err(|_| slot.stirred.store(true, Ordering::Relaxed))?;
    slot.failures.store(0, Ordering::Relaxed);
    let now = Instant::now();
    match next {
        Next::Settled => {
            let pause = jittered(SETTLED);
            memory.settled = Some((fingerprint, now + pause));
            Ok(Action::requeue(pause))
        }
        Next::Moving { picture } => {
            // The longer nothing moves, the longer the pause: a stuck cluster costs little, and pods wake us.
            let since = match memory.picture {
                Some((before, since)) if before == picture => since,
                Some(_) | None => now,
            };
            memory.picture = Some((picture, since));
            let pause = (now.duration_since(since) / 10).clamp(MOVING_MIN, MOVING_MAX);
            Ok(Action::requeue(jittered(pause)))
        }
    }
}

// The signature is kube's.
#[allow(clippy::needless_pass_by_value)]
fn error_policy(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let (namespace, cluster) = (object.namespace().unwrap_or_default(), object.name_any());
    context.metrics.failures.get_or_create(&Label { kind: error.step() }).inc();
    if let Error::InvalidObject(_) = error {
        error!(namespace, cluster, %error, "the object does not fit its schema; waiting for a change");
        return Action::requeue(IDLE);
    }
    let failures =
        context.memories.slot(&(namespace.clone(), cluster.clone())).failures.fetch_add(1, Ordering::Relaxed);
    let pause = jittered(RETRY_MIN.saturating_mul(1 << failures.min(8)).min(RETRY_MAX));
    warn!(namespace, cluster, %error, failures = failures + 1, retry_ms = pause.as_millis(), "reconciliation failed");
    Action::requeue(pause)
}

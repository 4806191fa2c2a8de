//! One cluster's loop: observe, decide, act, report. Everything slow runs beside it.

mod connections;
mod tell;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::InstanceClient;
use common::crd::Durability;
use common::crd::MySQLCluster;
use common::events::Events;
use common::failpoint;
use common::names;
use kube::Client;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::events::{EventType, Recorder};
use rustls::ClientConfig;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, info, info_span, warn};

use self::connections::Stream;
use crate::decide::{self, Name, Observed, Operation, OperationPhase, Plan, Record, Wish};
use crate::memory::{Memory, PodFacts};
use crate::metrics::Metrics;
use crate::order::{self, Orders};
use crate::report::{self, Report, Told};
use crate::route::{self, Desired, Target};
use crate::stream::Update;
use crate::timeline::Timeline;
use crate::{record, watching::Pods};

/// Silence has to be noticed without anybody saying anything.
const TICK: Duration = Duration::from_millis(100);
/// Deadline of reading a Secret.
const SECRET_TIMEOUT: Duration = Duration::from_secs(3);
/// What people see is written during an operation only when it takes longer than this.
const REPORT_LATER: Duration = Duration::from_secs(2);
/// An operation is carried on by who claimed it; others help when it has not moved for so long, for he may be gone.
const HELP_AFTER: Duration = Duration::from_millis(400);
/// Whoever did not write the record last leaves it so long to who did: two at once would only get in each other's way.
const DEFER: Duration = Duration::from_millis(40);
/// So long the claim of a failover waits for answers with which it becomes an election, and an election for those that
/// are not needed and may show a candidate that holds more.
const ANSWERS: Duration = Duration::from_millis(60);
/// An instance that is silent for longer may be gone. The replicas' receivers have to agree.
const SILENT_AFTER: Duration = Duration::from_millis(1500);

/// What every cluster loop needs.
#[derive(Clone)]
pub struct Context {
    /// For lists and writes that may take their time.
    pub client: Client,
    /// Events on NATS.
    pub events: Events,
    /// Kubernetes Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Name of this process, for the record.
    pub holder: Arc<str>,
}

struct Loop {
    context: Context,
    namespace: String,
    name: String,
    cluster: MySQLCluster,
    memory: Memory,
    streams: HashMap<Name, Stream>,
    /// Instances without a pod, since when: the order to demote still goes to where they were.
    departed: HashMap<Name, (InstanceClient, Instant)>,
    orders: Orders,
    tls: Option<(Arc<ClientConfig>, Instant)>,
    updates: mpsc::Sender<Update>,
    routes: watch::Sender<Desired>,
    reports: watch::Sender<Told>,
    /// This process wrote the record last. The other, if there is one, then only does what remains undone.
    has_pen: bool,
    /// Since when a write is left to who has the pen.
    deferred: Option<Instant>,
    record_changed: Instant,
    was_ready: Option<bool>,
    last_blocked: Option<String>,
    timeline: Option<Timeline>,
}

/// Runs until the sender of `objects` is dropped (the cluster is gone).
pub async fn run(context: Context, mut objects: watch::Receiver<Arc<MySQLCluster>>, mut pods: watch::Receiver<Pods>) {
    let cluster = MySQLCluster::clone(&objects.borrow_and_update());
    let (namespace, name) = cluster.namespace_and_name();
    let span = info_span!("cluster", namespace, cluster = name);
    async move {
        let (updates, mut inbox) = mpsc::channel(256);
        let (routes, desired) = watch::channel(Desired::default());
        let nothing = Told::new(cluster.clone(), Report::default(), false, Duration::ZERO);
        let (reports, reported) = watch::channel(nothing);
        tokio::spawn(
            route::run(context.client.clone(), cluster.clone(), desired, context.metrics.clone(), updates.clone())
                .in_current_span(),
        );
        tokio::spawn(report::run(context.client.clone(), namespace.clone(), name.clone(), reported).in_current_span());
        let mut this = Loop {
            memory: Memory::new(&namespace, &name, Instant::now()),
            context,
            namespace,
            name,
            cluster,
            streams: HashMap::new(),
            departed: HashMap::new(),
            orders: Orders::default(),
            tls: None,
            updates,
            routes,
            reports,
            has_pen: false,
            deferred: None,
            record_changed: Instant::now(),
            was_ready: None,
            last_blocked: None,
            timeline: None,
        };
        info!("watching");
        loop {
            let facts = pods.borrow_and_update().of(&this.namespace, &this.name);
            if let Some(facts) = facts {
                this.step(&facts).await;
            }
            tokio::select! {
                changed = objects.changed() => {
                    if changed.is_err() { break }
                    this.take(MySQLCluster::clone(&objects.borrow_and_update()));
                }
                changed = pods.changed() => if changed.is_err() { break },
                update = inbox.recv() => {
                    if let Some(update) = update { this.note(update); }
                    while let Ok(update) = inbox.try_recv() { this.note(update); }
                }
                () = sleep(if this.deferred.is_some() { DEFER } else { TICK }) => {}
            }
        }
        info!("gone");
        this.context.metrics.forget(&this.namespace, &this.name);
    }
    .instrument(span)
    .await;
}

/// Versions of one object can be compared since Kubernetes 1.35, and in fact ever since.
fn version(cluster: &MySQLCluster) -> u64 {
    cluster.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Loop {
    /// Takes up an object unless we hold a newer one (our own write comes back before the watch brings it).
    fn take(&mut self, cluster: MySQLCluster) {
        if version(&cluster) < version(&self.cluster) {
            return;
        }
        if record::read(&cluster) != record::read(&self.cluster) {
            self.has_pen = false;
            self.deferred = None;
            self.record_changed = Instant::now();
        }
        self.cluster = cluster;
    }

    fn note(&mut self, update: Update) {
        let now = Instant::now();
        let primary = self.cluster.primary().map(str::to_owned);
        match update {
            Update::Heard(state) => self.memory.heard(*state, primary.as_ref(), now),
            Update::Refused(name) => self.memory.refused(&name, now),
            Update::Routed(epoch) => {
                if let Some(timeline) = &mut self.timeline {
                    timeline.routed(epoch, now);
                }
            }
            Update::Answered(name, order, result) => {
                self.orders.answered(&name, &order, now);
                if let Some(answer) = order::outcome(&order, &result) {
                    self.memory.answered(&name, answer);
                }
                // What a departed one says is not of the instance that has its name now.
                if let Ok(state) = *result
                    && self.streams.contains_key(&name)
                {
                    self.memory.heard(state, primary.as_ref(), now);
                }
            }
        }
    }

    fn wish(&self) -> Wish {
        let spec = &self.cluster.spec;
        let hands_off = if self.cluster.metadata.deletion_timestamp.is_some() {
            Some("the cluster is being deleted")
        } else if spec.paused {
            Some("spec.paused")
        } else if spec.hibernated {
            Some("spec.hibernated")
        } else {
            None
        };
        let annotation = |name: &str| self.cluster.annotations().get(name);
        Wish {
            instances: spec.instances,
            primary: spec.primary.clone(),
            available: spec.durability == Durability::Available,
            max_lag: spec.reads.max_lag.as_std(),
            failover: spec.failover.enabled,
            hang_after: spec.failover.hang_after.as_std(),
            silent_after: SILENT_AFTER,
            max_changes: spec.failover.max_changes as usize,
            hands_off,
            fenced: annotation(names::ANNOTATION_FENCED)
                .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
                .unwrap_or_default(),
            accept_loss: annotation(names::ANNOTATION_ACCEPT_LOSS).and_then(|epoch| epoch.trim().parse().ok()),
            hibernated: spec.hibernated && hands_off == Some("spec.hibernated"),
        }
    }

    async fn step(&mut self, pods: &BTreeMap<Name, PodFacts>) {
        self.connect(pods).await;
        // One change of the record may make the next possible: go on while they succeed.
        for _ in 0..8 {
            let recorded = record::read(&self.cluster);
            let recent = record::recent_failovers(&self.cluster, self.cluster.spec.failover.window.as_std());
            let seen = self.memory.observe(&recorded, &self.wish(), recent, pods, Instant::now());
            self.follow_timeline(&seen);
            if self.is_in_good_hands() {
                return;
            }
            let plan = decide::decide(&seen);
            self.route(&plan, pods);
            // Each write of the status makes the next compare-and-swap look again: an operation goes first.
            let waits = plan.record.is_some() || seen.record.operation.is_some();
            if !waits || seen.operation_age > REPORT_LATER {
                self.report(&seen, &plan, pods);
            }
            let begun = plan.record.as_ref().and_then(|next| next.operation.as_ref());
            if let Some(operation) = begun {
                let now = Instant::now();
                let timeline = self.timeline_of(operation, now);
                if recorded.operation.is_none() && operation.phase == OperationPhase::Promoting {
                    timeline.note("answered", now);
                }
            }
            let puts_off = self.puts_off(&plan);
            if puts_off && !self.has_pen {
                return;
            }
            let operation = recorded.operation.as_ref().or(begun).map(|operation| operation.id.clone());
            for (name, order) in &plan.orders {
                self.give(name, order.clone(), operation.clone());
            }
            if puts_off {
                return;
            }
            let Some(next) = plan.record.clone() else { return };
            if !self.write(&recorded, &next, &plan, seen.operation_age).await {
                return;
            }
        }
    }

    /// Whether the record is not written yet.
    fn puts_off(&mut self, plan: &Plan) -> bool {
        if plan.record.is_none() {
            self.deferred = None;
            return false;
        }
        let to_other = if self.has_pen { Duration::ZERO } else { DEFER };
        let to_answers = if plan.can_wait { ANSWERS } else { Duration::ZERO };
        let patience = to_other + to_answers;
        !patience.is_zero() && self.deferred.get_or_insert_with(Instant::now).elapsed() < patience
    }

    /// Another failover-d has claimed or advanced the operation a moment ago: the same orders once more would only cost
    /// time, theirs and that of the machine.
    fn is_in_good_hands(&self) -> bool {
        let operation = self.cluster.status.as_ref().and_then(|status| status.operation.as_ref());
        let claimed_by = operation.and_then(|operation| operation.requested_by.as_deref());
        claimed_by.is_some_and(|claimed_by| *claimed_by != *self.context.holder)
            && self.record_changed.elapsed() < HELP_AFTER
    }

    fn route(&self, plan: &Plan, pods: &BTreeMap<Name, PodFacts>) {
        let Some(routes) = &plan.routes else { return };
        let target = |name: &Name| {
            let pod = pods.get(name)?;
            Some(Target { name: name.clone(), address: pod.address?, node: pod.node.clone(), uid: pod.uid.clone() })
        };
        let desired = Desired {
            epoch: routes.epoch,
            primary: routes.primary.as_ref().and_then(target),
            replicas: routes.replicas.iter().filter_map(target).collect(),
            is_ours: self.has_pen,
        };
        self.routes.send_if_modified(|current| {
            let changed = *current != desired;
            if changed {
                *current = desired;
            }
            changed
        });
    }

    fn report(&mut self, seen: &Observed, plan: &Plan, pods: &BTreeMap<Name, PodFacts>) {
        let labels = pods.iter().map(|(name, pod)| (name.clone(), pod.role.clone())).collect();
        let report = report::compose(&self.cluster, seen, plan, &labels);
        let ready = decide::ready_instances(seen);
        self.context.metrics.cluster(
            &self.namespace,
            &self.name,
            ready.len(),
            seen.record.epoch,
            plan.blocked.is_some(),
        );
        let whole = u32::try_from(ready.len()).unwrap_or(u32::MAX) >= seen.wish.instances;
        if self.was_ready != Some(whole) && (whole || self.was_ready.is_some()) && seen.wish.hands_off.is_none() {
            let kind = if whole { "cluster.ready" } else { "cluster.degraded" };
            info!(ready = report.ready, "{kind}");
            self.publish(
                kind,
                json!({"ready": report.ready, "primary": seen.record.primary, "epoch": seen.record.epoch}),
            );
        }
        self.was_ready = Some(whole);
        let blocked = plan.blocked.as_ref().map(|blocked| blocked.message.clone());
        if let Some(blocked) = &plan.blocked
            && self.last_blocked.as_ref() != Some(&blocked.message)
            && seen.record.primary.is_some()
        {
            warn!(reason = blocked.reason, detail = blocked.message, "blocked");
            if blocked.reason != "HandsOff" {
                let data = json!({"reason": blocked.reason, "message": blocked.message});
                self.tell("failover.refused", EventType::Warning, blocked.reason, &blocked.message, data);
            }
        }
        self.last_blocked = blocked;
        let since_change = self.record_changed.elapsed();
        self.reports.send_replace(Told::new(self.cluster.clone(), report, self.has_pen, since_change));
    }

    /// Notes how far the operation has come.
    fn follow_timeline(&mut self, seen: &Observed) {
        let Some(operation) = &seen.record.operation else { return };
        let now = Instant::now();
        self.timeline_of(operation, now).look(seen, operation, now);
    }

    /// The timeline of this operation; it begins now unless it is known.
    fn timeline_of(&mut self, operation: &Operation, now: Instant) -> &mut Timeline {
        let known = self.timeline.take().filter(|timeline| timeline.is_of(operation));
        self.timeline.insert(known.unwrap_or_else(|| Timeline::new(operation, now)))
    }

    /// Writes a record. `true`: it stands, and the object at hand is the new one.
    async fn write(&mut self, before: &Record, next: &Record, plan: &Plan, elapsed: Duration) -> bool {
        let api: Api<MySQLCluster> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let point = point(before, next);
        let written = match failpoint::hit(&format!("record.before.{point}")).await {
            Ok(()) => record::write(&api, &self.cluster, next, &self.context.holder).await,
            Err(injected) => Err(injected.into()),
        };
        match written {
            Ok(written) => {
                failpoint::hit(&format!("record.after.{point}")).await.ok();
                self.take(written);
                self.has_pen = true;
                self.recorded(before, next, plan, elapsed);
                true
            }
            Err(record::Error::Conflict) => {
                self.context.metrics.conflict();
                match timeout(SECRET_TIMEOUT, api.get_opt(&self.name)).await {
                    Ok(Ok(Some(cluster))) if cluster.uid() == self.cluster.uid() => {
                        self.take(cluster);
                        true
                    }
                    _ => false,
                }
            }
            Err(error) => {
                warn!(%error, "record not written");
                sleep(TICK).await;
                false
            }
        }
    }
}

/// Names a change of the record, for failpoints: `failover.fencing`, `failover.promoting`, `failover.done`, `reconfigured`.
fn point(before: &Record, next: &Record) -> String {
    match (&next.operation, &before.operation) {
        (Some(operation), _) => format!("{:?}.{:?}", operation.kind, operation.phase).to_lowercase(),
        (None, Some(operation)) => format!("{:?}.done", operation.kind).to_lowercase(),
        (None, None) => "reconfigured".to_owned(),
    }
}

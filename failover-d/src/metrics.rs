//! What failover-d counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// An order, by kind and result.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OrderLabels {
    order: &'static str,
    result: &'static str,
}

/// An operation, by kind and outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// A step of an operation, by the operation's kind.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    kind: &'static str,
    step: &'static str,
}

/// An operation of a cluster. OpenMetrics allows 128 characters for all names and values.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ExemplarLabels {
    /// The cluster.
    pub cluster: String,
    /// The operation's id.
    pub operation: String,
}

/// A cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    cluster: String,
}

/// What failover-d counts; clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orders: Family<OrderLabels, Histogram>,
    operations: Family<OperationLabels, Counter>,
    operation_seconds: Family<OperationLabels, Traced>,
    step_seconds: Family<StepLabels, Traced>,
    routes: Histogram,
    conflicts: Counter,
    ready: Family<ClusterLabels, Gauge>,
    epoch: Family<ClusterLabels, Gauge>,
    blocked: Family<ClusterLabels, Gauge>,
}

/// A histogram that names the last operation in each bucket.
type Traced = HistogramWithExemplars<ExemplarLabels>;

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn traced() -> Traced {
    Traced::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    /// Registers all.
    pub fn register(registry: &mut Registry) -> Self {
        let inner = Inner {
            orders: Family::new_with_constructor(seconds),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(traced),
            step_seconds: Family::new_with_constructor(traced),
            routes: seconds(),
            conflicts: Counter::default(),
            ready: Family::default(),
            epoch: Family::default(),
            blocked: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("pelorus_failover");
        registry.register("order_seconds", "Time until an order to an instance was answered", inner.orders.clone());
        registry.register("operations", "Operations that this process brought to an end", inner.operations.clone());
        registry.register(
            "operation_seconds",
            "Time from first sight to the end of an operation",
            inner.operation_seconds.clone(),
        );
        registry.register(
            "step_seconds",
            "Time from the decision for an operation, or its first sight, until a step of it was seen done",
            inner.step_seconds.clone(),
        );
        registry.register("route_seconds", "Time to write the EndpointSlices of a cluster", inner.routes.clone());
        registry.register(
            "record_conflicts",
            "Compare-and-swap writes that another writer won",
            inner.conflicts.clone(),
        );
        registry.register("ready_instances", "Instances of a cluster that do their part", inner.ready.clone());
        registry.register("epoch", "Recorded epoch of a cluster", inner.epoch.clone());
        registry.register("blocked", "1 while a wanted step cannot be taken", inner.blocked.clone());
        Self(Arc::new(inner))
    }

    /// An order was answered.
    pub fn order(&self, order: &'static str, ok: bool, elapsed: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.0.orders.get_or_create(&OrderLabels { order, result }).observe(elapsed.as_secs_f64());
    }

    /// An operation ended.
    pub fn operation(&self, kind: &'static str, outcome: &'static str, elapsed: Duration, which: &ExemplarLabels) {
        let labels = OperationLabels { kind, outcome };
        let at = Some(SystemTime::now());
        self.0.operations.get_or_create(&labels).inc();
        self.0.operation_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64(), Some(which.clone()), at);
    }

    /// The steps of an operation that ended here.
    pub fn steps(&self, kind: &'static str, steps: &[(&'static str, Duration)], which: &ExemplarLabels) {
        for (step, after) in steps {
            let labels = StepLabels { kind, step };
            let at = Some(SystemTime::now());
            self.0.step_seconds.get_or_create(&labels).observe(after.as_secs_f64(), Some(which.clone()), at);
        }
    }

    /// Routes were written.
    pub fn routed(&self, elapsed: Duration) {
        self.0.routes.observe(elapsed.as_secs_f64());
    }

    /// Another writer won.
    pub fn conflict(&self) {
        self.0.conflicts.inc();
    }

    /// How a cluster stands.
    pub fn cluster(&self, namespace: &str, cluster: &str, ready: usize, epoch: u64, blocked: bool) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.ready.get_or_create(&labels).set(i64::try_from(ready).unwrap_or(i64::MAX));
        self.0.epoch.get_or_create(&labels).set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.0.blocked.get_or_create(&labels).set(i64::from(blocked));
    }

    /// A cluster is gone.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.ready.remove(&labels);
        self.0.epoch.remove(&labels);
        self.0.blocked.remove(&labels);
    }
}

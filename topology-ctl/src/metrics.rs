//! Metrics of this daemon, `pelorus_topology_ctl_*`.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One label with a bounded set of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    /// What it was about.
    pub kind: &'static str,
}

/// Whether it went well, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// What it was about.
    pub kind: &'static str,
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

/// All metrics.
#[derive(Clone)]
pub struct Metrics {
    /// Seconds of one look at a cluster.
    pub reconcile_seconds: Histogram,
    /// Looks that failed, by step.
    pub failures: Family<Label, Counter>,
    /// Orders to instances.
    pub orders: Family<Outcome, Counter>,
    /// Specs and settings that were refused, by reason.
    pub refusals: Family<Label, Counter>,
    /// Pods that were deleted to be made anew, by cause.
    pub pods_replaced: Family<Label, Counter>,
    /// Certificates that were renewed.
    pub certificates_rotated: Counter,
    /// Clusters that are looked after.
    pub clusters: Gauge,
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// 1 while NATS takes events.
    pub nats_connected: Gauge,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconcile_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 13)),
            failures: Family::default(),
            orders: Family::default(),
            refusals: Family::default(),
            pods_replaced: Family::default(),
            certificates_rotated: Counter::default(),
            clusters: Gauge::default(),
            leader: Gauge::default(),
            nats_connected: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("pelorus_topology_ctl");
        registry.register("reconcile_seconds", "Seconds of one look at a cluster", metrics.reconcile_seconds.clone());
        registry.register("failures", "Looks at a cluster that failed, by step", metrics.failures.clone());
        registry.register("orders", "Provisioning and configuration orders to instances", metrics.orders.clone());
        registry.register("refusals", "Specs and settings that were refused, by reason", metrics.refusals.clone());
        registry.register("pods_replaced", "Pods deleted to be made anew, by cause", metrics.pods_replaced.clone());
        registry.register(
            "certificates_rotated",
            "Certificates that were renewed",
            metrics.certificates_rotated.clone(),
        );
        registry.register("clusters", "Clusters that are looked after", metrics.clusters.clone());
        registry.register("leader", "1 while this replica leads", metrics.leader.clone());
        registry.register("nats_connected", "1 while NATS takes events", metrics.nats_connected.clone());
        metrics
    }

    /// Counts an order.
    pub fn order(&self, kind: &'static str, ok: bool) {
        self.orders.get_or_create(&Outcome { kind, outcome: if ok { "ok" } else { "failed" } }).inc();
    }

    /// Records how long a look took.
    pub fn looked(&self, elapsed: Duration) {
        self.reconcile_seconds.observe(elapsed.as_secs_f64());
    }
}

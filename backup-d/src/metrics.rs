//! What backup-d counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// A cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Cluster {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub cluster: String,
}

/// Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// 1 while this replica has a share of the work.
    pub seated: Gauge,
    /// Dumps that are being made.
    pub running: Gauge,
    /// Dumps that succeeded.
    pub succeeded: Family<Cluster, Counter>,
    /// Attempts that failed.
    pub failed: Family<Cluster, Counter>,
    /// Dumps that were restored into a scratch cluster.
    pub verified: Family<Cluster, Counter>,
    /// Dumps that could not be.
    pub refuted: Family<Cluster, Counter>,
    /// Bytes put into buckets.
    pub bytes: Family<Cluster, Counter>,
    /// When the last dump that succeeded was taken, seconds since 1970.
    pub taken_at: Family<Cluster, Gauge>,
}

impl Metrics {
    /// Registers all of them below `pelorus_backup_d_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("pelorus_backup_d");
        registry.register("seated", "Whether this replica has a share of the work", metrics.seated.clone());
        registry.register("running", "Dumps that are being made", metrics.running.clone());
        registry.register("succeeded", "Dumps that succeeded", metrics.succeeded.clone());
        registry.register("failed", "Attempts at a dump that failed", metrics.failed.clone());
        registry.register("verified", "Dumps that were restored into a scratch cluster", metrics.verified.clone());
        registry.register(
            "refuted",
            "Dumps that could not be restored into a scratch cluster",
            metrics.refuted.clone(),
        );
        let bytes = "Dumps that were put into the bucket";
        registry.register_with_unit("stored", bytes, Unit::Bytes, metrics.bytes.clone());
        let taken_at = "When the newest dump that succeeded was taken";
        registry.register("taken_at_seconds", taken_at, metrics.taken_at.clone());
        metrics
    }
}

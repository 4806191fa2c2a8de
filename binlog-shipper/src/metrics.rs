//! What binlog-shipper counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
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
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 while this replica has a share of the work.
    pub seated: Gauge,
    /// 1 while a stream runs.
    pub streaming: Family<Cluster, Gauge>,
    /// Bytes of binlogs that were put.
    pub bytes: Family<Cluster, Counter>,
    /// Segments that were put.
    pub segments: Family<Cluster, Counter>,
    /// Puts that failed.
    pub failures: Family<Cluster, Counter>,
    /// Times that a server's binlogs were purged.
    pub purges: Family<Cluster, Counter>,
    /// Binlog files that were taken out of the archive.
    pub retired: Family<Cluster, Counter>,
    /// Milliseconds for which the oldest transaction that is not in the archive has waited.
    pub oldest_ms: Family<Cluster, Gauge>,
    /// From the commit of a segment's first transaction, on the server that executed it first, until the segment is in the archive.
    pub delay: Family<Cluster, Histogram>,
}

impl Metrics {
    /// Registers all of them below `pelorus_binlog_shipper_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            seated: Gauge::default(),
            streaming: Family::default(),
            bytes: Family::default(),
            segments: Family::default(),
            failures: Family::default(),
            purges: Family::default(),
            retired: Family::default(),
            oldest_ms: Family::default(),
            // 50 ms to 27 minutes.
            delay: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.05, 2.0, 16))),
        };
        let registry = registry.sub_registry_with_prefix("pelorus_binlog_shipper");
        registry.register("seated", "Whether this replica has a share of the work", metrics.seated.clone());
        registry.register("streaming", "Whether a cluster's binlog is streamed", metrics.streaming.clone());
        let bytes = "Binlogs that were put into the archive";
        registry.register_with_unit("archived", bytes, Unit::Bytes, metrics.bytes.clone());
        registry.register("segments", "Segments that were put into the archive", metrics.segments.clone());
        registry.register("put_failures", "Puts that failed and were made again", metrics.failures.clone());
        registry.register("purges", "Times that archived binlogs were purged from a server", metrics.purges.clone());
        let retired = "Binlog files that were taken out of the archive because no restore needs them";
        registry.register("retired_files", retired, metrics.retired.clone());
        let oldest = "Milliseconds that the oldest transaction which is not in the archive has waited";
        registry.register("oldest_unarchived_milliseconds", oldest, metrics.oldest_ms.clone());
        let delay = "From a commit until it is in the archive, for the first of each segment";
        registry.register_with_unit("archive_delay", delay, Unit::Seconds, metrics.delay.clone());
        metrics
    }
}

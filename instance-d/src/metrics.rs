//! Metrics of one instance, `pelorus_instance_*`. Gauges are set when somebody asks.

use common::instance::{InstanceState, Phase, ReceiverState, Role};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Labels of an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OrderLabels {
    /// Which order.
    pub order: &'static str,
    /// `obeyed`, or the code of the refusal.
    pub outcome: String,
}

/// Label of an order's duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    /// Which order.
    pub order: &'static str,
}

/// Label of a rewind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `rewound`; `refused`: not provably rewindable; `errant`: cut, and committed in the engine all the same.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

type Float = Gauge<f64, AtomicU64>;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Orders by kind and outcome.
    pub orders: Family<OrderLabels, Counter>,
    /// How long obeyed orders took.
    pub order_seconds: Family<StepLabels, Histogram>,
    /// Starts of mysqld.
    pub starts: Counter,
    /// Times that mysqld was killed on purpose.
    pub kills: Counter,
    /// Times that a primary heard nobody and refused its clients.
    pub isolations: Counter,
    /// Failed observations.
    pub observation_failures: Counter,
    /// Rewinds by outcome.
    pub rewinds: Family<OutcomeLabel, Counter>,
    /// From the order to the proof that nothing foreign is left.
    pub rewind_seconds: Histogram,
    phase: Family<KindLabels, Gauge>,
    role: Family<KindLabels, Gauge>,
    in_force: Gauge,
    promised_epoch: Gauge,
    waiters: Gauge,
    dumps: Gauge,
    receiver_connected: Gauge,
    lag: Float,
    canary_session: Float,
    canary_login: Float,
    disk_free: Gauge,
    disk_total: Gauge,
}

impl Metrics {
    /// Registered, all zero.
    pub fn new() -> Self {
        let mut root = Registry::default();
        common::http::register_process_metrics(&mut root);
        let registry = root.sub_registry_with_prefix("pelorus_instance");
        let metrics = Self {
            orders: Family::default(),
            order_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            starts: Counter::default(),
            kills: Counter::default(),
            isolations: Counter::default(),
            observation_failures: Counter::default(),
            rewinds: Family::default(),
            rewind_seconds: Histogram::new(exponential_buckets(0.05, 2.0, 12)),
            phase: Family::default(),
            role: Family::default(),
            in_force: Gauge::default(),
            promised_epoch: Gauge::default(),
            waiters: Gauge::default(),
            dumps: Gauge::default(),
            receiver_connected: Gauge::default(),
            lag: Float::default(),
            canary_session: Float::default(),
            canary_login: Float::default(),
            disk_free: Gauge::default(),
            disk_total: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("orders", "Role and provisioning orders by outcome", metrics.orders.clone());
        registry.register_with_unit("order", "Time of obeyed orders", Unit::Seconds, metrics.order_seconds.clone());
        registry.register("mysqld_starts", "Starts of mysqld", metrics.starts.clone());
        registry.register(
            "isolations",
            "Times that a primary heard neither failover-d nor a replica and refused its clients",
            metrics.isolations.clone(),
        );
        registry.register("mysqld_kills", "Times that mysqld was killed on purpose", metrics.kills.clone());
        registry.register(
            "observation_failures",
            "Observations that mysqld did not answer",
            metrics.observation_failures.clone(),
        );
        registry.register("rewinds", "Tails of a former primary, by what became of them", metrics.rewinds.clone());
        registry.register_with_unit(
            "rewind",
            "From the order to follow to the proof that nothing foreign is left",
            Unit::Seconds,
            metrics.rewind_seconds.clone(),
        );
        registry.register("phase", "1 for what the instance is doing", metrics.phase.clone());
        registry.register("role", "1 for what the last role order made of it", metrics.role.clone());
        registry.register("role_in_force", "1 when the running mysqld is in its role", metrics.in_force.clone());
        registry.register("promised_epoch", "Highest epoch obeyed", metrics.promised_epoch.clone());
        registry.register("semisync_waiters", "Sessions that wait for an acknowledgement", metrics.waiters.clone());
        registry.register("dump_threads", "Connected replicas", metrics.dumps.clone());
        registry.register("receiver_connected", "1 when the receiver is connected", metrics.receiver_connected.clone());
        registry.register_with_unit("replication_lag", "Lag of what is applied", Unit::Seconds, metrics.lag.clone());
        registry.register_with_unit(
            "canary_session_age",
            "Since the last answer on a held session",
            Unit::Seconds,
            metrics.canary_session.clone(),
        );
        registry.register_with_unit(
            "canary_login_age",
            "Since the last answered login",
            Unit::Seconds,
            metrics.canary_login.clone(),
        );
        registry.register_with_unit("volume_free", "Free space", Unit::Bytes, metrics.disk_free.clone());
        registry.register_with_unit("volume_size", "Size of the volume", Unit::Bytes, metrics.disk_total.clone());
        Self { registry: root, ..metrics }
    }

    /// The text that a scrape gets.
    pub fn scrape(&self, state: &InstanceState) -> String {
        let phases = [
            (Phase::Empty, "Empty"),
            (Phase::Initialising, "Initialising"),
            (Phase::Cloning, "Cloning"),
            (Phase::Crashed, "Crashed"),
            (Phase::Rewinding, "Rewinding"),
            (Phase::Starting, "Starting"),
            (Phase::Running, "Running"),
            (Phase::Stopping, "Stopping"),
            (Phase::Failed, "Failed"),
        ];
        for (phase, kind) in phases {
            self.phase.get_or_create(&KindLabels { kind }).set(i64::from(state.phase == phase));
        }
        let role = match state.role {
            Role::None => "none",
            Role::Fenced => "fenced",
            Role::Replica { .. } => "replica",
            Role::Primary { .. } => "primary",
        };
        for kind in ["none", "fenced", "replica", "primary"] {
            self.role.get_or_create(&KindLabels { kind }).set(i64::from(role == kind));
        }
        self.in_force.set(i64::from(state.in_force));
        self.promised_epoch.set(signed(state.promised));
        let source = state.mysqld.as_ref().map(|mysqld| &mysqld.source);
        self.waiters.set(source.map_or(0, |source| i64::from(source.waiters)));
        self.dumps.set(source.map_or(0, |source| i64::try_from(source.dumps.len()).unwrap_or(i64::MAX)));
        let replication = state.mysqld.as_ref().and_then(|mysqld| mysqld.replication.as_ref());
        self.receiver_connected.set(replication.map_or(0, |channel| i64::from(channel.receiver == ReceiverState::Yes)));
        self.lag.set(replication.map_or(0.0, |channel| channel.lag_seconds));
        self.canary_session.set(state.canary.map_or(0.0, |canary| seconds(canary.session_age_ms)));
        self.canary_login.set(state.canary.map_or(0.0, |canary| seconds(canary.login_age_ms)));
        self.disk_free.set(signed(state.disk.free_bytes));
        self.disk_total.set(signed(state.disk.total_bytes));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

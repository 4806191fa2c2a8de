//! The instance API: what instance-d reports and which orders it takes.
//!
//! HTTP/1.1 and JSON over mutual TLS on [`crate::names::PORT_INSTANCE_API`]:
//!
//! ```text
//! GET  /v1/state            InstanceState; with ?now mysqld is asked first
//! GET  /v1/stream           InstanceState as lines of JSON: at once, on every change, and each HEARTBEAT
//! POST /v1/initialise       InitialiseOrder   -> InstanceState   topology-ctl
//! POST /v1/restore          RestoreOrder      -> InstanceState   topology-ctl
//! POST /v1/archive          ArchiveOrder      -> InstanceState   topology-ctl
//! POST /v1/clone            CloneOrder        -> InstanceState   topology-ctl
//! POST /v1/copy             CopyOrder         -> InstanceState   topology-ctl
//! POST /v1/config/check     ConfigRequest     -> ConfigAnswer    topology-ctl
//! POST /v1/config/apply     ConfigRequest     -> ConfigAnswer    topology-ctl
//! POST /v1/fence            FenceOrder        -> InstanceState   failover-d
//! POST /v1/follow           FollowOrder       -> InstanceState   failover-d
//! POST /v1/promote          PromoteOrder      -> InstanceState   failover-d
//! POST /v1/acks             AcksOrder         -> InstanceState   failover-d
//! POST /v1/demote           DemoteOrder       -> InstanceState   failover-d
//! GET  /livez /readyz /metrics                                    anyone, over TLS
//! ```
//!
//! Role orders carry an epoch. The instance persists it as its promise before it acts, and refuses any order below its
//! promise (invariant 3). An order that is repeated within its epoch has no further effect. Long work (initialise,
//! restore, clone, the start of mysqld) is accepted at once and shows as a [`Phase`] in the state.
//! A refusal is HTTP 409 (or 400, 403) with a [`Refusal`].

mod orders;

pub use orders::*;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gtid::GtidSet;

/// Pace of the state stream when nothing changes.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// A change-of-primary number. It only grows (invariant 3).
pub type Epoch = u64;

/// All that one instance knows about itself at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceState {
    /// Pod name, `<cluster>-<ordinal>`.
    pub name: String,
    /// Namespace of the cluster.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Random per start of instance-d: tells a restart from silence.
    pub incarnation: String,
    /// Grows with every state that this incarnation reports.
    pub sequence: u64,
    /// Highest epoch obeyed, as it stands on disk.
    pub promised: Epoch,
    /// What the last obeyed role order made of it, as it stands on disk.
    pub role: Role,
    /// Whether the running mysqld has been brought into `role` since it started. False after a restart until the order
    /// is repeated, while an order is being carried out, and on a primary that stays closed until its tail is proven.
    #[serde(default)]
    pub in_force: bool,
    /// The data may hold transactions that were never acknowledged: it was a primary that stopped without a finished
    /// demotion. Cleared by a `promote` with `proven`, or by an errant check that passes on `follow`.
    #[serde(default)]
    pub tail_unproven: bool,
    /// What the instance is doing.
    pub phase: Phase,
    /// SIGTERM has been received: a primary waits for a hand-over before it stops, a replica is on its way out.
    pub leaving: bool,
    /// Why `phase` is `Failed`, or what else a person should know. Never holds a secret.
    pub problem: Option<String>,
    /// Progress of an initialisation, clone or restore.
    pub progress: Option<Progress>,
    /// Random, made with the data directory: names the data in a `condemns`. Absent when there is none.
    pub data_id: Option<String>,
    /// Space on the data volume.
    pub disk: Disk,
    /// Present while mysqld answers.
    pub mysqld: Option<MysqldState>,
    /// Present while a mysqld process exists: age of the last answered canary query on a held session and of the last
    /// new login that was answered. Both grow while mysqld hangs.
    pub canary: Option<Canary>,
    /// The last unacknowledged tail that was cut off here. Outlives restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound: Option<Rewound>,
    /// Copies of transactions that were thrown away and that are in no archive.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copies_to_archive: u32,
    /// The data was made from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Transactions that keep this data from following: `phase` is or was `Failed` for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errant: Option<ErrantReport>,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// An unacknowledged tail that was cut off a former primary's binlog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewound {
    /// Epoch of the order that asked for it.
    pub epoch: Epoch,
    /// What was cut off.
    pub gtids: GtidSet,
    /// Bytes of it that were saved to the volume first.
    pub saved_bytes: u64,
    /// From the order to the proof that nothing foreign is left.
    pub seconds: f64,
}

/// Data that was made from an archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Key prefix of the archive in its bucket.
    pub archive: String,
    /// What was restored.
    pub gtids: GtidSet,
    /// From the order to the proof that all of it is there, and nothing else.
    pub seconds: f64,
}

/// Transactions of an instance that its source does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrantReport {
    /// Which. Empty when the binlog could not be read, so that nobody knows.
    pub gtids: GtidSet,
    /// How they came to be.
    pub origin: ErrantOrigin,
    /// They are copied to the volume, outside of the data: throwing the data away loses no trace.
    pub saved: bool,
}

/// How errant transactions came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrantOrigin {
    /// The unacknowledged tail of a primary that was replaced: nobody was told that they are committed.
    Tail,
    /// Received from a primary that was replaced, and acknowledged to nobody either.
    Received,
    /// Committed here past Pelorus: somebody wrote to a replica. Only a person can say that they may go.
    Written,
}

/// What the last role order made of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Role {
    /// No role order yet: read-only, closed to clients, no receiver.
    None,
    /// Receiver stopped, read-only; holds still for an election.
    Fenced,
    /// Replicates from `source`.
    #[serde(rename_all = "camelCase")]
    Replica {
        /// Pod name of the source.
        source: String,
        /// Whether its semi-sync acknowledgements are switched on.
        acknowledges: bool,
    },
    /// Takes writes.
    #[serde(rename_all = "camelCase")]
    Primary {
        /// Acknowledgements each commit waits for; 0 switches semi-sync off (one-instance clusters, `Available`).
        acks_needed: u32,
        /// Ordinals whose replication account is locked and whose dump thread is proven gone.
        struck: Vec<u32>,
    },
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// No data directory: waits for a provisioning order.
    Empty,
    /// Makes a new data directory.
    Initialising,
    /// Copies the data of a donor.
    Cloning,
    /// Has data and no mysqld, and the last stop was not clean: waits for a role order before it starts.
    Crashed,
    /// Cuts a binlog tail that was never acknowledged.
    Rewinding,
    /// mysqld runs and does not answer yet (crash recovery may take as long as it makes progress).
    Starting,
    /// mysqld answers.
    Running,
    /// mysqld is being stopped on purpose.
    Stopping,
    /// Needs a person or another order; `problem` says why.
    Failed,
}

/// Progress of long work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done, for people.
    pub step: String,
    /// Bytes done so far.
    pub done_bytes: u64,
    /// Bytes expected, 0 when unknown.
    pub total_bytes: u64,
}

/// Space on the data volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Bytes that an unprivileged process can still write.
    pub free_bytes: u64,
    /// Size of the file system in bytes.
    pub total_bytes: u64,
}

/// Age of the last answers of mysqld, in milliseconds at the time of the report. Time in which it only waited for a CPU
/// counts at most a quarter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// On a session that was opened before.
    pub session_age_ms: u64,
    /// By a new login ("too many connections" counts as an answer).
    pub login_age_ms: u64,
}

/// What mysqld said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MysqldState {
    /// `@@version`.
    pub version: String,
    /// `@@server_uuid`.
    pub server_uuid: String,
    /// `@@super_read_only`. A flag is no fence: only the answer of a demote or fence order is.
    pub super_read_only: bool,
    /// `@@read_only`.
    pub read_only: bool,
    /// `@@offline_mode`: clients are kept out.
    pub offline: bool,
    /// `@@gtid_executed`.
    pub executed: GtidSet,
    /// `@@gtid_owned`, read before `executed`: transactions in the binlog that are about to be executed, those that wait
    /// for an acknowledgement among them.
    #[serde(default)]
    pub owned: GtidSet,
    /// Executed, united with what the relay log holds (whole transactions only).
    pub received: GtidSet,
    /// `@@gtid_purged`.
    pub purged: GtidSet,
    /// The replication channel, when one is configured.
    pub replication: Option<ReplicationState>,
    /// The semi-sync source side.
    pub source: SourceState,
}

/// The replication channel of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationState {
    /// Host that it replicates from.
    pub source_host: String,
    /// Receiver thread. `Connecting` is not stopped.
    pub receiver: ReceiverState,
    /// Milliseconds since the receiver last heard anything (event or heartbeat) from its source.
    pub heard_age_ms: Option<u64>,
    /// Last receiver error, empty when there is none.
    pub receiver_error: String,
    /// Whether the applier runs.
    pub applier_running: bool,
    /// Last applier error, empty when there is none.
    pub applier_error: String,
    /// Seconds that what is being applied lies behind its commit on the source; 0 when all that was received is applied.
    pub lag_seconds: f64,
    /// Whether semi-sync acknowledgements are on and in force (`Rpl_semi_sync_replica_status`).
    pub acknowledges: bool,
}

/// State of the receiver (IO) thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiverState {
    /// Not running.
    No,
    /// Running, not connected.
    Connecting,
    /// Running and connected.
    Yes,
}

/// The semi-sync source side of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// `rpl_semi_sync_source_enabled`.
    pub enabled: bool,
    /// `rpl_semi_sync_source_wait_for_replica_count`.
    pub acks_needed: u32,
    /// Accounts of the dump threads that are connected now (`pelorus_repl_<n>`), for people and for growing. A frozen
    /// replica stays here for many seconds: never take it for life.
    pub dumps: Vec<String>,
    /// Sessions that wait for an acknowledgement.
    pub waiters: u32,
    /// Age of the oldest such wait in milliseconds.
    pub oldest_wait_ms: u64,
}

/// What instance-d reads from `instance.json` in [`crate::names::DIR_CONFIG`]; topology-ctl writes it, which may be newer:
/// what it does not know it leaves alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfig {
    /// Namespace of the cluster.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: String,
    /// UID of the MySQLCluster object.
    pub cluster_uid: String,
    /// User settings for mysqld, already checked against the guarded list.
    pub settings: BTreeMap<String, String>,
    /// Memory limit of the MySQL container in bytes, 0 when there is none; defaults of memory-sized settings derive from it.
    pub memory_limit_bytes: u64,
    /// After this long without an answer mysqld counts as hung.
    pub hang_after_ms: u64,
    /// After this long without word from failover-d and from any replica a primary fences itself.
    pub isolated_after_ms: u64,
    /// Binlogs go into an archive, and whoever ships them says which the servers need no more: mysqld purges none by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

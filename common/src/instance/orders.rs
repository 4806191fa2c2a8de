//! What is asked of an instance, and how it refuses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Epoch;
use crate::gtid::GtidSet;
use crate::location::Location;
use crate::mysql::{Password, exposed};

/// Make a new, empty data directory with Pelorus' accounts and no GTID. Refused by an instance that holds data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InitialiseOrder {}

/// Make a new data directory with what an archive holds, up to a target. Refused by an instance that holds data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreOrder {
    /// The bucket. Lives in memory only.
    pub location: Location,
    /// Namespace of the cluster that wrote the archive.
    pub namespace: String,
    /// Its name.
    pub cluster: String,
    /// Its uid, where more than one of that name has written there.
    pub uid: Option<String>,
    /// The dump to begin with; absent: the newest that is within the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<String>,
    /// How far.
    pub target: RestoreTarget,
}

/// Put copies of transactions that were thrown away, and that are on the volume only, into the archive of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArchiveOrder {
    /// The bucket. Lives in memory only.
    pub location: Location,
}

/// Put a copy of the data of an instance of another cluster into an archive, as a physical dump, and keep nothing of it. Refused by an
/// instance that holds data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyOrder {
    /// The bucket. Lives in memory only.
    pub location: Location,
    /// Namespace of the cluster that is copied.
    pub namespace: String,
    /// Its name.
    pub cluster: String,
    /// Its uid.
    pub uid: String,
    /// The dump's name in the archive.
    pub dump: String,
    /// DNS name of the instance that is copied.
    pub donor_host: String,
    /// PEM of the authority that its certificate is checked against.
    pub donor_authority: String,
    /// Of its account `pelorus_clone`. Lives in memory only.
    #[serde(serialize_with = "exposed")]
    pub donor_password: Password,
}

/// How far a restore goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RestoreTarget {
    /// As far as the archive reaches.
    Newest,
    /// Every transaction before the first one that was committed later than this: microseconds since 1970.
    Time(u64),
    /// Exactly these transactions.
    Gtid(GtidSet),
}

/// Copy the data of another instance. Refused by an instance that holds data, unless `condemns` names that data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloneOrder {
    /// Pod name of the donor.
    pub donor: String,
    /// DNS name of the donor.
    pub donor_host: String,
    /// `dataId` of the data that may be thrown away.
    pub condemns: Option<String>,
    /// Transactions that are copied to the volume before: the order fails, and the data stays, when they cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saves: Option<GtidSet>,
}

/// Promise the epoch, stop the receiver for sure, start the applier, and answer with what was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FenceOrder {
    /// The epoch to promise.
    pub epoch: Epoch,
    /// Start mysqld even where that commits a tail that nobody acknowledged, and that could not be rewound any more: its
    /// word is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
}

/// Replicate from `source`. Starts mysqld first where it is down, rewinding when the old history demands it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FollowOrder {
    /// The epoch to promise.
    pub epoch: Epoch,
    /// Pod name of the source.
    pub source: String,
    /// DNS name of the source.
    pub source_host: String,
    /// Its address, so that no DNS is needed; its certificate is checked for the name.
    #[serde(default)]
    pub source_address: Option<IpAddr>,
    /// Whether its acknowledgements count: semi-sync is switched on only for recorded ackers.
    pub acknowledges: bool,
    /// The source is not the primary yet, and may lack for a moment what this instance has. Then the order is refused
    /// (`Busy`); nothing is condemned for it.
    #[serde(default)]
    pub ahead: bool,
    /// What the source has said in this epoch that it holds: an instance that holds nothing else need not ask it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_holds: Option<GtidSet>,
    /// No proof counts on what it has received and not applied: where that cannot be read after a crash it may be thrown
    /// away, and replication begins anew from what is executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expendable: bool,
}

/// Become the primary: what it must hold is received, and everything received is applied, first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromoteOrder {
    /// The epoch to promise.
    pub epoch: Epoch,
    /// Acknowledgements each commit waits for.
    pub acks_needed: u32,
    /// Ordinals of the replicas whose accounts may replicate and so acknowledge.
    pub ackers: Vec<u32>,
    /// Longest wait for what was received to be applied.
    pub apply_timeout_ms: u64,
    /// It was elected while it may hold what the next election would miss: so it stays closed like one that comes back in
    /// place (`proven`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tail_unproven: bool,
    /// What so many recorded ackers are known to hold (received or executed) that no election can miss it. Only a primary
    /// that comes back in place needs it (`tailUnproven` of its state), and one whose order says `tailUnproven`: without it,
    /// or while it does not contain the instance's executed set, mysqld runs as a semi-sync source but stays closed and
    /// read-only; ask again, same epoch, with a newer set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<GtidSet>,
    /// What the old primary of a switchover had executed when it was closed: the candidate goes on receiving until it holds
    /// that. Refused (`Failed`) where nothing is being received and something is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_hold: Option<GtidSet>,
}

/// Change how many acknowledgements the serving primary waits for, and who may give them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcksOrder {
    /// The epoch to promise.
    pub epoch: Epoch,
    /// Acknowledgements each commit waits for.
    pub acks_needed: u32,
    /// Ordinals whose replication account is locked and whose dump thread is ended before the answer: they cannot
    /// acknowledge any more. All other accounts are unlocked.
    pub struck: Vec<u32>,
}

/// Stop taking writes: `super_read_only=ON` must return OK within the budget, then client sessions are ended.
/// When it does not return, mysqld is killed: nothing unacknowledged is ever answered with OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DemoteOrder {
    /// The epoch to promise.
    pub epoch: Epoch,
    /// Longest wait for `super_read_only=ON`.
    pub budget_ms: u64,
    /// `true`: kill mysqld when the budget runs out. `false` (a switchover): give up, writes go on, answer
    /// `Declined`, and the same to every demotion of this epoch from then on: a successor is promoted on the answer to this
    /// order, and a switchover is undone on it, so there is one answer.
    pub kill: bool,
}

/// mysqld settings that a user asked for: key to value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigRequest {
    /// Settings by name, underscores, as in `spec.config`.
    pub settings: BTreeMap<String, String>,
}

/// What became of each setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigAnswer {
    /// By key.
    pub settings: BTreeMap<String, SettingVerdict>,
    /// What `mysqld --validate-config` said against the whole, when it refused it.
    pub refused: Option<String>,
}

/// Verdict on one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum SettingVerdict {
    /// In force.
    InForce,
    /// Dynamic and not in force yet (answer of `check`).
    Dynamic,
    /// Takes a restart.
    NeedsRestart,
    /// Unknown name, value out of range, …
    #[serde(rename_all = "camelCase")]
    Invalid {
        /// mysqld's own words.
        reason: String,
    },
}

/// Why an order was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people; lower case, no secrets.
    pub message: String,
    /// The promise that stands, so that a stale caller learns of it.
    pub promised: Epoch,
}

/// Why an order was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The order's epoch is below the promise.
    EpochTooLow,
    /// The order contradicts one obeyed in the same epoch (two primaries in one epoch, for instance).
    Conflict,
    /// The instance holds data that the order does not condemn.
    HoldsData,
    /// The instance holds no data, or none that is proven complete.
    NoData,
    /// Another order is being carried out, or the step did not finish in its time; try again.
    Busy,
    /// The primary could not stop taking writes in time, and goes on. In this epoch that is its answer for good, to
    /// whoever asks.
    Declined,
    /// The step failed; `message` says how.
    Failed,
    /// The caller's certificate does not allow this order.
    Forbidden,
    /// The body was not understood.
    BadRequest,
}

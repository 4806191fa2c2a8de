//! MySQLCluster: what Pelorus answers.
//!
//! Two ways of writing it, never mixed (ARCHITECTURE.md, "Who writes what"):
//! - [`Record`], the facts that failover rests on, by compare-and-swap and by failover-d alone;
//! - everything else by server-side apply, each daemon its own fields. All fields are optional and left out when
//!   unset, so that an apply owns exactly what it sets.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;
use crate::instance::{Epoch, Phase, Role};

/// What a MySQL cluster is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLClusterStatus {
    /// Grows by one with each change of primary or of the recorded ackers. 0 or absent: no primary yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,
    /// The instance that takes writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Replicas whose acknowledgements count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ackers: Vec<String>,
    /// How many of the ackers each commit waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks_needed: Option<u32>,
    /// Names the data of the primary (`dataId` of its instance): its word counts only while it still holds that data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_data: Option<String>,
    /// Earlier primaries whose acknowledged writes are not yet on enough of the present ackers: an election has to prove
    /// these too. Empty moments after a change of primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<Reign>,
    /// Losses of acknowledged writes that a person accepted, oldest first. Kept for ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// When the latest failovers were completed, oldest first: what `spec.failover.maxChanges` counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<MicroTime>,
    /// The change of primary that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What each instance is and does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub instances: Vec<InstanceStatus>,
    /// Instances that serve, of those asked for: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// MySQL version of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Reason of the worst condition; empty when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the archive can restore, proven by GTID sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable: Option<Restorable>,
    /// The generation of the spec that Ready speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Degraded, FailoverBlocked, SpecAccepted, ConfigApplied, Provisioned, BackupHealthy, BinlogShipping,
    /// Restorable, Restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

impl MySQLClusterStatus {
    /// The recorded epoch; 0 before the first primary.
    pub fn epoch(&self) -> Epoch {
        self.epoch.and_then(|epoch| Epoch::try_from(epoch).ok()).unwrap_or(0)
    }

    /// The condition of this type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// The facts that failover rests on, as they stand.
    pub fn record(&self) -> Record {
        Record {
            epoch: self.epoch(),
            primary: self.primary.clone(),
            ackers: self.ackers.clone(),
            acks_needed: self.acks_needed.unwrap_or(0),
            primary_data: self.primary_data.clone(),
            unproven: self.unproven.clone(),
            losses: self.losses.clone(),
            failovers: self.failovers.clone(),
            operation: self.operation.clone(),
        }
    }
}

/// What a primary may have acknowledged, and who has to be asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reign {
    /// The primary: it holds all that it acknowledged.
    pub primary: String,
    /// Names the data that it held then; absent when that is not known, and its word does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_data: Option<String>,
    /// Its ackers.
    #[serde(default)]
    pub ackers: Vec<String>,
    /// On how many of them each of its commits is.
    #[serde(default)]
    pub acks_needed: u32,
}

/// A loss of acknowledged writes that a person accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// The recorded epoch whose acknowledged writes were given up.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// When.
    pub at: MicroTime,
    /// The instance whose data was kept.
    pub kept: String,
    /// GTIDs that had been seen on some instance and are not in the data that was kept. There may be more that nobody saw.
    #[serde(default)]
    pub known_lost: String,
}

/// The facts that failover rests on. They change together, by compare-and-swap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The epoch.
    pub epoch: Epoch,
    /// The primary.
    pub primary: Option<String>,
    /// The recorded ackers.
    pub ackers: Vec<String>,
    /// How many of the ackers each commit waits for.
    pub acks_needed: u32,
    /// Names the data of the primary.
    pub primary_data: Option<String>,
    /// Earlier primaries that an election still has to ask for.
    pub unproven: Vec<Reign>,
    /// Losses that a person accepted.
    pub losses: Vec<Loss>,
    /// When the latest failovers were completed.
    pub failovers: Vec<MicroTime>,
    /// The change under way.
    pub operation: Option<Operation>,
}

impl Record {
    /// A merge patch of the status subresource that sets all these fields (an absent one is cleared) and holds only for
    /// the object of this resourceVersion.
    pub fn merge_patch(&self, resource_version: &str) -> Value {
        json!({
            "metadata": {"resourceVersion": resource_version},
            "status": {
                "epoch": self.epoch,
                "primary": self.primary,
                "ackers": self.ackers,
                "acksNeeded": self.acks_needed,
                "primaryData": self.primary_data,
                "unproven": self.unproven,
                "losses": self.losses,
                "failovers": self.failovers,
                "operation": self.operation_patch(),
            },
        })
    }

    /// A merge patch keeps members that it does not name: the optional ones of an operation are named, as null.
    fn operation_patch(&self) -> Value {
        self.operation.as_ref().map_or(Value::Null, |operation| {
            json!({
                "id": operation.id,
                "kind": operation.kind,
                "epoch": operation.epoch,
                "from": operation.from,
                "to": operation.to,
                "toData": operation.to_data,
                "phase": operation.phase,
                "ackers": operation.ackers,
                "acksNeeded": operation.acks_needed,
                "startedAt": operation.started_at,
                "reason": operation.reason,
                "requestedBy": operation.requested_by,
            })
        })
    }
}

/// A change of primary that is under way; one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Unique for this operation.
    pub id: String,
    /// Bootstrap, Failover, Switchover, Reconfigure or Fence.
    pub kind: OperationKind,
    /// The epoch that it leads to.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// The primary that is left; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The next primary, from the moment it is elected; of a Reconfigure the acker that stops counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Names the data of the next primary (`dataId`), as it was when that was elected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_data: Option<String>,
    /// How far it is.
    pub phase: OperationPhase,
    /// The recorded ackers once it is done.
    #[serde(default)]
    pub ackers: Vec<String>,
    /// How many of them each commit waits for once it is done.
    #[serde(default)]
    pub acks_needed: u32,
    /// When it was claimed.
    pub started_at: MicroTime,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// The replica of failover-d that claimed it, or the person who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}

/// Kinds of changes of primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// The first primary of a new cluster.
    Bootstrap,
    /// The primary is gone.
    Failover,
    /// Planned: the primary hands over.
    Switchover,
    /// A recorded acker stops counting; the primary stays.
    Reconfigure,
    /// A person fences the primary; nobody takes its place.
    Fence,
}

/// Phases of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationPhase {
    /// Failover: replicas promise the epoch and stop receiving, until the proof is complete.
    Fencing,
    /// Fence: the primary stops taking writes.
    Demoting,
    /// Switchover: the old primary stops taking writes, and the candidate opens on its word that it has.
    HandingOver,
    /// The candidate is recorded; it applies what it received, opens, and the primary Service is pointed at it.
    Promoting,
    /// Reconfigure: the acker is locked out.
    Striking,
}

/// What an instance is and does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Pod name.
    pub name: String,
    /// None, Fenced, Replica or Primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<InstanceRole>,
    /// What it is doing; Unreachable when it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<InstancePhase>,
    /// MySQL version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The server_uuid of mysqld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// The GTID set that it has executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed: Option<String>,
    /// Seconds that it lies behind the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<f64>,
    /// Transactions that it has and the primary does not; empty when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errant: Option<String>,
    /// Space left on its volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub disk_free: Option<Quantity>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the last role order made of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum InstanceRole {
    /// No role yet.
    None,
    /// Holds still for an election.
    Fenced,
    /// Replicates.
    Replica,
    /// Takes writes.
    Primary,
}

impl From<&Role> for InstanceRole {
    fn from(role: &Role) -> Self {
        match role {
            Role::None => Self::None,
            Role::Fenced => Self::Fenced,
            Role::Replica { .. } => Self::Replica,
            Role::Primary { .. } => Self::Primary,
        }
    }
}

/// What an instance is doing, as [`Phase`], or Unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum InstancePhase {
    /// No answer from its pod.
    Unreachable,
    /// No data: waits to be provisioned.
    Empty,
    /// Makes a new data directory.
    Initialising,
    /// Copies the data of a donor.
    Cloning,
    /// mysqld stopped uncleanly; waits for a role.
    Crashed,
    /// Cuts a binlog tail that was never acknowledged.
    Rewinding,
    /// mysqld starts.
    Starting,
    /// mysqld answers.
    Running,
    /// mysqld is being stopped on purpose.
    Stopping,
    /// Needs a person or another order.
    Failed,
}

impl From<Phase> for InstancePhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Empty => Self::Empty,
            Phase::Initialising => Self::Initialising,
            Phase::Cloning => Self::Cloning,
            Phase::Crashed => Self::Crashed,
            Phase::Rewinding => Self::Rewinding,
            Phase::Starting => Self::Starting,
            Phase::Running => Self::Running,
            Phase::Stopping => Self::Stopping,
            Phase::Failed => Self::Failed,
        }
    }
}

/// The condition that says whether everything that is archived can be restored: from an empty server, or from a dump on.
pub const RESTORABLE: &str = "Restorable";

/// The condition of a cluster that says what became of its restore.
pub const RESTORED: &str = "Restored";

/// What the archive can restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restorable {
    /// The oldest moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// The newest moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,
    /// The GTID set of the newest moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// When it was last proven that there is no gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
}

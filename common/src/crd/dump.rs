//! MySQLDump: one backup. Made by a schedule, by `kubectl pelorus backup`, or by hand.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::reference::{ClusterRef, LocationRef};
use super::schema;

/// What is backed up.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLDump",
    plural = "mysqldumps",
    singular = "mysqldump",
    shortname = "md",
    category = "pelorus",
    namespaced,
    status = "MySQLDumpStatus",
    derive = "PartialEq",
    doc = "One backup of a cluster. Deleting it deletes its objects in the bucket.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.progress.percent"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(
        name = "Verified",
        type_ = "date",
        json_path = ".status.verified.at",
        description = "Time since it was proven to restore"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".status.source",
        priority = 1,
        description = "The instance that was read"
    ),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.problem", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a backup does not change: make a new MySQLDump").reason(Reason::FieldValueForbidden))]
pub struct MySQLDumpSpec {
    /// The cluster that is backed up.
    pub cluster_ref: ClusterRef,

    /// Where the backup goes.
    pub location_ref: LocationRef,

    /// Logical (a dump of rows) or Physical (a copy of the files).
    #[serde(default)]
    pub method: BackupMethod,

    /// Schemas to dump. Empty: all. Logical only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub schemas: Vec<String>,

    /// Tables to leave out, as schema.table. Logical only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 3, max = 200), regex(pattern = r"^([^.`]+|`([^`]|``)+`)\.([^.`]+|`([^`]|``)+`)$"))
    )]
    pub exclude_tables: Vec<String>,

    /// Restore it into a scratch cluster of one instance when it is made, with a volume as large as an instance's, and say so in
    /// `status.verified`. Of a dump of everything only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
}

/// How a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackupMethod {
    /// A consistent dump of rows.
    #[default]
    Logical,
    /// A copy of the files.
    Physical,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DumpPhase {
    /// Waits for a worker.
    Pending,
    /// Is being made.
    Running,
    /// Is being restored into a scratch server.
    Verifying,
    /// Is complete.
    Succeeded,
    /// Came to nothing; `problem` says why.
    Failed,
    /// Its objects are being deleted.
    Deleting,
}

/// What became of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLDumpStatus {
    /// Pending, Running, Verifying, Succeeded, Failed or Deleting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DumpPhase>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The instance that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The replica of backup-d that is making it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The GTID set that the backup holds, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// When a worker began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<GoDuration>,
    /// Size in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub size: Option<Quantity>,
    /// The object that lists all others of this backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// The last proof that it restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Complete, Verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// How far a running backup is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Rows read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Bytes read, before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Part that is done, 0 to 100; an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Time left; an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<GoDuration>,
}

/// The object that lists all others of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its key in the bucket.
    pub key: String,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Of a logical dump, by its key `.../<cluster uid>/dumps/<id>/manifest.json`: the uid of the cluster that wrote it, and the
    /// dump's name in the bucket.
    pub fn place(&self) -> Option<(&str, &str)> {
        let (cluster, dump) = self.key.strip_suffix("/manifest.json")?.rsplit_once("/dumps/")?;
        Some((cluster.rsplit('/').next()?, dump))
    }
}

/// Proof that a backup restores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// When it was restored into a scratch server.
    pub at: Time,
    /// The GTID set that the scratch server then held.
    pub gtid: String,
}

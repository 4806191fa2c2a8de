//! The parts of a MySQLCluster's spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Container, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::quantity::{self, QuantityError};
use super::reference::LocationRef;
use super::{defaults, schema};

/// The volume of each instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume, 1Gi to 64Ti. It grows without a restart where the storage class can; it never shrinks: a smaller size is refused
    /// with a condition.
    #[serde(default = "defaults::storage_size")]
    #[schemars(schema_with = "schema::storage_size")]
    pub size: Quantity,
    /// Name of the StorageClass. Absent: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: defaults::storage_size(), storage_class_name: None }
    }
}

impl Storage {
    /// The size in bytes.
    ///
    /// # Errors
    /// When the size is no quantity (the schema refuses such a spec).
    pub fn size_bytes(&self) -> Result<u64, QuantityError> {
        quantity::bytes(&self.size)
    }
}

/// What happens to writes when no recorded acker is left: Lossless (they wait) or Available (they go on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// They wait: no acknowledged write is ever lost.
    #[default]
    Lossless,
    /// They go on without an acknowledgement, and a condition says so.
    Available,
}

/// When and how often the primary is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Replace a primary that is gone or hangs. When false only switchovers that a person asks for change the primary.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// A mysqld that answers no query for this long hangs. 500ms to 5m.
    #[serde(default = "defaults::hang_after")]
    #[x_kube(validation = ("duration(self) >= duration('500ms') && duration(self) <= duration('5m')", "hangAfter is between 500ms and 5m"))]
    pub hang_after: GoDuration,
    /// A primary that for this long hears neither from a controller nor from any replica fences itself. 500ms to 5m.
    #[serde(default = "defaults::isolated_after")]
    #[x_kube(validation = ("duration(self) >= duration('500ms') && duration(self) <= duration('5m')", "isolatedAfter is between 500ms and 5m"))]
    pub isolated_after: GoDuration,
    /// Most failovers within the window; then a person has to look. 1 to 100.
    #[serde(default = "defaults::max_changes")]
    #[schemars(range(min = 1, max = 100))]
    pub max_changes: u32,
    /// The window in which failovers are counted. 1m to 168h.
    #[serde(default = "defaults::window")]
    #[x_kube(validation = ("duration(self) >= duration('1m') && duration(self) <= duration('168h')", "window is between 1m and 168h"))]
    pub window: GoDuration,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            enabled: true,
            hang_after: defaults::hang_after(),
            isolated_after: defaults::isolated_after(),
            max_changes: defaults::max_changes(),
            window: defaults::window(),
        }
    }
}

/// Which replicas serve reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reads {
    /// Replicas that lag more leave the replicas Service until they have caught up. 100ms to 168h.
    #[serde(default = "defaults::max_lag")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('168h')", "maxLag is between 100ms and 168h"))]
    pub max_lag: GoDuration,
}

impl Default for Reads {
    fn default() -> Self {
        Self { max_lag: defaults::max_lag() }
    }
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The cert-manager issuer that signs the certificates of this cluster.
    pub issuer_ref: IssuerRef,
}

/// A cert-manager issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Issuer (of this namespace) or ClusterIssuer.
    #[serde(default)]
    pub kind: IssuerKind,
    /// Name of the issuer.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// API group of the issuer.
    #[serde(default = "defaults::cert_manager")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

/// Kinds of cert-manager issuers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IssuerKind {
    /// Of the same namespace.
    #[default]
    Issuer,
    /// Of the whole Kubernetes cluster.
    ClusterIssuer,
}

/// The Services that clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// `<cluster>-primary`: the instance that takes writes.
    #[serde(default)]
    pub primary: ServiceTemplate,
    /// `<cluster>-replicas`: the replicas that keep up.
    #[serde(default)]
    pub replicas: ServiceTemplate,
}

/// How a Service is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Type of the Service: ClusterIP, NodePort or LoadBalancer.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Annotations of the Service, for load balancers and external DNS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Types of Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Reached from within Kubernetes.
    #[default]
    ClusterIP,
    /// Reached through a port of each node.
    NodePort,
    /// Reached through a load balancer outside.
    LoadBalancer,
}

impl ServiceType {
    /// As a Service's `spec.type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// What the pods get beside MySQL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods, beside Pelorus' own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate; as `kubectl explain pod.spec.tolerations`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods; as `kubectl explain pod.spec.affinity`. Absent: instances prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::affinity")]
    pub affinity: Option<Affinity>,
    /// How the pods spread; as `kubectl explain pod.spec.topologySpreadConstraints`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::spread")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pods. Empty: Kubernetes' default.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub priority_class_name: String,
    /// More containers in each pod; as `kubectl explain pod.spec.containers`. They get no access to the MySQL volume
    /// unless they mount it, and no API token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::sidecars")]
    pub sidecars: Vec<Container>,
}

/// What becomes of volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRetention {
    /// Volumes of instances that are scaled away: Retain (used again on scaling up) or Delete.
    #[serde(default)]
    pub on_scale_down: Retention,
    /// Volumes of a cluster that is deleted: Retain or Delete.
    #[serde(default)]
    pub on_delete: Retention,
}

/// Whether a volume stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted with its data.
    Delete,
}

impl Retention {
    /// As in a StatefulSet's `persistentVolumeClaimRetentionPolicy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}

/// Continuous archive of the binlogs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The MySQLBackupLocation that the archive lies in.
    pub location_ref: LocationRef,
    /// How binlogs are shipped.
    #[serde(default)]
    pub binlog: BinlogArchive,
}

/// How binlogs are shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BinlogArchive {
    /// Ship binlogs as they are written.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// Longest time that a commit waits to be in the archive. 100ms to 10m.
    #[serde(default = "defaults::flush_every")]
    #[x_kube(validation = ("duration(self) >= duration('100ms') && duration(self) <= duration('10m')", "flushEvery is between 100ms and 10m"))]
    pub flush_every: GoDuration,
    /// How long binlogs stay at least. After that they go from the servers once they are in the archive and every instance has
    /// executed them, and from the archive once every dump that is kept holds them, and never before. 1h to 87600h (ten years).
    #[serde(default = "defaults::keep")]
    #[x_kube(validation = ("duration(self) >= duration('1h') && duration(self) <= duration('87600h')", "keep is between 1h and 87600h"))]
    pub keep: GoDuration,
}

impl Default for BinlogArchive {
    fn default() -> Self {
        Self { enabled: true, flush_every: defaults::flush_every(), keep: defaults::keep() }
    }
}

/// Where the data of a new cluster comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.fromSelector) != has(self.fromLocation)", "restore takes exactly one of fromSelector and fromLocation"),
    validation = ("!(has(self.pointInTime) && has(self.gtid))", "restore takes at most one of pointInTime and gtid")
)]
pub struct Restore {
    /// The MySQLDump and MySQLBinlog objects to restore from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub from_selector: Option<LabelSelector>,
    /// The bucket itself, for when the Kubernetes that wrote it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_location: Option<RestoreLocation>,
    /// The moment to restore to (RFC 3339, microseconds): every transaction committed up to it, and none after. Absent,
    /// without gtid: the newest that is restorable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub point_in_time: Option<MicroTime>,
    /// The GTID set to restore to: exactly these transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub gtid: Option<String>,
}

/// A place in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreLocation {
    /// The MySQLBackupLocation.
    pub location_ref: LocationRef,
    /// Name of the cluster that wrote the backups.
    #[schemars(length(min = 1, max = 40))]
    pub cluster: String,
    /// Its namespace. Absent: the new cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Its uid, where several clusters of that name have written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[0-9a-zA-Z-]+$"))]
    pub uid: Option<String>,
    /// The dump to begin with, by its name in the bucket. Absent: the newest that is within the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[0-9a-zA-Z-]+$"))]
    pub dump: Option<String>,
}

//! MySQLBinlog: the record of one shipped binlog file. The selector of a restore finds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::reference::{ClusterRef, LocationRef};

/// Which binlog file.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLBinlog",
    plural = "mysqlbinlogs",
    singular = "mysqlbinlog",
    shortname = "mbin",
    category = "pelorus",
    namespaced,
    status = "MySQLBinlogStatus",
    derive = "PartialEq",
    doc = "The record of one binlog file in the archive.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(name = "File", type_ = "string", json_path = ".spec.file"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Complete", type_ = "boolean", json_path = ".status.complete"),
    printcolumn(
        name = "Last-Commit",
        type_ = "date",
        json_path = ".status.lastCommit",
        description = "Time since the newest commit in it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Server", type_ = "string", json_path = ".spec.serverUuid", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the record of a binlog file does not change").reason(Reason::FieldValueForbidden))]
pub struct MySQLBinlogSpec {
    /// The cluster that wrote it.
    pub cluster_ref: ClusterRef,
    /// Where it lies.
    pub location_ref: LocationRef,
    /// The server_uuid of the instance that wrote it.
    #[schemars(length(max = 36), regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    pub server_uuid: String,
    /// The epoch in which that instance was primary.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Name of the file on that instance.
    #[schemars(length(min = 8, max = 255), regex(pattern = r"^[A-Za-z0-9_.-]+\.[0-9]{6,10}$"))]
    pub file: String,
}

/// What the archive holds of a binlog file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLBinlogStatus {
    /// The GTID set in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// Time of the first commit in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<MicroTime>,
    /// Time of the last commit in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<MicroTime>,
    /// Bytes of the file that are in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Objects that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<i64>,
    /// The whole file is in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

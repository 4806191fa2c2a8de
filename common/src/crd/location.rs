//! MySQLBackupLocation: object storage that backups and binlogs go to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::reference::SecretRef;

/// Where backups and binlogs go.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLBackupLocation",
    plural = "mysqlbackuplocations",
    singular = "mysqlbackuplocation",
    shortname = "mbl",
    category = "pelorus",
    namespaced,
    status = "MySQLBackupLocationStatus",
    derive = "PartialEq",
    doc = "Object storage that backups and binlogs go to.",
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.s3.bucket"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.s3.prefix"),
    printcolumn(name = "Reachable", type_ = "boolean", json_path = ".status.reachable"),
    printcolumn(
        name = "Checked",
        type_ = "date",
        json_path = ".status.lastCheckAt",
        description = "Time since the last check"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.s3.endpoint", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct MySQLBackupLocationSpec {
    /// An S3 bucket, of AWS or of anything that speaks its protocol.
    pub s3: S3Location,
}

/// An S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.bucket == oldSelf.bucket && self.prefix == oldSelf.prefix").message("bucket and prefix stay: backups are found by them; make a new MySQLBackupLocation").reason(Reason::FieldValueForbidden)
)]
pub struct S3Location {
    /// Name of the bucket. It must exist.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// What every object key starts with, without a slash at the start. Empty: the whole bucket.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = r"^([A-Za-z0-9!_.*'()=-][A-Za-z0-9!_.*'()=/-]*)?$"))]
    pub prefix: String,
    /// Address of the server. Absent: AWS's for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Put the bucket into the path instead of the host name; most servers other than AWS need it.
    #[serde(default)]
    pub force_path_style: bool,
    /// Secret with the keys accessKeyId and secretAccessKey (and sessionToken where there is one). Absent: what the pod's
    /// environment offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// Secret with the key ca.crt that the server's certificate is checked against. Absent: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// Whether the location works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLBackupLocationStatus {
    /// Every step of the last check succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// When it was last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check_at: Option<Time>,
    /// The steps of the last check: Write, Read, List, ConditionalPut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub checks: Vec<LocationCheck>,
    /// The generation of the spec that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// One step of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocationCheck {
    /// Write, Read, List or ConditionalPut.
    pub name: String,
    /// It succeeded.
    pub ok: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

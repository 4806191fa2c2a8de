//! MySQLDatabase: a schema with its character set.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};

use super::reference::ClusterRef;
use super::user::OnDelete;

/// What a MySQL schema should be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLDatabase",
    plural = "mysqldatabases",
    singular = "mysqldatabase",
    shortname = "mdb",
    category = "pelorus",
    namespaced,
    status = "MySQLDatabaseStatus",
    derive = "PartialEq",
    doc = "A MySQL schema with its character set.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    validation = Rule::new("has(self.spec.name) || self.metadata.name.size() <= 64").message("the name of a MySQL schema has at most 64 characters: set spec.name").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!((has(self.spec.name) ? self.spec.name : self.metadata.name).lowerAscii() in ['mysql', 'sys', 'information_schema', 'performance_schema', 'pelorus'])").message("mysql, sys, information_schema, performance_schema and pelorus belong to MySQL and Pelorus").reason(Reason::FieldValueForbidden)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("a schema is not renamed: make a new MySQLDatabase").reason(Reason::FieldValueForbidden),
    validation = ("!has(self.collation) || self.collation.startsWith(self.characterSet + '_') || self.collation == self.characterSet", "the collation belongs to another character set")
)]
pub struct MySQLDatabaseSpec {
    /// The cluster that the schema lives in.
    #[x_kube(validation = Rule::new("self == oldSelf").message("a schema does not move between clusters: make a new MySQLDatabase").reason(Reason::FieldValueForbidden))]
    pub cluster_ref: ClusterRef,

    /// Name of the schema, at most 64 characters. Absent: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,

    /// Default character set of the schema.
    #[serde(default = "utf8mb4")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9]+$"))]
    pub character_set: String,

    /// Default collation of the schema. Absent: the character set's own default (utf8mb4_0900_ai_ci for utf8mb4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-z0-9_]+$"))]
    pub collation: Option<String>,

    /// What becomes of the schema and its data when this object is deleted: Drop or Keep.
    #[serde(default = "keep")]
    pub on_delete: OnDelete,
}

impl MySQLDatabase {
    /// Name of the schema in MySQL.
    pub fn schema_name(&self) -> String {
        self.spec.name.clone().unwrap_or_else(|| self.name_any())
    }
}

/// What a MySQL schema is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLDatabaseStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

fn utf8mb4() -> String {
    "utf8mb4".to_owned()
}

const fn keep() -> OnDelete {
    OnDelete::Keep
}

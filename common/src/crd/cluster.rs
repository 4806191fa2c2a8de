//! MySQLCluster: what a user asks for.
//!
//! The smaller parts of the spec are in `cluster_parts`, what Pelorus answers in `cluster_status`. Limits that hold for
//! one object at any time are in the schema; what needs the running cluster (guarded settings, a volume that may not
//! shrink, a downgrade) is refused by topology-ctl with a condition while the cluster goes on as before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};

use super::cluster_parts::{
    Archive, Durability, Failover, PodTemplate, Reads, Restore, Services, Storage, Tls, VolumeRetention,
};
use super::cluster_status::MySQLClusterStatus;
use super::quantity::{self, QuantityError};
use super::{defaults, schema};
use crate::names;

/// What a MySQL cluster should be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLCluster",
    plural = "mysqlclusters",
    singular = "mysqlcluster",
    shortname = "mc",
    category = "pelorus",
    namespaced,
    status = "MySQLClusterStatus",
    derive = "PartialEq",
    doc = "A replicated MySQL cluster that does not lose an acknowledged write.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Instances that serve, of those asked for"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary", description = "The instance that takes writes"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "Grows with each change of primary or ackers"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "MySQL version of the primary"),
    printcolumn(name = "Restorable-To", type_ = "date", json_path = ".status.restorable.to", description = "The newest moment that the archive reaches"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1, description = "Reason of the worst condition"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a cluster has at most 40 characters: names of pods and Services are made from it").reason(Reason::FieldValueInvalid),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of a cluster is a DNS label: lower case letters, digits and dashes, and it starts with a letter").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!has(self.spec.primary) || (self.spec.primary.startsWith(self.metadata.name + '-') && self.spec.primary.substring(self.metadata.name.size() + 1).matches('^[0-8]$') && int(self.spec.primary.substring(self.metadata.name.size() + 1)) < self.spec.instances)").message("primary names an instance of this cluster: <cluster>-<n> with n below instances").reason(Reason::FieldValueInvalid)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.restore) == has(oldSelf.restore) && (!has(self.restore) || self.restore == oldSelf.restore)").message("restore is set at creation only: make a new cluster to restore into").reason(Reason::FieldValueForbidden)
)]
pub struct MySQLClusterSpec {
    /// How many MySQL instances, 1 to 9. One is the primary, the others are replicas. Each commit waits for
    /// max(1, instances / 2) replicas; a single instance promises the durability of its own disk only.
    #[serde(default = "defaults::instances")]
    #[schemars(range(min = 1, max = 9))]
    pub instances: u32,

    /// MySQL image with mysqld 8.4 or newer. Changing it rolls out: replicas first, one switchover, the old primary
    /// last. A downgrade is refused.
    #[serde(default = "defaults::image")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$"))]
    pub image: String,

    /// The volume of each instance.
    #[serde(default)]
    pub storage: Storage,

    /// CPU and memory of the MySQL container. Absent: no requests and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,

    /// mysqld settings by name, with underscores. Dynamic ones are applied without a restart, others by a rolling
    /// restart. Settings that durability or replication rest on are guarded: they are refused with a condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::config")]
    pub config: BTreeMap<String, String>,

    /// The instance that should be primary. A wish: when it differs from status.primary a switchover follows. Absent:
    /// any instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 42))]
    pub primary: Option<String>,

    /// Lossless: a commit that no replica can acknowledge waits. Available: when all ackers are lost, writes go on
    /// without any, and the condition Degraded says so.
    #[serde(default)]
    pub durability: Durability,

    /// When and how often the primary is replaced.
    #[serde(default)]
    pub failover: Failover,

    /// Which replicas serve reads.
    #[serde(default)]
    pub reads: Reads,

    /// Where certificates come from. Absent: a certificate authority of the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// The Services that clients connect to.
    #[serde(default)]
    pub services: Services,

    /// What the pods get beside MySQL.
    #[serde(default)]
    pub pod_template: PodTemplate,

    /// What becomes of volumes.
    #[serde(default)]
    pub volume_retention: VolumeRetention,

    /// Continuous archive of the binlogs in object storage. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,

    /// Where the data comes from, at creation only. Absent: the cluster starts empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,

    /// Controllers keep their hands off: nothing is created, changed, restarted or failed over.
    #[serde(default)]
    pub paused: bool,

    /// No pods; the data is kept.
    #[serde(default)]
    pub hibernated: bool,
}

impl Default for MySQLClusterSpec {
    fn default() -> Self {
        Self {
            instances: defaults::instances(),
            image: defaults::image(),
            storage: Storage::default(),
            resources: None,
            config: BTreeMap::new(),
            primary: None,
            durability: Durability::default(),
            failover: Failover::default(),
            reads: Reads::default(),
            tls: None,
            services: Services::default(),
            pod_template: PodTemplate::default(),
            volume_retention: VolumeRetention::default(),
            archive: None,
            restore: None,
            paused: false,
            hibernated: false,
        }
    }
}

impl MySQLClusterSpec {
    /// Memory limit of the MySQL container in bytes; `None` when there is no limit.
    ///
    /// # Errors
    /// When the limit is no quantity (the schema refuses such a spec).
    pub fn memory_limit_bytes(&self) -> Result<Option<u64>, QuantityError> {
        self.resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref())
            .and_then(|limits| limits.get("memory"))
            .map(quantity::bytes)
            .transpose()
    }
}

impl MySQLCluster {
    /// Namespace and name; both are always set on objects that came from the API server.
    pub fn namespace_and_name(&self) -> (String, String) {
        (self.namespace().unwrap_or_default(), self.name_any())
    }

    /// Names of the instances that the spec asks for, by ordinal.
    pub fn instance_names(&self) -> Vec<String> {
        let name = self.name_any();
        (0..self.spec.instances).map(|ordinal| names::instance(&name, ordinal)).collect()
    }

    /// The recorded epoch; 0 before the first primary.
    pub fn epoch(&self) -> u64 {
        self.status.as_ref().map_or(0, MySQLClusterStatus::epoch)
    }

    /// The recorded primary.
    pub fn primary(&self) -> Option<&str> {
        self.status.as_ref()?.primary.as_deref()
    }

    /// The recorded ackers.
    pub fn ackers(&self) -> &[String] {
        self.status.as_ref().map_or(&[], |status| status.ackers.as_slice())
    }
}

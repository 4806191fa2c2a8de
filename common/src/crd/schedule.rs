//! MySQLBackupSchedule: when dumps are made, and how long they are kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::defaults;
use super::dump::BackupMethod;
use super::duration::GoDuration;
use super::reference::{ClusterRef, LocationRef};

/// When backups are made.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLBackupSchedule",
    plural = "mysqlbackupschedules",
    singular = "mysqlbackupschedule",
    shortname = "mbs",
    category = "pelorus",
    namespaced,
    status = "MySQLBackupScheduleStatus",
    derive = "PartialEq",
    doc = "Makes backups of a cluster at set times and removes old ones.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(
        name = "Last-Success",
        type_ = "date",
        json_path = ".status.lastSuccessAt",
        description = "Time since the last backup that succeeded"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextAt",
        priority = 1,
        description = "When the next backup is due"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MySQLBackupScheduleSpec {
    /// The cluster that is backed up.
    #[x_kube(validation = Rule::new("self == oldSelf").message("a schedule stays with its cluster: make a new MySQLBackupSchedule").reason(Reason::FieldValueForbidden))]
    pub cluster_ref: ClusterRef,

    /// Where the backups go.
    pub location_ref: LocationRef,

    /// Logical (a dump of rows) or Physical (a copy of the files).
    #[serde(default)]
    pub method: BackupMethod,

    /// When, as cron: minute, hour, day of month, month, day of week.
    #[serde(default = "nightly")]
    #[schemars(length(min = 9, max = 128), regex(pattern = r"^\s*[^\s]+(\s+[^\s]+){4}\s*$"))]
    pub schedule: String,

    /// The time zone of the schedule, an IANA name.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: String,

    /// A backup that could not start for this long after its time is left out. 1m to 168h.
    #[serde(default = "starting_deadline")]
    #[x_kube(validation = ("duration(self) >= duration('1m') && duration(self) <= duration('168h')", "startingDeadline is between 1m and 168h"))]
    pub starting_deadline: GoDuration,

    /// How long backups are kept.
    #[serde(default)]
    pub retention: BackupRetention,

    /// Restore each backup into a scratch server and compare it.
    #[serde(default = "defaults::yes")]
    pub verify: bool,

    /// Make no more backups; those that exist are kept.
    #[serde(default)]
    pub suspend: bool,
}

/// How long backups are kept: one goes when both rules allow it. The newest that succeeded always stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRetention {
    /// The newest so many stay, 1 to 10000.
    #[serde(default = "keep_last")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: u32,
    /// Those younger than this stay. 1h to 87600h.
    #[serde(default = "keep_for")]
    #[x_kube(validation = ("duration(self) >= duration('1h') && duration(self) <= duration('87600h')", "keepFor is between 1h and 87600h"))]
    pub keep_for: GoDuration,
}

impl Default for BackupRetention {
    fn default() -> Self {
        Self { keep_last: keep_last(), keep_for: keep_for() }
    }
}

/// What became of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLBackupScheduleStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest time of the schedule that has come: a backup was asked for, or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_at: Option<Time>,
    /// When the last backup that succeeded ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Time>,
    /// When the next backup is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
    /// The last MySQLDump that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_dump: Option<String>,
    /// Backups that were left out because they could not start in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<i64>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

fn nightly() -> String {
    "15 2 * * *".to_owned()
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}

const fn starting_deadline() -> GoDuration {
    GoDuration::from_hours(1)
}

const fn keep_last() -> u32 {
    7
}

const fn keep_for() -> GoDuration {
    GoDuration::from_hours(720)
}

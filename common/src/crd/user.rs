//! MySQLUser: a MySQL account, its grants, its password and a Secret to connect with.

// The names of the limits are MySQL's. On the module: the schema's derive copies the struct without its attributes.
#![allow(clippy::struct_field_names)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::reference::{ClusterRef, SecretKeyRef};
use super::schema;

/// What a MySQL account should be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pelorus.dev",
    version = "v1alpha1",
    kind = "MySQLUser",
    plural = "mysqlusers",
    singular = "mysqluser",
    shortname = "mu",
    category = "pelorus",
    namespaced,
    status = "MySQLUserStatus",
    derive = "PartialEq",
    doc = "A MySQL account with its grants, its password and a Secret to connect with.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.connectionSecretName", description = "The Secret to connect with"),
    printcolumn(name = "Rotated", type_ = "date", json_path = ".status.rotatedAt", description = "Time since the password changed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    validation = Rule::new("has(self.spec.name) || self.metadata.name.size() <= 32").message("a MySQL user name has at most 32 characters: set spec.name").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!(has(self.spec.name) ? self.spec.name : self.metadata.name).matches('^(root|admin|mysql\\\\..*|pelorus_.*)$')").message("root, admin, mysql.* and pelorus_* belong to MySQL and Pelorus").reason(Reason::FieldValueForbidden)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("an account is not renamed: make a new MySQLUser").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.login == oldSelf.login").message("an account does not become a role, nor a role an account: make a new MySQLUser").reason(Reason::FieldValueForbidden),
    validation = ("!has(self.defaultRoles) || self.defaultRoles.all(r, has(self.roles) && r in self.roles)", "defaultRoles are some of roles"),
    validation = ("self.login || (!has(self.passwordSecretRef) && !has(self.rotation))", "a role has no password"),
    validation = ("self.login || self.hosts == ['%']", "a role has the host % only")
)]
pub struct MySQLUserSpec {
    /// The cluster that the account lives in.
    #[x_kube(validation = Rule::new("self == oldSelf").message("an account does not move between clusters: make a new MySQLUser").reason(Reason::FieldValueForbidden))]
    pub cluster_ref: ClusterRef,

    /// User name in MySQL, at most 32 characters. Absent: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub name: Option<String>,

    /// Hosts that the account may connect from, as MySQL host patterns; one account each, with the same password.
    #[serde(default = "any_host")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 255)))]
    pub hosts: Vec<String>,

    /// The password. Absent: one is generated and put into the connection Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,

    /// What the account may do. Rights it has beyond these are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub grants: Vec<Grant>,

    /// Privileges of `*.*` that do not hold in a schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub revokes: Vec<Revoke>,

    /// Allow privileges that reach beyond the data of one user: ALL, GRANT OPTION, CREATE USER, CREATE ROLE, DROP ROLE,
    /// ROLE_ADMIN, SET_ANY_DEFINER and SYSTEM_USER on `*.*`.
    #[serde(default)]
    pub allow_administration: bool,

    /// Roles granted to the account: names of MySQLUsers with `login: false`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    pub roles: Vec<String>,

    /// Roles that are active at login, of those in `roles`. Absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 32)))]
    pub default_roles: Option<Vec<String>>,

    /// Whether anybody may log in as this account. When false, it is a role: no password, no Secret, granted to others.
    #[serde(default = "yes")]
    pub login: bool,

    /// Keeps the account from logging in without changing anything else.
    #[serde(default)]
    pub locked: bool,

    /// Limits on the use of the account.
    #[serde(default)]
    pub limits: UserLimits,

    /// What a connection must bring: None, TLS or X509 (a client certificate of the cluster's authority).
    #[serde(default)]
    pub require: RequiredTransport,

    /// Change of the password. Absent: it stays until it is changed by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// Secret with host, port, username, password, database, uri, jdbc-url, jdbc-url-replicas and ca.crt. Absent:
    /// `<name of the object>-mysql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub connection_secret_name: Option<String>,

    /// What becomes of the account when this object is deleted: Drop or Keep.
    #[serde(default)]
    pub on_delete: OnDelete,

    /// Take over an account of this name that exists already. When false, such an account is a conflict.
    #[serde(default)]
    pub adopt: bool,
}

impl MySQLUser {
    /// User name in MySQL.
    pub fn account_name(&self) -> String {
        self.spec.name.clone().unwrap_or_else(|| self.name_any())
    }

    /// Name of the Secret to connect with.
    pub fn connection_secret_name(&self) -> String {
        self.spec.connection_secret_name.clone().unwrap_or_else(|| format!("{}-mysql", self.name_any()))
    }
}

/// Privileges on one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::alias_of_on)]
#[x_kube(
    validation = ("has(self.on) != has(self.__true__)", "on says what the privileges hold for, once"),
    validation = ("!has(self.columns) || size(self.columns) == 0 || !(has(self.on) ? self.on : has(self.__true__) ? self.__true__ : '').endsWith('*')", "columns need a table: on is schema.table"),
    validation = ("!has(self.routine) || (!(has(self.on) ? self.on : has(self.__true__) ? self.__true__ : '').endsWith('*') && (!has(self.columns) || size(self.columns) == 0))", "a routine is schema.name, and has no columns")
)]
pub struct Grant {
    /// Privileges as in GRANT, upper case: SELECT, INSERT, CREATE VIEW, ...
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64), regex(pattern = "^[A-Z][A-Z_ ]*$")))]
    pub privileges: Vec<String>,
    /// What they hold for: `*.*`, `schema.*` or `schema.table`; a name with a dot in backticks.
    #[serde(alias = "true")]
    #[schemars(length(min = 3, max = 200), regex(pattern = r"^([^.`]+|`([^`]|``)+`)\.([^.`]+|`([^`]|``)+`)$"))]
    pub on: String,
    /// Columns that the privileges are limited to. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 64)))]
    pub columns: Vec<String>,
    /// What `on` names, when that is no table: Procedure, Function or Library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routine: Option<RoutineKind>,
}

/// Stored programs that privileges can be held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RoutineKind {
    /// A stored procedure.
    Procedure,
    /// A stored function.
    Function,
    /// A library of JavaScript (MySQL 9.2 and later).
    Library,
}

/// Privileges that do not hold in one schema, although they are granted on `*.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::alias_of_on)]
#[x_kube(validation = ("has(self.on) != has(self.__true__)", "on says where the privileges do not hold, once"))]
pub struct Revoke {
    /// Privileges that are granted on `*.*`, upper case.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64), regex(pattern = "^[A-Z][A-Z_ ]*$")))]
    pub privileges: Vec<String>,
    /// The schema: `schema.*`; a name with a dot in backticks.
    #[serde(alias = "true")]
    #[schemars(length(min = 3, max = 200), regex(pattern = r"^([^.`]+|`([^`]|``)+`)\.\*$"))]
    pub on: String,
}

/// Limits on the use of an account; 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserLimits {
    /// Connections at one time. 0: no limit.
    #[serde(default)]
    #[schemars(range(max = 100_000))]
    pub max_user_connections: u32,
    /// Queries in an hour. 0: no limit.
    #[serde(default)]
    pub max_queries_per_hour: u32,
    /// Statements that change data in an hour. 0: no limit.
    #[serde(default)]
    pub max_updates_per_hour: u32,
    /// Connections in an hour. 0: no limit.
    #[serde(default)]
    pub max_connections_per_hour: u32,
}

/// What a connection of the account must bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequiredTransport {
    /// Nothing of its own (the cluster takes only TLS connections all the same).
    None,
    /// TLS.
    #[default]
    TLS,
    /// TLS and a valid client certificate.
    X509,
}

/// Change of a password without downtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("duration(self.overlap) < duration(self.every)", "overlap is shorter than every"))]
pub struct Rotation {
    /// How often a generated password is changed. 10m to 87600h.
    #[serde(default = "every")]
    #[x_kube(validation = ("duration(self) >= duration('10m') && duration(self) <= duration('87600h')", "every is between 10m and 87600h"))]
    pub every: GoDuration,
    /// How long the old password stays valid beside the new one, after a change of passwordSecretRef's content too. 1s to
    /// 87600h.
    #[serde(default = "overlap")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('87600h')", "overlap is between 1s and 87600h"))]
    pub overlap: GoDuration,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { every: every(), overlap: overlap() }
    }
}

/// What becomes of an account or a database when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// It is dropped.
    #[default]
    Drop,
    /// It stays.
    Keep,
}

/// What a MySQL account is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySQLUserStatus {
    /// The generation of the spec that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The accounts that exist in MySQL, as `'name'@'host'`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// The Secret to connect with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_secret_name: Option<String>,
    /// When the password last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// Until when the old password is valid too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_until: Option<Time>,
    /// Ready, Conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

const fn yes() -> bool {
    true
}

fn any_host() -> Vec<String> {
    vec!["%".to_owned()]
}

const fn every() -> GoDuration {
    GoDuration::from_hours(720)
}

const fn overlap() -> GoDuration {
    GoDuration::from_hours(24)
}

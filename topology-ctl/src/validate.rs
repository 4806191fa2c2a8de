//! What a spec asks for that the running cluster cannot become. Pure.
//!
//! Limits of one object by itself are in the schema; here is what needs the guarded list or what exists. A spec with any
//! violation is not applied at all: the cluster goes on as the last accepted one.

use std::collections::BTreeSet;

use common::crd::{MySQLClusterSpec, quantity};
use common::gtid::GtidSet;
use common::guarded;
use common::names;

use crate::build::pod::CONTAINERS;
use crate::image::{self, Version};

/// Less memory than this and mysqld does not start.
const MEMORY_MIN_BYTES: u64 = 256 << 20;
/// More than any machine has: a typing error.
const MEMORY_MAX_BYTES: u64 = 64 << 40;
/// More than any machine has: a typing error.
const CPU_MAX_CORES: u64 = 4096;

/// What exists already.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Existing {
    /// Largest size asked for by the StatefulSet or by a volume claim, in bytes and as it was written.
    pub storage: Option<(u64, String)>,
    /// The StorageClass of the volumes.
    pub storage_class: Option<String>,
    /// Versions that data directories have been opened by, as far as known.
    pub versions: Vec<Version>,
}

/// One thing that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field.
    pub field: String,
    /// For programs.
    pub reason: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
}

impl Violation {
    fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }
}

/// All violations, in the order of the spec's fields.
pub fn validate(spec: &MySQLClusterSpec, existing: &Existing) -> Vec<Violation> {
    let mut violations = Vec::new();
    violations.extend(image_violation(&spec.image, existing));
    violations.extend(storage_violations(spec, existing));
    violations.extend(resource_violations(spec));
    violations.extend(config_violations(spec));
    violations.extend(sidecar_violations(spec));
    violations.extend(restore_violation(spec));
    violations
}

fn restore_violation(spec: &MySQLClusterSpec) -> Option<Violation> {
    let error = spec.restore.as_ref()?.gtid.as_ref()?.parse::<GtidSet>().err()?;
    let message = format!("spec.restore.gtid is no GTID set: {error}");
    Some(Violation::new("spec.restore.gtid", "GtidInvalid", message))
}

fn image_violation(wanted: &str, existing: &Existing) -> Option<Violation> {
    let version = image::version_of_image(wanted)?;
    if !version.is_supported() {
        let message = format!("spec.image {wanted} is MySQL {version}: Pelorus runs 8.4 or newer");
        return Some(Violation::new("spec.image", "ImageUnsupported", message));
    }
    let newer = existing.versions.iter().find(|known| version.is_older_than(**known))?;
    let message = format!(
        "spec.image {wanted} is MySQL {version}, and the data has been opened by {newer}: mysqld cannot go back. Set an image of {newer} or newer, or restore a dump into a new cluster"
    );
    Some(Violation::new("spec.image", "ImageDowngrade", message))
}

fn storage_violations(spec: &MySQLClusterSpec, existing: &Existing) -> Vec<Violation> {
    let mut violations = Vec::new();
    match spec.storage.size_bytes() {
        Err(error) => violations.push(Violation::new(
            "spec.storage.size",
            "QuantityInvalid",
            format!("spec.storage.size: {error}"),
        )),
        Ok(wanted) => {
            if let Some((bytes, text)) = &existing.storage
                && wanted < *bytes
            {
                let message = format!(
                    "spec.storage.size {} is less than the {text} that the volumes have: volumes never shrink. Set {text} or more",
                    spec.storage.size.0
                );
                violations.push(Violation::new("spec.storage.size", "StorageShrink", message));
            }
        }
    }
    if let Some(class) = &existing.storage_class
        && spec.storage.storage_class_name.as_ref().is_some_and(|wanted| wanted != class)
    {
        let message = format!(
            "spec.storage.storageClassName {} differs from the {class} of the volumes: it cannot change. Set {class}, or restore into a new cluster",
            spec.storage.storage_class_name.as_deref().unwrap_or_default()
        );
        violations.push(Violation::new("spec.storage.storageClassName", "StorageClassChange", message));
    }
    violations
}

fn resource_violations(spec: &MySQLClusterSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(resources) = &spec.resources else { return violations };
    for (list, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (name, value) in quantities.iter().flatten() {
            let field = format!("spec.resources.{list}.{name}");
            let absurd =
                |message: &str| Violation::new(&field, "ResourcesAbsurd", format!("{field} is {}: {message}", value.0));
            match (name.as_str(), quantity::bytes(value)) {
                (_, Err(error)) => {
                    violations.push(Violation::new(&field, "QuantityInvalid", format!("{field}: {error}")));
                }
                ("memory", Ok(bytes)) if list == "limits" && bytes < MEMORY_MIN_BYTES => {
                    violations.push(absurd("mysqld needs at least 256Mi"));
                }
                ("memory", Ok(bytes)) if bytes > MEMORY_MAX_BYTES => {
                    violations.push(absurd("no machine has that much"));
                }
                ("cpu", Ok(cores)) if cores > CPU_MAX_CORES => {
                    violations.push(absurd("no machine has that many cores"));
                }
                (_, Ok(_)) => {}
            }
        }
    }
    violations
}

fn config_violations(spec: &MySQLClusterSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, value) in &spec.config {
        let field = format!("spec.config.{key}");
        if let Err(reason) = guarded::check(key) {
            violations.push(Violation::new(&field, "SettingGuarded", format!("{field} may not be set: {reason}")));
        } else if let Err(reason) = guarded::check_value(value) {
            violations.push(Violation::new(&field, "SettingInvalid", format!("{field} is not taken: {reason}")));
        }
    }
    if let (Some(pool), Ok(Some(limit))) = (spec.config.get("innodb_buffer_pool_size"), spec.memory_limit_bytes())
        && mysqld_size(pool).is_some_and(|pool| pool >= limit)
    {
        let field = "spec.config.innodb_buffer_pool_size";
        let message = format!(
            "{field} is {pool}, the memory limit is {limit} bytes: the kernel would kill mysqld. Set about 60% of the limit"
        );
        violations.push(Violation::new(field, "SettingExceedsMemory", message));
    }
    violations
}

/// A size as mysqld reads it: a number with `K`, `M`, `G`, `T`, `P` or `E`.
fn mysqld_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn sidecar_violations(spec: &MySQLClusterSpec) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut names: BTreeSet<&str> = CONTAINERS.into();
    let ours = [names::PORT_MYSQL, names::PORT_MYSQLX, names::PORT_INSTANCE_API];
    for (index, sidecar) in spec.pod_template.sidecars.iter().enumerate() {
        let field = format!("spec.podTemplate.sidecars[{index}]");
        if !names.insert(&sidecar.name) {
            let message = format!("{field}.name {} is taken: give it another name", sidecar.name);
            violations.push(Violation::new(format!("{field}.name"), "SidecarName", message));
        }
        let taken = sidecar
            .ports
            .iter()
            .flatten()
            .map(|port| port.container_port)
            .find(|port| u16::try_from(*port).is_ok_and(|port| ours.contains(&port)));
        if let Some(port) = taken {
            let message = format!("{field}.ports: {port} belongs to MySQL: a pod has one of each port");
            violations.push(Violation::new(format!("{field}.ports"), "SidecarPort", message));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use k8s_openapi::api::core::v1::{Container, ContainerPort, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use std::collections::BTreeMap;

    fn existing() -> Existing {
        Existing {
            storage: Some((10 << 30, "10Gi".into())),
            storage_class: Some("fast".into()),
            versions: vec![image::version("9.7.4").unwrap()],
        }
    }

    fn limits(memory: &str) -> ResourceRequirements {
        let limits = BTreeMap::from([("memory".to_owned(), Quantity(memory.into()))]);
        ResourceRequirements { limits: Some(limits), ..ResourceRequirements::default() }
    }

    fn sidecar(name: &str) -> Container {
        Container { name: name.into(), ..Container::default() }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        type Change = fn(&mut MySQLClusterSpec);
        let cases: [(&str, &str, Change); 17] = [
            ("spec.config.sync_binlog", "SettingGuarded", |spec| {
                spec.config.insert("sync_binlog".into(), "0".into());
            }),
            ("spec.config.sql_mode", "SettingInvalid", |spec| {
                spec.config.insert("sql_mode".into(), "a\nb".into());
            }),
            ("spec.config.innodb_buffer_pool_size", "SettingExceedsMemory", |spec| {
                spec.resources = Some(limits("1Gi"));
                spec.config.insert("innodb_buffer_pool_size".into(), "2G".into());
            }),
            ("spec.storage.size", "StorageShrink", |spec| spec.storage.size = Quantity("9Gi".into())),
            ("spec.storage.size", "QuantityInvalid", |spec| spec.storage.size = Quantity("big".into())),
            ("spec.storage.storageClassName", "StorageClassChange", |spec| {
                spec.storage.storage_class_name = Some("slow".into());
            }),
            ("spec.image", "ImageDowngrade", |spec| spec.image = "mysql:9.6".into()),
            ("spec.image", "ImageDowngrade", |spec| spec.image = "mysql:9.7.3".into()),
            ("spec.image", "ImageUnsupported", |spec| spec.image = "mysql:8.0.40".into()),
            ("spec.resources.limits.memory", "ResourcesAbsurd", |spec| spec.resources = Some(limits("100Mi"))),
            ("spec.resources.limits.memory", "ResourcesAbsurd", |spec| spec.resources = Some(limits("1Pi"))),
            ("spec.resources.limits.memory", "QuantityInvalid", |spec| spec.resources = Some(limits("much"))),
            ("spec.podTemplate.sidecars[0].name", "SidecarName", |spec| {
                spec.pod_template.sidecars = vec![sidecar("mysql")];
            }),
            ("spec.podTemplate.sidecars[0].name", "SidecarName", |spec| {
                spec.pod_template.sidecars = vec![sidecar("install")];
            }),
            ("spec.podTemplate.sidecars[1].name", "SidecarName", |spec| {
                spec.pod_template.sidecars = vec![sidecar("a"), sidecar("a")];
            }),
            ("spec.restore.gtid", "GtidInvalid", |spec| {
                spec.restore = serde_json::from_value(serde_json::json!({"gtid": "all of them"})).ok();
            }),
            ("spec.podTemplate.sidecars[0].ports", "SidecarPort", |spec| {
                let port = ContainerPort { container_port: 3306, ..ContainerPort::default() };
                spec.pod_template.sidecars = vec![Container { ports: Some(vec![port]), ..sidecar("a") }];
            }),
        ];
        for (field, reason, change) in cases {
            let mut spec = MySQLClusterSpec::default();
            change(&mut spec);
            let violations = validate(&spec, &existing());
            let found: Vec<_> =
                violations.iter().map(|violation| (violation.field.as_str(), violation.reason)).collect();
            assert_eq!(found, [(field, reason)]);
            assert!(violations.iter().all(|violation| violation.message.contains(field)), "{violations:?}");
        }
    }

    #[test]
    fn what_can_be_is_accepted() {
        type Change = fn(&mut MySQLClusterSpec);
        let cases: [Change; 9] = [
            |_| {},
            |spec| spec.storage.size = Quantity("10240Mi".into()),
            |spec| spec.storage.size = Quantity("20Gi".into()),
            |spec| spec.storage.storage_class_name = Some("fast".into()),
            |spec| spec.image = "mysql:9.8".into(),
            |spec| spec.image = "team/mysql:nightly".into(),
            |spec| spec.image = "mysql:9.7.5".into(),
            |spec| {
                spec.config.insert("max_connections".into(), "500".into());
            },
            |spec| {
                spec.resources = Some(limits("4Gi"));
                spec.config.insert("innodb_buffer_pool_size".into(), "2G".into());
            },
        ];
        for (index, change) in cases.iter().enumerate() {
            let mut spec = MySQLClusterSpec::default();
            change(&mut spec);
            assert_eq!(validate(&spec, &existing()), [], "{index}");
        }
    }

    #[test]
    fn an_image_that_never_ran_may_be_taken_back() {
        // What was asked for in between left no mark: only what opened the data counts, and nothing did in a new cluster.
        let mut existing = existing();
        assert_eq!(validate(&MySQLClusterSpec::default(), &existing), []);
        existing.versions.clear();
        let spec = MySQLClusterSpec { image: "mysql:8.4".into(), ..MySQLClusterSpec::default() };
        assert_eq!(validate(&spec, &existing), []);
    }
}

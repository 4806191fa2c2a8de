//! ConfigMap `<cluster>-instance`: what instance-d needs to know, and what was accepted last.
//!
//! It is also where the accepted settings live: a spec with settings that mysqld refuses leaves it untouched.

use std::collections::BTreeMap;

use common::crd::MySQLClusterSpec;
use common::instance::InstanceConfig;
use common::names;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::{Cluster, Object};
use crate::decide::settings::Accepted;

/// Annotation with the restart digest of the accepted settings.
const ANNOTATION_RESTART: &str = "pelorus.dev/restart-digest";
/// Key of the one document.
const KEY: &str = "instance.json";

/// What instance-d is told.
pub fn instance_config(cluster: &Cluster, spec: &MySQLClusterSpec, accepted: &Accepted) -> InstanceConfig {
    InstanceConfig {
        namespace: cluster.namespace.clone(),
        cluster: cluster.name.clone(),
        cluster_uid: cluster.uid.clone(),
        settings: accepted.settings.clone(),
        memory_limit_bytes: spec.memory_limit_bytes().ok().flatten().unwrap_or(0),
        hang_after_ms: spec.failover.hang_after.as_millis(),
        isolated_after_ms: spec.failover.isolated_after.as_millis(),
        archived: spec.archive.as_ref().is_some_and(|archive| archive.binlog.enabled),
    }
}

/// The ConfigMap.
///
/// # Errors
/// serde_json's.
pub fn build(cluster: &Cluster, spec: &MySQLClusterSpec, accepted: &Accepted) -> Result<Object, serde_json::Error> {
    let document = serde_json::to_string_pretty(&instance_config(cluster, spec, accepted))?;
    Ok(cluster.object::<ConfigMap>(
        &names::object::instance_config(&cluster.name),
        json!({
            "metadata": {"annotations": {ANNOTATION_RESTART: accepted.restart_digest}},
            "data": {KEY: document},
        }),
    ))
}

/// What was accepted last; `None` when the ConfigMap holds nothing that can be read.
pub fn accepted(existing: &ConfigMap) -> Option<Accepted> {
    let document = existing.data.as_ref()?.get(KEY)?;
    let settings: BTreeMap<String, String> = serde_json::from_str::<InstanceConfig>(document).ok()?.settings;
    let restart_digest = existing.metadata.annotations.as_ref()?.get(ANNOTATION_RESTART)?.clone();
    Some(Accepted { settings, restart_digest })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;

    #[test]
    fn what_was_accepted_is_read_back() {
        let accepted_before = Accepted {
            settings: BTreeMap::from([("max_connections".into(), "500".into())]),
            restart_digest: "d".into(),
        };
        let object = build(&cluster(), &MySQLClusterSpec::default(), &accepted_before).unwrap();
        assert_known_to::<ConfigMap>(&object);
        let existing: ConfigMap = serde_json::from_value(object.body).unwrap();
        assert_eq!(accepted(&existing), Some(accepted_before));
        assert_eq!(accepted(&ConfigMap::default()), None);
    }
}

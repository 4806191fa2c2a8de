//! The StatefulSet of the instances.
//!
//! `OnDelete`: nobody but this daemon decides when a pod is replaced. `Parallel`: instances do not wait for each other.

use common::crd::MySQLClusterSpec;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::json;

use super::pod::{self, VOLUME_DATA};
use super::{Cluster, Object};
use crate::config::Config;
use crate::decide::settings::Accepted;

/// The StatefulSet with `replicas` pods.
///
/// # Errors
/// serde_json's.
pub fn build(
    cluster: &Cluster,
    spec: &MySQLClusterSpec,
    config: &Config,
    accepted: &Accepted,
    replicas: u32,
) -> Result<Object, serde_json::Error> {
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": spec.storage.size}},
    });
    if let Some(class) = &spec.storage.storage_class_name {
        super::merge(&mut claim, json!({"storageClassName": class}));
    }
    Ok(cluster.object::<StatefulSet>(
        &cluster.name,
        json!({"spec": {
            "serviceName": cluster.name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            "persistentVolumeClaimRetentionPolicy": {
                "whenScaled": spec.volume_retention.on_scale_down.as_str(),
                "whenDeleted": spec.volume_retention.on_delete.as_str(),
            },
            "selector": {"matchLabels": cluster.selector()},
            "template": pod::template(cluster, spec, config, accepted)?,
            "volumeClaimTemplates": [{
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": VOLUME_DATA, "labels": cluster.labels()},
                "spec": claim,
            }],
        }}),
    ))
}

/// Name of the volume claim of an instance.
pub fn claim_name(instance: &str) -> String {
    format!("{VOLUME_DATA}-{instance}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::{assert_known_to, cluster};
    use super::*;

    #[test]
    fn the_statefulset_never_replaces_pods_by_itself() {
        let mut spec = MySQLClusterSpec::default();
        spec.volume_retention.on_scale_down = common::crd::Retention::Delete;
        spec.storage.storage_class_name = Some("fast".into());
        let object = build(&cluster(), &spec, &Config::default(), &Accepted::default(), 3).unwrap();
        assert_known_to::<StatefulSet>(&object);
        let spec = &object.body["spec"];
        assert_eq!(spec["updateStrategy"]["type"], "OnDelete");
        assert_eq!(spec["podManagementPolicy"], "Parallel");
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenScaled": "Delete", "whenDeleted": "Retain"})
        );
        assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["storageClassName"], "fast");
        assert!(spec["volumeClaimTemplates"][0]["metadata"]["ownerReferences"].is_null());
        assert_eq!(claim_name("shop-2"), "data-shop-2");
    }
}

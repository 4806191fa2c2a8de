//! The pod of an instance.
//!
//! ```text
//! init `install`  the instance-d image copies its static binary into an emptyDir
//! `mysql`         the user's MySQL image, entrypoint /opt/pelorus/instance-d run
//! sidecars        what the user adds
//! ```
//!
//! Restricted pod security, a read-only root, no API token. Secrets are mounted as files and appear neither in the
//! environment nor in arguments (invariant 9). The annotation [`names::ANNOTATION_TEMPLATE`] holds a digest of what the
//! user controls: only its change replaces pods, an upgrade of the operator does not.

use common::crd::MySQLClusterSpec;
use common::names::{self, DIR_ACCOUNTS, DIR_BIN, DIR_CONFIG, DIR_RUN, DIR_TLS, DIR_VOLUME};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Cluster, merge, prune};
use crate::config::Config;
use crate::decide::settings::{Accepted, hex};

/// Name of the data volume and prefix of its claims.
pub const VOLUME_DATA: &str = "data";
/// Names of our own containers.
pub const CONTAINERS: [&str; 2] = [names::CONTAINER_MYSQL, CONTAINER_INSTALL];
/// The init container.
const CONTAINER_INSTALL: &str = "install";
/// File in the run directory that is the pod's `/etc/hosts`.
const HOSTS: &str = "hosts";
/// A hand-over, then a clean stop of mysqld with a large buffer pool.
const GRACE_SECONDS: i64 = 120;

/// Digest of what the user controls in a pod.
///
/// # Errors
/// serde_json's.
pub fn digest(spec: &MySQLClusterSpec, accepted: &Accepted) -> Result<String, serde_json::Error> {
    let controlled = prune(json!({
        "image": spec.image,
        "resources": spec.resources,
        "podTemplate": spec.pod_template,
        "restart": accepted.restart_digest,
    }));
    Ok(hex(&Sha256::digest(serde_json::to_vec(&controlled)?), 16))
}

/// The pod template.
///
/// # Errors
/// serde_json's.
pub fn template(
    cluster: &Cluster,
    spec: &MySQLClusterSpec,
    config: &Config,
    accepted: &Accepted,
) -> Result<Value, serde_json::Error> {
    let user = &spec.pod_template;
    let mut annotations = json!(user.annotations);
    merge(&mut annotations, json!({names::ANNOTATION_TEMPLATE: digest(spec, accepted)?}));
    let mut labels = json!(user.labels);
    merge(&mut labels, Value::Object(cluster.labels()));

    let mut containers = vec![mysql(spec)?];
    for sidecar in &user.sidecars {
        let mut container = serde_json::to_value(sidecar)?;
        if sidecar.security_context.is_none() {
            merge(
                &mut container,
                json!({"securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                }}),
            );
        }
        containers.push(container);
    }

    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": config.mysql_user_id,
            "runAsGroup": config.mysql_user_id,
            "fsGroup": config.mysql_user_id,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [install(config)],
        "containers": containers,
        "volumes": volumes(cluster),
        "affinity": affinity(cluster, spec)?,
        "topologySpreadConstraints": spread(cluster, spec)?,
    });
    if !user.node_selector.is_empty() {
        merge(&mut pod, json!({"nodeSelector": user.node_selector}));
    }
    if !user.tolerations.is_empty() {
        merge(&mut pod, json!({"tolerations": user.tolerations}));
    }
    if !user.priority_class_name.is_empty() {
        merge(&mut pod, json!({"priorityClassName": user.priority_class_name}));
    }
    Ok(json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}))
}

fn install(config: &Config) -> Value {
    json!({
        "name": CONTAINER_INSTALL,
        "image": config.instance_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/instance-d", "install", format!("{DIR_BIN}/instance-d"), format!("{DIR_RUN}/{HOSTS}")],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": "bin", "mountPath": DIR_BIN}, {"name": "run", "mountPath": DIR_RUN}],
    })
}

fn mysql(spec: &MySQLClusterSpec) -> Result<Value, serde_json::Error> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let probe = |path: &str| json!({"path": path, "port": "api", "scheme": "HTTPS"});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mount_read_only = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut container = json!({
        "name": names::CONTAINER_MYSQL,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [format!("{DIR_BIN}/instance-d"), "run"],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
        ],
        "ports": [
            port("mysql", names::PORT_MYSQL),
            port("mysqlx", names::PORT_MYSQLX),
            port("api", names::PORT_INSTANCE_API),
        ],
        // instance-d's own pulse only: a recovery or a clone takes as long as it takes.
        "livenessProbe": {
            "httpGet": probe("/livez"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6, "successThreshold": 1,
        },
        "readinessProbe": {
            "httpGet": probe("/readyz"), "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2, "successThreshold": 1,
        },
        "securityContext": container_security(),
        "volumeMounts": [
            mount(VOLUME_DATA, DIR_VOLUME),
            mount_read_only("bin", DIR_BIN),
            mount_read_only("config", DIR_CONFIG),
            mount_read_only("accounts", DIR_ACCOUNTS),
            mount_read_only("tls", DIR_TLS),
            mount("run", DIR_RUN),
            // The replication source by its address: a failover waits for no DNS.
            json!({"name": "run", "mountPath": "/etc/hosts", "subPath": HOSTS}),
            mount("tmp", "/tmp"),
        ],
    });
    if let Some(resources) = &spec.resources {
        merge(&mut container, json!({"resources": serde_json::to_value(resources)?}));
    }
    Ok(container)
}

fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn volumes(cluster: &Cluster) -> Value {
    // Readable by the group of fsGroup only.
    let mode = 0o440;
    json!([
        {"name": "bin", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "config", "configMap": {"name": names::object::instance_config(&cluster.name), "defaultMode": 0o444}},
        {"name": "accounts", "secret": {"secretName": names::object::accounts_secret(&cluster.name), "defaultMode": mode}},
        {"name": "tls", "secret": {"secretName": names::object::tls_secret(&cluster.name), "defaultMode": mode}},
    ])
}

/// The user's affinity, or: prefer a node without another instance of this cluster.
fn affinity(cluster: &Cluster, spec: &MySQLClusterSpec) -> Result<Value, serde_json::Error> {
    if let Some(affinity) = &spec.pod_template.affinity {
        return serde_json::to_value(affinity);
    }
    Ok(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": cluster.selector()},
        },
    }]}}))
}

/// The user's constraints, or: spread over zones where there are some.
fn spread(cluster: &Cluster, spec: &MySQLClusterSpec) -> Result<Value, serde_json::Error> {
    if !spec.pod_template.topology_spread_constraints.is_empty() {
        return serde_json::to_value(&spec.pod_template.topology_spread_constraints);
    }
    Ok(json!([{
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": cluster.selector()},
    }]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::cluster;
    use super::*;
    use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};

    fn build(spec: &MySQLClusterSpec) -> PodTemplateSpec {
        let value = template(&cluster(), spec, &Config::default(), &Accepted::default()).unwrap();
        let typed: PodTemplateSpec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), value, "a field that pods do not have");
        typed
    }

    fn with_sidecar() -> MySQLClusterSpec {
        let mut spec = MySQLClusterSpec::default();
        spec.pod_template.sidecars.push(Container { name: "exporter".into(), ..Container::default() });
        spec
    }

    #[test]
    fn pods_meet_the_restricted_standard_and_hold_no_api_token() {
        let pod = build(&with_sidecar()).spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        let security = pod.security_context.unwrap();
        assert_eq!(security.run_as_non_root, Some(true));
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let security = container.security_context.clone().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false), "{}", container.name);
            assert_eq!(security.capabilities.unwrap().drop.unwrap(), ["ALL"], "{}", container.name);
            if CONTAINERS.contains(&container.name.as_str()) {
                assert_eq!(security.read_only_root_filesystem, Some(true), "{}", container.name);
            }
        }
        for volume in pod.volumes.unwrap() {
            assert!(volume.host_path.is_none() && volume.projected.is_none());
        }
    }

    #[test]
    fn secrets_are_files_and_nothing_else() {
        let pod = build(&MySQLClusterSpec::default()).spec.unwrap();
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            assert!(container.env_from.is_none());
            for variable in container.env.iter().flatten() {
                assert!(variable.value.is_none());
                assert!(variable.value_from.as_ref().unwrap().secret_key_ref.is_none());
            }
        }
        let secrets: Vec<String> =
            pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
        assert_eq!(secrets, ["shop-accounts", "shop-tls"]);
    }

    #[test]
    fn only_what_the_user_controls_changes_the_digest() {
        let spec = MySQLClusterSpec::default();
        let accepted = Accepted::default();
        let before = digest(&spec, &accepted).unwrap();
        let upgraded = Config { instance_image: "pelorus/instance-d:next".into(), ..Config::default() };
        let annotation = |config: &Config| {
            template(&cluster(), &spec, config, &accepted).unwrap()["metadata"]["annotations"]
                [names::ANNOTATION_TEMPLATE]
                .clone()
        };
        assert_eq!(annotation(&upgraded), json!(before));
        assert_eq!(annotation(&Config::default()), json!(before));

        let mut image = spec.clone();
        image.image = "mysql:9.8".into();
        let restart = Accepted { restart_digest: "x".into(), ..Accepted::default() };
        let mut scaled = spec.clone();
        scaled.instances = 5;
        scaled.config.insert("max_connections".into(), "5".into());
        assert_ne!(digest(&image, &accepted).unwrap(), before);
        assert_ne!(digest(&spec, &restart).unwrap(), before);
        assert_ne!(digest(&with_sidecar(), &accepted).unwrap(), before);
        assert_eq!(digest(&scaled, &accepted).unwrap(), before);
    }

    #[test]
    fn what_the_user_adds_never_replaces_what_is_ours() {
        let mut spec = with_sidecar();
        spec.pod_template.labels.insert(names::LABEL_CLUSTER.into(), "other".into());
        spec.pod_template.labels.insert("team".into(), "a".into());
        spec.pod_template.priority_class_name = "high".into();
        spec.pod_template.node_selector.insert("disk".into(), "nvme".into());
        let template = build(&spec);
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!((labels[names::LABEL_CLUSTER].as_str(), labels["team"].as_str()), ("shop", "a"));
        let pod = template.spec.unwrap();
        assert_eq!(pod.priority_class_name.as_deref(), Some("high"));
        assert_eq!(pod.node_selector.unwrap()["disk"], "nvme");
        assert_eq!(pod.containers[1].name, "exporter");
    }
}

//! What is there: Kubernetes objects of one cluster, and what its instances say.
//!
//! Read live and label-selected at each look, so that no cache of all pods and claims has to be held in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::client::InstanceClient;
use common::crd::quantity;
use common::instance::InstanceState;
use common::names;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod as KubePod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use rustls::ClientConfig;
use tracing::debug;

use crate::act::bounded;
use crate::build::{Cluster, statefulset::claim_name};
use crate::decide::{Member, Pod, Volume};
use crate::error::Error;

/// Deadline of a question to an instance.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A pod of this age that found no node, or has no claim, will not get one by itself; before, they are on their way.
const YOUNG: Duration = Duration::from_secs(15);
/// Why a container waits that does not start by itself.
const STUCK_REASONS: [&str; 9] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// All that was observed of one cluster.
pub struct Observed {
    /// The StatefulSet.
    pub statefulset: Option<StatefulSet>,
    /// The ConfigMap with what was accepted.
    pub config: Option<ConfigMap>,
    /// Volume claims by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Instances by ordinal: wanted ones, and those that still are.
    pub members: Vec<Member>,
    /// Addresses of the pods that have one.
    pub addresses: BTreeMap<String, IpAddr>,
}

/// Reads everything, side by side.
pub async fn observe(
    client: &Client,
    cluster: &Cluster,
    wanted: u32,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Observed, Error> {
    let namespace = &cluster.namespace;
    let statefulsets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let pods: Api<KubePod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let selected = ListParams::default().labels(&cluster.selector_text());
    let config_name = names::object::instance_config(&cluster.name);
    let (statefulset, config, pods, claims) = futures::try_join!(
        bounded("get", "StatefulSet", &cluster.name, statefulsets.get_opt(&cluster.name)),
        bounded("get", "ConfigMap", &config_name, configmaps.get_opt(&config_name)),
        bounded("list", "Pods", &cluster.name, pods.list(&selected)),
        bounded("list", "PersistentVolumeClaims", &cluster.name, claims.list(&selected)),
    )?;
    let claims: BTreeMap<String, PersistentVolumeClaim> =
        claims.items.into_iter().map(|claim| (claim.name_any(), claim)).collect();
    let pods: BTreeMap<u32, KubePod> =
        pods.items.into_iter().filter_map(|pod| Some((names::ordinal(&cluster.name, &pod.name_any())?, pod))).collect();
    let addresses: BTreeMap<String, IpAddr> = pods.values().filter_map(address).collect();
    let states = match tls {
        Some(tls) => ask_all(cluster, &addresses, tls).await,
        None => BTreeMap::new(),
    };

    let highest = pods.keys().next_back().map_or(0, |ordinal| ordinal + 1);
    let current = statefulset.as_ref().map_or(0, replicas);
    let count = wanted.max(highest).max(current).min(names::INSTANCES_MAX);
    let members = (0..count)
        .map(|ordinal| {
            let name = names::instance(&cluster.name, ordinal);
            Member {
                pod: pods.get(&ordinal).map(pod),
                volume: claims.get(&claim_name(&name)).map_or(Volume::Missing, volume),
                state: states.get(&name).cloned(),
                name,
                ordinal,
            }
        })
        .collect();
    Ok(Observed { statefulset, config, claims, members, addresses })
}

async fn ask_all(
    cluster: &Cluster,
    addresses: &BTreeMap<String, IpAddr>,
    tls: &Arc<ClientConfig>,
) -> BTreeMap<String, InstanceState> {
    let questions = addresses.iter().map(async |(name, address)| {
        let client = instance(cluster, name, *address, tls)?;
        match client.state(ASK_TIMEOUT).await {
            Ok(state) => Some((name.clone(), state)),
            Err(error) => {
                debug!(instance = %name, %error, "no state");
                None
            }
        }
    });
    join_all(questions).await.into_iter().flatten().collect()
}

/// The API of one instance, at the address of its pod.
pub fn instance(cluster: &Cluster, name: &str, address: IpAddr, tls: &Arc<ClientConfig>) -> Option<InstanceClient> {
    let host = names::instance_host(&cluster.namespace, &cluster.name, name);
    InstanceClient::new(SocketAddr::new(address, names::PORT_INSTANCE_API), &host, Arc::clone(tls)).ok()
}

/// Pods that a StatefulSet asks for.
pub fn replicas(statefulset: &StatefulSet) -> u32 {
    let replicas = statefulset.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    u32::try_from(replicas).unwrap_or(0)
}

/// Size that a StatefulSet asks for each volume: bytes, and as written.
pub fn template_storage(statefulset: &StatefulSet) -> Option<(u64, String)> {
    let templates = statefulset.spec.as_ref()?.volume_claim_templates.as_ref()?;
    storage(templates.first()?)
}

/// StorageClass of a StatefulSet's volumes, when it names one.
pub fn template_class(statefulset: &StatefulSet) -> Option<String> {
    let templates = statefulset.spec.as_ref()?.volume_claim_templates.as_ref()?;
    templates.first()?.spec.as_ref()?.storage_class_name.clone()
}

/// Digest of the pod template in force.
pub fn template_digest(statefulset: &StatefulSet) -> Option<String> {
    let metadata = statefulset.spec.as_ref()?.template.metadata.as_ref()?;
    metadata.annotations.as_ref()?.get(names::ANNOTATION_TEMPLATE).cloned()
}

/// Whether the StatefulSet controller has seen the last change.
pub fn is_observed(statefulset: &StatefulSet) -> bool {
    statefulset.status.as_ref().and_then(|status| status.observed_generation) == statefulset.metadata.generation
}

/// Size that a claim asks for: bytes, and as written.
pub fn storage(claim: &PersistentVolumeClaim) -> Option<(u64, String)> {
    let request = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?;
    Some((quantity::bytes(request).ok()?, request.0.clone()))
}

fn address(pod: &KubePod) -> Option<(String, IpAddr)> {
    let status = pod.status.as_ref()?;
    let is_up = matches!(status.phase.as_deref(), Some("Running"));
    let address = status.pod_ip.as_ref().filter(|_| is_up)?.parse().ok()?;
    Some((pod.name_any(), address))
}

fn pod(pod: &KubePod) -> Pod {
    let status = pod.status.as_ref();
    let condition = |type_: &str| {
        status.and_then(|status| status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_))
    };
    let age = pod.creation_timestamp().map(|created| common::clock::now().duration_since(created.0).unsigned_abs());
    let young = age.is_none_or(|age| age <= YOUNG);
    let unschedulable =
        condition("PodScheduled").filter(|condition| condition.status == "False" && !young).map(|condition| {
            format!(
                "{}: {}",
                condition.reason.as_deref().unwrap_or("Unschedulable"),
                condition.message.as_deref().unwrap_or_default()
            )
        });
    Pod {
        uid: pod.uid().unwrap_or_default(),
        template: pod.annotations().get(names::ANNOTATION_TEMPLATE).cloned(),
        ready: condition("Ready").is_some_and(|condition| condition.status == "True"),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        pending: status.and_then(|status| status.phase.as_deref()) == Some("Pending"),
        young,
        stuck: stuck_container(pod).or(unschedulable),
    }
}

fn stuck_container(pod: &KubePod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(status.container_statuses.iter()).flatten();
    let (container, waiting) = containers
        .filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?)))
        .find(|(_, waiting)| waiting.reason.as_deref().is_some_and(|reason| STUCK_REASONS.contains(&reason)))?;
    let specs = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let image = specs.filter(|spec| spec.name == container.name).find_map(|spec| spec.image.as_deref());
    Some(format!(
        "container {} of {} {}: {}",
        container.name,
        image.unwrap_or("an unknown image"),
        waiting.reason.as_deref().unwrap_or_default(),
        waiting.message.as_deref().unwrap_or_default()
    ))
}

fn volume(claim: &PersistentVolumeClaim) -> Volume {
    if claim.metadata.deletion_timestamp.is_some() {
        return Volume::Deleting;
    }
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Bound") => Volume::Bound,
        Some("Lost") => Volume::Lost,
        Some(_) | None => Volume::Pending,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_whose_image_cannot_be_pulled_is_stuck() {
        let kube: KubePod = serde_json::from_value(json!({
            "metadata": {"name": "shop-1", "uid": "u", "annotations": {"pelorus.dev/template": "t"}},
            "spec": {"containers": [{"name": "mysql", "image": "mysql:none"}]},
            "status": {
                "phase": "Pending", "podIP": "10.0.0.1",
                "containerStatuses": [{
                    "name": "mysql", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
                }],
            },
        }))
        .unwrap();
        let pod = pod(&kube);
        assert_eq!(pod.stuck.as_deref(), Some("container mysql of mysql:none ImagePullBackOff: not found"));
        assert!(pod.pending && !pod.ready && !pod.deleting);
        assert_eq!(pod.template.as_deref(), Some("t"));
        assert_eq!(address(&kube), None);
    }

    #[test]
    fn a_starting_pod_is_not_stuck() {
        let kube: KubePod = serde_json::from_value(json!({
            "metadata": {"name": "shop-1", "creationTimestamp": jiff::Timestamp::now().to_string()},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
                "initContainerStatuses": [{
                    "name": "install", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "PodInitializing"}},
                }],
            },
        }))
        .unwrap();
        assert_eq!(pod(&kube).stuck, None);
    }
}

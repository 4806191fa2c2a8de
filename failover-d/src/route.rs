//! Points the Services at instances: one EndpointSlice each, written in one piece.
//!
//! A slice carries the epoch it was written in. A writer replaces only the version it has read, and never a higher
//! epoch: a failover-d that slept through a change of primary finds its write refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use common::crd::MySQLCluster;
use common::failpoint;
use common::names::{self, LABEL_CLUSTER};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::stream::Update;

/// Annotation with the epoch that a slice was written in.
const ANNOTATION_EPOCH: &str = "pelorus.dev/epoch";
/// Who manages these slices, as Kubernetes asks for it.
const MANAGED_BY: &str = "failover-d.pelorus.dev";
/// Deadline of one call.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What somebody else is writing is looked at after this long.
const LEAVE: Duration = Duration::from_millis(150);
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// When the primary moves, its slice goes first, and the other so much later: who replicates may be read all the time, and each
/// slice costs the API server, and every node that rewrites its rules for it, what the hand-over needs.
const REPLICAS_LATER: Duration = Duration::from_millis(250);
/// Even when nothing changes the slices are looked at, in case somebody else changed them.
const VERIFY: Duration = Duration::from_secs(20);

/// One instance that a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Pod name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Node that it runs on.
    pub node: Option<String>,
    /// UID of the pod.
    pub uid: String,
}

/// Where the Services of a cluster should lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Epoch that this belongs to.
    pub epoch: u64,
    /// The primary; absent: leave the slice.
    pub primary: Option<Target>,
    /// Instances that take reads.
    pub replicas: Vec<Target>,
    /// This process wrote the record last; when it did not, somebody else is writing this by now.
    pub is_ours: bool,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Kube(#[from] Box<kube::Error>),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("the slice was written in epoch {found}, ours is {ours}")]
    Newer { found: u64, ours: u64 },
}

fn slice(cluster: &MySQLCluster, service: &str, epoch: u64, targets: &[Target]) -> EndpointSlice {
    let (namespace, name) = cluster.namespace_and_name();
    let port = |name: &str, port: u16| EndpointPort {
        name: Some(name.into()),
        port: Some(port.into()),
        protocol: Some("TCP".into()),
        app_protocol: None,
    };
    let family = targets.first().map_or("IPv4", |target| if target.address.is_ipv6() { "IPv6" } else { "IPv4" });
    EndpointSlice {
        address_type: family.into(),
        endpoints: targets
            .iter()
            .map(|target| Endpoint {
                addresses: vec![target.address.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(true),
                    serving: Some(true),
                    terminating: Some(false),
                }),
                node_name: target.node.clone(),
                target_ref: Some(ObjectReference {
                    kind: Some("Pod".into()),
                    name: Some(target.name.clone()),
                    namespace: Some(namespace.clone()),
                    uid: Some(target.uid.clone()),
                    ..ObjectReference::default()
                }),
                ..Endpoint::default()
            })
            .collect(),
        metadata: ObjectMeta {
            name: Some(service.to_owned()),
            namespace: Some(namespace),
            labels: Some(BTreeMap::from([
                ("kubernetes.io/service-name".to_owned(), service.to_owned()),
                ("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
                ("app.kubernetes.io/managed-by".to_owned(), "pelorus".to_owned()),
                ("app.kubernetes.io/name".to_owned(), "mysql".to_owned()),
                ("app.kubernetes.io/instance".to_owned(), name.clone()),
                ("app.kubernetes.io/component".to_owned(), "routing".to_owned()),
                (LABEL_CLUSTER.to_owned(), name.clone()),
            ])),
            annotations: Some(BTreeMap::from([(ANNOTATION_EPOCH.to_owned(), epoch.to_string())])),
            owner_references: Some(vec![OwnerReference {
                api_version: MySQLCluster::api_version(&()).into_owned(),
                kind: MySQLCluster::kind(&()).into_owned(),
                name,
                uid: cluster.metadata.uid.clone().unwrap_or_default(),
                controller: Some(false),
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        ports: Some(vec![port("mysql", names::PORT_MYSQL), port("mysqlx", names::PORT_MYSQLX)]),
    }
}

fn epoch_of(slice: &EndpointSlice) -> u64 {
    slice
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ANNOTATION_EPOCH))
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0)
}

async fn call<T>(future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(result) => result.map_err(|error| Error::Kube(Box::new(error))),
        Err(_) => Err(Error::Timeout),
    }
}

/// Brings one slice to the wanted content; `known` is the version last seen, so that a hand-over is a single write.
async fn bring(
    api: &Api<EndpointSlice>,
    wanted: EndpointSlice,
    known: Option<EndpointSlice>,
) -> Result<EndpointSlice, Error> {
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let mut known = known;
    loop {
        let current = match known.take() {
            Some(known) => Some(known),
            None => call(api.get_opt(&name)).await?,
        };
        let Some(current) = current else {
            match call(api.create(&PostParams::default(), &wanted)).await {
                Err(Error::Kube(error)) if is(&error, kube::core::Status::is_already_exists) => continue,
                other => return other,
            }
        };
        let (found, ours) = (epoch_of(&current), epoch_of(&wanted));
        // A slice that outlived its cluster (the name is used again) says nothing about this one.
        let same_owner = current.metadata.owner_references == wanted.metadata.owner_references;
        if same_owner && found > ours {
            return Err(Error::Newer { found, ours });
        }
        if same_owner && found == ours && current.endpoints == wanted.endpoints && current.ports == wanted.ports {
            return Ok(current);
        }
        let mut replacement = wanted.clone();
        replacement.metadata.resource_version = current.metadata.resource_version;
        match call(api.replace(&name, &PostParams::default(), &replacement)).await {
            Err(Error::Kube(error))
                if is(&error, kube::core::Status::is_conflict) || is(&error, kube::core::Status::is_not_found) => {}
            other => return other,
        }
    }
}

fn is(error: &kube::Error, test: impl Fn(&kube::core::Status) -> bool) -> bool {
    matches!(error, kube::Error::Api(status) if test(status))
}

/// Keeps the slices of one cluster as `desired` says, until the sender is dropped.
pub async fn run(
    client: Client,
    cluster: MySQLCluster,
    mut desired: watch::Receiver<Desired>,
    metrics: Metrics,
    updates: mpsc::Sender<Update>,
) {
    let (namespace, name) = cluster.namespace_and_name();
    let api: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let services = [names::object::primary_service(&name), names::object::replicas_service(&name)];
    let mut known: [Option<EndpointSlice>; 2] = [None, None];
    let mut written = Desired::default();
    loop {
        if !desired.borrow().is_ours {
            tokio::time::sleep(LEAVE).await;
            known = [None, None];
        }
        let wanted = desired.borrow_and_update().clone();
        let [primary_known, replicas_known] = &mut known;
        let [primary_service, replicas_service] = &services;
        let started = std::time::Instant::now();
        let mut failed = failpoint::hit(&format!("route.before.{}", wanted.epoch)).await.is_err();
        let moves = wanted.primary.is_some() && written.primary.is_some() && wanted.primary != written.primary;
        let parts = [
            (primary_service, wanted.primary.iter().cloned().collect::<Vec<_>>(), primary_known),
            (replicas_service, wanted.replicas.clone(), replicas_known),
        ];
        for (service, targets, known) in parts.into_iter().take(if moves { 1 } else { 2 }) {
            if targets.is_empty() {
                continue;
            }
            match bring(&api, slice(&cluster, service, wanted.epoch, &targets), known.take()).await {
                Ok(slice) => *known = Some(slice),
                Err(error) => {
                    warn!(namespace, cluster = name, service, epoch = wanted.epoch, %error, "route not written");
                    failed = !matches!(error, Error::Newer { .. });
                }
            }
        }
        failpoint::hit(&format!("route.after.{}", wanted.epoch)).await.ok();
        if !failed && wanted != written {
            let primary = wanted.primary.as_ref().map(|target| target.name.as_str());
            info!(
                namespace,
                cluster = name,
                epoch = wanted.epoch,
                primary,
                replicas = wanted.replicas.len(),
                elapsed_ms = started.elapsed().as_millis(),
                "routed"
            );
            metrics.routed(started.elapsed());
            updates.try_send(Update::Routed(wanted.epoch)).ok();
            written = if moves { Desired { replicas: written.replicas, ..wanted.clone() } } else { wanted.clone() };
        }
        if moves && !failed {
            let moved_on = desired.wait_for(|desired| desired.primary != wanted.primary);
            let later = tokio::time::timeout(REPLICAS_LATER, moved_on);
            if let Ok(Err(_)) = later.await {
                return;
            }
            continue;
        }
        let pause = if failed { RETRY } else { VERIFY };
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => known = [None, None],
        }
    }
}

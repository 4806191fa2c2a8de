//! Connections to the instances of a cluster: one stream to each, and orders on the same way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::client::InstanceClient;
use common::tls::{self, Material};
use common::{names, names::daemon};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{Instrument, warn};

use super::{Loop, SECRET_TIMEOUT};
use crate::decide::{Name, Order};
use crate::memory::PodFacts;
use crate::stream;

/// The client certificate is read again this often: it is renewed while we run.
const SECRET_PACE: Duration = Duration::from_secs(300);
/// A pod that is gone for the API server may run on for as long: the kubelet grants two seconds even where none were.
const DEPARTED_FOR: Duration = Duration::from_secs(5);

/// A connection to one pod.
pub(super) struct Stream {
    uid: String,
    address: SocketAddr,
    client: InstanceClient,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Loop {
    /// The client certificate for this cluster's instances.
    async fn tls(&mut self) -> Option<Arc<ClientConfig>> {
        if let Some((config, read_at)) = &self.tls
            && read_at.elapsed() < SECRET_PACE
        {
            return Some(Arc::clone(config));
        }
        let name = names::object::daemon_tls_secret(&self.name, daemon::FAILOVER_D);
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let read = match timeout(SECRET_TIMEOUT, api.get_opt(&name)).await {
            Ok(Ok(Some(secret))) => material(&secret).and_then(|material| match tls::client_config(&material) {
                Ok(config) => Some(Arc::new(config)),
                Err(error) => {
                    warn!(secret = name, %error, "unusable client certificate");
                    None
                }
            }),
            Ok(Err(error)) => {
                warn!(secret = name, %error, "client certificate not read");
                None
            }
            // Not made yet, or no answer in time.
            Ok(Ok(None)) | Err(_) => None,
        };
        match (read, &mut self.tls) {
            (Some(config), kept) => *kept = Some((config, Instant::now())),
            // What we have goes on; look again soon.
            (None, Some((_, read_at))) => *read_at = Instant::now(),
            (None, None) => return None,
        }
        self.tls.as_ref().map(|(config, _)| Arc::clone(config))
    }

    /// Keeps one stream to each pod that has an address.
    pub(super) async fn connect(&mut self, pods: &BTreeMap<Name, PodFacts>) {
        let now = Instant::now();
        let gone: Vec<Name> = self
            .streams
            .iter()
            .filter(|(name, stream)| {
                pods.get(*name).is_none_or(|pod| {
                    pod.uid != stream.uid || pod.address.is_some_and(|address| address != stream.address.ip())
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        self.departed.retain(|_, (_, since)| now.duration_since(*since) < DEPARTED_FOR);
        for name in gone {
            if let Some(stream) = self.streams.remove(&name) {
                self.departed.insert(name.clone(), (stream.client.clone(), now));
            }
            self.memory.replaced(&name, now);
        }
        for (name, pod) in pods {
            let Some(address) = pod.address.filter(|_| !self.streams.contains_key(name)) else { continue };
            let Some(config) = self.tls().await else { return };
            let address = SocketAddr::new(address, names::PORT_INSTANCE_API);
            let host = names::instance_host(&self.namespace, &self.name, name);
            let client = match InstanceClient::new(address, &host, config) {
                Ok(client) => client,
                Err(error) => {
                    warn!(instance = name, %error, "no client");
                    continue;
                }
            };
            let follow = stream::follow(name.clone(), client.clone(), self.updates.clone()).in_current_span();
            let task = tokio::spawn(follow).abort_handle();
            self.departed.remove(name);
            self.streams.insert(name.clone(), Stream { uid: pod.uid.clone(), address, client, task });
        }
    }

    /// Gives an order to an instance that is there; to demote, also to one whose pod is gone.
    pub(super) fn give(&mut self, name: &Name, order: Order, operation: Option<String>) {
        let present = self.streams.get(name).map(|stream| &stream.client);
        let departed = || self.departed.get(name).filter(|_| matches!(order, Order::Demote(_)));
        if let Some(client) = present.or_else(|| departed().map(|(client, _)| client)) {
            let client = client.clone().within(operation);
            self.orders.give(name, order, client, &self.updates, &self.context.metrics, Instant::now());
        }
    }
}

fn material(secret: &Secret) -> Option<Material> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Material { certificate: text("tls.crt")?, key: text("tls.key")?, authorities: text("ca.crt")? })
}

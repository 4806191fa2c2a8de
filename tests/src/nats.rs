//! NATS, as the release brings it along for trying out: taking it away, and reading the events in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::OPERATOR_NAMESPACE;
use crate::pace::{Look, until};
use crate::{Cluster, Harness};

/// The Deployment of the bundled NATS ends so.
pub const NATS: &str = "pelorus-nats";
/// Secret of the user who reads everything and writes nothing.
const READER: &str = "pelorus-nats-reader";
const PORT: u16 = 4222;

impl Harness {
    /// Sets the replicas of NATS, 0 or 1, and waits until it is gone or ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn scale_nats(&self, replicas: usize) -> Result<()> {
        self.scale_daemon(NATS, i32::try_from(replicas)?).await?;
        until("NATS to be as wanted", Duration::from_secs(60), async || {
            let pods = self.daemon_pods(NATS).await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let done = pods.len() == replicas && ready == replicas;
            Ok(if done { Look::Done(()) } else { Look::Not(format!("{ready} of {} pods are ready", pods.len())) })
        })
        .await
    }

    /// Waits until the stream holds events of these types about a cluster; the result is all types that it holds.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_events(&self, cluster: &Cluster, wanted: &[&str], within: Duration) -> Result<BTreeSet<String>> {
        until(&format!("events {wanted:?} of {}", cluster.name), within, async || {
            let kinds = self.events_of(cluster).await?;
            let complete = wanted.iter().all(|kind| kinds.contains(*kind));
            Ok(if complete { Look::Done(kinds) } else { Look::Not(format!("{kinds:?}")) })
        })
        .await
    }

    /// Types of all events about a cluster that the stream holds.
    async fn events_of(&self, cluster: &Cluster) -> Result<BTreeSet<String>> {
        let client = self.nats_client().await?;
        let mut jetstream = async_nats::jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(5));
        let prefix = format!("{}.{}.{}.", common::events::SUBJECT_PREFIX, cluster.namespace, cluster.name);
        let stream = jetstream.get_stream(common::events::STREAM).await.context("open the stream of events")?;
        let mut subjects = stream.info_with_subjects(format!("{prefix}>")).await.context("list the subjects")?;
        let mut kinds = BTreeSet::new();
        while let Some(subject) = subjects.next().await {
            kinds.insert(subject?.0.trim_start_matches(&prefix).to_owned());
        }
        Ok(kinds)
    }

    /// A client of the reader. The certificate is valid for localhost, so that is where a forwarder listens.
    async fn nats_client(&self) -> Result<async_nats::Client> {
        let pod = self.daemon_pods(NATS).await?.into_iter().find(is_ready).context("no NATS pod is ready")?;
        let ip = pod.status.and_then(|status| status.pod_ip).context("NATS has no address")?;
        let reader = self.secret_texts(READER).await?;
        let text = |key: &str| reader.get(key).cloned().with_context(|| format!("Secret {READER} has no {key}"));
        let authority = tls_config(&text("ca.crt")?)?;
        let options = async_nats::ConnectOptions::with_user_and_password(text("user")?, text("password")?)
            .connection_timeout(Duration::from_secs(5))
            .tls_client_config(authority)
            .require_tls(true);
        options.connect(format!("tls://127.0.0.1:{}", forward(ip).await?)).await.context("connect to NATS")
    }

    /// All keys of a Secret of the operator's namespace that are text.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn secret_texts(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let data = api.get(name).await.with_context(|| format!("get Secret {name}"))?.data.unwrap_or_default();
        Ok(data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect())
    }
}

fn tls_config(authority: &str) -> Result<rustls::ClientConfig> {
    Ok(rustls::ClientConfig::builder().with_root_certificates(crate::https::roots(authority)?).with_no_client_auth())
}

/// Forwards a port of this host to NATS; the result is the port. Ends with the test's runtime.
async fn forward(ip: String) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let ip = ip.clone();
            tokio::spawn(async move {
                if let Ok(mut there) = TcpStream::connect((ip, PORT)).await {
                    copy_bidirectional(&mut here, &mut there).await.ok();
                }
            });
        }
    });
    Ok(port)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

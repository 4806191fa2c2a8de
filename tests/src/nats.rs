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
/// Secret of failover-d's own user.
const WRITER: &str = "pelorus-nats-failover-d";
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

    /// Publishes the last event of a type about a cluster again, so many times, with failover-d's own rights: what a
    /// network that repeats and reorders could do at worst.
    ///
    /// # Errors
    /// When there is none.
    pub async fn replay_event(&self, cluster: &Cluster, kind: &str, times: usize) -> Result<()> {
        let (subject, payload) = (subject(cluster, kind), self.last_payload(cluster, kind).await?);
        let writer = self.nats_client_of(WRITER).await?;
        for _ in 0..times {
            writer.publish(subject.clone(), payload.clone().into()).await.context("publish")?;
        }
        writer.flush().await.context("flush")
    }

    /// The last event of a type about a cluster.
    ///
    /// # Errors
    /// When there is none.
    pub async fn last_event(&self, cluster: &Cluster, kind: &str) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.last_payload(cluster, kind).await?).context("the event is no JSON")
    }

    async fn last_payload(&self, cluster: &Cluster, kind: &str) -> Result<Vec<u8>> {
        let reader = async_nats::jetstream::new(self.nats_client().await?);
        let stream = reader.get_stream(common::events::STREAM).await.context("open the stream of events")?;
        let last = stream.get_last_raw_message_by_subject(&subject(cluster, kind)).await;
        Ok(last.context("get the last event")?.payload.to_vec())
    }

    /// Tries to publish an event about a cluster as a user who may only read; the result is how many of its subject the
    /// stream holds more than before.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn forge_event(&self, cluster: &Cluster, kind: &str) -> Result<u64> {
        let (subject, client) = (subject(cluster, kind), self.nats_client().await?);
        let before = self.count_events(&subject).await?;
        client.publish(subject.clone(), "{}".into()).await.context("publish")?;
        client.flush().await.context("flush")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(self.count_events(&subject).await?.saturating_sub(before))
    }

    /// Whether NATS takes a client without a name.
    ///
    /// # Errors
    /// When NATS cannot be reached.
    pub async fn nats_is_open(&self) -> Result<bool> {
        let (ip, secrets) = self.nats_server(READER).await?;
        let authority = tls_config(secrets.get("ca.crt").context("no ca.crt")?)?;
        let options = async_nats::ConnectOptions::new()
            .connection_timeout(Duration::from_secs(5))
            .tls_client_config(authority)
            .require_tls(true);
        Ok(options.connect(format!("tls://127.0.0.1:{}", forward(ip).await?)).await.is_ok())
    }

    async fn count_events(&self, subject: &str) -> Result<u64> {
        let jetstream = async_nats::jetstream::new(self.nats_client().await?);
        let stream = jetstream.get_stream(common::events::STREAM).await.context("open the stream of events")?;
        let mut subjects = stream.info_with_subjects(subject).await.context("count the events")?;
        let mut count = 0;
        while let Some(found) = subjects.next().await {
            count += u64::try_from(found?.1)?;
        }
        Ok(count)
    }

    /// A client of the reader.
    async fn nats_client(&self) -> Result<async_nats::Client> {
        self.nats_client_of(READER).await
    }

    /// Address of NATS, and what a Secret says about a user of it.
    async fn nats_server(&self, secret: &str) -> Result<(String, BTreeMap<String, String>)> {
        let pod = self.daemon_pods(NATS).await?.into_iter().find(is_ready).context("no NATS pod is ready")?;
        let ip = pod.status.and_then(|status| status.pod_ip).context("NATS has no address")?;
        Ok((ip, self.secret_texts(secret).await?))
    }

    /// A client of the user of a Secret. The certificate is valid for localhost, so that is where a forwarder listens.
    async fn nats_client_of(&self, secret: &str) -> Result<async_nats::Client> {
        let (ip, user) = self.nats_server(secret).await?;
        let text = |key: &str| user.get(key).cloned().with_context(|| format!("Secret {secret} has no {key}"));
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

fn subject(cluster: &Cluster, kind: &str) -> String {
    format!("{}.{}.{}.{kind}", common::events::SUBJECT_PREFIX, cluster.namespace, cluster.name)
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

//! Where else one sees what became of a cluster: Events, metrics, EndpointSlices, the files on a volume; and SQL as
//! instance-d has it, for what no client may do.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::names::{self, daemon};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;

use crate::kubectl::exec;
use crate::pace::{Look, until};
use crate::{Cluster, Faults, plaintext};

/// Longest wait for news to have spread.
const NEWS: Duration = Duration::from_secs(20);

/// Runs SQL (`$0`) as instance-d does, in the pod. The password is read there and appears nowhere else.
const LOCAL_SQL: &str = r#"umask 077; f=$(mktemp /tmp/local.XXXXXX); trap "rm -f $f" EXIT
printf "[client]\nuser=pelorus_local\npassword=\"%s\"\nsocket=/run/pelorus/mysqld.sock\n" "$(cat /etc/pelorus/accounts/pelorus_local)" >$f
mysql --defaults-extra-file=$f --connect-timeout=10 -N -B -e "$0""#;

impl Cluster {
    /// Runs SQL on an instance past all that keeps clients from harm: for tests that do harm on purpose.
    ///
    /// # Errors
    /// Those of kubectl and of MySQL.
    pub async fn local_sql(&self, pod: &str, sql: &str) -> Result<String> {
        let command = ["sh", "-c", LOCAL_SQL, sql];
        exec(&self.harness, &self.namespace, pod, &command).await.with_context(|| format!("{sql:?} on {pod}"))
    }

    /// The random name of an instance's data, from its volume: another one means that it was cloned or made anew.
    ///
    /// # Errors
    /// When there is no complete data directory.
    pub async fn data_id(&self, instance: &str) -> Result<String> {
        let (namespace, claim) = (self.namespace.clone(), Faults::claim(instance));
        let folder = self.harness.dev(move |dev| dev.volume_folder(&namespace, &claim)).await?;
        let text = tokio::fs::read(folder.join("provisioned.json")).await.context("read provisioned.json")?;
        let found: serde_json::Value = serde_json::from_slice(&text)?;
        let id = found.get("dataId").and_then(|id| id.as_str()).context("provisioned.json names no data")?;
        Ok(id.to_owned())
    }

    /// Reasons of the Kubernetes Events of the MySQLCluster.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn event_reasons(&self) -> Result<BTreeSet<String>> {
        Ok(self.told().await?.into_iter().filter_map(|event| event.reason).collect())
    }

    /// What `kubectl describe` shows of the Kubernetes Events of the MySQLCluster: reason and message.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn event_lines(&self) -> Result<Vec<String>> {
        let line = |event: Event| format!("{} {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        Ok(self.told().await?.into_iter().map(line).collect())
    }

    async fn told(&self) -> Result<Vec<Event>> {
        let events = self.api::<Event>().list(&ListParams::default()).await.context("list events")?;
        let ours = |event: &Event| {
            let object = &event.involved_object;
            object.kind.as_deref() == Some("MySQLCluster") && object.name.as_deref() == Some(&self.name)
        };
        Ok(events.into_iter().filter(ours).collect())
    }

    /// Addresses that a Service leads to.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn leads_to(&self, service: &str) -> Result<BTreeSet<String>> {
        let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = self.api::<EndpointSlice>().list(&selector).await.context("list EndpointSlices")?;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        Ok(endpoints.flat_map(|endpoint| endpoint.addresses).collect())
    }

    /// Whether an instance takes reads as a replica: the replicas' Service leads to it.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn serves_as_replica(&self, pod: &str) -> Result<bool> {
        let address = self.pod_ip(pod).await?;
        Ok(self.leads_to(&names::object::replicas_service(&self.name)).await?.contains(&address))
    }

    /// A refusal is seen everywhere (I7): condition, Event, metric, and event in NATS when that is asked for.
    ///
    /// # Errors
    /// When it is missing somewhere.
    pub async fn refused_visibly(&self, reason: &str, within: Duration) -> Result<()> {
        until(&format!("FailoverBlocked for {reason}"), within, async || {
            let status = self.status().await?;
            let found = status.condition("FailoverBlocked").map(|found| (found.status.clone(), found.reason.clone()));
            let done = found == Some(("True".to_owned(), reason.to_owned()));
            Ok(if done { Look::Done(()) } else { Look::Not(format!("{found:?}")) })
        })
        .await?;
        until("the metric pelorus_failover_blocked", NEWS, async || {
            let series = self.harness.metrics(daemon::FAILOVER_D, "pelorus_failover_blocked").await?;
            let ours = [format!("namespace=\"{}\"", self.namespace), format!("cluster=\"{}\"", self.name)];
            let is_set = |line: &String| ours.iter().all(|label| line.contains(label)) && line.ends_with(" 1");
            Ok(if series.iter().any(is_set) { Look::Done(()) } else { Look::Not(format!("{series:?}")) })
        })
        .await?;
        until(&format!("an Event {reason}"), NEWS, async || {
            let reasons = self.event_reasons().await?;
            Ok(if reasons.contains(reason) { Look::Done(()) } else { Look::Not(format!("{reasons:?}")) })
        })
        .await
    }
}

impl crate::Harness {
    /// Lines of a metric from all pods of a daemon.
    ///
    /// # Errors
    /// When none of them answers.
    pub async fn metrics(&self, daemon: &str, metric: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut answered = 0;
        for pod in self.daemon_pods(daemon).await? {
            let Some(ip) = pod.status.and_then(|status| status.pod_ip) else { continue };
            // One that is cut off, or frozen, says nothing; the others do.
            let Ok(text) = plaintext::get(&ip, names::PORT_DAEMON_HTTP, "/metrics").await else { continue };
            answered += 1;
            lines.extend(text.lines().filter(|line| line.starts_with(metric)).map(str::to_owned));
        }
        ensure!(answered > 0, "no pod of {daemon} shows metrics");
        Ok(lines)
    }
}

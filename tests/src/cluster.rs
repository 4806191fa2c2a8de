//! One MySQLCluster under test: asking for it, waiting for it, looking at what it is made of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use common::crd::{MySQLCluster, MySQLClusterSpec, MySQLClusterStatus};
use common::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::pace::{Look, until};
use crate::{Harness, spec};

/// How long three small instances may take on a busy machine.
pub const READY: Duration = Duration::from_secs(150);

/// A MySQLCluster by its name.
#[derive(Clone)]
pub struct Cluster {
    /// Where it is.
    pub harness: Harness,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// An API of the cluster's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.harness.client.clone(), &self.namespace)
    }

    /// Asks for the cluster; it must not exist.
    ///
    /// # Errors
    /// Those of the API server, refusals of the schema among them.
    pub async fn create(&self, spec: MySQLClusterSpec) -> kube::Result<MySQLCluster> {
        self.api().create(&PostParams::default(), &MySQLCluster::new(&self.name, spec)).await
    }

    /// Asks for it as a small one that is made of an archive (`spec.restore`).
    ///
    /// # Errors
    /// When it is refused.
    pub async fn restoring(self, instances: u32, restore: Value) -> Result<Self> {
        let mut wanted = spec::small(instances);
        wanted.restore = Some(serde_json::from_value(restore)?);
        self.create(wanted).await?;
        Ok(self)
    }

    /// The object as it is now.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn get(&self) -> Result<MySQLCluster> {
        self.api::<MySQLCluster>().get(&self.name).await.with_context(|| format!("get MySQLCluster {}", self.name))
    }

    /// The status as it is now; empty before there is one.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn status(&self) -> Result<MySQLClusterStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// The recorded primary.
    ///
    /// # Errors
    /// When there is none.
    pub async fn primary(&self) -> Result<String> {
        self.status().await?.primary.context("the cluster has no primary")
    }

    /// The instances that are not primary, of those that the status names.
    ///
    /// # Errors
    /// When there is no primary.
    pub async fn replicas(&self) -> Result<Vec<String>> {
        let status = self.status().await?;
        let primary = status.primary.context("the cluster has no primary")?;
        Ok(status.instances.into_iter().map(|instance| instance.name).filter(|name| *name != primary).collect())
    }

    /// Merges into the spec.
    ///
    /// # Errors
    /// Those of the API server, refusals of the schema among them.
    pub async fn patch(&self, spec: Value) -> kube::Result<MySQLCluster> {
        let patch = json!({"spec": spec});
        self.api().patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await
    }

    /// Sets an annotation of the MySQLCluster, or takes it away.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn annotate(&self, key: &str, value: Option<&str>) -> kube::Result<MySQLCluster> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.api().patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await
    }

    /// Changes the number of instances and waits until all of them serve.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn scale(&self, instances: u32) -> Result<Duration> {
        self.patch(json!({"instances": instances})).await?;
        self.wait_ready(instances, READY).await
    }

    /// Waits until this many of this many instances serve and Ready speaks of the newest spec. Returns the time it took.
    ///
    /// # Errors
    /// When they do not in time; says what was seen instead.
    pub async fn wait_ready(&self, instances: u32, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        let wanted = format!("{instances}/{instances}");
        until(&format!("{} to be ready {wanted}", self.name), within, async || {
            let cluster = self.get().await?;
            let status = cluster.status.unwrap_or_default();
            let ready = status.condition("Ready");
            let current = ready.is_some_and(|ready| {
                ready.status == "True" && ready.observed_generation >= cluster.metadata.generation
            });
            let seen = || {
                let verdict = ready.map(|ready| format!("Ready={} {} {}", ready.status, ready.reason, ready.message));
                format!("ready {:?}, {verdict:?}, reason {:?}", status.ready, status.reason)
            };
            Ok(if current && status.ready.as_deref() == Some(&wanted) { Look::Done(()) } else { Look::Not(seen()) })
        })
        .await?;
        Ok(started.elapsed())
    }

    /// Waits until a condition has a status (`True`, `False`), and returns it.
    ///
    /// # Errors
    /// When it does not in time; says what was seen instead.
    pub async fn wait_condition(&self, kind: &str, status: &str, within: Duration) -> Result<Condition> {
        until(&format!("condition {kind} of {} to be {status}", self.name), within, async || {
            let cluster = self.get().await?;
            let generation = cluster.metadata.generation;
            let found = cluster.status.unwrap_or_default().condition(kind).cloned();
            Ok(match found {
                Some(found) if found.status == status && found.observed_generation >= generation => Look::Done(found),
                other => Look::Not(format!("{other:?} at generation {generation:?}")),
            })
        })
        .await
    }

    /// Waits until `holds` says so of the status.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_status(
        &self,
        what: &str,
        within: Duration,
        holds: impl Fn(&MySQLClusterStatus) -> bool,
    ) -> Result<MySQLClusterStatus> {
        until(what, within, async || {
            let status = self.status().await?;
            Ok(if holds(&status) {
                Look::Done(status)
            } else {
                let seen = (&status.primary, status.epoch, &status.ackers, &status.operation, &status.ready);
                Look::Not(format!("{seen:?}"))
            })
        })
        .await
    }

    /// The MySQL pods, by name.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn pods(&self) -> Result<BTreeMap<String, Pod>> {
        let selector = ListParams::default().labels(&format!("{}={}", names::LABEL_CLUSTER, self.name));
        let pods = self.api::<Pod>().list(&selector).await.context("list pods")?;
        Ok(pods
            .into_iter()
            .map(|pod| (pod.name_any(), pod))
            .filter(|(name, _)| names::ordinal(&self.name, name).is_some())
            .collect())
    }

    /// UID of each MySQL pod: the same pod has the same.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn pod_uids(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.pods().await?.into_iter().map(|(name, pod)| (name, pod.uid().unwrap_or_default())).collect())
    }

    /// Address of a pod.
    ///
    /// # Errors
    /// When it has none yet.
    pub async fn pod_ip(&self, pod: &str) -> Result<String> {
        let found = self.api::<Pod>().get(pod).await.with_context(|| format!("get pod {pod}"))?;
        found.status.and_then(|status| status.pod_ip).with_context(|| format!("pod {pod} has no address yet"))
    }

    /// Deletes a pod as `kubectl delete pod` does, without waiting.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        self.api::<Pod>().delete(pod, &DeleteParams::default()).await.with_context(|| format!("delete pod {pod}"))?;
        Ok(())
    }

    /// The volume claims of the cluster by name, with the UID of each.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn claims(&self) -> Result<BTreeMap<String, PersistentVolumeClaim>> {
        let all = self.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.context("list claims")?;
        let ours =
            |name: &str| name.rsplit_once('-').is_some_and(|(head, _)| head.ends_with(&format!("-{}", self.name)));
        Ok(all.into_iter().map(|claim| (claim.name_any(), claim)).filter(|(name, _)| ours(name)).collect())
    }

    /// The claim of an instance.
    ///
    /// # Errors
    /// When there is none.
    pub async fn claim_of(&self, instance: &str) -> Result<PersistentVolumeClaim> {
        let claims = self.claims().await?;
        let found = claims.into_iter().find(|(name, _)| name.ends_with(&format!("-{instance}")));
        found.map(|(_, claim)| claim).with_context(|| format!("{instance} has no claim"))
    }

    /// A key of a Secret.
    ///
    /// # Errors
    /// When the Secret, the key or valid text is missing.
    pub async fn secret(&self, secret: &str, key: &str) -> Result<String> {
        let found = self.api::<Secret>().get(secret).await.with_context(|| format!("get Secret {secret}"))?;
        let value = found.data.and_then(|mut data| data.remove(key));
        let value = value.with_context(|| format!("Secret {secret} has no key {key}"))?;
        String::from_utf8(value.0).with_context(|| format!("Secret {secret}: {key} is no text"))
    }

    /// Deletes the MySQLCluster and waits until its pods are gone.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn delete(&self, within: Duration) -> Result<()> {
        self.api::<MySQLCluster>().delete(&self.name, &DeleteParams::default()).await.context("delete MySQLCluster")?;
        until("the cluster and its pods to be gone", within, async || {
            let pods = self.pods().await?.len();
            let object = self.api::<MySQLCluster>().get_metadata_opt(&self.name).await?;
            Ok(match (pods, object) {
                (0, None) => Look::Done(()),
                (pods, object) => Look::Not(format!("{pods} pods, object there: {}", object.is_some())),
            })
        })
        .await
    }

    /// Anything of the namespace by name, when it is there.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn find<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>().get_opt(name).await.with_context(|| format!("get {name}"))
    }
}

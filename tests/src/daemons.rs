//! The daemons themselves: their pods, what they say, what they take.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::Harness;
use crate::harness::{DAEMONS, OPERATOR_NAMESPACE};
use crate::pace::{Look, until};

impl Harness {
    fn operator_pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE)
    }

    /// Pods of the operator's namespace whose name contains `part`.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn daemon_pods(&self, part: &str) -> Result<Vec<Pod>> {
        let all = self.operator_pods().list(&ListParams::default()).await.context("list the pods of Pelorus")?;
        Ok(all.into_iter().filter(|pod| pod.name_any().contains(part)).collect())
    }

    /// Deletes these pods at once, as if their node had died.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn delete_daemon_pods(&self, part: &str) -> Result<Vec<String>> {
        let mut deleted = Vec::new();
        for pod in self.daemon_pods(part).await? {
            let name = pod.name_any();
            self.operator_pods()
                .delete(&name, &DeleteParams::default().grace_period(0))
                .await
                .context("delete a pod")?;
            deleted.push(name);
        }
        Ok(deleted)
    }

    /// Sets the replicas of a daemon's Deployment; the result is how many it had.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn scale_daemon(&self, daemon: &str, replicas: i32) -> Result<i32> {
        let deployment = self.deployment(daemon).await?;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let patch = json!({"spec": {"replicas": replicas}});
        api.patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("scale a daemon")?;
        Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// Waits until every daemon has all its replicas available.
    ///
    /// # Errors
    /// When one has not in time.
    pub async fn wait_daemons(&self, within: Duration) -> Result<()> {
        until("the daemons to be available", within, async || {
            for daemon in DAEMONS {
                let deployment = self.deployment(daemon).await?;
                let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let status = deployment.status.clone().unwrap_or_default();
                let current = status.observed_generation >= deployment.metadata.generation;
                let available = status.available_replicas.unwrap_or(0) >= wanted;
                // At the beginning of a rollout the old ones are as many, and available.
                let is_new = status.replicas == Some(wanted) && status.updated_replicas == Some(wanted);
                if !current || !available || !is_new {
                    return Ok(Look::Not(format!("{daemon}: {status:?}")));
                }
            }
            Ok(Look::Done(()))
        })
        .await
    }

    /// Everything that the containers of the pods of a namespace have said, by `pod/container`.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn logs(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut all = BTreeMap::new();
        for pod in api.list(&ListParams::default()).await.context("list pods")? {
            let spec = pod.spec.clone().unwrap_or_default();
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            for container in containers {
                let name = pod.name_any();
                for previous in [false, true] {
                    let what = LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
                    // A container that never restarted has no previous log.
                    if let Ok(text) = api.logs(&name, &what).await {
                        let key = format!(
                            "{namespace}/{name}/{}{}",
                            container.name,
                            if previous { " (previous)" } else { "" }
                        );
                        all.insert(key, text);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Resident memory of a program in a pod's container, in bytes. On the development cluster only.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn resident_bytes(&self, namespace: &str, pod: &str, container: &str, program: &str) -> Result<u64> {
        let mut total = 0;
        for pid in self.pids(namespace, pod, container, program).await? {
            let status = tokio::fs::read_to_string(format!("/proc/{pid}/status")).await?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
            total += kib << 10;
        }
        Ok(total)
    }

    /// Processes that run a program in a pod's container, as this host counts. On the development cluster only.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pids(&self, namespace: &str, pod: &str, container: &str, program: &str) -> Result<Vec<i32>> {
        let [namespace, pod, container, program] = [namespace, pod, container, program].map(str::to_owned);
        let found = self
            .dev(move |cluster| pelorus_dev::fault::processes_in_pod(cluster, &namespace, &pod, &container, &program))
            .await?;
        Ok(found.into_iter().map(|process| process.pid).collect())
    }
}

//! Faults that are asked of Kubernetes: daemons taken away or changed, nodes cordoned, pods evicted or deleted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pelorus_dev::Node;
use serde_json::{Value, json};

use super::undo::{CHANGED, set_replicas, set_schedulable};
use super::{Faults, Programs, Undo};
use crate::harness::OPERATOR_NAMESPACE;
use crate::pace::{Look, until};

impl Faults {
    /// Sets the replicas of a Deployment.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn scale(&mut self, namespace: &str, deployment: &str, replicas: i32) -> Result<Instant> {
        let api: Api<Deployment> = Api::namespaced(self.harness.client.clone(), namespace);
        let found = api.get(deployment).await.with_context(|| format!("get Deployment {deployment}"))?;
        // Scaled down twice, it goes back to what it was before the first time.
        let known = self.undone_by().iter().find_map(|undo| match undo {
            Undo::Scale(place, name, before) if place == namespace && name == deployment => Some(*before),
            _ => None,
        });
        let before = known.or(found.spec.and_then(|spec| spec.replicas)).unwrap_or(1);
        self.undo.push(Undo::Scale(namespace.to_owned(), deployment.to_owned(), before));
        let begun = Instant::now();
        set_replicas(&self.harness, namespace, deployment, replicas).await?;
        Ok(begun)
    }

    /// Takes all pods of a daemon away, and waits until they are gone.
    ///
    /// # Errors
    /// When they are not.
    pub async fn without_daemon(&mut self, daemon: &str) -> Result<()> {
        let name = self.harness.deployment(daemon).await?.name_any();
        self.scale(OPERATOR_NAMESPACE, &name, 0).await?;
        until(&format!("{daemon} to be gone"), Duration::from_secs(60), async || {
            let left = self.harness.daemon_pods(daemon).await?.len();
            Ok(if left == 0 { Look::Done(()) } else { Look::Not(format!("{left} pods")) })
        })
        .await
    }

    /// The programs of a daemon, one entry a pod that is there now.
    ///
    /// # Errors
    /// When there is none.
    pub async fn programs_of(&self, daemon: &str) -> Result<Vec<Programs>> {
        let pods = self.harness.daemon_pods(daemon).await?;
        ensure!(!pods.is_empty(), "{daemon} has no pods");
        let programs = |pod: Pod| Programs {
            namespace: OPERATOR_NAMESPACE.to_owned(),
            pod: pod.name_any(),
            container: daemon.to_owned(),
            programs: vec![daemon.to_owned()],
        };
        Ok(pods.into_iter().map(programs).collect())
    }

    /// SIGSTOP to all pods of a daemon.
    ///
    /// # Errors
    /// When one does not run.
    pub async fn freeze_daemon(&mut self, daemon: &str) -> Result<Instant> {
        let begun = Instant::now();
        for programs in self.programs_of(daemon).await? {
            self.freeze_in(programs).await?;
        }
        Ok(begun)
    }

    /// Changes the pod template of a daemon (a strategic merge patch of it), and waits until it is rolled out.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn change_daemon(&mut self, daemon: &str, template: Value) -> Result<()> {
        let found = self.harness.deployment(daemon).await?;
        let before = serde_json::to_value(found.spec.clone().map(|spec| spec.template))?;
        let known = |undo: &Undo| matches!(undo, Undo::Template(name, _) if *name == found.name_any());
        if !self.undo.iter().any(known) {
            self.undo.push(Undo::Template(found.name_any(), before));
        }
        let api: Api<Deployment> = Api::namespaced(self.harness.client.clone(), OPERATOR_NAMESPACE);
        let patch = json!({"metadata": {"labels": {CHANGED: "true"}}, "spec": {"template": template}});
        api.patch(&found.name_any(), &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .context("patch a daemon")?;
        self.harness.wait_daemons(Duration::from_secs(120)).await?;
        // One that is on its way out still acts, as it did before.
        until(&format!("the pods of {daemon} before to be gone"), Duration::from_secs(60), async || {
            let pods = self.harness.daemon_pods(daemon).await?;
            let leaving = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
            Ok(if leaving == 0 { Look::Done(()) } else { Look::Not(format!("{leaving} of them end")) })
        })
        .await
    }

    /// Keeps new pods from a node.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn cordon(&mut self, node: Node) -> Result<()> {
        self.undo.push(Undo::Uncordon(node));
        set_schedulable(&self.harness, node, false).await
    }

    /// Evicts a pod, as a drain does: asked again until the budget allows it.
    ///
    /// # Errors
    /// When it is not allowed in time.
    pub async fn evict(&self, pod: &str) -> Result<Instant> {
        let api: Api<Pod> = Api::namespaced(self.harness.client.clone(), &self.namespace);
        until(&format!("{pod} to be evicted"), Duration::from_secs(60), async || {
            let begun = Instant::now();
            Ok(match api.evict(pod, &EvictParams::default()).await {
                Ok(_) => Look::Done(begun),
                Err(error) => Look::Not(error.to_string()),
            })
        })
        .await
    }

    /// Deletes a pod without grace: the object is gone at once, whatever becomes of its processes.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn delete_at_once(&self, pod: &str) -> Result<Instant> {
        self.delete_at_once_in(&self.namespace, pod).await
    }

    /// The same of any pod.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn delete_at_once_in(&self, namespace: &str, pod: &str) -> Result<Instant> {
        let api: Api<Pod> = Api::namespaced(self.harness.client.clone(), namespace);
        let begun = Instant::now();
        api.delete(pod, &DeleteParams::default().grace_period(0)).await.with_context(|| format!("delete {pod}"))?;
        Ok(begun)
    }
}

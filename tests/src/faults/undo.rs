//! The ways back from faults.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pelorus_dev::Node;
use pelorus_dev::fault::{self, Party};
use serde_json::{Value, json};

use crate::Harness;
use crate::harness::OPERATOR_NAMESPACE;

/// Label of a Deployment whose pod template a test has changed: where the test is killed, the next installation sees it
/// (deploy/dev/install.sh).
pub(super) const CHANGED: &str = "pelorus.dev/changed-by-test";

/// Some programs in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its container.
    pub container: String,
    /// The programs.
    pub programs: Vec<String>,
}

/// The way back from a fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// Packets pass again.
    Pass(Party, Party),
    /// Processes go on.
    Thaw(Programs),
    /// The node's cable is plugged in.
    Plug(Node),
    /// The node has power.
    Power(Node),
    /// The API server runs.
    ApiServer,
    /// A Deployment has its replicas: namespace, name, number.
    Scale(String, String, i32),
    /// A Deployment of a daemon has the pod template that it had.
    Template(String, Value),
    /// Pods may be scheduled on the node.
    Uncordon(Node),
    /// The volume of a claim has room.
    Unfill(String),
    /// The volume of a claim takes writes.
    ThawVolume(String),
}

impl Undo {
    pub(super) fn asks_the_api_server(&self) -> bool {
        matches!(self, Self::Scale(..) | Self::Template(..) | Self::Uncordon(_))
    }

    pub(super) async fn take_back(&self, harness: &Harness, namespace: &str) -> Result<()> {
        let (namespace, this) = (namespace.to_owned(), self.clone());
        match self {
            Self::Scale(namespace, deployment, replicas) => {
                set_replicas(harness, namespace, deployment, *replicas).await
            }
            Self::Template(deployment, template) => {
                let api: Api<Deployment> = Api::namespaced(harness.client.clone(), OPERATOR_NAMESPACE);
                let patch = json!({"metadata": {"labels": {CHANGED: null}}, "spec": {"template": template}});
                api.patch(deployment, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                harness.wait_daemons(Duration::from_secs(120)).await
            }
            Self::Uncordon(node) => set_schedulable(harness, *node, true).await,
            Self::Pass(..)
            | Self::Thaw(_)
            | Self::Plug(_)
            | Self::Power(_)
            | Self::ApiServer
            | Self::Unfill(_)
            | Self::ThawVolume(_) => harness.dev(move |dev| this.take_back_here(dev, &namespace)).await,
        }
    }

    /// What this host undoes without asking the API server.
    fn take_back_here(&self, dev: &pelorus_dev::Cluster, namespace: &str) -> pelorus_dev::Result<()> {
        match self {
            Self::Pass(from, to) => fault::undrop(dev, from, to),
            Self::Thaw(Programs { namespace, pod, container, programs }) => {
                programs.iter().try_for_each(|program| fault::thaw(dev, namespace, pod, container, program))
            }
            Self::Plug(node) => fault::heal_node(dev, *node),
            Self::Power(node) => fault::power_on(dev, *node),
            Self::ApiServer => fault::start_api_server(dev),
            Self::Unfill(claim) => fault::unfill_volume(dev, namespace, claim),
            Self::ThawVolume(claim) => fault::thaw_volume(dev, namespace, claim),
            Self::Scale(..) | Self::Template(..) | Self::Uncordon(_) => Ok(()),
        }
    }
}

pub(super) async fn set_replicas(harness: &Harness, namespace: &str, deployment: &str, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(harness.client.clone(), namespace);
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch(deployment, &PatchParams::default(), &Patch::Merge(&patch)).await.context("set replicas")?;
    Ok(())
}

pub(super) async fn set_schedulable(harness: &Harness, node: Node, yes: bool) -> Result<()> {
    let api: Api<KubeNode> = Api::all(harness.client.clone());
    let patch = json!({"spec": {"unschedulable": if yes { Value::Null } else { json!(true) }}});
    api.patch(&node.name(), &PatchParams::default(), &Patch::Merge(&patch)).await.context("cordon a node")?;
    Ok(())
}

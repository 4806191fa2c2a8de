//! Whole nodes, and the API server.

use crate::{
    build,
    cluster::Cluster,
    control_plane,
    error::Result,
    network,
    node::{self, NodeOptions},
    paths::{CGROUP, Node},
};

use super::{Fault, forget, record};

/// Unplugs a node's cable: neither other nodes nor the API server nor this host reach it or its pods. Pods of the node still reach each other.
pub fn cut_node(cluster: &Cluster, node: Node) -> Result<()> {
    record(cluster, &Fault::NodeCut { node: node.name() })?;
    network::set_link(node, false)
}

/// Plugs the cable in again.
pub fn heal_node(cluster: &Cluster, node: Node) -> Result<()> {
    let is_off = super::recorded(cluster, &Fault::NodeOff { node: node.name() }.identity()).is_some();
    if !is_off {
        network::set_link(node, true)?;
    }
    forget(cluster, &Fault::NodeCut { node: node.name() }.identity())
}

/// Takes a node's power: the cable goes dead, then every process on the node at once. What was written to files stays (this host's page cache
/// has not lost its power).
pub fn power_off(cluster: &Cluster, node: Node) -> Result<()> {
    record(cluster, &Fault::NodeOff { node: node.name() })?;
    // The cable may be gone already, with the whole node.
    let _ = network::set_link(node, false);
    node::kill_all(cluster, node)
}

/// Boots a node again; returns when its kubelet was started, which is before the node is Ready. Does nothing to a node that has power.
pub fn power_on(cluster: &Cluster, node: Node) -> Result<()> {
    let fault = Fault::NodeOff { node: node.name() };
    if super::recorded(cluster, &fault.identity()).is_none() {
        return Ok(());
    }
    let artifacts = build::ensure(&cluster.paths)?;
    node::kill_all(cluster, node)?;
    node::clean(cluster, node)?;
    cluster.cgroups.prepare(&[node::group(node)])?;
    network::node_up(node)?;
    let is_cut = super::recorded(cluster, &Fault::NodeCut { node: node.name() }.identity()).is_some();
    if is_cut {
        network::set_link(node, false)?;
    }
    node::start_containerd(cluster, node)?;
    node::start_kubelet(cluster, &artifacts, node, &NodeOptions::load(&cluster.paths))?;
    tracing::info!("{} is powered on, in cgroup {CGROUP}/{}", node.name(), node::group(node));
    forget(cluster, &fault.identity())
}

/// Stops the API server without a warning (SIGKILL).
pub fn stop_api_server(cluster: &Cluster) -> Result<()> {
    record(cluster, &Fault::ApiServerStopped)?;
    cluster.supervisor.kill(control_plane::API_SERVER)
}

/// Starts the API server, and waits until it is ready.
pub fn start_api_server(cluster: &Cluster) -> Result<()> {
    let artifacts = build::ensure(&cluster.paths)?;
    control_plane::start_api_server(cluster, &artifacts)?;
    control_plane::start_controllers(cluster, &artifacts)?;
    forget(cluster, &Fault::ApiServerStopped.identity())
}

/// Starts what has ended by itself, as kubelets and systemd do: after an outage of the API server the scheduler may find
/// that a pod was bound elsewhere than it thought, and ends itself. Nodes without power are left alone.
pub fn keep_running(cluster: &Cluster) -> Result<()> {
    let artifacts = build::ensure(&cluster.paths)?;
    control_plane::start_controllers(cluster, &artifacts)?;
    let options = NodeOptions::load(&cluster.paths);
    let is_on = |node: &Node| super::recorded(cluster, &Fault::NodeOff { node: node.name() }.identity()).is_none();
    for node in Node::all().filter(is_on) {
        node::start_containerd(cluster, node)?;
        node::start_kubelet(cluster, &artifacts, node, &options)?;
    }
    Ok(())
}

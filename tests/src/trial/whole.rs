//! When a cluster counts as whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pelorus_dev::Node;

use crate::Cluster;
use crate::pace::{Look, until};

/// Whether an instance is read-only, and whether it replicates.
const ROLES: &str = "SELECT @@GLOBAL.super_read_only, \
    EXISTS (SELECT 1 FROM performance_schema.replication_connection_status WHERE SERVICE_STATE='ON') \
    AND EXISTS (SELECT 1 FROM performance_schema.replication_applier_status WHERE SERVICE_STATE='ON')";

/// Waits until every replica is a recorded acker, commits wait for as many as they should, and nothing is under way.
///
/// # Errors
/// When it is not in time.
pub async fn settled(cluster: &Cluster, instances: u32, within: Duration) -> Result<()> {
    let replicas = usize::try_from(instances.saturating_sub(1))?;
    let wanted = if replicas == 0 { 0 } else { (instances / 2).max(1) };
    until(&format!("{} to be settled", cluster.name), within, async || {
        let status = cluster.status().await?;
        let done = status.operation.is_none()
            && status.ackers.len() == replicas
            && status.acks_needed.unwrap_or(0) == wanted
            && status.unproven.is_empty();
        let seen = || format!("{:?} {:?} {:?}", status.ackers, status.acks_needed, status.operation);
        Ok(if done { Look::Done(()) } else { Look::Not(seen()) })
    })
    .await
}

/// Waits until a cluster is whole: by its status, and by what each instance says itself. (A status may be of before the
/// fault.)
///
/// # Errors
/// When it is not in time.
pub async fn wait_whole(cluster: &Cluster, instances: u32, within: Duration) -> Result<()> {
    let (begun, wanted) = (Instant::now(), usize::try_from(instances)?);
    let left = || within.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
    until(&format!("{} to be whole", cluster.name), within, async || {
        let (pods, primary) = (cluster.pods().await?, cluster.primary().await?);
        if pods.len() != wanted {
            return Ok(Look::Not(format!("{} pods", pods.len())));
        }
        for pod in pods.keys() {
            let roles: Vec<(bool, bool)> = cluster.rows(pod, ROLES).await?;
            let expected = (*pod != primary, *pod != primary);
            if roles != [expected] {
                return Ok(Look::Not(format!("{pod} says (read-only, replicating) {roles:?}, {primary} is primary")));
            }
        }
        Ok(Look::Done(()))
    })
    .await?;
    cluster.wait_ready(instances, left()).await?;
    settled(cluster, instances, left()).await
}

/// A node that clients may live on while another one is broken.
///
/// # Errors
/// When there is only one.
pub fn away_from(node: Node) -> Result<Node> {
    Node::all().filter(|other| *other != node).last().context("there is only one node")
}

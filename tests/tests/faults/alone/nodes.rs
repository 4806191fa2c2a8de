//! Nodes are drained, unplugged, powered off.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::ledger::Options;
use tests::trial::{Expect, SOON, Setup, row, row_with};

/// Drains in a row (F42).
const DRAINS: usize = 3;
/// Writes may pause so long for a drain.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a node is away after the failover.
const AWAY: Duration = Duration::from_secs(15);

#[tokio::test]
async fn f39_node_of_the_primary_cut_off_and_back() -> Result<()> {
    row("F39", async |trial| {
        let old = trial.primary.clone();
        let node = trial.faults.node_of(&old).await?;
        let moment = trial.faults.unplug(node).await?;
        trial.began(moment, &format!("{} with {old} is unplugged", node.name()))?;
        trial.failed_over(SOON).await?;
        tokio::time::sleep(AWAY).await;
        trial.heal().await?;
        trial.whole().await?;
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f42_drains_hand_over_first() -> Result<()> {
    // Clients wait for their answer: what fails then was refused.
    let waiting = Options { answer: PAUSE, ..Options::impatient() };
    row_with("F42", Setup::default().writing(waiting), async |trial| {
        for _ in 0..DRAINS {
            let old = trial.shop.primary().await?;
            let node = trial.faults.node_of(&old).await?;
            trial.faults.cordon(node).await?;
            let moment = trial.faults.evict(&old).await?;
            trial.began(moment, &format!("{} with {old} is drained", node.name()))?;
            trial.failed_over(SOON).await?;
            let (shop, pod) = (trial.shop.clone(), old.clone());
            let moved = async || Ok(shop.pods().await?.get(&pod).is_some_and(|pod| on_another(pod, &node.name())));
            trial.soon(&format!("{old} on another node"), Duration::from_secs(150), moved).await?;
            trial.whole().await?;
            trial.heal().await?;
        }
        trial.never("FailoverStarted").await?;
        Ok(Expect::changes(DRAINS).gap(PAUSE))
    })
    .await
}

fn on_another(pod: &k8s_openapi::api::core::v1::Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|found| found != node)
}

#[tokio::test]
async fn f43_node_of_the_primary_loses_its_power() -> Result<()> {
    row("F43", async |trial| {
        let old = trial.primary.clone();
        let (before, data) = (trial.shop.pod_uids().await?, trial.shop.data_id(&old).await?);
        let node = trial.faults.node_of(&old).await?;
        let moment = trial.faults.power_off(node).await?;
        trial.began(moment, &format!("{} with {old} is off", node.name()))?;
        trial.failed_over(SOON).await?;
        tokio::time::sleep(AWAY).await;
        // Whoever deletes a pod of a node that is silent lets a second one have its volume.
        ensure!(trial.shop.pod_uids().await?.get(&old) == before.get(&old), "the pod of {old} was replaced");
        trial.heal().await?;
        trial.whole().await?;
        ensure!(trial.shop.data_id(&old).await? == data, "{old} was cloned: its own data was good");
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f43_node_of_a_replica_loses_its_power() -> Result<()> {
    row("F43", async |trial| {
        let nodes = futures::future::try_join_all(trial.replicas.iter().map(|pod| trial.faults.node_of(pod))).await?;
        let home = trial.faults.node_of(&trial.primary).await?;
        let Some(node) = nodes.into_iter().find(|node| *node != home) else { anyhow::bail!("all on one node") };
        // Writers on the primary's own node: theirs has power.
        trial.rest().await?;
        trial.move_writers(home);
        trial.resume().await?;
        let moment = trial.faults.power_off(node).await?;
        trial.began(moment, &format!("{} with a replica is off", node.name()))?;
        tokio::time::sleep(AWAY).await;
        trial.written(50).await?;
        trial.heal().await?;
        trial.whole().await?;
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::unchanged().gap(Duration::from_secs(10)))
    })
    .await
}

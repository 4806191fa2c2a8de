//! NATS tells people and programs; nobody decides anything by it.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use tests::faults::MYSQLD;
use tests::harness::OPERATOR_NAMESPACE;
use tests::nats::NATS;
use tests::trial::{Expect, SOON, row};

#[tokio::test]
async fn f11_nats_down_and_old_messages_again() -> Result<()> {
    row("F11", async |trial| {
        let old = trial.primary.clone();
        let nats = trial.harness.deployment(NATS).await?.name_any();
        trial.faults.scale(OPERATOR_NAMESPACE, &nats, 0).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.heal().await?;
        trial.whole().await?;
        let next = trial.shop.primary().await?;
        trial.harness.wait_events(&trial.shop, &["failover.completed"], Duration::from_secs(90)).await?;
        for kind in ["failover.completed", "failover.started"] {
            trial.harness.replay_event(&trial.shop, kind, 20).await?;
        }
        trial.step("old messages were published again");
        trial.stays(&next, Duration::from_secs(10)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f12_forged_messages_are_refused() -> Result<()> {
    row("F12", async |trial| {
        let old = trial.primary.clone();
        for kind in ["failover.started", "failover.completed", "switchover.started", "cluster.ready"] {
            let arrived = trial.harness.forge_event(&trial.shop, kind).await?;
            ensure!(arrived == 0, "{arrived} forged messages {kind} arrived");
        }
        ensure!(!trial.harness.nats_is_open().await?, "NATS takes clients without a name");
        trial.stays(&old, Duration::from_secs(5)).await?;
        Ok(Expect::unchanged())
    })
    .await
}

//! What breaks comes back by itself, and writers notice nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::DeleteParams;
use tests::ledger::{Ledger, Options};
use tests::pace::{Look, until};
use tests::{Cluster, run, spec};

/// Waits until the pod of this name is another one than before, and all serve again.
async fn wait_replaced(cluster: &Cluster, pod: &str, before: Option<&String>) -> Result<()> {
    until(&format!("a new pod {pod}"), Duration::from_secs(150), async || {
        let uids = cluster.pod_uids().await?;
        let now = uids.get(pod);
        Ok(if now.is_some() && now != before { Look::Done(()) } else { Look::Not(format!("{now:?}")) })
    })
    .await?;
    cluster.wait_ready(3, Duration::from_secs(150)).await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_replica_pod_comes_back_by_itself() -> Result<()> {
    run("pod-deleted", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = shop.pod_uids().await?;
        let epoch = shop.status().await?.epoch();
        let replica = shop.replicas().await?.into_iter().next().context("no replica")?;
        let server: String = shop.value(&replica, "SELECT @@server_uuid").await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.delete_pod(&replica).await?;
        wait_replaced(&shop, &replica, before.get(&replica)).await?;
        scene.step(&format!("{replica} is back"));
        let again: String = shop.value(&replica, "SELECT @@server_uuid").await?;
        ensure!(again == server, "it kept its data");
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        let status = shop.status().await?;
        ensure!(status.ackers.contains(&replica), "{replica} acknowledges again: {status:?}");
        println!("epoch {epoch} has become {}", status.epoch());
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

#[tokio::test]
async fn a_deleted_primary_pod_hands_over_and_comes_back_as_a_replica() -> Result<()> {
    run("primary-deleted", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = shop.pod_uids().await?;
        let primary = shop.primary().await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.delete_pod(&primary).await?;
        wait_replaced(&shop, &primary, before.get(&primary)).await?;
        ensure!(shop.primary().await? != primary, "another instance has taken over");
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        ledger.finish().await?.expect_lossless(&shop).await
    })
    .await
}

#[tokio::test]
async fn a_replica_whose_volume_is_lost_is_rebuilt_by_clone() -> Result<()> {
    run("volume-lost", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = shop.pod_uids().await?;
        let replica = shop.replicas().await?.into_iter().next_back().context("no replica")?;
        let volume = shop.claim_of(&replica).await?;
        let server: String = shop.value(&replica, "SELECT @@server_uuid").await?;
        let ledger = Ledger::start(&shop, Options { payload: 2000, ..Options::default() }).await?;
        ledger.wait_for(200, Duration::from_secs(30)).await?;
        shop.api::<PersistentVolumeClaim>().delete(&volume.name_any(), &DeleteParams::default()).await?;
        shop.delete_pod(&replica).await?;
        wait_replaced(&shop, &replica, before.get(&replica)).await?;
        scene.step(&format!("{replica} is rebuilt"));
        ensure!(shop.claim_of(&replica).await?.uid() != volume.uid(), "it has a new volume");
        let again: String = shop.value(&replica, "SELECT @@server_uuid").await?;
        ensure!(again != server, "it has new data");
        let back = |status: &common::crd::MySQLClusterStatus| status.ackers.contains(&replica);
        shop.wait_status(&format!("{replica} to be an acker again"), Duration::from_secs(60), back).await?;
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

#[tokio::test]
async fn the_ledger_finds_what_is_lost_or_should_not_be_there() -> Result<()> {
    run("checker", async |scene| {
        let shop = scene.create("shop", spec::small(2)).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(40, Duration::from_secs(30)).await?;
        let mut log = ledger.finish().await?;
        log.expect_flawless(&shop).await?;
        let uuid = log.acknowledged().nth(7).context("no row")?.uuid.clone();
        shop.write(&[&format!("DELETE FROM ledger.entries WHERE uuid='{uuid}'")]).await?;
        let verdict = log.check(&shop).await?;
        ensure!(verdict.lost.len() == 1, "the deleted row is lost: {verdict:?}");
        ensure!(log.expect_lossless(&shop).await.is_err(), "and the check fails");
        log.entries.retain(|entry| entry.uuid != uuid);
        log.expect_lossless(&shop).await?;
        // A row that is there although its writer was told that it is not.
        log.entries.first_mut().context("no row")?.outcome = tests::ledger::Outcome::Refused(1290);
        let verdict = log.check(&shop).await?;
        ensure!(verdict.phantom.len() == 1, "the refused row is a phantom: {verdict:?}");
        Ok(())
    })
    .await
}

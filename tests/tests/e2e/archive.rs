//! Binlogs in the bucket: continuously, over failovers, restarts and outages.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{MySQLBinlog, MySQLClusterStatus};
use common::gtid::GtidSet;
use kube::ResourceExt;
use kube::api::ListParams;
use tests::bucket::Bucket;
use tests::faults::MYSQLD;
use tests::ledger::{Ledger, Options, SCHEMA};
use tests::pace::{Look, until};
use tests::{Cluster, Faults, run, spec};

const SOON: Duration = Duration::from_secs(60);

/// Waits until all that the primary has executed now is in the bucket.
async fn arrives(bucket: &Bucket, cluster: &Cluster) -> Result<()> {
    let executed = cluster.executed(&cluster.primary().await?).await?;
    until("what was executed to be in the bucket", SOON, async || {
        let missing = executed.subtract(&bucket.shipped(cluster).await?);
        Ok(if missing.is_empty() { Look::Done(()) } else { Look::Not(format!("{missing} is not there")) })
    })
    .await?;
    Ok(())
}

/// A copy made of the bucket alone has the ledger's rows, all of them and no other.
async fn restores(bucket: &Bucket, cluster: &Cluster) -> Result<()> {
    let mysqld = bucket.restored(cluster).await?;
    let question = format!("CHECKSUM TABLE {SCHEMA}.entries");
    let restored = mysqld.sql(&question).map_err(anyhow::Error::msg)?;
    let primary: Vec<(String, Option<u64>)> = cluster.rows(&cluster.primary().await?, &question).await?;
    let wanted = primary.first().and_then(|(_, sum)| *sum).context("no checksum")?;
    ensure!(restored.trim().ends_with(&format!("\t{wanted}")), "restored {restored:?}, and the primary has {wanted}");
    Ok(())
}

#[tokio::test]
async fn binlogs_are_archived_over_failovers_and_outages() -> Result<()> {
    run("archive", async |scene| {
        let mut bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let mut wanted = spec::small(3);
        wanted.archive = Some(bucket.archive());
        let shop = scene.create("shop", wanted).await?;
        shop.wait_condition("BinlogShipping", "True", SOON).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(100, SOON).await?;
        arrives(&bucket, &shop).await?;
        scene.step("shipped from the first primary");

        let faults = Faults::new(&shop);
        let old = shop.primary().await?;
        faults.kill(&old, MYSQLD).await?;
        until("another primary", SOON, async || {
            let primary = shop.status().await?.primary;
            Ok(if primary.as_ref() == Some(&old) { Look::Not("not yet".to_owned()) } else { Look::Done(()) })
        })
        .await?;
        let before = ledger.acknowledged();
        ledger.wait_for(before + 100, SOON).await?;
        arrives(&bucket, &shop).await?;
        scene.step("shipped from the second");

        bucket.server.kill();
        let condition = shop.wait_condition("BinlogShipping", "False", SOON).await?;
        ensure!(condition.reason == "BucketUnreachable", "{condition:?}");
        let during = ledger.acknowledged();
        ledger.wait_for(during + 100, SOON).await.context("the primary does not care")?;
        scene.step(&format!("deleted {:?}", scene.harness.delete_daemon_pods("binlog-shipper").await?));
        scene.harness.wait_daemons(Duration::from_secs(90)).await?;
        bucket.server.run();
        shop.wait_condition("BinlogShipping", "True", SOON).await?;
        shop.wait_ready(3, SOON).await?;
        ledger.finish().await?.expect_lossless(&shop).await?;
        arrives(&bucket, &shop).await?;
        scene.step("shipped after the outage of the bucket, by another shipper");
        restores(&bucket, &shop).await?;

        let executed = shop.executed(&shop.primary().await?).await?;
        let reaches = |status: &MySQLClusterStatus| {
            let gtid =
                status.restorable.as_ref().and_then(|restorable| restorable.gtid.as_ref()?.parse::<GtidSet>().ok());
            gtid.is_some_and(|gtid| executed.is_subset(&gtid))
        };
        shop.wait_status("status.restorable to reach the end", SOON, reaches).await?;

        let records = shop.api::<MySQLBinlog>().list(&ListParams::default()).await?;
        let epochs: Vec<i64> = records.iter().map(|record| record.spec.epoch).collect();
        ensure!(epochs.iter().max() > epochs.iter().min(), "each epoch has its own: {epochs:?}");
        for record in &records {
            ensure!(record.status.as_ref().is_some_and(|status| status.gtid.is_some()), "{}", record.name_any());
        }
        Ok(())
    })
    .await
}

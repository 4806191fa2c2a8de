//! Changes that meet a fault, or are one for the writers: roll-outs, scaling, a cluster deleted and made again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::bucket::Bucket;
use tests::cluster::READY;
use tests::faults::MYSQLD;
use tests::spec;
use tests::trial::{Expect, Setup, row, settled};

/// Longest roll-out of three instances.
const ROLLED: Duration = Duration::from_secs(300);
/// Longest scaling with a failover in its middle.
const SCALED: Duration = Duration::from_secs(240);

#[tokio::test]
async fn f57_another_image_rolls_out_with_one_switchover() -> Result<()> {
    row("F57", async |trial| {
        let before = trial.shop.pod_uids().await?;
        trial.began(Instant::now(), "another image is rolled out")?;
        trial.shop.patch(json!({"image": format!("{}-b", spec::image())})).await?;
        let shop = trial.shop.clone();
        let replaced = async || {
            let now = shop.pod_uids().await?;
            Ok(now.len() == before.len() && now.iter().all(|(pod, uid)| before.get(pod) != Some(uid)))
        };
        trial.soon("every pod to be another one", ROLLED, replaced).await?;
        trial.shop.wait_condition("RolledOut", "True", ROLLED).await?;
        trial.mended("the roll-out is over");
        trial.whole().await?;
        trial.never("FailoverStarted").await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

#[tokio::test]
async fn f60_deleted_in_mid_failover_and_made_again_with_the_same_name() -> Result<()> {
    row("F60", async |trial| {
        let (old, uid) = (trial.primary.clone(), trial.shop.get().await?.metadata.uid);
        trial.kill(&old, MYSQLD).await?;
        trial.shop.delete(Duration::from_secs(150)).await?;
        trial.rest().await?;
        trial.step("the cluster is gone");
        let mut again = Setup::default().spec;
        again.archive = trial.bucket.as_ref().map(Bucket::archive);
        trial.shop.create(again).await.context("make it again")?;
        trial.shop.wait_ready(3, READY).await?;
        ensure!(trial.shop.get().await?.metadata.uid != uid, "it is another cluster");
        settled(&trial.shop, 3, Duration::from_secs(60)).await?;
        trial.mended("a cluster of the same name serves the old volumes");
        trial.resume().await?;
        Ok(Expect::changes_within(0..=2))
    })
    .await
}

#[tokio::test]
async fn f63_scaled_three_to_five_to_three_through_failovers() -> Result<()> {
    row("F63", async |trial| {
        for instances in [5, 3] {
            let old = trial.shop.primary().await?;
            trial.shop.patch(json!({"instances": instances})).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            trial.kill(&old, MYSQLD).await?;
            trial.shop.wait_ready(instances, SCALED).await?;
            settled(&trial.shop, instances, SCALED).await?;
            trial.mended(&format!("{instances} instances"));
            trial.written(50).await?;
        }
        let shop = trial.shop.clone();
        trial.soon("two pods to be gone", SCALED, async || Ok(shop.pods().await?.len() == 3)).await?;
        Ok(Expect::changes_within(1..=4))
    })
    .await
}

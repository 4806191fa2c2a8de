//! Physical dumps: a scratch cluster copies the files of a replica, and a restore begins with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{DumpPhase, MySQLCluster, MySQLDump};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tests::bucket::Bucket;
use tests::cluster::READY;
use tests::ledger::{Ledger, Options, SCHEMA};
use tests::pace::{Look, until};
use tests::{Cluster, run, spec};

const SOON: Duration = Duration::from_secs(60);
/// The time, as a restore takes it.
const NOW: &str = "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')";
const FRUIT: &str = "SELECT CONCAT(COUNT(*), ' with the sum ', SUM(id)) FROM shop.fruit";

async fn no_scratch_cluster(shop: &Cluster) -> Result<()> {
    until("the scratch clusters to be gone", SOON, async || {
        for label in ["pelorus.dev/copies", "pelorus.dev/verifies"] {
            let left = shop.api::<MySQLCluster>().list(&ListParams::default().labels(label)).await?.items.len();
            if left > 0 {
                return Ok(Look::Not(format!("{left} with {label}")));
            }
        }
        Ok(Look::Done(()))
    })
    .await
}

#[tokio::test]
async fn a_physical_dump_under_load_is_verified_and_begins_a_restore_to_a_microsecond() -> Result<()> {
    run("physical", async |scene| {
        let (bucket, shop) = Bucket::with_shop(scene, 2).await?;
        shop.write(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.fruit (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), KEY (v))",
            "INSERT INTO shop.fruit (v) VALUES ('apple'), ('pear'), ('quince')",
        ])
        .await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(100, SOON).await?;
        let physical = json!({"method": "Physical", "verify": true});
        bucket.dump_with(&shop, "files", physical, DumpPhase::Verifying, READY).await?;
        let dump = until("the dump to be verified", READY, async || {
            let dump: MySQLDump = shop.api().get("files").await?;
            let status = dump.status.clone().unwrap_or_default();
            Ok(if status.verified.is_some() { Look::Done(status) } else { Look::Not(format!("{status:?}")) })
        })
        .await?;
        let primary = shop.primary().await?;
        ensure!(dump.source.as_ref().is_some_and(|source| *source != primary), "a replica is copied: {dump:?}");
        ensure!(dump.duration.is_some() && dump.worker.is_none() && dump.problem.is_none(), "{dump:?}");
        scene.step(&format!("copied from {:?} in {:?}, {:?}", dump.source, dump.duration, dump.size));
        no_scratch_cluster(&shop).await?;

        ledger.wait_for(ledger.acknowledged() + 100, SOON).await?;
        ledger.finish().await?.expect_lossless(&shop).await?;
        let before: String = shop.value(&primary, FRUIT).await?;
        let moment: String = shop.value(&primary, NOW).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.write(&["DELETE FROM shop.fruit"]).await?;
        bucket.has_all(&shop).await?;
        let place = json!({"locationRef": {"name": "here"}, "cluster": "shop"});
        let copy = scene.cluster("copy").restoring(2, json!({"fromLocation": place, "pointInTime": moment})).await?;
        copy.wait_ready(2, READY).await?;
        let serving = copy.primary().await?;
        ensure!(copy.value::<String>(&serving, FRUIT).await? == before, "another content");
        let entries = format!("CHECKSUM TABLE {SCHEMA}.entries");
        let sums: [Vec<(String, Option<u64>)>; 2] =
            [copy.rows(&serving, &entries).await?, shop.rows(&primary, &entries).await?];
        ensure!(sums[0] == sums[1], "the ledger differs: {sums:?}");
        let log = scene.harness.logs(&scene.namespace).await?;
        ensure!(
            log.values().any(|text| text.contains("the files of a dump are in place")),
            "it began with something else"
        );
        copy.write(&["INSERT INTO shop.fruit (v) VALUES ('medlar')"]).await?;
        scene.step("restored from the files and the binlogs after them, and it serves");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_physical_dump_that_cannot_be_or_is_not_wanted_any_more_leaves_nothing() -> Result<()> {
    run("physical-gone", async |scene| {
        let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let shop = scene.create("shop", spec::small(1)).await?;
        let part = json!({"method": "Physical", "schemas": ["shop"]});
        let refused = bucket.dump_with(&shop, "part", part, DumpPhase::Failed, SOON).await?;
        let problem = refused.status.and_then(|status| status.problem).context("no reason")?;
        ensure!(problem.contains("spec.schemas"), "{problem}");

        bucket.dump_with(&shop, "files", json!({"method": "Physical"}), DumpPhase::Running, SOON).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        shop.api::<MySQLDump>().delete("files", &DeleteParams::default()).await?;
        until("the dump to be gone", SOON, async || {
            let there = shop.find::<MySQLDump>("files").await?;
            Ok(there.map_or(Look::Done(()), |dump| Look::Not(format!("{:?}", dump.status))))
        })
        .await?;
        no_scratch_cluster(&shop).await?;
        let manifests = bucket.objects()?.into_iter().filter(|(path, _)| path.ends_with("manifest.json"));
        let whole = manifests.filter(|(_, body)| body != dump::manifest::GIVEN_UP).count();
        ensure!(whole == 0, "it was finished after its end");
        Ok(())
    })
    .await
}

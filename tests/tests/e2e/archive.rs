//! Binlogs in the bucket: continuously, over failovers, restarts and outages.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{
    DumpPhase, MySQLBackupLocation, MySQLBackupSchedule, MySQLBackupScheduleStatus, MySQLBinlog, MySQLClusterStatus,
    MySQLDump, Retention,
};
use common::gtid::GtidSet;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tests::bucket::Bucket;
use tests::cluster::READY;
use tests::faults::MYSQLD;
use tests::ledger::{Ledger, Options, SCHEMA};
use tests::pace::{Look, until};
use tests::{Cluster, Faults, run, spec};

const SOON: Duration = Duration::from_secs(60);

/// Rows of a table that loses some by accident.
const ROWS: &str = "SELECT CONCAT(COUNT(*), ' with the sum ', SUM(id)) FROM shop.rows_of_value";
/// The time, as a restore takes it.
const NOW: &str = "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')";

#[tokio::test]
async fn binlogs_are_archived_over_failovers_and_outages() -> Result<()> {
    run("archive", async |scene| {
        let (mut bucket, shop) = Bucket::with_shop(scene, 3).await?;
        shop.wait_condition("BinlogShipping", "True", SOON).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(100, SOON).await?;
        bucket.has_all(&shop).await?;
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
        bucket.has_all(&shop).await?;
        scene.step("shipped from the second");

        bucket.server.kill();
        // Before a put has failed for good it is only late.
        let unreachable = |status: &MySQLClusterStatus| {
            status.condition("BinlogShipping").is_some_and(|condition| condition.reason == "BucketUnreachable")
        };
        shop.wait_status("the bucket to be called unreachable", SOON, unreachable).await?;
        let during = ledger.acknowledged();
        ledger.wait_for(during + 100, SOON).await.context("the primary does not care")?;
        scene.step(&format!("deleted {:?}", scene.harness.delete_daemon_pods("binlog-shipper").await?));
        scene.harness.wait_daemons(Duration::from_secs(90)).await?;
        bucket.server.run();
        shop.wait_condition("BinlogShipping", "True", SOON).await?;
        shop.wait_ready(3, SOON).await?;
        ledger.finish().await?.expect_lossless(&shop).await?;
        bucket.has_all(&shop).await?;
        scene.step("shipped after the outage of the bucket, by another shipper");
        bucket.restores(&shop).await?;

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

/// What the condition says of a restore that fails.
async fn refusal(cluster: &Cluster) -> Result<String> {
    until("the refusal", READY, async || {
        let status = cluster.status().await?;
        Ok(match status.condition("Restored") {
            Some(condition) if condition.reason == "RestoreFailed" => Look::Done(condition.message.clone()),
            other => Look::Not(format!("{other:?}")),
        })
    })
    .await
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_restored_to_just_before_an_accident() -> Result<()> {
    run("restore", async |scene| {
        let (bucket, shop) = Bucket::with_shop(scene, 1).await?;
        shop.write(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.rows_of_value (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100))",
            "INSERT INTO shop.rows_of_value (v) VALUES ('a'), ('b'), ('c')",
            "INSERT INTO shop.rows_of_value (v) SELECT CONCAT(x.v, y.v) FROM shop.rows_of_value x, shop.rows_of_value y",
            "CREATE USER app IDENTIFIED BY 'of the app'",
        ])
        .await?;
        let old = shop.primary().await?;
        let before: String = shop.value(&old, ROWS).await?;
        let moment: String = shop.value(&old, NOW).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.write(&["DELETE FROM shop.rows_of_value WHERE id > 2"]).await?;
        let after: String = shop.value(&old, ROWS).await?;
        ensure!(before != after, "{before}");
        bucket.has_all(&shop).await?;
        let all = shop.executed(&old).await?;
        until("a record of it", SOON, async || {
            let records = shop.api::<MySQLBinlog>().list(&ListParams::default()).await?;
            Ok(if records.items.is_empty() { Look::Not("none".to_owned()) } else { Look::Done(()) })
        })
        .await?;
        shop.delete(SOON).await?;
        scene.step("the cluster is gone");

        let place = json!({"locationRef": {"name": "here"}, "cluster": "shop"});
        let copy = scene.cluster("copy").restoring(3, json!({"fromLocation": place, "pointInTime": moment})).await?;
        copy.wait_condition("Restored", "False", READY).await?;
        copy.delete_pod("copy-0").await?;
        scene.step("it is being restored, and its first pod is deleted");
        copy.wait_ready(3, READY).await?;
        let condition = copy.wait_condition("Restored", "True", SOON).await?;
        scene.step(&format!("restored: {}", condition.message));
        for pod in copy.wait_caught_up(SOON).await? {
            ensure!(copy.value::<String>(&pod, ROWS).await? == before, "{pod} has other rows");
            let missing = all.subtract(&copy.executed(&pod).await?);
            ensure!(missing.count() == 1, "{pod} lacks {missing}, not the accident alone");
        }
        copy.write(&["INSERT INTO shop.rows_of_value (v) VALUES ('new')"]).await?;

        let nobody = json!({"matchLabels": {"pelorus.dev/cluster": "nobody"}});
        let nothing = scene.cluster("nothing").restoring(1, json!({"fromSelector": nobody})).await?;
        let refused = refusal(&nothing).await?;
        ensure!(refused.contains("spec.restore.fromSelector selects no MySQLBinlog and no MySQLDump"), "{refused}");

        // By the records that the archive left behind; first to where it does not reach.
        let records = json!({"matchLabels": {"pelorus.dev/cluster": "shop"}});
        let late = json!({"fromSelector": records, "pointInTime": "2199-01-01T00:00:00.000000Z"});
        let late = scene.cluster("late").restoring(1, late).await?;
        let refused = refusal(&late).await?;
        ensure!(refused.contains("the archive reaches to"), "{refused}");
        scene.harness.wait_events(&late, &["cluster.restore-failed"], SOON).await?;
        ensure!(late.status().await?.primary.is_none(), "nothing is served of what was not restored");
        scene.step(&format!("refused: {refused}"));
        let exact = json!({"fromSelector": records, "gtid": all.to_string()});
        let exact = scene.cluster("exact").restoring(1, exact).await?;
        exact.wait_ready(1, READY).await?;
        let primary = exact.primary().await?;
        ensure!(exact.value::<String>(&primary, ROWS).await? == after, "the accident is in this set");
        ensure!(exact.executed(&primary).await? == all, "exactly this set");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dump_under_load_begins_a_restore_and_goes_with_its_object() -> Result<()> {
    run("dump", async |scene| {
        let (bucket, shop) = Bucket::with_shop(scene, 3).await?;
        shop.write(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.rows_of_value (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), KEY (v))",
            "INSERT INTO shop.rows_of_value (v) VALUES ('a'), ('b'), ('c')",
        ])
        .await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(200, SOON).await?;
        let dump = bucket.dump(&shop, "first", false, DumpPhase::Succeeded).await?;
        let status = dump.status.clone().context("no status")?;
        let primary = shop.primary().await?;
        ensure!(status.source.as_ref().is_some_and(|source| *source != primary), "a replica is read: {status:?}");
        scene.step(&format!("dumped from {:?}: {:?}", status.source, status.progress));
        ledger.wait_for(ledger.acknowledged() + 200, SOON).await?;
        ledger.finish().await?.expect_lossless(&shop).await?;
        let before: String = shop.value(&primary, ROWS).await?;
        let moment: String = shop.value(&primary, NOW).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.write(&["DELETE FROM shop.rows_of_value"]).await?;
        bucket.has_all(&shop).await?;
        scene.harness.wait_events(&shop, &["backup.started", "backup.succeeded"], SOON).await?;

        let place = json!({"locationRef": {"name": "here"}, "cluster": "shop"});
        let copy = scene.cluster("copy").restoring(1, json!({"fromLocation": place, "pointInTime": moment})).await?;
        copy.wait_ready(1, READY).await?;
        ensure!(copy.value::<String>("copy-0", ROWS).await? == before, "another content");
        let entries = format!("CHECKSUM TABLE {SCHEMA}.entries");
        let sum = async |cluster: &Cluster, pod: &str| -> Result<Vec<(String, Option<u64>)>> {
            cluster.rows(pod, &entries).await
        };
        ensure!(sum(&copy, "copy-0").await? == sum(&shop, &primary).await?, "the ledger differs");
        let log = scene.harness.logs(&scene.namespace).await?;
        ensure!(log.values().any(|text| text.contains("a dump was loaded")), "it began with the first transaction");
        scene.step("restored from the dump and the binlogs after it");

        // Of the dump alone: what it holds, and nothing after it.
        let selector = json!({"matchLabels": {"pelorus.dev/cluster": "shop"}, "matchExpressions":
            [{"key": "app.kubernetes.io/component", "operator": "DoesNotExist"}]});
        let old = scene.cluster("old").restoring(1, json!({"fromSelector": selector})).await?;
        old.wait_ready(1, READY).await?;
        let gtid: GtidSet = status.gtid.unwrap_or_default().parse().map_err(|_| anyhow::anyhow!("no GTID set"))?;
        ensure!(old.executed("old-0").await? == gtid, "exactly what the dump says");
        scene.step("restored from the dump alone");

        let folder = |bucket: &Bucket, key: &str| bucket.server.folder().join(key);
        let key = status.manifest.context("no manifest")?.key;
        ensure!(folder(&bucket, &key).exists(), "{key} is not there");
        shop.api::<MySQLDump>().delete("first", &DeleteParams::default()).await?;
        until("the dump to be gone", SOON, async || {
            let there = shop.find::<MySQLDump>("first").await?.is_some();
            Ok(if there { Look::Not("it is there".to_owned()) } else { Look::Done(()) })
        })
        .await?;
        ensure!(!folder(&bucket, &key).exists(), "{key} is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_schedule_asks_for_dumps_until_it_is_suspended() -> Result<()> {
    run("schedule", async |scene| {
        let _bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let shop = scene.create("shop", spec::small(1)).await?;
        let location: MySQLBackupLocation = shop.api().get("here").await?;
        ensure!(location.status.as_ref().is_some_and(|status| status.reachable == Some(true)), "{:?}", location.status);
        let schedules = shop.api::<MySQLBackupSchedule>();
        let ask = async |name: &str, pattern: &str| -> Result<()> {
            let schedule: MySQLBackupSchedule = serde_json::from_value(json!({
                "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLBackupSchedule", "metadata": {"name": name},
                "spec": {"clusterRef": {"name": "shop"}, "locationRef": {"name": "here"}, "schedule": pattern,
                         "timeZone": "Asia/Seoul", "verify": false},
            }))?;
            schedules.create(&PostParams::default(), &schedule).await?;
            Ok(())
        };
        let until_status = async |name: &str, what: &str, wanted: &dyn Fn(&MySQLBackupScheduleStatus) -> bool| {
            until(what, READY, async || {
                let status = schedules.get(name).await?.status.unwrap_or_default();
                Ok(if wanted(&status) { Look::Done(status) } else { Look::Not(format!("{status:?}")) })
            })
            .await
        };
        ask("each-minute", "* * * * *").await?;
        ask("wrong", "99 * * * *").await?;
        let refused =
            |status: &MySQLBackupScheduleStatus| status.conditions.iter().any(|it| it.reason == "ScheduleInvalid");
        let wrong = until_status("wrong", "the refusal", &refused).await?;
        ensure!(wrong.conditions.iter().any(|it| it.message.contains("spec.schedule")), "{wrong:?}");
        let made = until_status("each-minute", "a dump to be made", &|status| status.last_success_at.is_some()).await?;
        scene.step(&format!("{:?} for {:?}, the next at {:?}", made.last_dump, made.last_scheduled_at, made.next_at));
        let dump: MySQLDump = shop.api().get(made.last_dump.as_deref().context("no dump is named")?).await?;
        ensure!(dump.labels().get("pelorus.dev/schedule").is_some_and(|name| name == "each-minute"), "{dump:?}");
        ensure!(made.next_at > made.last_scheduled_at, "{made:?}");
        // The schedule that nobody understands is an alarm while it is there.
        shop.wait_condition("BackupHealthy", "False", SOON).await?;
        schedules.delete("wrong", &DeleteParams::default()).await?;
        shop.wait_condition("BackupHealthy", "True", SOON).await?;
        let suspended = json!({"spec": {"suspend": true}});
        schedules.patch("each-minute", &PatchParams::default(), &Patch::Merge(&suspended)).await?;
        let stopped = |status: &MySQLBackupScheduleStatus| status.conditions.iter().any(|it| it.reason == "Suspended");
        until_status("each-minute", "it to be suspended", &stopped).await?;
        // Backups stay when their schedule goes.
        schedules.delete("each-minute", &DeleteParams::default()).await?;
        let name = dump.name_any();
        ensure!(shop.find::<MySQLDump>(&name).await?.is_some(), "{name} is gone");
        Ok(())
    })
    .await
}

/// F55: the archive of each has its uid.
#[tokio::test]
async fn a_cluster_of_the_same_name_does_not_touch_the_archive_of_the_first() -> Result<()> {
    run("same-name", async |scene| {
        let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let born = async |what: &str| {
            let mut wanted = spec::small(1);
            wanted.archive = Some(bucket.archive());
            wanted.volume_retention.on_delete = Retention::Delete;
            let shop = scene.create("shop", wanted).await?;
            let insert = format!("INSERT INTO shop.names VALUES ('{what}')");
            shop.write(&["CREATE DATABASE shop", "CREATE TABLE shop.names (name VARCHAR(20) PRIMARY KEY)", &insert])
                .await?;
            bucket.has_all(&shop).await?;
            let uid = shop.get().await?.uid().context("no uid")?;
            scene.step(&format!("{what} is {uid}"));
            anyhow::Ok((shop, uid))
        };
        let (shop, first) = born("first").await?;
        shop.delete(SOON).await?;
        until("its volume to be gone", SOON, async || {
            let claims = shop.claims().await?.len();
            Ok(if claims == 0 { Look::Done(()) } else { Look::Not(format!("{claims} claims")) })
        })
        .await?;
        let before = bucket.objects()?;
        let (_, second) = born("second").await?;
        let after = bucket.objects()?;
        for (path, bytes) in &before {
            ensure!(after.get(path) == Some(bytes), "{} was changed", path.display());
        }
        ensure!(after.len() > before.len(), "the second has archived nothing");

        let place = json!({"locationRef": {"name": "here"}, "cluster": "shop"});
        let either = scene.cluster("either").restoring(1, json!({"fromLocation": place})).await?;
        let refused = refusal(&either).await?;
        ensure!(refused.contains(&first) && refused.contains(&second), "{refused}");
        scene.step(&format!("refused: {refused}"));
        let of_first = json!({"locationRef": {"name": "here"}, "cluster": "shop", "uid": first});
        let old = scene.cluster("old").restoring(1, json!({"fromLocation": of_first})).await?;
        old.wait_ready(1, READY).await?;
        ensure!(old.value::<String>("old-0", "SELECT GROUP_CONCAT(name) FROM shop.names").await? == "first", "another");
        Ok(())
    })
    .await
}

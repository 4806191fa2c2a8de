//! The archive under faults: they cost it time, and never a transaction; and it costs a failover nothing. In the end of each row
//! a server that is made of the bucket alone has the ledger's rows (I9).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::refuse::spoil;
use anyhow::{Context, Result, ensure};
use common::crd::{DumpPhase, MySQLClusterStatus};
use common::gtid::GtidSet;
use common::names::account;
use kube::ResourceExt;
use tests::bucket::Bucket;
use tests::cluster::READY;
use tests::faults::MYSQLD;
use tests::harness::OPERATOR_NAMESPACE;
use tests::pace::{Look, until};
use tests::sessions::{ANSWER, Target};
use tests::trial::{Expect, SOON, Trial, row};

/// What ships.
const SHIPPER: &str = "binlog-shipper";
/// The list says an hour (F13).
const OUTAGE: Duration = Duration::from_secs(60);
/// How long a shipper is paused: its Lease runs out meanwhile (F16).
const PAUSE: Duration = Duration::from_secs(40);

/// Takes the archive of the cluster, which ships.
async fn archived(trial: &mut Trial) -> Result<Bucket> {
    trial.shop.wait_condition("BinlogShipping", "True", SOON * 3).await?;
    trial.step("archived");
    trial.bucket.take().context("a row takes its bucket once")
}

/// Waits until one shipper has the cluster, and no other.
async fn one_ships(trial: &Trial) -> Result<()> {
    let labels = [("namespace", &trial.shop.namespace), ("cluster", &trial.shop.name)]
        .map(|(key, of)| format!("{key}=\"{of}\""));
    until("one shipper to have the cluster", SOON, async || {
        let series = trial.harness.metrics(SHIPPER, "pelorus_binlog_shipper_streaming").await?;
        let streams: Vec<&String> = series
            .iter()
            .filter(|line| labels.iter().all(|label| line.contains(label)) && line.ends_with(" 1"))
            .collect();
        Ok(if streams.len() == 1 { Look::Done(()) } else { Look::Not(format!("{series:?}")) })
    })
    .await
}

/// Everything arrives, and comes back.
async fn comes_back(trial: &Trial, bucket: &Bucket) -> Result<()> {
    trial.written(20).await?;
    bucket.restores(&trial.shop).await.context("I9")?;
    trial.step("restored from the bucket alone, and equal");
    Ok(())
}

#[tokio::test]
async fn f13_a_bucket_that_is_away_costs_time_only() -> Result<()> {
    row("F13", async |trial| {
        let mut bucket = archived(trial).await?;
        trial.written(100).await?;
        bucket.server.kill();
        trial.step("the bucket is away");
        trial.shop.wait_condition("BinlogShipping", "False", OUTAGE).await?;
        // The servers write on, in several binlogs, and keep them all.
        let primary = trial.primary.clone();
        for _ in 0..3 {
            trial.shop.local_sql(&primary, "FLUSH BINARY LOGS").await?;
            trial.written(50).await?;
        }
        trial.stays(&primary, OUTAGE).await?;
        bucket.server.run();
        trial.mended("the bucket is back");
        trial.shop.wait_condition("BinlogShipping", "True", OUTAGE).await?;
        comes_back(trial, &bucket).await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f15_shippers_killed_in_the_middle_leave_nothing_half() -> Result<()> {
    row("F15", async |trial| {
        let bucket = archived(trial).await?;
        // More, and Kubernetes waits longer and longer before it starts them again.
        for _ in 0..2 {
            trial.written(100).await?;
            for programs in trial.faults.programs_of(SHIPPER).await? {
                // One that was killed a moment ago may not be back yet.
                let killed = trial.faults.kill_in(programs).await;
                trial.step(&format!("a shipper was killed: {}", killed.is_ok()));
            }
        }
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        comes_back(trial, &bucket).await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f16_a_shipper_that_wakes_beside_another_ships_nothing_else() -> Result<()> {
    row("F16", async |trial| {
        let bucket = archived(trial).await?;
        trial.written(100).await?;
        one_ships(trial).await?;
        // One after the other, so that whoever has the cluster is paused once, and the other has taken over when it wakes.
        for programs in trial.faults.programs_of(SHIPPER).await? {
            trial.faults.freeze_in(programs).await?;
            trial.step("a shipper is paused");
            tokio::time::sleep(PAUSE).await;
            one_ships(trial).await.context("of those that answer")?;
            trial.written(50).await?;
            trial.heal().await?;
            trial.written(50).await?;
            one_ships(trial).await?;
        }
        comes_back(trial, &bucket).await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f52_what_was_purged_before_it_was_shipped_is_made_up_for_by_a_dump() -> Result<()> {
    row("F52", async |trial| {
        let bucket = archived(trial).await?;
        trial.written(100).await?;
        let shipper = trial.harness.deployment(SHIPPER).await?.name_any();
        trial.faults.scale(OPERATOR_NAMESPACE, &shipper, 0).await?;
        until("the shippers to be gone", SOON, async || {
            let left = trial.harness.daemon_pods(SHIPPER).await?.len();
            Ok(if left == 0 { Look::Done(()) } else { Look::Not(format!("{left} pods")) })
        })
        .await?;
        let before = bucket.shipped(&trial.shop).await?;
        trial.step("nobody ships");
        let primary = trial.primary.clone();
        for _ in 0..2 {
            trial.written(50).await?;
            trial.shop.local_sql(&primary, "FLUSH BINARY LOGS").await?;
        }
        // No account that people have may do that.
        let credentials = trial.shop.account(account::SHIPPER).await?;
        let target = Target { credentials, ..trial.shop.instance(&primary).await? };
        target.connect().await?.exec("PURGE BINARY LOGS BEFORE NOW(6)", ANSWER).await?;
        trial.mended("a person has purged what was not shipped, and the shippers are back");
        trial.heal().await?;
        let cut = trial.shop.wait_condition("Restorable", "False", SOON * 2).await?;
        ensure!(cut.reason == "DumpNeeded", "{cut:?}");
        trial.step("it is said that a dump is needed");
        let old =
            bucket.restored(&trial.shop).await?.sql("SELECT @@GLOBAL.gtid_executed").map_err(anyhow::Error::msg)?;
        let old: GtidSet = old.trim().replace("\\n", "").parse().map_err(|_| anyhow::anyhow!("no set: {old}"))?;
        ensure!(old.is_subset(&before), "a restore went across the gap: {old}, and {before} was there");
        trial.step("without one a restore ends before the gap");
        trial.shop.wait_condition("Restorable", "True", SOON * 4).await?;
        trial.step("there is a dump");
        trial.step(&bucket.restores_as(&trial.shop, "copy", READY).await.context("I9")?);
        Ok(Expect::unchanged().lines(&["binlogs were purged before they were shipped"]))
    })
    .await
}

#[tokio::test]
async fn f17_an_object_that_is_not_what_was_put_is_refused_by_name() -> Result<()> {
    row("F17", async |trial| {
        let bucket = archived(trial).await?;
        trial.written(200).await?;
        comes_back(trial, &bucket).await?;
        let segments = bucket.objects()?.into_iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "zst"));
        let (spoilt, whole) = segments.max_by_key(|(_, bytes)| bytes.len()).context("no segment")?;
        let mut bytes = whole.clone();
        *bytes.last_mut().context("an empty segment")? ^= 1;
        fs::write(&spoilt, bytes)?;
        let name = spoilt.file_name().context("no name")?.to_string_lossy().into_owned();
        let refused = match bucket.restored(&trial.shop).await {
            Ok(_) => anyhow::bail!("{name} was restored, and it is spoilt"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(refused.contains(&name), "{name} is not named: {refused}");
        trial.step(&format!("refused: {refused}"));
        fs::write(&spoilt, whole)?;
        comes_back(trial, &bucket).await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f48_a_backup_lock_does_not_hold_up_a_failover() -> Result<()> {
    row("F48", async |trial| {
        let mut held = Vec::new();
        for pod in trial.replicas.clone() {
            let shop = trial.shop.clone();
            held.push(tokio::spawn(
                async move { shop.local_sql(&pod, "LOCK INSTANCE FOR BACKUP; DO SLEEP(60)").await },
            ));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        held.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(Expect::changes(1).lines(&["it held the backup lock"]))
    })
    .await
}

#[tokio::test]
async fn f54_a_dump_is_of_no_replica_that_went_its_own_way() -> Result<()> {
    row("F54", async |trial| {
        let bucket = archived(trial).await?;
        let spoilt = trial.replicas.first().context("no replica")?.clone();
        let own: GtidSet = spoil(trial, &spoilt).await?.parse().map_err(|_| anyhow::anyhow!("no GTID"))?;
        let seen = |status: &MySQLClusterStatus| {
            let named = |set: &Option<String>| set.as_ref().is_some_and(|set| !set.is_empty());
            status.instances.iter().any(|instance| instance.name == spoilt && named(&instance.errant))
        };
        trial.shop.wait_status(&format!("{spoilt} to be called errant"), SOON, seen).await?;
        let status =
            bucket.dump(&trial.shop, "whole", false, DumpPhase::Succeeded).await?.status.context("no status")?;
        let gtid: GtidSet = status.gtid.unwrap_or_default().parse().map_err(|_| anyhow::anyhow!("no set"))?;
        ensure!(status.source.as_ref().is_some_and(|source| *source != spoilt), "read from {:?}", status.source);
        ensure!(gtid.intersect(&own).is_empty(), "{own} is in the dump");
        trial.step(&format!("the dump is of {:?}", status.source));
        trial.step(&bucket.restores_as(&trial.shop, "copy", READY).await.context("I9")?);
        Ok(Expect::unchanged().apart(&[spoilt]))
    })
    .await
}

#[tokio::test]
async fn f53_no_restore_follows_a_branch_that_lost() -> Result<()> {
    row("F53", async |trial| {
        let bucket = archived(trial).await?;
        for _ in 0..3 {
            trial.written(100).await?;
            let old = trial.shop.primary().await?;
            // Cut off first: what it writes from then on nobody acknowledges, and a shipper may have read it.
            trial.isolate(&old).await?;
            trial.failed_over(SOON).await?;
            trial.heal().await?;
            trial.whole().await?;
        }
        comes_back(trial, &bucket).await?;
        until("what was cut off to be in the bucket", SOON, async || {
            let is_copy = |path: &PathBuf| path.to_string_lossy().contains("/rewound/");
            let copies = bucket.objects()?.into_keys().filter(is_copy).count();
            Ok(if copies > 0 { Look::Done(()) } else { Look::Not("no copy".to_owned()) })
        })
        .await?;
        Ok(Expect::changes(3))
    })
    .await
}

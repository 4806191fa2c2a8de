//! mysqld, or the whole container, dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{MySQLClusterStatus, OperationKind};
use serde_json::json;
use tests::faults::{CONTAINER, MYSQLD};
use tests::sessions::ANSWER;
use tests::trial::{Expect, SOON, Setup, Trial, row, row_with};

/// Failovers within the window that F27 allows.
const MOST: u32 = 2;
/// How often F26 kills the candidate on its way.
const DOUBLES: usize = 3;

#[tokio::test]
async fn f01_primary_killed() -> Result<()> {
    row("F01", async |trial| {
        let old = trial.primary.clone();
        let data = trial.shop.data_id(&old).await?;
        let mut open = trial.shop.instance(&old).await?.connect().await?;
        open.exec("BEGIN", ANSWER).await?;
        open.exec("INSERT INTO ledger.entries VALUES (1, 1, 'never committed', '')", ANSWER).await?;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        ensure!(open.exec("COMMIT", ANSWER).await.is_err(), "a transaction survived its server");
        trial.whole().await?;
        ensure!(trial.shop.data_id(&old).await? == data, "{old} was cloned: its own data was good");
        let read_only: bool = trial.shop.value(&old, "SELECT @@GLOBAL.super_read_only").await?;
        ensure!(read_only, "{old} came back open");
        let open: i64 = trial.shop.value(&old, "SELECT COUNT(*) FROM ledger.entries WHERE writer=1").await?;
        ensure!(open == 0, "an uncommitted row is there");
        Ok(Expect::changes(1))
    })
    .await
}

/// Whom the operation under way promotes, or the primary when another than `old` is recorded.
fn candidate(status: &MySQLClusterStatus, old: &str) -> Option<String> {
    let operation = status.operation.as_ref().filter(|operation| operation.kind == OperationKind::Failover);
    let promoted = operation.and_then(|operation| operation.to.clone());
    promoted.or_else(|| status.primary.clone().filter(|primary| primary != old))
}

#[tokio::test]
async fn f26_new_primary_dies_while_it_is_promoted() -> Result<()> {
    row("F26", async |trial| {
        for pause in (0_u64..).map(|round| Duration::from_millis(40 * round)).take(DOUBLES) {
            let old = trial.shop.primary().await?;
            trial.kill(&old, MYSQLD).await?;
            let shop = trial.shop.clone();
            trial.soon("a candidate", SOON, async || Ok(candidate(&shop.status().await?, &old).is_some())).await?;
            tokio::time::sleep(pause).await;
            let next = candidate(&trial.shop.status().await?, &old).context("the candidate is gone again")?;
            trial.kill(&next, MYSQLD).await?;
            trial.whole().await?;
        }
        Ok(Expect::changes_within(1..=2 * DOUBLES))
    })
    .await
}

async fn fail_over_once(trial: &mut Trial) -> Result<()> {
    let old = trial.shop.primary().await?;
    trial.kill(&old, MYSQLD).await?;
    trial.failed_over(SOON).await?;
    trial.whole().await
}

#[tokio::test]
async fn f27_flapping_ends_and_a_person_can_override() -> Result<()> {
    let mut setup = Setup::default();
    setup.spec.failover.max_changes = MOST;
    setup.spec.failover.window = Duration::from_secs(3600).into();
    row_with("F27", setup, async |trial| {
        for _ in 0..MOST {
            fail_over_once(trial).await?;
        }
        let old = trial.shop.primary().await?;
        trial.freeze(&old, CONTAINER).await?;
        trial.refused("TooManyChanges", SOON).await?;
        trial.stays(&old, Duration::from_secs(10)).await?;
        trial.shop.patch(json!({"failover": {"maxChanges": 100}})).await?;
        trial.failed_over(SOON).await?;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes(MOST as usize + 1))
    })
    .await
}

#[tokio::test]
async fn f27_without_a_failover_a_primary_that_died_starts_again_in_place() -> Result<()> {
    let mut setup = Setup::default();
    setup.spec.failover.enabled = false;
    row_with("F27", setup, async |trial| {
        trial.kill(&trial.primary.clone(), MYSQLD).await?;
        trial.refused("FailoverDisabled", SOON).await?;
        trial.written(50).await?;
        trial.whole().await?;
        trial.never("FailoverStarted").await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f62_primary_container_killed_as_by_the_oom_killer() -> Result<()> {
    row("F62", async |trial| {
        let old = trial.primary.clone();
        let data = trial.shop.data_id(&old).await?;
        trial.kill(&old, CONTAINER).await?;
        trial.failed_over(SOON).await?;
        trial.whole().await?;
        ensure!(trial.shop.data_id(&old).await? == data, "{old} was cloned: its own data was good");
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f62_replica_container_killed_changes_nothing() -> Result<()> {
    row_with("F62", Setup::default().patient(), async |trial| {
        let replica = trial.replicas.first().context("no replica")?.clone();
        trial.kill(&replica, CONTAINER).await?;
        trial.stays(&trial.primary, Duration::from_secs(5)).await?;
        trial.whole().await?;
        Ok(Expect::unchanged().flawless())
    })
    .await
}

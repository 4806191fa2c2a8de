//! Somebody hangs: mysqld, its disk, an applier, a session that holds a lock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::crd::MySQLClusterStatus;
use serde_json::json;
use tests::faults::{CONTAINER, Faults, MYSQLD, Undo};
use tests::sessions::ANSWER;
use tests::trial::{Expect, SOON, Setup, row, row_with};

/// How long a disk stalls over and over (F21).
const SLOW: Duration = Duration::from_secs(20);
/// Appliers are held up so long before the primary dies (F35), and after.
const LAG: Duration = Duration::from_secs(6);
/// Writes may pause so long for a switchover that is given up (F46).
const ABORTED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn f03_primary_mysqld_hangs() -> Result<()> {
    row("F03", async |trial| {
        let old = trial.primary.clone();
        trial.freeze(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f03_primary_container_hangs_and_wakes_after_the_promotion() -> Result<()> {
    row("F03", async |trial| {
        let old = trial.primary.clone();
        let mut before = trial.shop.instance(&old).await?.connect().await?;
        trial.freeze(&old, CONTAINER).await?;
        trial.failed_over(SOON).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        trial.heal().await?;
        // A session from before the promotion: whatever it is told, it is not OK.
        let late = before.exec("INSERT INTO ledger.entries VALUES (2, 1, 'after the promotion', '')", ANSWER).await;
        ensure!(late.is_err(), "the old primary took a write after it had been replaced");
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f21_slow_disk_of_the_primary() -> Result<()> {
    row_with("F21", Setup::default().sized(), async |trial| {
        let primary = trial.primary.clone();
        let thaw = Undo::ThawVolume(Faults::claim(&primary));
        let begun = Instant::now();
        trial.began(begun, "its disk stalls for 100 ms, over and over")?;
        while begun.elapsed() < SLOW {
            trial.faults.freeze_volume(&primary).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            trial.faults.undo(&thaw).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        trial.step("and once for 2 s");
        trial.faults.freeze_volume(&primary).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        trial.undo(&thaw).await?;
        trial.stays(&primary, Duration::from_secs(5)).await?;
        trial.never("FailoverStarted").await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f35_candidates_that_lag_apply_everything_first() -> Result<()> {
    row("F35", async |trial| {
        let mut holders = Vec::new();
        for replica in &trial.replicas {
            let mut session = trial.shop.instance(replica).await?.connect().await?;
            session.exec("LOCK TABLES ledger.entries READ", ANSWER).await?;
            holders.push(session);
        }
        trial.step("no replica applies any more");
        tokio::time::sleep(LAG).await;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        tokio::time::sleep(LAG).await;
        // Somebody may have been promoted by ending these sessions; nobody without having applied what it received.
        drop(holders);
        trial.step("the locks are gone");
        trial.failed_over(Duration::from_secs(60)).await?;
        trial.whole().await?;
        Ok(Expect::changes(1).lines(&["ended a session"]))
    })
    .await
}

#[tokio::test]
async fn f46_a_switchover_that_a_lock_holds_up_is_given_up_or_done() -> Result<()> {
    row("F46", async |trial| {
        let (old, next) = (trial.primary.clone(), trial.replicas.first().context("no replica")?.clone());
        trial.shop.write(&["CREATE DATABASE held", "CREATE TABLE held.t (id INT PRIMARY KEY)"]).await?;
        let mut holder = trial.shop.instance(&old).await?.connect().await?;
        holder.exec("LOCK TABLES held.t WRITE", ANSWER).await?;
        trial.began(Instant::now(), &format!("{next} shall be primary while a session holds a lock"))?;
        trial.shop.patch(json!({"primary": next})).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let status = trial.shop.status().await?;
        trial.step(&format!("after 10 s: primary {:?}, operation {:?}", status.primary, status.operation));
        ensure!(status.operation.is_none(), "neither done nor undone after 10 s");
        trial.written(20).await.context("writes go on, wherever")?;
        drop(holder);
        trial.mended("the lock is gone");
        let moved = |status: &MySQLClusterStatus| status.primary.as_ref() == Some(&next) && status.operation.is_none();
        trial.shop.wait_status(&format!("{next} to be primary"), Duration::from_secs(60), moved).await?;
        trial.shop.patch(json!({"primary": null})).await?;
        trial.never("FailoverStarted").await?;
        Ok(Expect::changes(1).gap(ABORTED))
    })
    .await
}

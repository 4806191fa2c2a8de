//! The rule is broken on purpose, and the verdict has to see it: a check that cannot fail is worth nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pelorus_dev::fault::Direction;
use tests::faults::MYSQLD;
use tests::trial::{Expect, SOON, row};

#[tokio::test]
async fn f00_a_deleted_row_is_found() -> Result<()> {
    row("F00", async |trial| {
        trial.written(50).await?;
        trial.shop.write(&["DELETE FROM ledger.entries ORDER BY writer, seq LIMIT 5"]).await?;
        trial.step("acknowledged rows were deleted");
        Ok(Expect::unchanged().violates(&["I1 lost"]))
    })
    .await
}

#[tokio::test]
async fn f00_a_loss_without_semi_sync_is_found() -> Result<()> {
    row("F00", async |trial| {
        let (old, replicas) = (trial.primary.clone(), trial.replicas.clone());
        // Commits are acknowledged to clients and are nowhere but here.
        trial.shop.local_sql(&old, "SET GLOBAL rpl_semi_sync_source_enabled=OFF").await?;
        for replica in &replicas {
            let (from, to) = (trial.faults.party(&old), trial.faults.party(replica));
            trial.faults.lose(from, to, Direction::OneWay, 100).await?;
        }
        trial.written(100).await.context("acknowledged without a replica")?;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        Ok(Expect::changes(1).violates(&["I1 lost"]))
    })
    .await
}

#[tokio::test]
async fn f00_two_servers_that_take_writes_are_found() -> Result<()> {
    row("F00", async |trial| {
        let other = trial.replicas.first().context("no replica")?.clone();
        trial.shop.local_sql(&other, "SET GLOBAL super_read_only=OFF; SET GLOBAL read_only=OFF").await?;
        trial.began(Instant::now(), &format!("{other} takes writes beside the primary"))?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        trial.shop.local_sql(&other, "SET GLOBAL super_read_only=ON").await?;
        Ok(Expect::unchanged().apart(&[other]).violates(&["I2/I3"]))
    })
    .await
}

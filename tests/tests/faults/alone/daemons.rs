//! failover-d is frozen for a while, and wakes up to another world.

use std::time::Duration;

use anyhow::{Context, Result};
use common::names::daemon;
use tests::faults::{CONTAINER, MYSQLD, Programs, Undo};
use tests::trial::{Expect, SOON, row};

/// A paused failover-d wakes so much later (F25; the list says a minute).
const STALE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn f02_mysqld_restarts_faster_than_anybody_looks() -> Result<()> {
    row("F02", async |trial| {
        for pause in [200, 1000, 3000] {
            let primary = trial.shop.primary().await?;
            trial.faults.freeze_daemon(daemon::FAILOVER_D).await?;
            // The kubelet starts the container again at once; mysqld holds still in it until somebody decides.
            trial.kill(&primary, CONTAINER).await?;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            trial.heal().await?;
            trial.whole().await?;
        }
        Ok(Expect::changes_within(0..=3))
    })
    .await
}

/// The two failover-d's that run.
fn two(programs: Vec<Programs>) -> Result<(Programs, Programs)> {
    let mut programs = programs.into_iter();
    Ok((programs.next().context("no failover-d")?, programs.next().context("only one failover-d")?))
}

#[tokio::test]
async fn f25_a_failover_d_that_slept_through_the_failover_does_nothing() -> Result<()> {
    row("F25", async |trial| {
        let old = trial.primary.clone();
        let (sleeper, _) = two(trial.faults.programs_of(daemon::FAILOVER_D).await?)?;
        trial.faults.freeze_in(sleeper.clone()).await?;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.whole().await?;
        let next = trial.shop.primary().await?;
        tokio::time::sleep(STALE).await;
        trial.undo(&Undo::Thaw(sleeper)).await?;
        trial.stays(&next, Duration::from_secs(15)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f25_a_failover_d_paused_in_mid_step_is_refused_when_it_goes_on() -> Result<()> {
    row("F25", async |trial| {
        // It acts alone for so long, sleeps while the other one finishes, and goes on with what it was about to do.
        for (round, head_start) in [30_u64, 60, 120].into_iter().enumerate() {
            let old = trial.shop.primary().await?;
            let (first, second) = two(trial.faults.programs_of(daemon::FAILOVER_D).await?)?;
            trial.faults.freeze_in(first.clone()).await?;
            trial.faults.freeze_in(second.clone()).await?;
            trial.kill(&old, MYSQLD).await?;
            trial.undo(&Undo::Thaw(first.clone())).await?;
            tokio::time::sleep(Duration::from_millis(head_start)).await;
            trial.faults.freeze_in(first.clone()).await?;
            trial.undo(&Undo::Thaw(second)).await?;
            trial.failed_over(SOON).await?;
            trial.whole().await?;
            let next = trial.shop.primary().await?;
            tokio::time::sleep(if round == 0 { STALE } else { Duration::from_secs(3) }).await;
            trial.undo(&Undo::Thaw(first)).await?;
            trial.stays(&next, Duration::from_secs(5)).await?;
            trial.whole().await?;
        }
        Ok(Expect::changes(3))
    })
    .await
}

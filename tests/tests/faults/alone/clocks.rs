//! Clocks of daemons that are wrong (F23). Those of mysqld are not: its binlog's times decide nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use common::clock::OFFSET_VARIABLE;
use common::names::daemon;
use serde_json::json;
use tests::faults::MYSQLD;
use tests::trial::{Expect, SOON, Trial, row};

/// As far as the list says (F23).
const OFF: Duration = Duration::from_secs(600);
/// Nothing may happen for so long after a clock has jumped: longer than a term of a lease.
const STILL: Duration = Duration::from_secs(20);

async fn set_clocks(trial: &mut Trial, failover_d: i64, topology_ctl: i64) -> Result<()> {
    for (daemon, seconds) in [(daemon::FAILOVER_D, failover_d), (daemon::TOPOLOGY_CTL, topology_ctl)] {
        let env = json!([{"name": OFFSET_VARIABLE, "value": seconds.to_string()}]);
        let template = json!({"spec": {"containers": [{"name": daemon, "env": env}]}});
        trial.faults.change_daemon(daemon, template).await?;
    }
    trial.step(&format!("clocks off by {failover_d} s (failover-d) and {topology_ctl} s (topology-ctl)"));
    Ok(())
}

/// Also over what the daemons before them wrote with another clock, which then lies in the future, or long ago.
#[tokio::test]
async fn f23_clocks_of_the_daemons_jump() -> Result<()> {
    row("F23", async |trial| {
        let off = OFF.as_secs().cast_signed();
        for (failover_d, topology_ctl) in [(off, -off), (-off, off)] {
            set_clocks(trial, failover_d, topology_ctl).await?;
            trial.whole().await?;
            let old = trial.shop.primary().await?;
            trial.stays(&old, STILL).await?;
            trial.kill(&old, MYSQLD).await?;
            trial.failed_over(SOON).await.with_context(|| format!("{failover_d} s"))?;
            trial.whole().await.with_context(|| format!("{failover_d} s"))?;
        }
        Ok(Expect::changes(2).lines(&["the clock is set off"]))
    })
    .await
}

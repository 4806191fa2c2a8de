//! A failover-d is killed, paused, or made to see an error between any two steps of a failover (F24): another one, or
//! it itself after its restart, carries on from what is recorded.
//!
//! Points are named in `common::failpoint`. Each is armed in new pods of failover-d, in both of them: each dies there
//! once. The folder in which they note what they have passed outlives their containers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use serde_json::json;
use tests::faults::MYSQLD;
use tests::harness::OPERATOR_NAMESPACE;
use tests::trial::{Expect, Trial, row};

/// Everything between the steps of a failover, in their order.
const POINTS: [&str; 14] = [
    "record.before.failover.fencing",
    "record.after.failover.fencing",
    "order.before.demote",
    "order.before.fence",
    "order.after.fence",
    "record.before.failover.promoting",
    "record.after.failover.promoting",
    "order.before.promote",
    "order.after.promote",
    "order.before.follow",
    "order.after.follow",
    "route.before.*",
    "record.before.failover.done",
    "record.after.failover.done",
];
/// Where they note what they have passed.
const FOLDER: &str = "/run/failpoints";
/// Longest failover, a restart of both failover-d's in its middle.
const LONGEST: Duration = Duration::from_secs(90);

async fn arm(trial: &mut Trial, points: &str) -> Result<()> {
    let template = json!({"spec": {
        "containers": [{
            "name": daemon::FAILOVER_D,
            "env": [
                {"name": "PELORUS_FAILPOINTS", "value": points},
                {"name": "PELORUS_FAILPOINTS_DIR", "value": FOLDER},
            ],
            "volumeMounts": [{"name": "failpoints", "mountPath": FOLDER}],
        }],
        "volumes": [{"name": "failpoints", "emptyDir": {}}],
    }});
    trial.faults.change_daemon(daemon::FAILOVER_D, template).await
}

/// A failover that gets no answers within its patience of 5 s starts the old primary again in place: so where these points
/// hold up an order for longer, writes go on there.
const GOES_BACK: [&str; 2] = ["order.before.fence", "order.after.fence"];

/// Where the primary is dead for sure the claim is written along with the election: these are passed when it hangs.
const CLAIM: [&str; 3] = ["record.before.failover.fencing", "record.after.failover.fencing", "order.before.demote"];

/// A row whose points nobody passes would show nothing.
async fn was_passed(trial: &Trial, point: &str) -> Result<()> {
    let name = format!("\"failpoint\":\"{}", point.trim_end_matches('*'));
    let logs = trial.harness.logs(OPERATOR_NAMESPACE).await?;
    ensure!(logs.values().any(|text| text.contains(&name)), "no failover-d has passed {point}");
    Ok(())
}

async fn at_each_point(trial: &mut Trial, action: &str) -> Result<Expect> {
    let goes_back = |point: &str| action.starts_with("pause") && GOES_BACK.contains(&point);
    for point in POINTS {
        let what = format!("{point}={action}");
        arm(trial, &what).await?;
        trial.whole().await?;
        let old = trial.shop.primary().await?;
        if CLAIM.contains(&point) {
            trial.freeze(&old, MYSQLD).await?;
        } else {
            trial.kill(&old, MYSQLD).await?;
        }
        if goes_back(point) {
            trial.written_within(50, LONGEST).await.with_context(|| what.clone())?;
            trial.step(&format!("{what}: writes go on"));
        } else {
            let seconds = trial.failed_over(LONGEST).await.with_context(|| what.clone())?;
            trial.step(&format!("{what}: {seconds:.3} s"));
        }
        was_passed(trial, point).await?;
        if CLAIM.contains(&point) {
            trial.heal().await?;
        }
        trial.whole().await.with_context(|| what)?;
    }
    let stayed = POINTS.iter().filter(|point| goes_back(point)).count();
    Ok(Expect::changes_within(POINTS.len() - stayed..=POINTS.len()).lines(&["failpoint", "a task panicked"]))
}

#[tokio::test]
async fn f24_failover_d_killed_at_each_step() -> Result<()> {
    row("F24", async |trial| at_each_point(trial, "kill").await).await
}

#[tokio::test]
async fn f24_failover_d_paused_at_each_step() -> Result<()> {
    row("F24", async |trial| at_each_point(trial, "pause(10s)").await).await
}

#[tokio::test]
async fn f24_failover_d_sees_an_error_at_each_step() -> Result<()> {
    row("F24", async |trial| at_each_point(trial, "error").await).await
}

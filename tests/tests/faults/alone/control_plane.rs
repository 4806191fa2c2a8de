//! The API server, or everything that decides, is away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use kube::ResourceExt;
use pelorus_dev::fault::{Direction, Party};
use serde_json::json;
use tests::faults::MYSQLD;
use tests::harness::{DAEMONS, OPERATOR_NAMESPACE};
use tests::ledger::ROUTED;
use tests::trial::{Expect, SOON, Setup, row, row_with};

/// The list says five minutes (F09).
const OUTAGE: Duration = Duration::from_secs(60);
/// Once the API server is back, changes of a spec are looked at within this: daemons that ended without it are started again.
const AWAKE: Duration = Duration::from_secs(60);
/// Nothing may happen for so long while nobody can decide.
const STILL: Duration = Duration::from_secs(10);
/// Three writes of the record, each of which may be lost and tried again.
const SLOWLY: Duration = Duration::from_secs(60);
/// Once failover-d is available it acts within this (F08).
const AFTER_RETURN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn f08_all_daemons_down_and_the_primary_dies() -> Result<()> {
    row("F08", async |trial| {
        for daemon in DAEMONS {
            trial.faults.without_daemon(daemon).await?;
        }
        trial.step("no daemon runs");
        trial.written(100).await.context("writes go on without daemons")?;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = trial.acknowledged()?;
        trial.stays(&old, STILL).await?;
        ensure!(trial.acknowledged()? == before, "somebody took writes although nobody decides");
        trial.heal().await?;
        trial.harness.wait_daemons(Duration::from_secs(90)).await?;
        let available = trial.now();
        trial.failed_over(SOON).await?;
        let waited = trial.now().saturating_sub(available);
        ensure!(waited < AFTER_RETURN, "{waited:?} from the daemons' return to the first write");
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f09_api_server_down() -> Result<()> {
    row_with("F09", Setup::default().patient(), async |trial| {
        let old = trial.primary.clone();
        let moment = trial.faults.stop_api_server().await?;
        trial.began(moment, "the API server is stopped")?;
        let begun = Instant::now();
        while begun.elapsed() < OUTAGE {
            trial.written(50).await.context("writes go on without the API server")?;
        }
        trial.heal().await?;
        // Each watch of a controller finds its place gone, and none of them holds up the others.
        let back = Instant::now();
        trial.shop.patch(serde_json::json!({"config": {"sync_binlog": "0"}})).await?;
        trial.shop.wait_condition("SpecAccepted", "False", AWAKE).await?;
        trial.step(&format!("topology-ctl has looked {:.1?} after the API server was back", back.elapsed()));
        trial.shop.patch(serde_json::json!({"config": {"sync_binlog": null}})).await?;
        trial.shop.wait_condition("SpecAccepted", "True", AWAKE).await?;
        trial.whole().await?;
        ensure!(trial.shop.primary().await? == old, "the primary changed");
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::unchanged().flawless())
    })
    .await
}

#[tokio::test]
async fn f09_primary_dies_while_the_api_server_is_down() -> Result<()> {
    row("F09", async |trial| {
        let old = trial.primary.clone();
        trial.faults.stop_api_server().await?;
        trial.kill(&old, MYSQLD).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = trial.acknowledged()?;
        tokio::time::sleep(STILL).await;
        ensure!(trial.acknowledged()? == before, "somebody was promoted although no intent can be recorded");
        trial.heal().await?;
        trial.failed_over(ROUTED).await.context("it goes on once the API server is back")?;
        trial.whole().await?;
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f10_a_failover_d_with_a_stale_view_does_nothing() -> Result<()> {
    row("F10", async |trial| {
        let old = trial.primary.clone();
        let stale = trial.faults.programs_of(daemon::FAILOVER_D).await?.into_iter().next().context("no failover-d")?;
        let party = Party::Pod { namespace: stale.namespace.clone(), name: stale.pod.clone() };
        trial.faults.lose(party, Party::ApiServer, Direction::Both, 100).await?;
        trial.step(&format!("{} hears nothing more from the API server", stale.pod));
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.whole().await?;
        let next = trial.shop.primary().await?;
        trial.heal().await?;
        // Its view is of before the failover until its watch has caught up.
        trial.stays(&next, Duration::from_secs(20)).await?;
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

/// One packet in five between the daemons and the API server is lost: each call takes from nothing to seconds, some end
/// without an answer although they were carried out.
#[tokio::test]
async fn f10_an_api_server_that_answers_slowly_delays_and_confuses_nobody() -> Result<()> {
    row("F10", async |trial| {
        let old = trial.primary.clone();
        for daemon in DAEMONS {
            for pod in trial.harness.daemon_pods(daemon).await? {
                let party = Party::Pod { namespace: OPERATOR_NAMESPACE.to_owned(), name: pod.name_any() };
                trial.faults.lose(party, Party::ApiServer, Direction::Both, 20).await?;
            }
        }
        trial.step("the API server answers slowly");
        trial.stays(&old, STILL).await?;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SLOWLY).await?;
        trial.heal().await?;
        trial.whole().await?;
        trial.harness.wait_daemons(Duration::from_secs(120)).await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f58_daemons_rolled_out_leave_mysql_alone() -> Result<()> {
    row_with("F58", Setup::default().patient(), async |trial| {
        let before = trial.shop.pod_uids().await?;
        trial.began(Instant::now(), "the daemons are rolled out")?;
        for daemon in DAEMONS {
            let template = json!({"metadata": {"annotations": {"pelorus.dev/test": format!("{:?}", trial.now())}}});
            trial.faults.change_daemon(daemon, template).await?;
        }
        trial.heal().await?;
        trial.whole().await?;
        ensure!(trial.shop.pod_uids().await? == before, "a MySQL pod was replaced");
        Ok(Expect::unchanged().flawless())
    })
    .await
}

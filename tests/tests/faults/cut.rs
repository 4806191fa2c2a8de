//! Packets are dropped: between instances, between daemons and instances, some or all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use pelorus_dev::fault::{Direction, Party};
use tests::faults::MYSQLD;
use tests::sessions::ANSWER;
use tests::trial::{Expect, READY_AGAIN, SOON, Setup, Trial, row, row_with};

/// The list says five minutes (F07, F61); what would act at all acts within seconds.
const WAIT: Duration = Duration::from_secs(60);
/// How long replication is cut (F04).
const CUT: Duration = Duration::from_secs(20);
/// How long the wire is lossy (F22). Two pods draw for each packet: 17 % each lose 31 %.
const LOSSY: Duration = Duration::from_secs(45);
const PERCENT: u8 = 17;

fn parties(trial: &Trial, pods: &[String]) -> Vec<Party> {
    pods.iter().map(|pod| trial.faults.party(pod)).collect()
}

#[tokio::test]
async fn f04_replication_cut_blocks_writes_and_never_falls_back_to_asynchronous() -> Result<()> {
    // Patient ones: the sessions that impatient ones leave behind, all waiting, are soon too many.
    row_with("F04", Setup::default().patient(), async |trial| {
        let old = trial.primary.clone();
        let others = parties(trial, &trial.replicas);
        trial.part(&[&old], &others).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (before, begun) = (trial.acknowledged()?, Instant::now());
        let mut said = None;
        while begun.elapsed() < CUT {
            let status = trial.shop.status().await?;
            if status.primary.as_ref() != Some(&old) || status.operation.is_some() {
                said = Some("a failover".to_owned());
                break;
            }
            let ready = status.condition("Ready").filter(|ready| ready.status == "False");
            said = ready.map(|ready| ready.reason.clone()).or(said);
            let sql = "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
                       WHERE VARIABLE_NAME='Rpl_semi_sync_source_status'";
            let semi_sync: String = trial.shop.value(&old, sql).await?;
            ensure!(semi_sync == "ON", "semi-sync of the primary is {semi_sync}");
            ensure!(trial.acknowledged()? == before, "{old} acknowledged without a replica");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let said = said.context("writes are blocked, and nobody says so")?;
        trial.step(&format!("said for all to see: {said}"));
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

#[tokio::test]
async fn f05_primary_cut_from_all_but_clients() -> Result<()> {
    row("F05", async |trial| {
        let old = trial.primary.clone();
        let reader = trial.shop.instance(&old).await?;
        trial.isolate(&old).await?;
        trial.failed_over(SOON).await?;
        // It closes for reads too: what it knows gets old.
        tokio::time::sleep(Duration::from_secs(5)).await;
        for _ in 0..5 {
            let read = async {
                let mut session = reader.connect().await?;
                anyhow::Ok(session.first::<(i64,)>("SELECT COUNT(*) FROM ledger.entries", ANSWER).await?)
            };
            ensure!(read.await.is_err(), "{old} serves reads although it hears nobody");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f06_primary_and_a_replica_on_the_other_side_is_refused() -> Result<()> {
    row("F06", async |trial| {
        let old = trial.primary.clone();
        let [near, far] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (near, far) = (near.clone(), trial.faults.party(far));
        let daemons =
            [trial.faults.daemon(daemon::FAILOVER_D).await?, trial.faults.daemon(daemon::TOPOLOGY_CTL).await?];
        trial.part(&[&old, &near], &[far, daemons[0].clone(), daemons[1].clone()]).await?;
        trial.refused("QuorumNotProvable", Duration::from_secs(40)).await?;
        trial.written(50).await.context("the two that see each other serve on")?;
        trial.stays(&old, Duration::from_secs(15)).await?;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f07_failover_d_cut_from_the_primary_only() -> Result<()> {
    row_with("F07", Setup::default().patient(), async |trial| {
        let old = trial.primary.clone();
        let failover_d = trial.faults.daemon(daemon::FAILOVER_D).await?;
        trial.part(&[&old], &[failover_d]).await?;
        trial.stays(&old, WAIT).await?;
        trial.never("FailoverStarted").await?;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::unchanged().flawless())
    })
    .await
}

#[tokio::test]
async fn f22_lossy_network_around_the_primary() -> Result<()> {
    row("F22", async |trial| {
        let old = trial.primary.clone();
        let mut others = parties(trial, &trial.replicas);
        others.push(trial.faults.daemon(daemon::FAILOVER_D).await?);
        for other in others {
            trial.faults.lose(trial.faults.party(&old), other, Direction::Both, PERCENT).await?;
        }
        trial.began(Instant::now(), "every third packet is lost")?;
        tokio::time::sleep(LOSSY).await;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

#[tokio::test]
async fn f38_old_primary_with_an_unacknowledged_tail_comes_back_without_a_clone() -> Result<()> {
    row("F38", async |trial| {
        let old = trial.primary.clone();
        let data = trial.shop.data_id(&old).await?;
        for replica in trial.replicas.clone() {
            let (from, to) = (trial.faults.party(&old), trial.faults.party(&replica));
            trial.faults.lose(from, to, Direction::OneWay, 100).await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sql = "SELECT COUNT(*) FROM performance_schema.threads \
                   WHERE PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_STATE LIKE 'Waiting for semi-sync%'";
        let waiting: i64 = trial.shop.value(&old, sql).await?;
        ensure!(waiting > 0, "nobody waits for an acknowledgement: there is no tail");
        trial.step(&format!("{waiting} transactions are in the binlog of {old} and nowhere else"));
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.heal().await?;
        trial.whole().await?;
        ensure!(trial.shop.data_id(&old).await? == data, "{old} was cloned, a rewind is enough");
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f39_network_heals_with_both_sides_alive() -> Result<()> {
    row("F39", async |trial| {
        let old = trial.primary.clone();
        let mut before = trial.shop.instance(&old).await?.connect().await?;
        trial.isolate(&old).await?;
        trial.failed_over(SOON).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        trial.heal().await?;
        let late = before.exec("INSERT INTO ledger.entries VALUES (3, 1, 'from the other side', '')", ANSWER).await;
        ensure!(late.is_err(), "the old primary took a write after it had been replaced");
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

async fn daemon_cut_off(trial: &mut Trial, name: &str) -> Result<Expect> {
    let old = trial.primary.clone();
    let pods: Vec<String> = trial.shop.pods().await?.into_keys().collect();
    let cut = trial.faults.daemon(name).await?;
    trial.part(&pods.iter().map(String::as_str).collect::<Vec<_>>(), &[cut]).await?;
    trial.stays(&old, WAIT).await?;
    if name == daemon::FAILOVER_D {
        let degraded = trial.shop.wait_condition("Degraded", "True", Duration::from_secs(10)).await?;
        trial.step(&format!("said for all to see: {} {}", degraded.reason, degraded.message));
    }
    trial.heal().await?;
    trial.shop.wait_ready(3, READY_AGAIN).await?;
    trial.never("FailoverStarted").await?;
    Ok(Expect::unchanged().flawless())
}

#[tokio::test]
async fn f61_failover_d_cut_from_every_instance_guesses_nothing() -> Result<()> {
    row_with("F61", Setup::default().patient(), async |trial| daemon_cut_off(trial, daemon::FAILOVER_D).await).await
}

#[tokio::test]
async fn f61_topology_ctl_cut_from_every_instance_guesses_nothing() -> Result<()> {
    row_with("F61", Setup::default().patient(), async |trial| daemon_cut_off(trial, daemon::TOPOLOGY_CTL).await).await
}

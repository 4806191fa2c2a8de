//! Volumes that are full, broken or gone, and clones that are interrupted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use common::crd::{InstancePhase, MySQLClusterStatus};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::DeleteParams;
use serde_json::json;
use tests::faults::{CONTAINER, Faults, MYSQLD};
use tests::sessions::ANSWER;
use tests::trial::{Expect, SOON, Setup, Trial, row, row_with, settled};

/// How long a volume stays full.
const FULL: Duration = Duration::from_secs(20);
/// A mysqld that found no room looks again once a minute.
const LOOKS_AGAIN: Duration = Duration::from_secs(90);
/// What is said of clones that were cut off.
const BEGUN_AGAIN: &[&str] = &["provisioning failed and will be ordered again", "clone failed"];
/// Data to clone, in rows of 16 MiB.
const ROWS: usize = 12;
/// Longest wait for a clone to begin.
const BEGIN: Duration = Duration::from_secs(90);
/// Longest wait for more instances, clones that are begun again included.
const GROWN: Duration = Duration::from_secs(240);

#[tokio::test]
async fn f18_disk_full_on_the_primary() -> Result<()> {
    row_with("F18", Setup::default().sized(), async |trial| {
        let old = trial.primary.clone();
        let moment = trial.faults.fill(&old).await?;
        trial.began(moment, &format!("the volume of {old} is full"))?;
        tokio::time::sleep(FULL).await;
        trial.heal().await?;
        trial.written_within(20, LOOKS_AGAIN).await.context("nobody has to do anything once there is room")?;
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

#[tokio::test]
async fn f19_disk_full_on_the_sole_acker() -> Result<()> {
    row_with("F19", Setup::of(2).sized(), async |trial| {
        let acker = trial.replicas.first().context("no replica")?.clone();
        let moment = trial.faults.fill(&acker).await?;
        trial.began(moment, &format!("the volume of {acker} is full"))?;
        tokio::time::sleep(FULL).await;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::unchanged())
    })
    .await
}

/// A new volume for an instance: the claim goes, then the pod.
async fn replace_volume(trial: &Trial, instance: &str) -> Result<()> {
    let claims = trial.shop.api::<PersistentVolumeClaim>();
    claims.delete(&Faults::claim(instance), &DeleteParams::default()).await.context("delete the claim")?;
    trial.shop.delete_pod(instance).await
}

#[tokio::test]
async fn f20_input_output_errors_on_the_primary() -> Result<()> {
    row_with("F20", Setup::default().sized(), async |trial| {
        let old = trial.primary.clone();
        let moment = trial.faults.break_volume(&old).await?;
        trial.began(moment, &format!("every access to the volume of {old} fails"))?;
        trial.failed_over(SOON).await?;
        replace_volume(trial, &old).await?;
        trial.mended("the disk was replaced");
        trial.whole().await?;
        Ok(Expect::changes(1).lines(&["Input/output error"]))
    })
    .await
}

#[tokio::test]
async fn f44_volume_claim_of_the_primary_deleted_with_its_pod() -> Result<()> {
    row("F44", async |trial| {
        let old = trial.primary.clone();
        let data = trial.shop.data_id(&old).await?;
        trial.began(Instant::now(), &format!("claim and pod of {old} are deleted"))?;
        replace_volume(trial, &old).await?;
        trial.failed_over(Duration::from_secs(60)).await?;
        let shop = trial.shop.clone();
        let rebuilt = async || Ok(shop.data_id(&old).await? != data);
        trial.soon(&format!("{old} to be rebuilt"), Duration::from_secs(150), rebuilt).await?;
        trial.mended("the instance has new data");
        trial.whole().await?;
        Ok(Expect::changes(1).lines(&["the volume is gone"]))
    })
    .await
}

#[tokio::test]
async fn f44_data_of_the_primary_lost() -> Result<()> {
    row("F44", async |trial| {
        let old = trial.primary.clone();
        let moment = trial.faults.freeze(&old, CONTAINER).await?;
        trial.faults.wipe(&old).await?;
        trial.faults.kill(&old, CONTAINER).await?;
        trial.began(moment, &format!("the container of {old} is gone, and everything on its volume"))?;
        trial.failed_over(SOON).await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

/// Something to clone that takes a moment.
async fn fill_with_data(trial: &Trial) -> Result<()> {
    trial.shop.write(&["CREATE DATABASE bulk", "CREATE TABLE bulk.t (id INT PRIMARY KEY, v LONGBLOB)"]).await?;
    for id in 0..ROWS {
        trial.shop.write(&[&format!("INSERT INTO bulk.t VALUES ({id}, REPEAT(RANDOM_BYTES(1024), 16384))")]).await?;
    }
    trial.step(&format!("{} MiB of data", ROWS * 16));
    Ok(())
}

async fn wait_cloning(trial: &Trial, instance: &str) -> Result<()> {
    let cloning = |status: &MySQLClusterStatus| {
        let is = |found: &common::crd::InstanceStatus| found.state == Some(InstancePhase::Cloning);
        status.instances.iter().any(|found| found.name == instance && is(found))
    };
    let shop = trial.shop.clone();
    trial.soon(&format!("{instance} to clone"), BEGIN, async || Ok(cloning(&shop.status().await?))).await
}

/// Who is being cloned from.
async fn donor(trial: &Trial, candidates: &[String]) -> Result<String> {
    let sql = "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_USER='pelorus_clone'";
    let begun = Instant::now();
    let mut sessions = Vec::new();
    for pod in candidates {
        sessions.push((pod, trial.shop.instance(pod).await?.connect().await?));
    }
    while begun.elapsed() < BEGIN {
        for (pod, session) in &mut sessions {
            let row: Option<(i64,)> = session.first(sql, ANSWER).await?;
            if row.is_some_and(|(count,)| count > 0) {
                return Ok((*pod).clone());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("nobody was cloned from within {BEGIN:?}")
}

#[tokio::test]
async fn f40_a_clone_that_is_interrupted_begins_again() -> Result<()> {
    row("F40", async |trial| {
        fill_with_data(trial).await?;
        trial.shop.patch(json!({"instances": 4})).await?;
        for pause in [50, 300, 800] {
            wait_cloning(trial, "shop-3").await?;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // One that was faster than this is cloned; the others begin again from nothing.
            match trial.kill("shop-3", CONTAINER).await {
                Ok(()) => trial.step("the recipient was killed"),
                Err(error) => trial.step(&format!("the recipient could not be killed: {error:#}")),
            }
        }
        trial.shop.wait_ready(4, GROWN).await?;
        trial.mended("nobody kills it any more");
        let candidates: Vec<String> = trial.shop.pods().await?.into_keys().collect();
        trial.shop.patch(json!({"instances": 5})).await?;
        let from = donor(trial, &candidates).await?;
        trial.kill(&from, MYSQLD).await?;
        trial.step(&format!("the donor {from} was killed"));
        trial.shop.wait_ready(5, GROWN).await?;
        trial.mended("nobody is killed any more");
        settled(&trial.shop, 5, Duration::from_secs(60)).await?;
        Ok(Expect::changes_within(0..=1).instances(5).lines(BEGUN_AGAIN))
    })
    .await
}

#[tokio::test]
async fn f41_donor_and_primary_die_while_an_instance_is_cloned() -> Result<()> {
    row("F41", async |trial| {
        fill_with_data(trial).await?;
        let old = trial.primary.clone();
        let candidates = [vec![old.clone()], trial.replicas.clone()].concat();
        trial.shop.patch(json!({"instances": 4})).await?;
        let from = donor(trial, &candidates).await?;
        trial.step(&format!("{from} is cloned from"));
        // The donor first: it could be the new primary by the time that it dies, and then that has changed twice.
        if from != old {
            trial.faults.kill(&from, MYSQLD).await?;
        }
        trial.kill(&old, MYSQLD).await?;
        trial.shop.wait_ready(4, GROWN).await?;
        trial.mended("nobody is killed any more");
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1).instances(4).lines(BEGUN_AGAIN))
    })
    .await
}

//! What cannot be proven is refused until it can be, and nobody is promoted who should not be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::crd::MySQLClusterStatus;
use common::names;
use pelorus_dev::fault::Direction;
use serde_json::json;
use tests::faults::{CONTAINER, MYSQLD, Undo};
use tests::ledger::Options;
use tests::pace::{Look, until};
use tests::sessions::ANSWER;
use tests::trial::{Expect, SOON, Setup, Trial, row, row_with};

/// A refused failover goes on so soon after what it waited for is back.
const AFTER_RETURN: Duration = Duration::from_secs(10);
/// The list says an hour (F32).
const RACE: Duration = Duration::from_secs(60);
/// What is said while an instance is rebuilt.
const REBUILT: &[&str] = &["its data is thrown away", "saved what is"];
/// An acker that is of no use stops counting by then.
const STRUCK: Duration = Duration::from_secs(60);

#[tokio::test]
async fn f28_acker_down_then_the_primary_is_refused_until_it_is_back() -> Result<()> {
    row("F28", async |trial| {
        let old = trial.primary.clone();
        let acker = trial.replicas.first().context("no replica")?.clone();
        trial.freeze(&acker, CONTAINER).await?;
        trial.isolate(&old).await?;
        trial.refused("QuorumNotProvable", SOON).await?;
        let before = trial.acknowledged()?;
        trial.stays(&old, Duration::from_secs(5)).await?;
        ensure!(trial.acknowledged()? == before, "somebody acknowledged without proof");
        let returned = trial.now();
        trial.undo(&Undo::Thaw(trial.faults.mysql(&acker, CONTAINER))).await?;
        trial.failed_over(SOON).await?;
        let waited = trial.now().saturating_sub(returned);
        ensure!(waited < AFTER_RETURN, "{waited:?} from the acker's return to the first write");
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f29_sole_acker_restarts_while_the_primary_is_gone() -> Result<()> {
    row_with("F29", Setup::of(2), async |trial| {
        let old = trial.primary.clone();
        let acker = trial.replicas.first().context("no replica")?.clone();
        trial.isolate(&old).await?;
        trial.kill(&acker, CONTAINER).await?;
        let elected =
            |status: &MySQLClusterStatus| status.primary.as_ref() == Some(&acker) && status.operation.is_none();
        trial.shop.wait_status(&format!("{acker} to be primary"), Duration::from_secs(60), elected).await?;
        trial.step(&format!("{acker} was elected on what its relay log kept"));
        // Nobody is left to acknowledge: writes wait for the old primary, which comes back as a replica.
        trial.heal().await?;
        trial.failed_over(Duration::from_secs(60)).await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f30_majority_lost_is_refused_until_a_person_accepts_the_loss() -> Result<()> {
    row("F30", async |trial| {
        let old = trial.primary.clone();
        let [lost, left] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (lost, left) = (lost.clone(), left.clone());
        trial.freeze(&lost, CONTAINER).await?;
        // From here on every acknowledgement is that of the one that will be left: what is accepted below is no loss.
        tokio::time::sleep(Duration::from_secs(2)).await;
        trial.isolate(&old).await?;
        trial.refused("QuorumNotProvable", SOON).await?;
        let epoch = trial.shop.status().await?.epoch();
        let wrong = (epoch + 7).to_string();
        trial.shop.annotate(names::ANNOTATION_ACCEPT_LOSS, Some(&wrong)).await?;
        trial.stays(&old, Duration::from_secs(5)).await?;
        trial.shop.annotate(names::ANNOTATION_ACCEPT_LOSS, Some(&epoch.to_string())).await?;
        trial.step(&format!("the loss of epoch {epoch} is accepted"));
        let taken = |status: &MySQLClusterStatus| status.primary.as_ref() == Some(&left) && status.operation.is_none();
        let status = trial.shop.wait_status(&format!("{left} to be primary"), Duration::from_secs(60), taken).await?;
        let kept: Vec<&str> = status.losses.iter().map(|loss| loss.kept.as_str()).collect();
        ensure!(kept == [left.as_str()], "recorded for ever: {:?}", status.losses);
        let shop = trial.shop.clone();
        let told = async || Ok(shop.event_reasons().await?.contains("LossAccepted"));
        trial.soon("an Event LossAccepted", SOON, told).await?;
        // Nobody is left to acknowledge: writes wait for the others.
        trial.heal().await?;
        trial.shop.annotate(names::ANNOTATION_ACCEPT_LOSS, None).await?;
        trial.failed_over(Duration::from_secs(60)).await?;
        trial.whole().await?;
        Ok(Expect::changes(1).lines(&["loss accepted"]))
    })
    .await
}

/// Commits something on a replica that nobody else has.
pub async fn spoil(trial: &Trial, pod: &str) -> Result<String> {
    let source = uuid::Uuid::new_v4();
    let sql = format!(
        "SET GLOBAL super_read_only=OFF; SET SESSION gtid_next='{source}:1'; BEGIN; COMMIT; \
         SET SESSION gtid_next='AUTOMATIC'; SET GLOBAL super_read_only=ON"
    );
    trial.shop.local_sql(pod, &sql).await?;
    Ok(format!("{source}:1"))
}

#[tokio::test]
async fn f31_an_errant_replica_is_never_promoted() -> Result<()> {
    row("F31", async |trial| {
        let [spoilt, good] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (spoilt, good) = (spoilt.clone(), good.clone());
        spoil(trial, &spoilt).await?;
        trial.step(&format!("{spoilt} holds a transaction that nobody else has"));
        let seen = |status: &MySQLClusterStatus| {
            let named = |set: &Option<String>| set.as_ref().is_some_and(|set| !set.is_empty());
            status.instances.iter().any(|instance| instance.name == spoilt && named(&instance.errant))
        };
        trial.shop.wait_status(&format!("{spoilt} to be called errant"), Duration::from_secs(30), seen).await?;
        let out = |status: &MySQLClusterStatus| !status.ackers.contains(&spoilt) && status.operation.is_none();
        trial.shop.wait_status(&format!("{spoilt} to count no more"), STRUCK, out).await?;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        ensure!(trial.shop.primary().await? == good, "{good} is the only one that may be promoted");
        trial.shop.annotate(names::ANNOTATION_REBUILD, Some(&spoilt)).await?;
        trial.mended(&format!("a person lets {spoilt} be rebuilt"));
        trial.whole().await?;
        Ok(Expect::changes(1).spoilt(&[spoilt]).lines(REBUILT))
    })
    .await
}

#[tokio::test]
async fn f32_no_replica_is_called_errant_by_mistake() -> Result<()> {
    let load = Options { writers: 8, rest: Duration::from_millis(3), ..Options::impatient() };
    row_with("F32", Setup::default().writing(load), async |trial| {
        let begun = Instant::now();
        let mut moves = 0;
        trial.began(begun, "the primary is moved around under load")?;
        while begun.elapsed() < RACE {
            let next = trial.shop.replicas().await?.into_iter().next_back().context("no replica")?;
            trial.shop.patch(json!({"primary": next})).await?;
            let moved = |status: &MySQLClusterStatus| status.primary.as_ref() == Some(&next);
            trial.shop.wait_status(&format!("{next} to be primary"), Duration::from_secs(60), moved).await?;
            moves += 1;
            trial.whole().await?;
        }
        trial.shop.patch(json!({"primary": null})).await?;
        Ok(Expect::changes(moves).never_errant())
    })
    .await
}

#[tokio::test]
async fn f33_two_candidates_that_diverge_are_refused() -> Result<()> {
    row("F33", async |trial| {
        let old = trial.primary.clone();
        let [one, other] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (one, other) = (one.clone(), other.clone());
        let (of_one, of_other) = tokio::try_join!(spoil(trial, &one), spoil(trial, &other))?;
        trial.isolate(&old).await?;
        trial.refused("SplitHistory", Duration::from_secs(40)).await?;
        trial.stays(&old, Duration::from_secs(10)).await?;
        trial.heal().await?;
        // A person decides: both transactions are empty, and count as known everywhere.
        for (pod, unknown) in [(&old, vec![&of_one, &of_other]), (&one, vec![&of_other]), (&other, vec![&of_one])] {
            for set in unknown {
                let (sql, what) = (format!("SET GLOBAL gtid_purged='+{set}'"), format!("{pod} to take {set}"));
                // A mysqld that is down comes back first.
                until(&what, SOON, async || Ok(Look::Done(trial.shop.local_sql(pod, &sql).await?))).await?;
            }
        }
        // Too late for one that has been told to follow in the meantime: it is rebuilt.
        trial.mended("both transactions are known everywhere");
        // No binlog has them, and so a restore needs a dump from after them: F52 is about that.
        trial.bucket = None;
        let lines = [REBUILT, &["binlogs were purged before they were shipped"]].concat();
        Ok(Expect::changes_within(0..=1).spoilt(&[one, other]).lines(&lines))
    })
    .await
}

/// A statement on a replica that nobody else sees.
fn quietly(sql: &str) -> String {
    format!("SET SESSION sql_log_bin=0; SET GLOBAL super_read_only=OFF; {sql}; SET GLOBAL super_read_only=ON")
}

#[tokio::test]
async fn f34_a_replica_whose_applier_is_broken_is_not_promoted() -> Result<()> {
    row("F34", async |trial| {
        let [broken, good] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (broken, good) = (broken.clone(), good.clone());
        trial.shop.local_sql(&broken, &quietly("CREATE USER 'clash'@'%' ACCOUNT LOCK")).await?;
        trial.shop.write(&["CREATE USER 'clash'@'%' ACCOUNT LOCK"]).await?;
        trial.step(&format!("{broken} receives everything and applies nothing more"));
        trial.written(50).await?;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        // Which of them has received more is chance. Where the broken one alone has everything, nobody is promoted until the old
        // primary is back with it.
        let over = |status: &MySQLClusterStatus| status.epoch() > 1 && status.operation.is_none();
        let primary = trial.shop.wait_status("the end of the failover", SOON, over).await?.primary;
        trial.step(&format!("the primary is {primary:?}, {good} can apply and {old} was it"));
        ensure!(primary.as_ref() != Some(&broken), "{broken} never applies what it has received");
        if primary == Some(good) {
            trial.failed_over(SOON).await?;
        }
        trial.shop.local_sql(&broken, &quietly("DROP USER 'clash'@'%'")).await?;
        trial.mended(&format!("{broken} can apply again"));
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

/// The good replica hears nothing more, so that the broken one alone acknowledges: nobody can be promoted but who acknowledged.
#[tokio::test]
async fn f34_where_a_broken_replica_alone_holds_everything_the_old_primary_is_started() -> Result<()> {
    row("F34", async |trial| {
        let [broken, good] = trial.replicas.as_slice() else { anyhow::bail!("two replicas were expected") };
        let (broken, good, old) = (broken.clone(), good.clone(), trial.primary.clone());
        trial.shop.local_sql(&broken, &quietly("CREATE USER 'clash'@'%' ACCOUNT LOCK")).await?;
        let (of_good, of_old) = (trial.faults.party(&good), trial.faults.party(&old));
        trial.faults.lose(of_good, of_old, Direction::Both, 100).await?;
        trial.shop.write(&["CREATE USER 'clash'@'%' ACCOUNT LOCK"]).await?;
        trial.written(50).await.context("the broken replica acknowledges what it cannot apply")?;
        trial.kill(&old, MYSQLD).await?;
        trial.heal().await?;
        let over = |status: &MySQLClusterStatus| status.epoch() > 1 && status.operation.is_none();
        let primary = trial.shop.wait_status("the end of the failover", SOON, over).await?.primary;
        ensure!(primary.as_ref() == Some(&old), "{primary:?} cannot hold everything, {old} does");
        trial.written_within(50, SOON).await?;
        trial.shop.local_sql(&broken, &quietly("DROP USER 'clash'@'%'")).await?;
        trial.mended(&format!("{broken} can apply again"));
        trial.whole().await?;
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f31_reads_of_an_errant_replica_go_elsewhere() -> Result<()> {
    row("F31", async |trial| {
        let spoilt = trial.replicas.first().context("no replica")?.clone();
        ensure!(trial.shop.serves_as_replica(&spoilt).await?, "{spoilt} serves reads");
        spoil(trial, &spoilt).await?;
        let shop = trial.shop.clone();
        let gone = async || Ok(!shop.serves_as_replica(&spoilt).await?);
        trial.soon(&format!("{spoilt} to serve no more"), Duration::from_secs(30), gone).await?;
        let session = trial.shop.instance(&spoilt).await?.connect().await;
        if let Ok(mut session) = session {
            let state: Option<(String,)> = session
                .first(
                    "SELECT COALESCE(MAX(SERVICE_STATE), 'OFF') FROM performance_schema.replication_connection_status",
                    ANSWER,
                )
                .await?;
            trial.step(&format!("{spoilt} lets clients in; its receiver is {state:?}"));
        }
        Ok(Expect::unchanged().apart(&[spoilt]))
    })
    .await
}

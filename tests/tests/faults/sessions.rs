//! What sessions are at when the primary changes: waiting for an acknowledgement, in a huge or a prepared transaction,
//! holding a backup lock; and what parallel appliers make of a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::names::account;
use pelorus_dev::fault::Direction;
use tests::Cluster;
use tests::faults::MYSQLD;
use tests::ledger::Options;
use tests::sessions::{ANSWER, Target};
use tests::trial::{Expect, SOON, Setup, row, row_with};

/// Sessions that wait; without the thread that collects acknowledgements, whose state reads the same. Of those that commit
/// together one waits for the acknowledgement, the others for that one.
const WAITING: &str = "SELECT PROCESSLIST_ID FROM performance_schema.threads \
    WHERE PROCESSLIST_ID IS NOT NULL AND (PROCESSLIST_STATE LIKE 'Waiting for semi-sync%' \
    OR PROCESSLIST_STATE LIKE 'waiting for handler commit%')";
/// How long waiting sessions are killed (F37).
const STORM: Duration = Duration::from_secs(8);
/// Rows of 16 MiB in the huge transaction (F45; the list says 3 GB).
const HUGE_ROWS: usize = 20;
/// Longest that any part of it may take.
const HUGE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn f36_parallel_appliers_keep_the_order_through_crashes() -> Result<()> {
    let load = Options { writers: 8, rest: Duration::from_millis(3), ..Options::impatient() };
    row_with("F36", Setup::default().writing(load), async |trial| {
        let replica = trial.replicas.first().context("no replica")?.clone();
        let sql = "SELECT @@GLOBAL.replica_preserve_commit_order AND @@GLOBAL.replica_parallel_workers > 1";
        let ordered: i64 = trial.shop.value(&replica, sql).await?;
        ensure!(ordered == 1, "appliers do not keep the order of commits, or are not parallel");
        for _ in 0..3 {
            trial.kill(&replica, MYSQLD).await?;
            trial.whole().await?;
        }
        Ok(Expect::unchanged())
    })
    .await
}

#[tokio::test]
async fn f37_sessions_killed_while_they_wait_for_an_acknowledgement() -> Result<()> {
    // Writers that wait for their answer: the KILL finds them waiting.
    let waiting = Options { writers: 8, rest: Duration::from_millis(5), ..Options::default() };
    row_with("F37", Setup::default().writing(waiting), async |trial| {
        let primary = trial.primary.clone();
        for replica in trial.replicas.clone() {
            let (from, to) = (trial.faults.party(&primary), trial.faults.party(&replica));
            trial.faults.lose(from, to, Direction::OneWay, 100).await?;
        }
        trial.began(std::time::Instant::now(), "nobody acknowledges")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = trial.acknowledged()?;
        let mut killer = trial.shop.instance(&primary).await?.connect().await?;
        let (begun, mut killed) = (std::time::Instant::now(), BTreeSet::new());
        while begun.elapsed() < STORM {
            for (id,) in killer.rows::<(u64,)>(WAITING, ANSWER).await? {
                // Its client is told at once; the session itself stays until somebody acknowledges.
                if killed.insert(id) {
                    killer.kill(id, ANSWER).await?;
                }
            }
            ensure!(trial.acknowledged()? == before, "a killed session was told OK");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        trial.step(&format!("{} waiting sessions were killed", killed.len()));
        ensure!(killed.len() >= 4, "only {} sessions waited", killed.len());
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes_within(0..=1))
    })
    .await
}

/// Commits one huge transaction through the primary Service.
async fn huge(shop: Cluster, batch: usize) -> Result<()> {
    shop.through_primary(async move |session| {
        session.exec("BEGIN", ANSWER).await?;
        for row in 0..HUGE_ROWS {
            let sql = format!("INSERT INTO huge.t VALUES ({batch}, {row}, REPEAT(RANDOM_BYTES(1024), 16384))");
            session.exec(&sql, HUGE).await?;
        }
        session.exec("COMMIT", HUGE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f45_huge_transaction_is_no_hang_and_whole_or_not_there() -> Result<()> {
    let mut setup = Setup::default().patient();
    setup.spec.config.insert("innodb_buffer_pool_size".to_owned(), "128M".to_owned());
    row_with("F45", setup, async |trial| {
        let create = "CREATE TABLE huge.t (batch INT, id INT, v LONGBLOB, PRIMARY KEY (batch, id))";
        trial.shop.write(&["CREATE DATABASE huge", create]).await?;
        huge(trial.shop.clone(), 0).await.context("a huge transaction without a fault")?;
        trial.never("FailoverStarted").await?;
        trial.step("one was committed, nothing was taken for a hang");
        let writing = tokio::spawn(huge(trial.shop.clone(), 1));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(Duration::from_secs(60)).await?;
        let told = writing.await?;
        trial.whole().await?;
        let counts: Vec<(i64, i64)> = trial
            .shop
            .rows(&trial.shop.primary().await?, "SELECT batch, COUNT(*) FROM huge.t GROUP BY batch ORDER BY batch")
            .await?;
        trial.step(&format!("the writer was told {told:?}; there are {counts:?}"));
        let rows = i64::try_from(HUGE_ROWS)?;
        ensure!(counts.iter().all(|(_, count)| *count == rows), "part of a transaction is there: {counts:?}");
        ensure!(told.is_err() || counts.len() == 2, "the writer was told OK, and its rows are lost");
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f47_prepared_xa_transaction_survives_the_failover() -> Result<()> {
    row("F47", async |trial| {
        let old = trial.primary.clone();
        trial.shop.write(&["CREATE DATABASE xa", "CREATE TABLE xa.t (id INT PRIMARY KEY)"]).await?;
        trial
            .shop
            .write(&["XA START 'f47'", "INSERT INTO xa.t VALUES (1)", "XA END 'f47'", "XA PREPARE 'f47'"])
            .await?;
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        let next = trial.shop.primary().await?;
        let prepared: Vec<(i64, i64, i64, String)> = trial.shop.rows(&next, "XA RECOVER").await?;
        ensure!(prepared.iter().any(|(.., name)| name == "f47"), "XA RECOVER on {next} shows {prepared:?}");
        trial.shop.write(&["XA COMMIT 'f47'"]).await?;
        trial.whole().await?;
        for pod in trial.shop.wait_caught_up(Duration::from_secs(30)).await? {
            let count: i64 = trial.shop.value(&pod, "SELECT COUNT(*) FROM xa.t").await?;
            ensure!(count == 1, "{pod} has {count} rows of the prepared transaction");
        }
        Ok(Expect::changes(1))
    })
    .await
}

#[tokio::test]
async fn f48_backup_locks_do_not_hold_up_a_failover() -> Result<()> {
    row("F48", async |trial| {
        let credentials = trial.shop.account(account::BACKUP).await?;
        let mut holders = Vec::new();
        for pod in trial.shop.pods().await?.into_keys() {
            let target = Target { credentials: credentials.clone(), ..trial.shop.instance(&pod).await? };
            let mut session = target.connect().await?;
            session.exec("LOCK INSTANCE FOR BACKUP", ANSWER).await?;
            session.exec("START TRANSACTION WITH CONSISTENT SNAPSHOT", ANSWER).await?;
            holders.push(session);
        }
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        drop(holders);
        trial.whole().await?;
        Ok(Expect::changes(1).lines(&["ended a session"]))
    })
    .await
}

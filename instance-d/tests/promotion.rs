//! Promotions on real servers: what they wait for, and what does not hold them up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use common::instance::{DemoteOrder, FenceOrder, InstanceState, Phase, PromoteOrder, RefusalCode, Role};
use nix::sys::signal::Signal;
use scene::{CALL, SQL, Scene, promotion, refused};

const SHORT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_primary_opens_only_when_its_tail_is_proven() {
    let mut scene = Scene::cluster(2, 1).await;
    scene.dies_with_a_tail().await;
    scene.start(1);
    scene.until(1, "crashed", |state| state.phase == Phase::Crashed).await;
    scene.promote(0, 2, 1, &[1]).await.unwrap();
    let state = scene
        .until(0, "closed as a source", |state| {
            state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.enabled) && !state.in_force
        })
        .await;
    assert!(state.tail_unproven && state.mysqld.as_ref().unwrap().super_read_only);
    assert!(scene.sql(0, "admin").await.is_err(), "closed to clients");
    let executed = state.mysqld.unwrap().executed;

    // The acker fetches the tail; what it holds opens the primary.
    scene.follow(1, 2, 0, true).await.unwrap();
    let acker = scene.until(1, "holding the tail", |state| {
        state.mysqld.as_ref().is_some_and(|mysqld| executed.is_subset(&mysqld.received))
    });
    let received = acker.await.mysqld.unwrap().received;
    let order = PromoteOrder { apply_timeout_ms: 1000, proven: Some(received), ..promotion(2, 1, &[1]) };
    let state = scene.failover(0).promote(&order, CALL).await.unwrap();
    assert!(state.in_force && !state.tail_unproven);
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    scene.until_value(1, "SELECT COUNT(*) FROM t.`rows`", "2").await;
}

/// Its only acker is lost: another gets its data, and proves with that what it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stays_closed_is_cloned_and_opens_on_the_word_of_its_clone() {
    let mut scene = Scene::cluster(2, 1).await;
    scene.dies_with_a_tail().await;
    scene.start(2);
    scene.until(2, "empty", |state| state.phase == Phase::Empty).await;
    scene.promote(0, 2, 1, &[1]).await.unwrap();
    let closed = |state: &InstanceState| {
        state.tail_unproven && state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.enabled)
    };
    let held = scene.until(0, "closed as a source", closed).await.mysqld.unwrap().executed;

    scene.clone_from(2, 0, None).await.unwrap();
    let copy = scene.until(2, "cloned", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    let received = copy.mysqld.unwrap().received;
    assert_eq!(received, held, "the tail came along");
    // It is locked out as long as it is no acker: it comes to no source, but has promised what it is told.
    assert!(scene.follow(2, 2, 0, false).await.is_err());
    assert_eq!(scene.failover(2).state(CALL).await.unwrap().promised, 2);
    let order = PromoteOrder { apply_timeout_ms: 1000, proven: Some(received), ..promotion(2, 1, &[1, 2]) };
    let state = scene.failover(0).promote(&order, CALL).await.unwrap();
    assert!(state.in_force && !state.tail_unproven);
    scene.follow(2, 2, 0, true).await.unwrap();
    scene.until_connected(2).await;
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "2").await;

    // A late order does not take the data of who acknowledges by now.
    let data = scene.failover(2).state(CALL).await.unwrap().data_id;
    assert_eq!(refused(scene.clone_from(2, 0, data).await).0, RefusalCode::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_may_hold_more_than_others_feeds_them_before_it_opens() {
    let mut scene = Scene::cluster(3, 1).await;
    let mut admin = scene.make_table(0).await;
    scene.failover(2).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.power_off(0);
    let order = |tail_unproven| PromoteOrder { tail_unproven, ..promotion(2, 1, &[2]) };
    let state = scene.failover(1).promote(&order(true), CALL).await.unwrap();
    let mysqld = state.mysqld.unwrap();
    assert!(!state.in_force && mysqld.super_read_only && mysqld.source.enabled);
    assert!(scene.sql(1, "admin").await.is_err(), "nobody reads there");
    scene.follow(2, 2, 1, true).await.unwrap();
    scene.until(2, "holding all", |state| mysqld.executed.is_subset(&state.mysqld.as_ref().unwrap().received)).await;
    let state = scene.failover(1).promote(&order(false), CALL).await.unwrap();
    assert!(state.in_force && !state.tail_unproven);
    scene.admin(1).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_candidate_of_a_switchover_opens_when_it_has_received_the_rest() {
    let scene = Scene::cluster(3, 1).await;
    let mut admin = scene.make_table(0).await;
    let mut local = scene.local(1).await;
    local.exec("STOP REPLICA IO_THREAD", SQL).await.unwrap();
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    let closed = scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 2000, kill: false }, CALL).await.unwrap();
    let order = PromoteOrder { must_hold: Some(closed.mysqld.unwrap().executed), ..promotion(2, 1, &[0, 2]) };
    let (code, message) = refused(scene.failover(1).promote(&order, CALL).await);
    assert!(code == RefusalCode::Failed && message.contains("is missing"), "nothing comes any more: {message}");

    // The old primary says nothing for a while: what is missing may still come.
    scene.signal_mysqld(0, Signal::SIGSTOP);
    local.exec("START REPLICA IO_THREAD", SQL).await.unwrap();
    let client = scene.failover(1);
    let promoted = tokio::spawn(async move { client.promote(&order, CALL).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!promoted.is_finished());
    assert_eq!(scene.value(1, "SELECT @@super_read_only").await, "1");
    scene.signal_mysqld(0, Signal::SIGCONT);
    let state = promoted.await.unwrap().unwrap();
    assert!(state.in_force && !state.mysqld.unwrap().read_only);
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM t.`rows`").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_transaction_and_a_backup_lock_do_not_hold_up_a_promotion() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("CREATE TABLE t.big (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)", SQL).await.unwrap();
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    let relay = || {
        std::fs::read_dir(scene.volume(1).join("data"))
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("relay."))
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum::<u64>()
    };
    let before = relay();
    let writer = tokio::spawn(async move {
        let rows = vec!["(REPEAT('x', 8000000))"; 30].join(",");
        admin.exec(&format!("INSERT INTO t.big (b) VALUES {rows}"), Duration::from_secs(60)).await
    });
    while relay() < before + 4_000_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    scene.signal_mysqld(0, Signal::SIGSTOP);
    let state = scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    assert!(relay() < before + 240_000_000, "only a part was received");
    // The end of what was being applied is refused while somebody holds this.
    let mut backup = scene.local(1).await;
    backup.exec("LOCK INSTANCE FOR BACKUP", SQL).await.unwrap();
    let begun = std::time::Instant::now();
    let opened = scene.promote(1, 2, 0, &[]).await.unwrap();
    assert!(begun.elapsed() < SHORT, "{:?}", begun.elapsed());
    assert!(opened.in_force);
    assert!(backup.exec("SELECT 1", SQL).await.is_err());
    assert_eq!(opened.mysqld.unwrap().executed, state.mysqld.unwrap().received);
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM t.big").await, "0");
    scene.admin(1).await.exec("INSERT INTO t.big (b) VALUES ('new')", SQL).await.unwrap();
    drop(scene);
    assert!(writer.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_sent_ahead_to_the_candidate_acknowledges_from_the_first_write() {
    let scene = Scene::cluster(3, 1).await;
    let mut admin = scene.make_table(0).await;
    // The third replicates through the second, which is no source of acknowledged writes yet.
    scene.follow(2, 2, 1, true).await.unwrap();
    scene.until_connected(2).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "1").await;
    // And if the hand-over is given up, it comes back in the next epoch.
    scene.follow(2, 3, 0, true).await.unwrap();
    scene.until_connected(2).await;
    scene.follow(2, 4, 1, true).await.unwrap();
    scene.until_connected(2).await;
    let demoted =
        scene.failover(0).demote(&DemoteOrder { epoch: 4, budget_ms: 2000, kill: false }, CALL).await.unwrap();
    let all = demoted.mysqld.unwrap().executed;
    let looked = scene.failover(1).look(CALL).await.unwrap();
    assert!(all.is_subset(&looked.mysqld.unwrap().received));
    let begun = std::time::Instant::now();
    scene.promote(1, 4, 1, &[0, 2]).await.unwrap();
    let promoted = begun.elapsed();
    let mut admin = scene.admin(1).await;
    admin.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    println!("promoted in {promoted:?}, first write acknowledged after {:?}", begun.elapsed());
    let source = scene.until(1, "acknowledged", |state| state.mysqld.is_some()).await.mysqld.unwrap().source;
    assert_eq!((source.enabled, source.acks_needed, source.dumps), (true, 1, vec!["pelorus_repl_2".to_owned()]));
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "2").await;
    scene.follow(0, 4, 1, true).await.unwrap();
    scene.until_value(0, "SELECT COUNT(*) FROM t.`rows`", "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_primary_that_dies_while_it_removes_its_channel_follows_again() {
    let scene = Scene::cluster(2, 0).await;
    let mut epoch = 1;
    // The removal takes some milliseconds after the answer.
    for delay in (0..10).map(Duration::from_millis) {
        scene.failover(1).fence(&FenceOrder { epoch: epoch + 1, start: false }, CALL).await.unwrap();
        scene.promote(1, epoch + 1, 0, &[]).await.unwrap();
        tokio::time::sleep(delay).await;
        scene.signal_mysqld(1, Signal::SIGKILL);
        scene.until(1, "crashed", |state| state.phase == Phase::Crashed).await;
        epoch += 3;
        if delay.as_millis() % 2 == 0 {
            scene.failover(1).fence(&FenceOrder { epoch: epoch - 1, start: true }, CALL).await.unwrap();
            scene.until(1, "fenced", |state| state.in_force && state.role == Role::Fenced).await;
        }
        scene.follow(1, epoch, 0, true).await.unwrap();
        scene.until_connected(1).await;
    }
    assert!(scene.log(1).contains("of an earlier promotion"), "it never died in the midst of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_sessions_do_not_hold_up_a_promotion_and_a_half_open_primary_is_opened() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    scene.until_value(1, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='t'", "1").await;
    let (mut backup, mut reader) = (scene.local(1).await, scene.admin(1).await);
    backup.exec("LOCK INSTANCE FOR BACKUP", SQL).await.unwrap();
    reader.exec("LOCK TABLES t.`rows` READ", SQL).await.unwrap();
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    let begun = std::time::Instant::now();
    let opened = scene.promote(1, 2, 0, &[]).await.unwrap();
    assert!(begun.elapsed() < SHORT && opened.in_force, "{:?}", begun.elapsed());
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM t.`rows`").await, "1");
    assert!(backup.exec("SELECT 1", SQL).await.is_err() && reader.exec("SELECT 1", SQL).await.is_err());
    assert_eq!(scene.log(1).matches("ended a session").count(), 2);
    // As if the order had been cut in the midst of opening: the next completes it.
    scene.local(1).await.exec("SET GLOBAL super_read_only=ON", SQL).await.unwrap();
    scene.promote(1, 2, 0, &[]).await.unwrap();
    scene.admin(1).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
}

//! From an empty volume to a replicating cluster, and through restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::{Duration, Instant};

use common::instance::{InitialiseOrder, InstanceState, Phase, RefusalCode, Role};
use scene::{CALL, SQL, Scene, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_initialise_alike_and_replicate() {
    let begun = Instant::now();
    let mut scene = Scene::new(3);
    scene.initialise(&[0, 1, 2]).await;
    let initialised = begun.elapsed();
    let accounts = "SELECT GROUP_CONCAT(User,'@',Host,ssl_type,account_locked ORDER BY User) FROM mysql.user";
    let first = scene.value(0, accounts).await;
    assert!(!first.contains("root"), "{first}");
    for ordinal in 0..3 {
        assert_eq!(scene.value(ordinal, "SELECT @@gtid_executed").await, "");
        assert_eq!(scene.value(ordinal, accounts).await, first);
        assert_eq!(scene.value(ordinal, "SELECT @@super_read_only + @@offline_mode").await, "2");
        assert!(scene.sql(ordinal, "admin").await.is_err(), "closed until an order opens it");
    }
    let again = scene.topology(0).initialise(&InitialiseOrder {}, CALL).await;
    assert_eq!(refused(again).0, RefusalCode::HoldsData);

    let state = scene.promote(0, 1, 1, &[1, 2]).await.unwrap();
    assert!(state.in_force);
    assert_eq!(state.role, Role::Primary { acks_needed: 1, struck: (3..9).collect() });
    for ordinal in [1, 2] {
        let state = scene.follow(ordinal, 1, 0, true).await.unwrap();
        assert!(state.in_force);
    }
    for ordinal in [1, 2] {
        scene.until_connected(ordinal).await;
    }
    let ready = begun.elapsed();
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1),(2)", SQL).await.unwrap();
    for ordinal in [1, 2] {
        scene.until_value(ordinal, "SELECT COUNT(*) FROM t.`rows`", "2").await;
    }
    let quiet = scene.until(0, "followed by both, with nobody waiting", |state| {
        let source = &state.mysqld.as_ref().unwrap().source;
        (source.dumps.len(), source.waiters) == (2, 0)
    });
    let source = quiet.await.mysqld.unwrap().source;
    assert!(source.enabled);
    assert_eq!(source.acks_needed, 1);
    assert_eq!(scene.value(0, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME='Rpl_semi_sync_source_no_tx'").await, "0");
    println!("initialised after {initialised:?}, replicating after {ready:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    let _ = Phase::Running;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_comes_back_after_a_clean_stop_and_after_a_crash() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();

    scene.terminate(1);
    scene.ended(1).await;
    assert!(scene.volume(1).join("clean").exists());
    scene.start(1);
    // Starts by itself after a clean stop, closed, and remembers what it was.
    let state = scene.until(1, "running", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    assert!(!state.in_force);
    assert_eq!(state.role, Role::Replica { source: "db-0".into(), acknowledges: true });
    let mysqld = state.mysqld.unwrap();
    assert!(mysqld.offline && mysqld.super_read_only);
    scene.follow(1, 1, 0, true).await.unwrap();
    scene.until_connected(1).await;
    admin.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();

    scene.power_off(1);
    assert!(!scene.volume(1).join("clean").exists());
    scene.start(1);
    scene.until(1, "waiting for an order", |state| state.phase == Phase::Crashed && state.mysqld.is_none()).await;
    let state = scene.follow(1, 1, 0, true).await.unwrap();
    assert_eq!(state.phase, Phase::Starting, "accepted at once");
    scene.until_connected(1).await;
    admin.exec("INSERT INTO t.`rows` VALUES (3)", SQL).await.unwrap();
    scene.until_value(1, "SELECT COUNT(*) FROM t.`rows`", "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysqlds_death_is_reported_at_once() {
    let scene = Scene::cluster(1, 0).await;
    scene.signal_mysqld(0, nix::sys::signal::Signal::SIGKILL);
    let killed = Instant::now();
    let state = scene.until(0, "crashed", |state| state.phase == Phase::Crashed).await;
    assert!(killed.elapsed() < Duration::from_millis(500), "{:?}", killed.elapsed());
    assert!(state.mysqld.is_none() && state.canary.is_none() && !state.in_force);
    let said = |state: &InstanceState| state.problem.as_ref().is_some_and(|problem| problem.contains("signal: 9"));
    scene.until(0, "how it ended", said).await;
    // It needs no acknowledgement, so it may come back in place.
    scene.promote(0, 2, 0, &[]).await.unwrap();
    let state = scene.until(0, "back", |state| state.in_force).await;
    assert!(!state.tail_unproven && !state.mysqld.unwrap().read_only);
    // Told to start while the last one still holds its files: that one is waited for.
    scene.signal_mysqld(0, nix::sys::signal::Signal::SIGKILL);
    scene.until(0, "crashed", |state| state.phase == Phase::Crashed).await;
    scene.promote(0, 3, 0, &[]).await.unwrap();
    scene.until(0, "back", |state| state.in_force && !state.mysqld.as_ref().unwrap().read_only).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_data_directory_is_garbage() {
    let mut scene = Scene::new(1);
    let data = scene.volume(0).join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("ibdata1"), "half").unwrap();
    scene.start(0);
    scene.until(0, "empty", |state| state.phase == Phase::Empty && state.data_id.is_none()).await;
    scene.topology(0).initialise(&InitialiseOrder {}, CALL).await.unwrap();
    scene.until(0, "initialised", |state| state.phase == Phase::Running && state.data_id.is_some()).await;
}

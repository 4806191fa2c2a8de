//! SIGTERM: nobody gets a false OK, and a hand-over is waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use common::instance::{DemoteOrder, FenceOrder, Phase};
use scene::{CALL, SQL, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_a_primary_with_waiters_answers_nobody() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    scene.power_off(1);
    let waiter =
        tokio::spawn(async move { admin.exec("INSERT INTO t.`rows` VALUES (1)", Duration::from_secs(60)).await });
    scene.until(0, "waiting", |state| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.waiters > 0)).await;
    scene.terminate(0);
    scene.until(0, "leaving", |state| state.leaving).await;
    scene.ended(0).await;
    let answer = waiter.await.unwrap();
    assert!(answer.is_err() && answer.unwrap_err().code().is_none(), "no answer at all");
    assert!(!scene.volume(0).join("clean").exists());
    scene.start(0);
    scene.until(0, "crashed", |state| state.phase == Phase::Crashed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_primary_hands_over_and_goes() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.terminate(0);
    scene.until(0, "leaving", |state| state.leaving && state.in_force).await;
    admin.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    let old = scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 2000, kill: false }, CALL).await.unwrap();
    assert!(admin.exec("INSERT INTO t.`rows` VALUES (3)", SQL).await.is_err(), "its session was ended");
    scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    let new = scene.promote(1, 2, 0, &[0]).await.unwrap();
    assert_eq!(new.mysqld.unwrap().executed, old.mysqld.unwrap().executed);
    scene.follow(0, 2, 1, false).await.unwrap();
    let took = scene.ended(0).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(scene.volume(0).join("clean").exists());
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM t.`rows`").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_primary_stops_cleanly_and_comes_back() {
    let mut scene = Scene::cluster(1, 0).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.terminate(0);
    let took = scene.ended(0).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    scene.start(0);
    let state = scene.until(0, "running", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    assert!(!state.in_force && !state.tail_unproven);
    scene.promote(0, 1, 0, &[]).await.unwrap();
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_is_abandoned_at_once() {
    let mut scene = Scene::new(1);
    scene.start(0);
    scene.until(0, "empty", |state| state.phase == Phase::Empty).await;
    scene.topology(0).initialise(&common::instance::InitialiseOrder {}, CALL).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.terminate(0);
    assert!(scene.ended(0).await < Duration::from_secs(12));
    scene.start(0);
    // All or nothing: a quick machine had finished it within the time that leaving waits for an order.
    scene.until(0, "empty or whole", |state| matches!(state.phase, Phase::Empty | Phase::Running)).await;
}

//! Epochs, fences, acknowledgements and demotions on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use common::instance::{AcksOrder, DemoteOrder, FenceOrder, FollowOrder, Phase, ReceiverState, RefusalCode, Role};
use nix::sys::signal::Signal;
use scene::{CALL, SQL, Scene, refused};

const SHORT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_outlives_the_process_and_refuses_older_epochs() {
    let mut scene = Scene::cluster(2, 1).await;
    scene.failover(1).fence(&FenceOrder { epoch: 7, start: false }, CALL).await.unwrap();
    assert_eq!(refused(scene.follow(1, 6, 0, true).await).0, RefusalCode::EpochTooLow);
    scene.power_off(1);
    scene.start(1);
    let state = scene.until(1, "back", |state| state.phase == Phase::Crashed).await;
    assert_eq!((state.promised, &state.role), (7, &Role::Fenced));
    assert_eq!(refused(scene.promote(1, 6, 0, &[]).await).0, RefusalCode::EpochTooLow);
    // The recorded primary may not be told to follow in the epoch that it was promoted in.
    assert_eq!(refused(scene.follow(0, 1, 1, true).await).0, RefusalCode::Conflict);
    assert_eq!(refused(scene.follow(0, 2, 0, true).await).0, RefusalCode::BadRequest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_stops_the_receiver_and_answers_with_what_was_received() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    let state = scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    assert!(state.in_force);
    assert_eq!((state.promised, &state.role), (2, &Role::Fenced));
    let mysqld = state.mysqld.unwrap();
    let channel = mysqld.replication.unwrap();
    assert_eq!((channel.receiver, channel.applier_running), (ReceiverState::No, true));
    // The primary's report may be a moment older than the insert: it comes to hold just what was received.
    let received = mysqld.received;
    let caught =
        |state: &common::instance::InstanceState| state.mysqld.as_ref().is_some_and(|now| now.executed == received);
    scene.until(0, "at what was acknowledged, so received", caught).await;
    // Elected: it opens with everything, and the old primary follows with what it has.
    let state = scene.promote(1, 2, 0, &[0]).await.unwrap();
    assert!(state.in_force && !state.mysqld.as_ref().unwrap().read_only);
    let demoted = scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 2000, kill: true }, CALL).await.unwrap();
    assert!(demoted.in_force && !demoted.tail_unproven);
    scene.follow(0, 2, 1, false).await.unwrap();
    scene.until_connected(0).await;
    let mut admin = scene.admin(1).await;
    admin.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    scene.until_value(0, "SELECT COUNT(*) FROM t.`rows`", "2").await;
    let state =
        scene.until(1, "without its old channel", |state| state.mysqld.as_ref().unwrap().replication.is_none()).await;
    assert!(matches!(state.role, Role::Primary { acks_needed: 0, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_is_seen_and_receivers_stop_all_the_same() {
    let scene = Scene::cluster(3, 1).await;
    let mut admin = scene.make_table(0).await;
    // The primary is frozen: receivers stop all the same, in time.
    scene.signal_mysqld(0, Signal::SIGSTOP);
    let state = scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    assert_eq!(state.mysqld.unwrap().replication.unwrap().receiver, ReceiverState::No);
    let state = scene.until(0, "hung", |state| {
        state.canary.is_some_and(|canary| canary.session_age_ms > 1500 && canary.login_age_ms > 1500)
    });
    state.await;
    scene.signal_mysqld(0, Signal::SIGCONT);
    scene.until(0, "answering", |state| state.canary.is_some_and(|canary| canary.session_age_ms < 1000)).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_struck_replica_does_not_count_any_more() {
    let scene = Scene::cluster(3, 2).await;
    let mut admin = scene.make_table(0).await;
    let order = AcksOrder { epoch: 2, acks_needed: 1, struck: vec![2, 3] };
    let state = scene.failover(0).acks(&order, CALL).await.unwrap();
    assert_eq!(state.role, Role::Primary { acks_needed: 1, struck: vec![2, 3] });
    let source = state.mysqld.unwrap().source;
    assert_eq!((source.acks_needed, source.dumps), (1, vec!["pelorus_repl_1".to_owned()]));
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.value(2, "SELECT COUNT(*) FROM t.`rows`").await, "0", "its account is locked");
    // Fewer acknowledgements take a new epoch, more do not.
    let fewer = AcksOrder { epoch: 2, acks_needed: 0, struck: vec![] };
    assert_eq!(refused(scene.failover(0).acks(&fewer, CALL).await).0, RefusalCode::Conflict);
    let order = AcksOrder { epoch: 2, acks_needed: 1, struck: vec![] };
    scene.failover(0).acks(&order, CALL).await.unwrap();
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "1").await;
    assert_eq!(scene.value(0, "SELECT @@gtid_executed LIKE '%:1-3'").await, "1", "locks are not in the history");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demotion_without_ackers_never_answers_ok() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    scene.power_off(1);
    let waiter =
        tokio::spawn(async move { admin.exec("INSERT INTO t.`rows` VALUES (1)", Duration::from_secs(60)).await });
    let state =
        scene.until(0, "waiting", |state| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.waiters > 0)).await;
    assert!(state.in_force);
    scene
        .until(0, "waiting longer", |state| {
            state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.oldest_wait_ms > 1200)
        })
        .await;

    // A switchover gives up: writes go on.
    let answer = scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 700, kill: false }, CALL).await;
    assert_eq!(refused(answer).0, RefusalCode::Declined);
    assert_eq!(scene.value(0, "SELECT @@super_read_only + @@read_only").await, "0");
    let state = scene.failover(0).state(CALL).await.unwrap();
    assert!(state.in_force && matches!(state.role, Role::Primary { .. }) && state.promised == 2);
    assert!(!waiter.is_finished());
    for kill in [false, true] {
        let again = scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 700, kill }, CALL).await;
        assert_eq!(refused(again).0, RefusalCode::Declined, "the answer of an epoch is given once");
    }
    assert_eq!(scene.value(0, "SELECT @@super_read_only + @@read_only").await, "0");

    // A failover kills: the writer sees its connection die, and no OK.
    let state = scene.failover(0).demote(&DemoteOrder { epoch: 3, budget_ms: 700, kill: true }, CALL).await.unwrap();
    assert!(!state.in_force && state.mysqld.is_none() && state.tail_unproven);
    assert_eq!(state.phase, Phase::Crashed);
    let answer = waiter.await.unwrap();
    assert!(answer.is_err() && answer.unwrap_err().code().is_none(), "no answer at all");

    // Fencing it does not start it: its start would commit the tail.
    let state = scene.failover(0).fence(&FenceOrder { epoch: 4, start: false }, CALL).await.unwrap();
    assert_eq!((state.phase, state.promised), (Phase::Crashed, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errant_transactions_are_named_and_not_followed() {
    let scene = Scene::cluster(2, 1).await;
    scene.make_table(0).await;
    let mut local = scene.local(1).await;
    let foreign = "11111111-2222-3333-4444-555555555555:1";
    scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    for sql in [
        format!("SET SESSION gtid_next='{foreign}'"),
        "BEGIN".into(),
        "COMMIT".into(),
        "SET SESSION gtid_next=AUTOMATIC".into(),
    ] {
        local.exec(&sql, SHORT).await.unwrap();
    }
    let (code, message) = refused(scene.follow(1, 2, 0, true).await);
    assert_eq!(code, RefusalCode::Failed);
    assert!(message.contains(foreign), "{message}");
    let state = scene.failover(1).state(CALL).await.unwrap();
    assert_eq!((state.phase, state.in_force), (Phase::Failed, false));
    assert!(state.problem.unwrap().contains(foreign));
    assert_eq!(state.mysqld.unwrap().replication.unwrap().receiver, ReceiverState::No);
    // Its data can be condemned by name, and rebuilt.
    assert_eq!(refused(scene.clone_from(1, 0, None).await).0, RefusalCode::HoldsData);
    scene.clone_from(1, 0, state.data_id).await.unwrap();
    scene
        .until(1, "rebuilt", |state| state.phase == Phase::Running && state.data_id.is_some() && state.mysqld.is_some())
        .await;
    scene.follow(1, 2, 0, true).await.unwrap();
    scene.until_connected(1).await;
}

/// A replica that does not acknowledge has received, and applied, what its source waits to commit: nobody else acknowledges
/// it either. When it is told to, that is no reason to condemn it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_waits_to_commit_is_not_errant() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    scene.follow(1, 2, 0, false).await.unwrap();
    scene.until_connected(1).await;
    let waiter =
        tokio::spawn(async move { admin.exec("INSERT INTO t.`rows` VALUES (1)", Duration::from_secs(60)).await });
    scene.until(0, "waiting", |state| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.waiters > 0)).await;
    scene.until_value(1, "SELECT COUNT(*) FROM t.`rows`", "1").await;
    scene.follow(1, 3, 0, true).await.unwrap();
    scene.until_connected(1).await;
    // It is not sent once more, and so not acknowledged by itself; what comes next acknowledges it along.
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    waiter.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_primary_is_started_by_a_fence_only_when_its_word_is_needed() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    let held = scene.value(0, "SELECT @@gtid_executed").await;
    scene.power_off(0);
    scene.start(0);
    scene.until(0, "crashed", |state| state.phase == Phase::Crashed).await;
    let state = scene.failover(0).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    assert_eq!((state.phase, state.promised, state.tail_unproven), (Phase::Crashed, 2, true));
    let state = scene.failover(0).fence(&FenceOrder { epoch: 2, start: true }, CALL).await.unwrap();
    assert_eq!(state.phase, Phase::Starting);
    scene.until(0, "up and closed", |state| state.phase == Phase::Running && state.in_force).await;
    let state = scene.failover(0).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    let mysqld = state.mysqld.as_ref().unwrap();
    assert!(mysqld.super_read_only && state.tail_unproven);
    assert!(
        held.parse::<common::gtid::GtidSet>().unwrap().is_subset(&mysqld.received),
        "{held} in {}",
        mysqld.received
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_cannot_be_read_is_made_anew_only_when_nobody_counts_on_it() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    scene.until_value(1, "SELECT COUNT(*) FROM t.`rows`", "1").await;
    // As after a crash in the middle of RESET REPLICA: the channel names a relay log that is gone.
    let datadir = std::path::PathBuf::from(scene.value(1, "SELECT @@datadir").await);
    scene.power_off(1);
    for entry in std::fs::read_dir(&datadir).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("relay.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    scene.start(1);
    scene.until(1, "crashed", |state| state.phase == Phase::Crashed).await;
    scene.follow(1, 1, 0, true).await.unwrap();
    let state = scene.until(1, "refusing", |state| state.problem.is_some() && state.phase == Phase::Running).await;
    assert!(state.problem.as_ref().unwrap().contains("1872"), "{state:?}");
    let order = FollowOrder {
        epoch: 2,
        source: scene.name(0),
        source_host: scene.address(0).to_string(),
        source_address: None,
        acknowledges: false,
        ahead: false,
        source_holds: None,
        expendable: true,
    };
    scene.failover(1).follow(&order, CALL).await.unwrap();
    scene.until_connected(1).await;
}

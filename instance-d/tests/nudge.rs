//! Threads of mysqld that sleep longer than they have to are woken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use common::instance::{DemoteOrder, FenceOrder, ReceiverState};
use nix::sys::signal::Signal;
use scene::{CALL, SQL, Scene};

/// mysqld needs two seconds to end a receiver that is just connecting to somebody who does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_connecting_stops_sooner_than_mysqld_ends_it() {
    let scene = Scene::cluster(3, 1).await;
    scene.signal_mysqld(0, Signal::SIGSTOP);
    let connecting = async |ordinal: u32| {
        let mut admin = scene.local(ordinal).await;
        admin.exec("STOP REPLICA IO_THREAD", SQL).await.unwrap();
        admin.exec("START REPLICA IO_THREAD", SQL).await.unwrap();
        scene
            .until_value(
                ordinal,
                "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status",
                "CONNECTING",
            )
            .await;
        admin
    };
    let mut admin = connecting(2).await;
    let begun = std::time::Instant::now();
    admin.exec("STOP REPLICA IO_THREAD", SQL).await.unwrap();
    let by_itself = begun.elapsed();
    connecting(1).await;
    let begun = std::time::Instant::now();
    let state = scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    let nudged = begun.elapsed();
    println!("by itself after {by_itself:?}, nudged after {nudged:?}");
    assert_eq!(state.mysqld.unwrap().replication.unwrap().receiver, ReceiverState::No);
    assert!(nudged < by_itself || !can_nudge(), "{nudged:?}, and {by_itself:?} without a nudge");
    scene.signal_mysqld(0, Signal::SIGCONT);
}

/// Who reads acknowledgements looks for a second at the connections that were there when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_a_replica_that_came_again_are_read_at_once() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    let mut replica = scene.local(1).await;
    let mut waits = Vec::new();
    for value in 1..=5 {
        replica.exec("STOP REPLICA IO_THREAD", SQL).await.unwrap();
        replica.exec("START REPLICA IO_THREAD", SQL).await.unwrap();
        let begun = std::time::Instant::now();
        admin.exec(&format!("INSERT INTO t.`rows` VALUES ({value})"), SQL).await.unwrap();
        waits.push(begun.elapsed());
    }
    println!("acknowledged after {waits:?}");
    waits.sort_unstable();
    // mysqld alone: 0.9 s each time.
    assert!(waits[2] < Duration::from_millis(800) || !can_nudge(), "{waits:?}");
}

/// The same of a candidate that has just opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_a_replica_that_was_sent_to_the_candidate_twice_are_read_at_once() {
    let scene = Scene::cluster(3, 1).await;
    scene.make_table(0).await;
    scene.follow(2, 2, 1, true).await.unwrap();
    scene.until_connected(2).await;
    scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 2000, kill: false }, CALL).await.unwrap();
    scene.promote(1, 2, 1, &[0, 2]).await.unwrap();
    scene.failover(2).fence(&FenceOrder { epoch: 3, start: false }, CALL).await.unwrap();
    scene.follow(2, 3, 1, true).await.unwrap();
    let mut admin = scene.admin(1).await;
    let begun = std::time::Instant::now();
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    let waited = begun.elapsed();
    println!("acknowledged after {waited:?}");
    assert!(waited < Duration::from_millis(800) || !can_nudge(), "{waited:?}");
}

/// mysqld alone lets nobody log in for a second when it ceases to be a source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_can_log_in_while_an_old_primary_becomes_a_replica() {
    let scene = Scene::cluster(3, 1).await;
    scene.make_table(0).await;
    scene.failover(0).demote(&DemoteOrder { epoch: 2, budget_ms: 2000, kill: false }, CALL).await.unwrap();
    scene.promote(1, 2, 1, &[0, 2]).await.unwrap();
    let mut longest = Duration::ZERO;
    let mut follow = std::pin::pin!(scene.follow(0, 2, 1, true));
    loop {
        let begun = std::time::Instant::now();
        tokio::select! {
            // Refused or not: it is answered.
            _ = scene.sql(0, "admin") => longest = longest.max(begun.elapsed()),
            done = &mut follow => {
                done.unwrap();
                longest = longest.max(begun.elapsed());
                break;
            }
        }
    }
    println!("longest login {longest:?}");
    assert!(longest < Duration::from_millis(600) || !can_nudge(), "{longest:?}");
}

/// Whether this kernel signals threads by a descriptor (Linux 6.9).
fn can_nudge() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}

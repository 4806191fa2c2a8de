//! A primary that hears nobody refuses its clients until it is told again what it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use futures::StreamExt;
use scene::{CALL, SQL, Scene};

/// The limit of the scene, and some.
const LONGER_THAN_THE_LIMIT: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_primary_refuses_its_clients_until_it_is_told_that_it_reigns() {
    let mut scene = Scene::new(2);
    scene.initialise(&[0]).await;
    scene.promote(0, 1, 1, &[1]).await.unwrap();
    let listener = scene.failover(0).stream(CALL).await.unwrap();
    let listening = tokio::spawn(async move {
        let mut states = std::pin::pin!(listener);
        while states.next().await.is_some() {}
    });
    let mut admin = scene.admin(0).await;
    tokio::time::sleep(LONGER_THAN_THE_LIMIT).await;
    admin.exec("DO 1", SQL).await.expect("failover-d is heard");
    listening.abort();
    let offline = |state: &common::instance::InstanceState| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.offline);
    scene.until(0, "offline", offline).await;
    assert!(admin.exec("DO 1", SQL).await.is_err(), "sessions are ended");
    assert_eq!(scene.sql(0, "admin").await.err().and_then(|error| error.code()), Some(3032), "new ones are refused");
    scene.promote(0, 1, 1, &[1]).await.unwrap();
    scene.admin(0).await.exec("DO 1", SQL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_reaches_a_replica_is_not_isolated() {
    let scene = Scene::cluster(2, 1).await;
    let mut admin = scene.admin(0).await;
    tokio::time::sleep(LONGER_THAN_THE_LIMIT).await;
    admin.exec("DO 1", SQL).await.expect("the replica's host answers");
}

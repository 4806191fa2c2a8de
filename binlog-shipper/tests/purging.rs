//! Binlogs that a server needs no more are purged, and no others.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use std::time::Duration;

use binlog_shipper::purge::{Horizon, purge};
use common::gtid::GtidSet;
use common::mysql::{Credentials, Endpoint, Password, Session};
use testkit::{Mysqld, Options};

use crate::scene::{Scene, executed};

const NEVER: u64 = u64::MAX / 2;

async fn session(mysqld: &Mysqld) -> Session {
    let endpoint = Endpoint::Socket(mysqld.socket());
    Session::connect(&endpoint, &Credentials::new("root", Password::default()), Duration::from_secs(5)).await.unwrap()
}

fn files(mysqld: &Mysqld) -> Vec<String> {
    let listed = mysqld.sql("SHOW BINARY LOGS").unwrap();
    listed.lines().filter_map(|line| line.split('\t').next().map(str::to_owned)).collect()
}

#[tokio::test]
async fn what_is_archived_and_executed_everywhere_goes_and_nothing_else() {
    let scene = Scene::new(Options::default());
    for round in 0..4 {
        scene.mysqld.sql(&format!("INSERT INTO shop.t (v) VALUES ('{round}'); FLUSH BINARY LOGS")).unwrap();
    }
    let all = files(&scene.mysqld);
    let mut session = session(&scene.mysqld).await;
    // Nothing is in the archive.
    let archived = |held: &[_]| Horizon::new(held).before(NEVER).clone();
    assert_eq!(purge(&mut session, &archived(&scene.held().await)).await.unwrap(), None);
    assert_eq!(files(&scene.mysqld), all);

    scene.ship(&scene.known().await).await;
    let held = scene.held().await;
    let commits: Vec<u64> = held.iter().flat_map(|file| &file.segments).map(|part| part.last_commit).collect();
    // Young ones stay, to the minute.
    assert!(Horizon::new(&held).before(commits[0]).is_empty());
    let archived = archived(&held);
    assert_eq!(archived, executed(&scene.mysqld));
    // A replica has not executed what the third file holds.
    let lacks: GtidSet = held[2].gtid();
    assert_eq!(purge(&mut session, &archived.subtract(&lacks)).await.unwrap(), Some(all[2].clone()));
    assert_eq!(files(&scene.mysqld), all[2..]);
    // Now it has. What is being written stays.
    assert_eq!(purge(&mut session, &archived).await.unwrap(), all.last().cloned());
    assert_eq!(files(&scene.mysqld), all[all.len() - 1..]);
    assert_eq!(purge(&mut session, &archived).await.unwrap(), None);
    // New ones that are in no archive stay.
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('new'); FLUSH BINARY LOGS").unwrap();
    assert_eq!(purge(&mut session, &archived).await.unwrap(), None);
    assert_eq!(files(&scene.mysqld).len(), 2);
}

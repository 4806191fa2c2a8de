//! What every dump holds goes out of the bucket, and nothing that a restore from a dump needs goes with it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod scene;

use archive::catalogue::{Held, Known};
use archive::layout::Object;
use archive::plan::{Target, plan};
use archive::retain::Dump;
use binlog_shipper::purge::Horizon;
use binlog_shipper::retire::{Retired, retire};
use common::gtid::GtidSet;
use testkit::{Mysqld, Options};

use crate::scene::{Scene, empty, executed, restore, rows, write};

/// Everything is old enough.
const ANY_AGE: u64 = u64::MAX;

/// Rows 1 to 100 in three files, of which two are closed, all in the archive; and a server that is as the 80th left it, which is
/// what a dump of then holds.
async fn shipped() -> (Scene, Mysqld, Dump) {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=80);
    scene.ship(&scene.known().await).await;
    let base = empty(&scene);
    let gtid = restore(&scene, &Target::Newest, &base).await;
    let taken_at = scene.ask("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)").parse().unwrap();
    write(&scene.mysqld, 81..=100);
    scene.ship(&scene.known().await).await;
    assert_eq!(scene.held().await.len(), 3);
    (scene, base, Dump { gtid, taken_at })
}

async fn retired(scene: &Scene, dumps: &[Dump], since: u64) -> Retired {
    retire(&scene.store, &scene.root, dumps, since).await.unwrap()
}

/// Objects of files.
async fn objects(scene: &Scene, files: &[Held]) -> usize {
    let mut count = 0;
    for Held { file, .. } in files {
        count += scene.store.list(&scene.root.file(file)).await.unwrap().len();
    }
    count
}

#[tokio::test]
async fn what_every_dump_holds_goes_and_restores_from_dumps_stay() {
    let (scene, base, dump) = shipped().await;
    let before = scene.held().await;
    assert_eq!(retired(&scene, &[], ANY_AGE).await, Retired::default(), "without a dump the archive is the beginning");
    let young = retired(&scene, std::slice::from_ref(&dump), before[0].segments[0].last_commit - 1).await;
    assert!(young.files.is_empty(), "the first file is too young");
    assert_eq!(objects(&scene, &before).await, scene.store.list(&scene.root.binlogs()).await.unwrap().len());

    let gone = retired(&scene, std::slice::from_ref(&dump), ANY_AGE).await;
    assert_eq!(gone.files, [before[0].file.clone(), before[1].file.clone()]);
    assert_eq!(gone.from, dump.taken_at);
    assert_eq!(objects(&scene, &before[..2]).await, 0);
    assert_eq!(restore(&scene, &Target::Newest, &base).await, scene.executed());
    assert_eq!(rows(&base), (1..=100).collect::<Vec<_>>());
    let held = scene.held().await;
    plan(&GtidSet::default(), &held, &Target::Gtid(scene.executed())).unwrap_err();
    assert_eq!(retired(&scene, &[dump], ANY_AGE).await.files, [], "the last file stays");
}

#[tokio::test]
async fn what_went_is_not_shipped_again_and_may_go_from_the_servers() {
    let (scene, base, dump) = shipped().await;
    let before = scene.held().await;
    retired(&scene, &[dump], ANY_AGE).await;
    write(&scene.mysqld, 101..=120);
    // As a shipper that begins anew.
    let known: Known = scene.known().await;
    assert!(known.gtid.is_subset(&scene.executed()) && known.gtid.count() >= 100);
    scene.ship(&known).await;
    assert_eq!(objects(&scene, &before[..2]).await, 0, "nothing came again");
    assert_eq!(restore(&scene, &Target::Newest, &base).await, scene.executed());
    assert_eq!(rows(&base), (1..=120).collect::<Vec<_>>());
    let held = scene.held().await;
    assert_eq!(*Horizon::new(&held).before(ANY_AGE), executed(&scene.mysqld), "no server has to keep it");
}

#[tokio::test]
async fn a_pass_that_was_cut_is_made_good_by_the_next() {
    let (scene, base, dump) = shipped().await;
    let before = scene.held().await;
    // As far as a pass came that ended in the middle of the first file.
    let keys = scene.store.list(&scene.root.file(&before[0].file)).await.unwrap();
    let is_segment = |key: &str| matches!(scene.root.parse(key), Ok(Object::Segment(_)));
    let (segments, summaries): (Vec<_>, Vec<_>) = keys.into_iter().partition(|object| is_segment(&object.key));
    assert!(!summaries.is_empty() && !segments.is_empty());
    for object in &summaries {
        scene.store.delete(&object.key).await.unwrap();
    }
    let gone = retired(&scene, &[dump], ANY_AGE).await;
    assert_eq!(gone.files, [before[0].file.clone(), before[1].file.clone()]);
    assert_eq!(objects(&scene, &before[..2]).await, 0);
    assert_eq!(restore(&scene, &Target::Newest, &base).await, scene.executed());
}

//! What was shipped comes back: as relay logs that a fresh server replays, to any moment and any set, and to nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod scene;

use std::fs::{self, File};
use std::time::Duration;

use archive::catalogue::{self, Known};
use archive::plan::{Refusal, Target, plan};
use archive::{Store, fetch};
use binlog_shipper::ship;
use binlog_shipper::source::Until;
use common::binlog::{Begin, Content, Events, Next};
use common::gtid::GtidSet;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::{Mysqld, Options};

use crate::scene::{Scene, bad_weather, empty, executed, restore, rows, write};

/// All transactions of a server's binlogs, in order.
fn history(mysqld: &Mysqld) -> Vec<Begin> {
    let names = fs::read_to_string(mysqld.datadir().join("binlog.index")).unwrap();
    names
        .lines()
        .flat_map(|name| {
            let path = mysqld.datadir().join(name.trim_start_matches("./"));
            let length = fs::metadata(&path).unwrap().len();
            let mut events = Events::new(File::open(&path).unwrap(), length);
            let mut begins = Vec::new();
            loop {
                match events.event().unwrap() {
                    Next::Event(event) => {
                        if let Content::Gtid(begin) = event.content {
                            begins.push(begin);
                        }
                    }
                    Next::End(..) => break begins,
                }
            }
        })
        .collect()
}

#[tokio::test]
async fn any_time_and_any_set_of_a_ledger_is_reached_exactly() {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=150);
    let known = scene.known().await;
    scene.ship(&known).await;
    let history = history(&scene.mysqld);
    let first = history.iter().position(|begin| begin.gtid.number() == 3).unwrap();
    let inserts = &history[first..];
    assert_eq!(inserts.len(), 150, "two statements came before");
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..20 {
        let count = random.random_range(1..=150_usize);
        let all: GtidSet = history[..first + count].iter().map(|begin| begin.gtid.clone()).collect();
        let last = inserts[count - 1].committed_at;
        // To a moment between this commit and the next, to the microsecond of it, or to its set.
        let next = inserts.get(count).map_or(last, |begin| begin.committed_at - 1);
        let target = match round % 3 {
            0 => Target::Time(last),
            1 => Target::Time(next),
            _ => Target::Gtid(all.clone()),
        };
        let mysqld = empty(&scene);
        assert_eq!(restore(&scene, &target, &mysqld).await, all, "{target:?}");
        assert_eq!(rows(&mysqld), (1..=count as u64).collect::<Vec<_>>(), "{target:?}");
        let sums = |mysqld: &Mysqld| {
            mysqld.sql(&format!("SELECT SUM(CRC32(CONCAT(id, v))) FROM shop.t WHERE id <= {count}")).unwrap()
        };
        assert_eq!(sums(&mysqld), sums(&scene.mysqld));
    }
}

#[tokio::test]
async fn an_accident_is_left_out_and_the_rest_is_kept() {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=20);
    scene.mysqld.sql("DELETE FROM shop.t").unwrap();
    write(&scene.mysqld, 21..=25);
    scene.ship(&scene.known().await).await;
    let history = history(&scene.mysqld);
    let accident = &history[history.len() - 6];
    let mysqld = empty(&scene);
    restore(&scene, &Target::Time(accident.committed_at - 1), &mysqld).await;
    assert_eq!(rows(&mysqld), (1..=20).collect::<Vec<_>>());
    // All but that one transaction.
    let mysqld = empty(&scene);
    let wanted = scene.executed().subtract(&GtidSet::from(&accident.gtid));
    restore(&scene, &Target::Gtid(wanted), &mysqld).await;
    assert_eq!(rows(&mysqld), (1..=25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_branch_that_lost_an_election_is_never_restored() {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=40);
    scene.ship(&scene.known().await).await;
    // Another server takes over with everything up to here, while the old primary's last writes, which nobody
    // acknowledged, are shipped.
    let next = empty(&scene);
    restore(&scene, &Target::Newest, &next).await;
    write(&scene.mysqld, 41..=45);
    scene.ship(&scene.known().await).await;
    write(&next, 101..=110);
    let stream = scene.stream_from(&next, 2);
    scene.ship_from(&stream, &scene.known().await).await;
    let lost = scene.executed().subtract(&executed(&next));
    assert_eq!((lost.count(), lost.is_subset(&scene.shipped().await)), (5, true), "they are in the bucket");

    let mysqld = empty(&scene);
    assert_eq!(restore(&scene, &Target::Newest, &mysqld).await, executed(&next));
    assert_eq!(rows(&mysqld), (1..=40).chain(101..=110).collect::<Vec<_>>());
    // To a moment of either epoch.
    let histories = [history(&scene.mysqld), history(&next)];
    for (of, back, expected) in [(0, 8, 1..=38), (1, 3, 1..=40)] {
        let mysqld = empty(&scene);
        let at = histories[of][histories[of].len() - back].committed_at;
        restore(&scene, &Target::Time(at), &mysqld).await;
        let mut wanted: Vec<u64> = expected.collect();
        if of == 1 {
            wanted.extend(101..=108);
        }
        assert_eq!(rows(&mysqld), wanted, "{of}");
    }
    // To a set that has some of them: refused.
    let refused = plan(&GtidSet::default(), &scene.held().await, &Target::Gtid(scene.executed())).unwrap_err();
    assert!(matches!(&refused, Refusal::Unknown { missing, .. } if *missing == lost), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_with_the_window() {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=5);
    scene.ship(&scene.known().await).await;
    let (held, shipped) = (scene.held().await, scene.executed());
    write(&scene.mysqld, 6..=7);
    let last = history(&scene.mysqld).last().unwrap().committed_at;
    let nothing = GtidSet::default();
    let late = plan(&nothing, &held, &Target::Time(last)).unwrap_err();
    assert!(matches!(&late, Refusal::TooLate { reach, .. } if reach.gtid == shipped), "{late}");
    let unknown = plan(&nothing, &held, &Target::Gtid(scene.executed())).unwrap_err();
    assert!(matches!(&unknown, Refusal::Unknown { reach, .. } if reach.gtid == shipped), "{unknown}");
}

#[tokio::test]
async fn a_flipped_byte_and_a_missing_segment_are_refused_by_name() {
    let scene = Scene::new(Options::default());
    write(&scene.mysqld, 1..=5);
    let mut stream = scene.stream();
    stream.flush_every = std::time::Duration::ZERO;
    ship::run(&stream, &scene.known().await, Until::Now, |_, _| {}).await.unwrap();
    let held = scene.held().await;
    let plan = plan(&GtidSet::default(), &held, &Target::Newest).unwrap();
    let key = scene.root.segment(&plan.steps.last().unwrap().key);
    let path = scene.s3.folder().join(&key);
    let fetch = async || {
        let fetched = fetch::relay_logs(&scene.store, &scene.root, &held, &plan, |_| Ok(std::io::sink())).await;
        fetched.unwrap_err().to_string()
    };
    let mut object = fs::read(&path).unwrap();
    // Several bytes: a single bit of zstd may mean nothing, and what it is read as is then what was put.
    let last = object.len() - 16;
    object[last..].iter_mut().for_each(|byte| *byte ^= 0x55);
    // Behind the server's back: it has a checksum of its own.
    fs::write(&path, &object).unwrap();
    let error = fetch().await;
    assert!(error.contains(&key) && error.contains("checksum mismatch"), "{error}");
    // By somebody who may write: the server believes him.
    scene.store.delete(&key).await.unwrap();
    scene.store.put_new(&key, object).await.unwrap();
    let error = fetch().await;
    assert!(error.contains(&key) && error.contains("not to be trusted"), "{error}");
    scene.store.delete(&key).await.unwrap();
    let error = fetch().await;
    assert!(error.contains(&key) && error.contains("missing"), "{error}");
}

/// Whoever ships dies at any moment, the bucket is away at times, files end: what is there in the end is everything, and restores.
#[tokio::test]
async fn shippers_killed_again_and_again_lose_nothing() {
    let mut scene = Scene::new(Options::default());
    let mut random = StdRng::seed_from_u64(11);
    let mut written = 0;
    for round in 0..40 {
        // Small ones, and one that takes more than one part of an upload now and then.
        let large = if round % 13 == 12 { 17_000_000 } else { 0 };
        let rows = random.random_range(1..4_u64);
        for id in written + 1..=written + rows {
            let value = if id == written + 1 { large } else { 10 };
            scene
                .mysqld
                .sql(&format!(
                    "INSERT INTO shop.t (id, v) VALUES ({id}, LEFT(REPEAT(RANDOM_BYTES(1000), 17000), {value}))"
                ))
                .unwrap();
        }
        written += rows;
        if round % 9 == 8 {
            scene.mysqld.sql("FLUSH BINARY LOGS").unwrap();
        }
        let mut stream = scene.stream();
        stream.flush_every = Duration::from_millis(random.random_range(0..50));
        let known = scene.known().await;
        let outage = random.random_range(0..4) == 0;
        if outage {
            scene.s3.kill();
        }
        let life = Duration::from_millis(random.random_range(20..400));
        let ended = tokio::time::timeout(life, ship::run(&stream, &known, Until::Forever, |_, _| {})).await;
        assert!(ended.is_err(), "it ended by itself: {ended:?}");
        if outage {
            scene.s3.run();
        }
    }
    scene.ship(&scene.known().await).await;
    assert_eq!(scene.shipped().await, scene.executed());
    let mysqld = empty(&scene);
    assert_eq!(restore(&scene, &Target::Newest, &mysqld).await, scene.executed());
    let sums = |mysqld: &Mysqld| mysqld.sql("SELECT COUNT(*), SUM(CRC32(CONCAT(id, v))) FROM shop.t").unwrap();
    assert_eq!(sums(&mysqld), sums(&scene.mysqld));
}

/// Thirty of a hundred answers of the bucket are errors, of which some are lies (F14).
#[tokio::test]
async fn a_bucket_that_answers_with_errors_holds_everything_once() {
    let scene = Scene::new(Options::default());
    let location = bad_weather(&scene.s3, 5).await;
    let store = Store::new(&serde_json::from_str(&location).unwrap()).unwrap();
    for round in 0..10 {
        write(&scene.mysqld, round * 40 + 1..=round * 40 + 40);
        let mut stream = scene.stream();
        (stream.store, stream.flush_every) = (store.clone(), Duration::from_millis(5));
        // What is read through bad weather is what is there. Whoever cannot begins anew, as the daemon does.
        let known = loop {
            match catalogue::read(&store, &scene.root).await {
                Ok(held) => break Known::of(&held),
                Err(error) => assert!(matches!(error, catalogue::Error::Store(_)), "{error}"),
            }
        };
        assert_eq!(known, scene.known().await);
        ship::run(&stream, &known, Until::Now, |_, _| {}).await.unwrap();
    }
    assert_eq!(scene.shipped().await, scene.executed());
    let mysqld = empty(&scene);
    assert_eq!(restore(&scene, &Target::Newest, &mysqld).await, scene.executed());
    assert_eq!(rows(&mysqld), (1..=400).collect::<Vec<_>>());
}

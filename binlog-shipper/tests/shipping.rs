//! Binlogs of a real server in a real bucket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use std::time::{Duration, Instant};

use archive::catalogue::Known;
use archive::layout::Object;
use binlog_shipper::ship;
use binlog_shipper::source::Until;
use common::gtid::GtidSet;
use testkit::Options;

use crate::scene::Scene;

#[tokio::test]
async fn files_are_shipped_byte_by_byte() {
    let scene = Scene::new(Options::default());
    let sql = |text: &str| drop(scene.mysqld.sql(text).unwrap());
    sql("INSERT INTO shop.t (v) VALUES ('a'), ('b'); FLUSH BINARY LOGS");
    // What a transaction can look like: DDL, XA, a compressed one, a statement, one without a change, a tagged one.
    sql("XA START 'x'; INSERT INTO shop.t (v) VALUES ('xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'");
    sql("SET SESSION binlog_transaction_compression=ON; INSERT INTO shop.t (v) VALUES (REPEAT('c', 100000))");
    sql("SET SESSION binlog_format=STATEMENT; INSERT INTO shop.t (v) VALUES (UUID_SHORT())");
    sql("SET gtid_next='11111111-1111-1111-1111-111111111111:7'; COMMIT");
    sql("SET gtid_next='AUTOMATIC:tag_1'; INSERT INTO shop.t (v) VALUES ('tagged')");
    sql("ALTER TABLE shop.t ADD COLUMN w INT, ALGORITHM=INSTANT; TRUNCATE shop.t; FLUSH BINARY LOGS");
    sql("INSERT INTO shop.t (v) VALUES ('last')");
    scene.ship(&Known::default()).await;

    assert_eq!(scene.shipped().await, scene.executed());
    let held = scene.held().await;
    assert_eq!(held.iter().map(|file| file.complete).collect::<Vec<_>>(), [true, true, false]);
    for file in &held[..2] {
        let name = file.file.name.as_str();
        assert!(scene.bytes(file).await == scene.file(name), "{name}");
    }
    // The server's own mark of a file that is open is not in the archive.
    let mut open = scene.file(held[2].file.name.as_str());
    open[21] &= !1;
    assert!(scene.bytes(&held[2]).await == open);
    assert!(scene.mysqlbinlog(&scene.bytes(&held[2]).await).contains("COMMIT"));
}

#[tokio::test]
async fn a_stream_goes_on_with_what_the_archive_lacks() {
    let scene = Scene::new(Options::default());
    for round in 0..4 {
        scene.mysqld.sql(&format!("INSERT INTO shop.t (v) VALUES ('{round}')")).unwrap();
        let progress = scene.ship(&scene.known().await).await;
        assert_eq!(progress.shipped, scene.executed());
        assert_eq!(scene.shipped().await, scene.executed());
    }
    let held = scene.held().await;
    let file = held.last().unwrap();
    assert_eq!(file.segments.len(), 4, "nothing is put twice");
    assert!(scene.mysqlbinlog(&scene.bytes(file).await).contains("COMMIT"));
    let nothing = scene.ship(&scene.known().await).await;
    assert_eq!((nothing.segments, scene.held().await), (0, held), "nothing new costs no put");
}

#[tokio::test]
async fn a_file_with_many_segments_is_summed_up_while_it_is_open() {
    let scene = Scene::new(Options::default());
    let mut stream = scene.stream();
    stream.flush_every = Duration::ZERO;
    let nothing = Known::default();
    let segments = std::sync::atomic::AtomicU64::new(0);
    let shipping = ship::run(&stream, &nothing, Until::Forever, |_, progress| {
        segments.store(progress.segments, std::sync::atomic::Ordering::Relaxed);
    });
    let writing = async {
        while segments.load(std::sync::atomic::Ordering::Relaxed) < 260 {
            scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('x')").unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let executed = scene.executed();
        while !executed.is_subset(&scene.shipped().await) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        ended = shipping => panic!("{ended:?}"),
        () = writing => {}
    }
    let held = scene.held().await;
    let listed = scene.store.list(&scene.root.file(&held[0].file)).await.unwrap();
    let summaries: Vec<_> = listed
        .iter()
        .filter(|object| matches!(scene.root.parse(&object.key), Ok(Object::Summary(file, _)) if file == held[0].file))
        .collect();
    assert_eq!((summaries.len(), held.len(), held[0].complete), (1, 1, false), "{}", listed.len());
    // With it and without it the archive says the same, and the next stream goes on from there.
    scene.store.delete(&summaries[0].key).await.unwrap();
    assert_eq!(scene.held().await, held);
    scene.mysqld.sql("FLUSH BINARY LOGS").unwrap();
    scene.ship(&scene.known().await).await;
    let held = scene.held().await;
    // The next stream began behind the rotation, which is all that the archive lacks of the file.
    let (bytes, file) = (scene.bytes(&held[0]).await, scene.file(held[0].file.name.as_str()));
    assert!(held[0].complete && file.starts_with(&bytes));
    assert!(file.len() - bytes.len() < 50, "{} of {}", bytes.len(), file.len());
}

#[tokio::test]
async fn a_file_that_a_crash_ended_is_completed_by_the_next_stream() {
    let mut scene = Scene::new(Options::default());
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('x')").unwrap();
    scene.ship(&scene.known().await).await;
    scene.mysqld.kill();
    scene.mysqld.run();
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('y')").unwrap();
    scene.ship(&scene.known().await).await;
    let held = scene.held().await;
    assert_eq!(held.iter().map(|file| file.complete).collect::<Vec<_>>(), [true, false]);
    assert_eq!(scene.shipped().await, scene.executed());
}

#[tokio::test]
async fn a_large_transaction_is_one_segment_in_little_memory() {
    let scene = Scene::new(Options::default().arg("--max-allowed-packet=256M"));
    // Larger than a packet of the protocol, than a part of an upload, and than what may wait on disk.
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES (RANDOM_BYTES(1)), (REPEAT(RANDOM_BYTES(1000), 90000))").unwrap();
    let mut stream = scene.stream();
    stream.spool_max = 1 << 20;
    ship::run(&stream, &Known::default(), Until::Now, |_, _| {}).await.unwrap();
    assert_eq!(scene.shipped().await, scene.executed());
    let held = scene.held().await;
    assert!(scene.bytes(held.last().unwrap()).await.len() > 90_000_000);
}

#[tokio::test]
async fn commits_are_in_the_bucket_a_moment_later() {
    let scene = Scene::new(Options::default());
    let stream = scene.stream();
    let nothing = Known::default();
    let shipping = ship::run(&stream, &nothing, Until::Forever, |_, _| {});
    let writing = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('x')").unwrap();
            let (committed, executed) = (Instant::now(), scene.executed());
            while !executed.is_subset(&scene.shipped().await) {
                assert!(committed.elapsed() < Duration::from_secs(20), "it does not arrive");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            slowest = slowest.max(committed.elapsed());
        }
        println!("slowest: {slowest:?}, flushed every {:?}", stream.flush_every);
    };
    tokio::select! {
        ended = shipping => panic!("{ended:?}"),
        () = writing => {}
    }
}

#[tokio::test]
async fn an_outage_of_the_bucket_costs_time_only() {
    let mut scene = Scene::new(Options::default());
    let stream = scene.stream();
    scene.s3.kill();
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('before')").unwrap();
    let problem = std::sync::Mutex::new(None);
    let (nothing, executed) = (Known::default(), scene.executed());
    let shipping = ship::run(&stream, &nothing, Until::Now, |_, progress| {
        let mut problem = problem.lock().unwrap();
        if progress.problem.is_some() {
            problem.clone_from(&progress.problem);
        }
    });
    let (shipped, ()) = tokio::join!(shipping, async {
        while problem.lock().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        scene.s3.run();
    });
    shipped.unwrap();
    assert_eq!(scene.shipped().await, executed);
    assert!(problem.lock().unwrap().as_ref().unwrap().contains("refused"));
}

#[tokio::test]
async fn two_at_once_agree() {
    let scene = Scene::new(Options::default());
    for round in 0..50 {
        scene.mysqld.sql(&format!("INSERT INTO shop.t (v) VALUES ('{round}')")).unwrap();
    }
    scene.mysqld.sql("FLUSH BINARY LOGS").unwrap();
    let (mut one, mut other) = (scene.stream(), scene.stream());
    (one.flush_every, other.flush_every) = (Duration::ZERO, Duration::from_secs(1));
    let nothing = Known::default();
    let (first, second) = tokio::join!(
        ship::run(&one, &nothing, Until::Now, |_, _| {}),
        ship::run(&other, &nothing, Until::Now, |_, _| {}),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(scene.shipped().await, scene.executed());
    let held = scene.held().await;
    assert!(scene.bytes(&held[0]).await == scene.file(held[0].file.name.as_str()));
}

#[tokio::test]
async fn what_was_purged_is_a_gap_and_said() {
    let scene = Scene::new(Options::default());
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('x'); FLUSH BINARY LOGS").unwrap();
    let last = scene.ask("SELECT SUBSTRING_INDEX(@@log_bin_basename, '/', -1)") + ".000002";
    scene.mysqld.sql(&format!("PURGE BINARY LOGS TO '{last}'")).unwrap();
    let error = ship::run(&scene.stream(), &Known::default(), Until::Now, |_, _| {}).await.unwrap_err();
    assert!(matches!(&error, ship::Error::Source { source, .. } if source.is_purged()), "{error}");
    // From what is still there it goes on.
    let purged: GtidSet = scene.ask("SELECT @@gtid_purged").parse().unwrap();
    scene.mysqld.sql("INSERT INTO shop.t (v) VALUES ('y')").unwrap();
    scene.ship(&Known { gtid: purged.clone(), ..Known::default() }).await;
    assert_eq!(scene.shipped().await, scene.executed().subtract(&purged));
}

#[tokio::test]
async fn a_wrong_password_and_a_strange_certificate_are_refused() {
    let scene = Scene::new(Options::default());
    let mut stream = scene.stream();
    stream.source.password = common::mysql::Password::new("wrong");
    let error = ship::run(&stream, &Known::default(), Until::Now, |_, _| {}).await.unwrap_err().to_string();
    assert!(error.contains("1045"), "{error}");
    let mut stream = scene.stream();
    stream.source.server_name = common::tls::server_name("elsewhere").unwrap();
    let error = ship::run(&stream, &Known::default(), Until::Now, |_, _| {}).await.unwrap_err().to_string();
    assert!(error.contains("encrypt the connection"), "{error}");
}

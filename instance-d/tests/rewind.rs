//! A former primary whose tail nobody acknowledged comes back as a replica, without a clone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::instance::{
    CloneOrder, DemoteOrder, ErrantOrigin, FenceOrder, FollowOrder, InstanceState, Phase, PromoteOrder, RefusalCode,
    Role,
};
use common::mysql::{Credentials, Endpoint, Password, Session};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scene::{CALL, SQL, Scene, promotion, refused};
use tokio::sync::Mutex;

/// Longest answer to a writer that nobody acknowledges: it dies with its server.
const WAITS: Duration = Duration::from_secs(60);

fn is_crashed(state: &InstanceState) -> bool {
    state.phase == Phase::Crashed
}

/// The receivers stop, that of instance 1 last, so that it holds everything that was acknowledged. From then on nobody
/// acknowledges.
async fn elect(scene: &Scene) {
    let other = scene.failover(2).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
    let held = other.mysqld.unwrap().received;
    let caught_up = |state: &InstanceState| state.mysqld.as_ref().is_some_and(|it| held.is_subset(&it.received));
    scene.until(1, "holding what 2 has acknowledged", caught_up).await;
    scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
}

/// Instance 0 is killed with what it has; 1 takes over, 2 follows it.
async fn fail_over(scene: &mut Scene) {
    scene.power_off(0);
    scene.promote(1, 2, 1, &[0, 2]).await.unwrap();
    scene.follow(2, 2, 1, true).await.unwrap();
    scene.until_connected(2).await;
}

/// Instance 0 is back and told what it is now.
async fn come_back(scene: &mut Scene) {
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
    scene.follow(0, 2, 1, false).await.unwrap();
}

/// All three hold the same, by GTIDs and by content.
async fn same(scene: &Scene, table: &str) {
    scene.until_connected(0).await;
    let mut admin = scene.admin(1).await;
    admin.exec("CREATE TABLE IF NOT EXISTS t.after (id INT PRIMARY KEY)", SQL).await.unwrap();
    admin.exec("INSERT INTO t.after VALUES (1)", SQL).await.unwrap();
    let executed = scene.value(1, "SELECT @@gtid_executed").await;
    let checksum = checksum(scene, 1, table).await;
    for ordinal in [0, 2] {
        scene.until_value(ordinal, "SELECT @@gtid_executed", &executed).await;
        assert_eq!(self::checksum(scene, ordinal, table).await, checksum, "content of {ordinal}");
    }
}

async fn checksum(scene: &Scene, ordinal: u32, table: &str) -> String {
    let row: Option<(String, Option<u64>)> =
        scene.local(ordinal).await.first(&format!("CHECKSUM TABLE {table}"), SQL).await.unwrap();
    format!("{row:?}")
}

/// Statements of a session of its own, the last of which waits for an acknowledgement that never comes.
async fn unacknowledged(scene: &Scene, mut session: Session, statements: &[&str]) {
    let binlog = scene.volume(0).join("data");
    let size = || -> u64 {
        let files = fs::read_dir(&binlog).unwrap().flatten();
        files
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("binlog."))
            .map(|entry| entry.metadata().unwrap().len())
            .sum()
    };
    let (last, first) = statements.split_last().unwrap();
    for statement in first {
        session.exec(statement, SQL).await.unwrap();
    }
    let (before, last) = (size(), (*last).to_owned());
    tokio::spawn(async move { session.exec(&last, WAITS).await });
    let begun = std::time::Instant::now();
    while size() == before {
        assert!(begun.elapsed() < SQL, "{statements:?} is not in the binlog");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A session that writes as instance-d could: past the read-only flags, and with tags.
async fn local(scene: &Scene) -> Session {
    let mut session = scene.local(0).await;
    session.exec("SET SESSION sql_log_bin=1", SQL).await.unwrap();
    session
}

/// Two instances. What no account may do is done to 0 before, on a server without grants.
async fn pair(settings: &[(&str, &str)], by_hand: &[&str]) -> Scene {
    let mut scene = Scene::new(3);
    scene.configure(settings);
    scene.initialise(&[0, 1]).await;
    if !by_hand.is_empty() {
        scene.terminate(0);
        scene.ended(0).await;
        let run = scene.path("db-0/run");
        let mut mysqld = Command::new(testkit::program("mysqld"))
            .arg(format!("--defaults-file={}", run.join("my.cnf").display()))
            .args(["--skip-grant-tables", "--skip-networking", "--disabled-storage-engines=", "--super-read-only=OFF"])
            .args(["--read-only=OFF", "--offline-mode=OFF"])
            .spawn()
            .unwrap();
        let endpoint = Endpoint::Socket(run.join("mysqld.sock"));
        let nobody = Credentials::new("nobody", Password::default());
        let mut session = loop {
            match Session::connect(&endpoint, &nobody, SQL).await {
                Ok(session) => break session,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        session.exec("SET SESSION sql_log_bin=0", SQL).await.unwrap();
        for statement in by_hand {
            session.exec(statement, SQL).await.unwrap();
        }
        drop(session);
        kill(Pid::from_raw(i32::try_from(mysqld.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(mysqld.wait().unwrap().success());
        scene.start(0);
        scene.until(0, "running", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    }
    scene.promote(0, 1, 1, &[1]).await.unwrap();
    scene.follow(1, 1, 0, true).await.unwrap();
    scene.until_connected(1).await;
    scene
}

/// Instance 1, which acknowledges no more, is told that it is the primary of epoch 2; 0 is killed and back.
async fn replaced(scene: &mut Scene) {
    scene.power_off(0);
    scene.promote(1, 2, 0, &[0]).await.unwrap();
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
}

async fn hold_still(scene: &Scene) {
    scene.failover(1).fence(&FenceOrder { epoch: 2, start: false }, CALL).await.unwrap();
}

/// Both hold the same.
async fn equal(scene: &Scene, tables: &[&str]) {
    let mut admin = scene.admin(1).await;
    admin.exec("INSERT INTO t.`rows` VALUES (99999)", SQL).await.unwrap();
    let executed = scene.value(1, "SELECT @@gtid_executed").await;
    scene.until_value(0, "SELECT @@gtid_executed", &executed).await;
    for table in tables {
        assert_eq!(checksum(scene, 0, table).await, checksum(scene, 1, table).await, "{table}");
    }
    let names =
        "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA='t'";
    assert_eq!(scene.value(0, names).await, scene.value(1, names).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_with_waiters_comes_back_with_nothing_lost_and_nothing_extra() {
    let mut scene = Scene::cluster(3, 1).await;
    scene.make_table(0).await;
    let uuid = scene.value(0, "SELECT @@server_uuid").await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..8_u32 {
        let mut admin = scene.admin(0).await;
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            for number in 0.. {
                let id = number * 8 + writer;
                if stop.load(Ordering::Relaxed)
                    || admin.exec(&format!("INSERT INTO t.`rows` VALUES ({id})"), WAITS).await.is_err()
                {
                    return;
                }
                acknowledged.lock().await.insert(id);
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    elect(&scene).await;
    scene.until(0, "waiting", |state| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.waiters > 0)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.power_off(0);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    fail_over(&mut scene).await;
    come_back(&mut scene).await;
    let state = scene.until_connected(0).await;
    let rewound = state.rewound.as_ref().unwrap();
    println!("rewound {} in {:.3} s, {} bytes saved", rewound.gtids, rewound.seconds, rewound.saved_bytes);
    assert!(!state.tail_unproven && state.errant.is_none() && rewound.epoch == 2);
    assert!(rewound.gtids.count() >= 1 && rewound.saved_bytes > 0 && rewound.seconds > 0.0);
    assert_ne!(state.mysqld.unwrap().server_uuid, uuid, "with its old UUID it would hand out the cut GTIDs again");
    same(&scene, "t.`rows`").await;
    let rows: Vec<(u32,)> = scene.local(0).await.rows("SELECT id FROM t.`rows`", SQL).await.unwrap();
    let rows: BTreeSet<u32> = rows.into_iter().map(|row| row.0).collect();
    let acknowledged = acknowledged.lock().await;
    assert_eq!(acknowledged.difference(&rows).count(), 0, "acknowledged and lost");
    // What was being written when nobody answered may be there or not, as everywhere; here it is on all or on none.
    assert!(rows.difference(&acknowledged).count() <= 8);
    assert!(!scene.volume(0).join("rewind.json").exists());

    // What was cut can be read again.
    let saved = scene.volume(0).join("rewound/2-1.binlog");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(saved.with_extension("json")).unwrap()).unwrap();
    assert_eq!(manifest["gtids"], rewound.gtids.to_string());
    let read = Command::new(testkit::program("mysqlbinlog")).arg(&saved).output().unwrap();
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(text.matches("GTID_NEXT= '").count() as u64, rewound.gtids.count() + 1, "and AUTOMATIC at the end");

    // It takes part again: as a primary it hands out GTIDs of its own.
    scene.failover(1).demote(&DemoteOrder { epoch: 3, budget_ms: 2000, kill: true }, CALL).await.unwrap();
    scene.promote(0, 3, 0, &[1, 2]).await.unwrap();
    scene.follow(1, 3, 0, true).await.unwrap();
    scene.follow(2, 3, 0, true).await.unwrap();
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (2000000)", SQL).await.unwrap();
    for ordinal in [1, 2] {
        scene.until_value(ordinal, "SELECT COUNT(*) FROM t.`rows` WHERE id=2000000", "1").await;
    }
    assert!(matches!(scene.failover(0).state(CALL).await.unwrap().role, Role::Primary { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_of_every_kind_is_rolled_back() {
    let grants = ["FLUSH PRIVILEGES", "GRANT TRANSACTION_GTID_TAG ON *.* TO pelorus_local@localhost"];
    let grants = [&grants[..], &["GRANT INSERT, CREATE, DROP ON *.* TO pelorus_local@localhost"]].concat();
    let mut scene = pair(&[], &grants).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
    admin.exec("XA START 'kept'", SQL).await.unwrap();
    admin.exec("INSERT INTO t.`rows` VALUES (2)", SQL).await.unwrap();
    admin.exec("XA END 'kept'", SQL).await.unwrap();
    admin.exec("XA PREPARE 'kept'", SQL).await.unwrap();
    let acknowledged = scene.failover(0).state(CALL).await.unwrap().mysqld.unwrap().executed;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["CREATE TABLE t.foreign_table (id INT PRIMARY KEY)"]).await;
    let compressed = ["SET SESSION binlog_transaction_compression=ON", "INSERT INTO t.`rows` VALUES (10), (11), (12)"];
    unacknowledged(&scene, local(&scene).await, &compressed).await;
    let prepared = ["XA START 'cut'", "INSERT INTO t.`rows` VALUES (20)", "XA END 'cut'", "XA PREPARE 'cut'"];
    unacknowledged(&scene, scene.admin(0).await, &prepared).await;
    let tagged = ["SET SESSION gtid_next='AUTOMATIC:a_tag'", "INSERT INTO t.`rows` VALUES (30)"];
    unacknowledged(&scene, local(&scene).await, &tagged).await;
    replaced(&mut scene).await;
    scene.follow(0, 2, 1, false).await.unwrap();
    let state = scene.until_connected(0).await;
    let rewound = state.rewound.unwrap();
    assert_eq!(rewound.gtids.count(), 4, "{}", rewound.gtids);
    assert!(rewound.gtids.to_string().contains(":a_tag:1"), "{}", rewound.gtids);
    assert!(rewound.gtids.intersect(&acknowledged).is_empty());
    assert_eq!(scene.value(0, "SELECT GROUP_CONCAT(id) FROM t.`rows`").await, "1");
    for ordinal in [0, 1] {
        let xa: Vec<(i64, i64, i64, String)> =
            scene.local(ordinal).await.rows("XA RECOVER", SQL).await.unwrap_or_default();
        assert!(xa.iter().all(|row| row.3 == "kept"), "{xa:?}");
    }
    equal(&scene, &["t.`rows`"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_without_checksums_in_the_last_of_many_files_is_rolled_back() {
    let mut scene = pair(&[("binlog_checksum", "NONE"), ("max_binlog_size", "4096")], &[]).await;
    let mut admin = scene.make_table(0).await;
    for id in 0..60 {
        admin.exec(&format!("INSERT INTO t.`rows` VALUES ({id})"), SQL).await.unwrap();
    }
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (100)"]).await;
    unacknowledged(&scene, scene.admin(0).await, &["CREATE TABLE t.foreign_table (id INT)"]).await;
    let index = fs::read_to_string(scene.volume(0).join("data/binlog.index")).unwrap();
    assert!(index.lines().count() > 3);
    replaced(&mut scene).await;
    scene.follow(0, 2, 1, false).await.unwrap();
    let state = scene.until_connected(0).await;
    assert_eq!(state.rewound.unwrap().gtids.count(), 2);
    equal(&scene, &["t.`rows`"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_engine_can_undo_is_saved_and_cloned_over() {
    let by_hand = ["CREATE DATABASE loose", "CREATE TABLE loose.t (id INT) ENGINE=MyISAM"];
    let mut scene = pair(&[], &by_hand).await;
    scene.make_table(0).await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO loose.t VALUES (1)"]).await;
    replaced(&mut scene).await;
    scene.follow(0, 2, 1, false).await.unwrap();
    let state = scene
        .until(0, "failed and saved", |state| {
            state.phase == Phase::Failed && state.errant.as_ref().is_some_and(|errant| errant.saved)
        })
        .await;
    let errant = state.errant.unwrap();
    assert_eq!((errant.gtids.count(), errant.origin), (2, ErrantOrigin::Tail));
    assert!(state.mysqld.is_none() && state.tail_unproven && state.rewound.is_none(), "it was not started");
    assert!(scene.volume(0).join("rewound/2-1.binlog").exists());
    scene.clone_from(0, 1, state.data_id).await.unwrap();
    let cloned = |state: &InstanceState| state.phase == Phase::Running && state.mysqld.is_some();
    let state = scene.until(0, "cloned", cloned).await;
    assert!(state.errant.is_none() && !state.tail_unproven);
    scene.follow(0, 2, 1, false).await.unwrap();
    scene.until_connected(0).await;
    equal(&scene, &["t.`rows`"]).await;
    assert!(scene.volume(0).join("rewound/2-1.binlog").exists(), "the copy outlives the data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engine_has_committed_is_found_by_the_first_look_after_the_start() {
    let mut scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    // Waiters are answered, what they wrote is committed, and no replica has it.
    scene.local(0).await.exec("SET GLOBAL rpl_semi_sync_source_enabled=OFF", SQL).await.unwrap();
    scene.until_value(0, "SELECT COUNT(*) FROM t.`rows`", "1").await;
    replaced(&mut scene).await;
    scene.follow(0, 2, 1, false).await.unwrap();
    let failed = |state: &InstanceState| state.phase == Phase::Failed && state.errant.is_some();
    let state = scene.until(0, "failed", failed).await;
    let errant = state.errant.unwrap();
    assert_eq!((errant.gtids.count(), errant.origin, errant.saved), (1, ErrantOrigin::Tail, true));
    assert!(state.rewound.is_none() && state.tail_unproven && !state.in_force);
    assert!(scene.sql(0, "admin").await.is_err(), "closed to clients");
    assert!(scene.volume(0).join("rewound/2-1.binlog").exists());
    // It stays so, and what is saved is not saved again.
    scene.power_off(0);
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
    scene.follow(0, 2, 1, false).await.unwrap();
    let again = scene.until(0, "failed again", failed).await.errant.unwrap();
    assert_eq!(again, errant);
    assert!(!scene.volume(0).join("rewound/2-2.binlog").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_that_dies_at_any_step_is_seen_through() {
    let mut scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    let uuid = scene.value(0, "SELECT @@server_uuid").await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    replaced(&mut scene).await;
    // A source that is about to become the primary may lack what was acknowledged: nothing is cut for it.
    let down = |says: &'static str| {
        move |state: &InstanceState| is_crashed(state) && state.problem.as_ref().is_some_and(|text| text.contains(says))
    };
    let ahead = FollowOrder {
        source_address: None,
        epoch: 2,
        source: scene.name(1),
        source_host: scene.address(1).to_string(),
        acknowledges: false,
        ahead: true,
        source_holds: None,
        expendable: false,
    };
    scene.failover(0).follow(&ahead, CALL).await.unwrap();
    scene.until(0, "down until there is a primary", down("not the primary yet")).await;
    // A source that does not answer: it stays down, says why, and can be told again.
    scene.follow(0, 3, 2, false).await.unwrap();
    scene.until(0, "down with a reason", down("what db-2 has is not known")).await;
    assert!(!scene.volume(0).join("rewound").exists());
    let steps = ["saved", "planned", "cut", "uuid", "recorded-cut", "started", "recorded", "proven"];
    for (step, epoch) in steps.iter().zip(4..) {
        scene.power_off(0);
        scene.start_with(0, &[("PELORUS_FAILPOINTS", &format!("rewind.after.{step}=kill"))]);
        scene.until(0, "crashed", is_crashed).await;
        // The order is answered at once, or not at all by a process that died under it.
        let _ = scene.follow(0, epoch, 1, false).await;
        scene.ended(0).await;
    }
    scene.power_off(0);
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
    scene.follow(0, 20, 1, false).await.unwrap();
    let state = scene.until_connected(0).await;
    assert_ne!(state.mysqld.unwrap().server_uuid, uuid);
    assert!(!state.tail_unproven);
    assert_eq!(state.rewound.unwrap().gtids.count(), 1);
    assert!(!scene.volume(0).join("rewind.json").exists());
    let saved = fs::read_dir(scene.volume(0).join("rewound")).unwrap().count();
    assert_eq!(saved, 2, "one copy, and what it is");
    equal(&scene, &["t.`rows`"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_primary_that_has_to_be_killed_to_follow_is_rewound() {
    let scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    scene.promote(1, 2, 0, &[0]).await.unwrap();
    let state = scene.follow(0, 2, 1, false).await.unwrap();
    assert!(state.in_force && !state.tail_unproven && state.rewound.is_some());
    equal(&scene, &["t.`rows`"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_rewound_instance_that_is_promoted_is_cut_first() {
    let mut scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    let uuid = scene.value(0, "SELECT @@server_uuid").await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    scene.power_off(0);
    scene.promote(1, 2, 0, &[0]).await.unwrap();
    scene.start_with(0, &[("PELORUS_FAILPOINTS", "rewind.after.planned=kill")]);
    scene.until(0, "crashed", is_crashed).await;
    let _ = scene.follow(0, 2, 1, false).await;
    scene.ended(0).await;
    assert!(scene.volume(0).join("rewind.json").exists());
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
    // A fence does not start it, a promotion carries the cut out and still wants the rest proven.
    let fenced = scene.failover(0).fence(&FenceOrder { epoch: 3, start: false }, CALL).await.unwrap();
    assert_eq!(fenced.phase, Phase::Crashed);
    let order = |proven| PromoteOrder { proven, ..promotion(3, 1, &[1]) };
    scene.failover(0).promote(&order(None), CALL).await.unwrap();
    let closed = |state: &InstanceState| state.mysqld.as_ref().is_some_and(|mysqld| mysqld.source.enabled);
    let state = scene.until(0, "closed as a source", closed).await;
    let mysqld = state.mysqld.unwrap();
    assert!(state.tail_unproven && mysqld.super_read_only && mysqld.server_uuid != uuid);
    assert_eq!(scene.value(0, "SELECT COUNT(*) FROM t.`rows`").await, "0");
    let opened = scene.failover(0).promote(&order(Some(mysqld.executed)), CALL).await.unwrap();
    assert!(opened.in_force && !opened.tail_unproven);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_wrote_to_a_replica_is_saved_and_told_apart() {
    let scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    scene.until_value(1, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='t'", "1").await;
    scene.write_to_replica(1, "INSERT INTO t.`rows` VALUES (7)").await;
    let (code, message) = refused(scene.follow(1, 2, 0, false).await);
    assert_eq!(code, RefusalCode::Failed);
    assert!(message.contains("not in the history of db-0"), "{message}");
    let saved = |state: &InstanceState| state.errant.as_ref().is_some_and(|errant| errant.saved);
    let state = scene.until(1, "saved", saved).await;
    let errant = state.errant.unwrap();
    assert_eq!((state.phase, errant.origin, errant.gtids.count()), (Phase::Failed, ErrantOrigin::Written, 1));
    assert!(scene.volume(1).join("rewound/2-1.json").exists());

    // A person may have it thrown away; what an order names is saved before, if it can be.
    let order = CloneOrder {
        donor: scene.name(0),
        donor_host: scene.address(0).to_string(),
        condemns: state.data_id,
        saves: Some(errant.gtids),
    };
    scene.topology(1).clone_from(&order, CALL).await.unwrap();
    let cloned = |state: &InstanceState| state.phase == Phase::Running && state.mysqld.is_some();
    assert!(scene.until(1, "cloned", cloned).await.errant.is_none());
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM t.`rows`").await, "0");
    assert!(!scene.volume(1).join("rewound/2-2.json").exists(), "the same copy is made once");
}

/// mysqld is started on the tail, and dies when crash recovery has committed it and before its GTID is in any table: what a cut
/// then takes off the binlog would stay in the engine, and nobody would ever see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_a_start_may_have_committed_is_not_cut_off() {
    let mut scene = pair(&[], &[]).await;
    scene.make_table(0).await;
    hold_still(&scene).await;
    unacknowledged(&scene, scene.admin(0).await, &["INSERT INTO t.`rows` VALUES (1)"]).await;
    scene.power_off(0);
    // It cannot make its next binlog: crash recovery is over then, and its GTIDs are not in any table yet.
    let in_the_way = scene.volume(0).join("data/binlog.index_crash_safe");
    fs::create_dir(&in_the_way).unwrap();
    scene.start(0);
    scene.until(0, "crashed", is_crashed).await;
    let _ = scene.failover(0).fence(&FenceOrder { epoch: 2, start: true }, CALL).await;
    scene.until(0, "down again", |state| is_crashed(state) && state.problem.is_some()).await;
    fs::remove_dir(&in_the_way).unwrap();
    scene.promote(1, 2, 0, &[0]).await.unwrap();
    let _ = scene.follow(0, 2, 1, false).await;
    let over = |state: &InstanceState| state.phase == Phase::Failed || state.in_force;
    let state = scene.until(0, "condemned or a replica", over).await;
    if state.in_force {
        equal(&scene, &["t.`rows`"]).await;
    }
    assert_eq!(state.phase, Phase::Failed, "nobody knows whether it is committed");
    let saved = scene.until(0, "saved", |state| state.errant.as_ref().is_some_and(|errant| errant.saved)).await;
    assert_eq!(saved.errant.unwrap().origin, ErrantOrigin::Tail);
}

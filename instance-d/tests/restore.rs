//! Data from an archive: shipped from a real server to a real bucket, restored by the order of topology-ctl.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::sync::Arc;
use std::time::Duration;

use archive::{Root, Store};
use binlog_shipper::ship::{self, Progress, Step, Stream};
use binlog_shipper::source::{Source, Until};
use common::gtid::GtidSet;
use common::instance::{ArchiveOrder, InstanceState, Phase, RefusalCode, RestoreOrder, RestoreTarget};
use common::mysql::{Ca, Credentials, Endpoint, Password, Session, Tls};
use common::names::account;
use common::tls::{server_name, trusting};
use scene::{CALL, PORT, SQL, Scene, refused};
use testkit::S3;
use uuid::Uuid;

/// Everything that a restored copy is compared by.
const CONTENT: &str = "SELECT CONCAT_WS('/', COUNT(*), COALESCE(SUM(id), 0), (SELECT COUNT(*) FROM t.v)) FROM t.`rows`";

async fn value(session: &mut Session, sql: &str) -> String {
    session.first::<(String,)>(sql, SQL).await.unwrap().unwrap().0
}

async fn executed(scene: &Scene, ordinal: u32) -> GtidSet {
    scene.value(ordinal, "SELECT @@GLOBAL.gtid_executed").await.replace('\n', "").parse().unwrap()
}

/// Ships everything that instance 0 has.
async fn ship(scene: &Scene, s3: &S3, uid: &str) {
    let authority = std::fs::read_to_string(scene.path("db-0/tls/ca.crt")).unwrap();
    let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
    let stream = Stream {
        source: Source {
            host: scene.address(0).to_string(),
            port: PORT,
            tls: Arc::new(trusting(&authority).unwrap()),
            server_name: server_name(&scene.address(0).to_string()).unwrap(),
            user: account::SHIPPER.to_owned(),
            password: Password::new(scene.password(account::SHIPPER)),
            asker: Uuid::new_v4(),
        },
        server: scene.value(0, "SELECT @@server_uuid").await.parse().unwrap(),
        epoch: 1,
        executed: executed(scene, 0).await,
        root: Root::new("prod", "test", "db", uid),
        store,
        spool: scene.path(&format!("spool-{}", Uuid::new_v4())),
        flush_every: Duration::from_millis(100),
        spool_max: 64 << 20,
    };
    let watch = |_: &Step<'_>, _: &Progress| {};
    ship::run(&stream, &archive::catalogue::Known::default(), Until::Now, watch).await.unwrap();
}

/// Dumps instance 0, with the account for that.
async fn dump(scene: &Scene, s3: &S3, uid: &str) -> dump::Manifest {
    dump_of(scene, s3, uid, dump::schema::Selection::default()).await
}

/// The same of a part of it.
async fn dump_of(scene: &Scene, s3: &S3, uid: &str, selection: dump::schema::Selection) -> dump::Manifest {
    let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
    let endpoint = Endpoint::Tcp {
        host: scene.address(0).to_string(),
        port: PORT,
        tls: Tls { ca: Ca::File(scene.path("db-0/tls/ca.crt")), server_name: scene.address(0).to_string() },
    };
    let order = dump::make::Order {
        endpoint: &endpoint,
        credentials: &Credentials::new(account::BACKUP, Password::new(scene.password(account::BACKUP))),
        connections: 3,
        selection,
        store: &store,
        root: &Root::new("prod", "test", "db", uid),
    };
    dump::make::make(&order, &dump::make::new_id(), &dump::make::Progress::default()).await.unwrap().manifest
}

fn order(s3: &S3, target: RestoreTarget) -> RestoreOrder {
    RestoreOrder {
        location: serde_json::from_str(&s3.location("prod")).unwrap(),
        namespace: "test".to_owned(),
        cluster: "db".to_owned(),
        uid: None,
        dump: None,
        target,
    }
}

/// A cluster of one with an archive, and an empty instance beside it. What it holds at the end, and before the last statement,
/// and a moment between the two.
async fn archived() -> (Scene, S3, [String; 2], u64) {
    let mut scene = Scene::cluster(1, 0).await;
    let mut admin = scene.make_table(0).await;
    for sql in [
        "INSERT INTO t.`rows` VALUES (1),(2),(3)",
        "CREATE TABLE t.v (id INT PRIMARY KEY, v LONGTEXT)",
        "INSERT INTO t.v VALUES (1, REPEAT('x', 3000000))",
        "CREATE USER app IDENTIFIED BY 'known only here'",
        "GRANT SELECT ON t.* TO app",
    ] {
        admin.exec(sql, SQL).await.unwrap();
    }
    for id in 10..200 {
        admin.exec(&format!("INSERT INTO t.`rows` VALUES ({id})"), SQL).await.unwrap();
    }
    let before = value(&mut admin, CONTENT).await;
    let moment = value(&mut admin, "SELECT CAST(CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED) AS CHAR)").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    admin.exec("DELETE FROM t.`rows` WHERE id > 20", SQL).await.unwrap();
    let last = value(&mut admin, CONTENT).await;
    assert_ne!(before, last);
    let s3 = S3::start();
    ship(&scene, &s3, "uid").await;
    scene.start(1);
    scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
    (scene, s3, [before, last], moment.parse().unwrap())
}

fn has_data(state: &InstanceState) -> bool {
    state.phase == Phase::Running && state.mysqld.is_some()
}

/// Orders, and waits until the instance is empty again and says why.
async fn fails(scene: &Scene, order: &RestoreOrder) -> String {
    scene.topology(1).restore(order, CALL).await.unwrap();
    let failed = |state: &InstanceState| state.phase == Phase::Empty && state.problem.is_some();
    scene.until(1, "empty again", failed).await.problem.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_restored_to_the_end_and_serves() {
    let (scene, s3, [_, last], _) = archived().await;
    scene.topology(1).restore(&order(&s3, RestoreTarget::Newest), CALL).await.unwrap();
    let state = scene.until(1, "restored", has_data).await;
    let restored = state.restored.unwrap();
    assert_eq!(restored.archive, "prod/test/db/uid/");
    assert_eq!(restored.gtids, executed(&scene, 0).await);
    let mysqld = state.mysqld.unwrap();
    assert_eq!(mysqld.executed, restored.gtids);
    assert!(mysqld.super_read_only && mysqld.replication.is_none());
    for (variable, value) in [
        ("server_id", "2"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("replica_parallel_workers", "4"),
    ] {
        let is = scene.value(1, &format!("SELECT CAST(@@GLOBAL.{variable} AS CHAR)")).await;
        assert_eq!(is, value, "{variable}");
    }
    assert_eq!(
        refused(scene.topology(1).restore(&order(&s3, RestoreTarget::Newest), CALL).await).0,
        RefusalCode::HoldsData
    );
    assert!(!scene.log(1).contains(S3::SECRET), "the secret is in no log");
    scene.promote(1, 1, 0, &[]).await.unwrap();
    let mut admin = scene.admin(1).await;
    assert_eq!(value(&mut admin, CONTENT).await, last);
    admin.exec("INSERT INTO t.`rows` VALUES (1000)", SQL).await.unwrap();
    assert_eq!(scene.value(1, "SELECT user FROM mysql.user WHERE user='app'").await, "app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_ends_just_before_the_accident() {
    let (scene, s3, [before, _], moment) = archived().await;
    scene.topology(1).restore(&order(&s3, RestoreTarget::Time(moment)), CALL).await.unwrap();
    let state = scene.until(1, "restored", has_data).await;
    assert_eq!(scene.value(1, CONTENT).await, before);
    let missing = executed(&scene, 0).await.subtract(&state.restored.unwrap().gtids);
    assert_eq!(missing.count(), 1, "all but the accident");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_is_refused_with_what_can() {
    let (scene, s3, _, moment) = archived().await;
    let all = executed(&scene, 0).await;
    let late = fails(&scene, &order(&s3, RestoreTarget::Time(moment + 3_600_000_000))).await;
    assert!(late.contains("reaches to the commit time"), "{late}");
    let early = fails(&scene, &order(&s3, RestoreTarget::Time(1))).await;
    assert!(early.contains("begins with the commit time"), "{early}");
    let foreign: GtidSet = "07070707-0707-0707-0707-070707070707:1-5".parse().unwrap();
    let unknown = fails(&scene, &order(&s3, RestoreTarget::Gtid(all.union(&foreign)))).await;
    assert!(unknown.contains("07070707-0707-0707-0707-070707070707:1-5"), "{unknown}");
    let mut another = order(&s3, RestoreTarget::Newest);
    another.cluster = "nobody".to_owned();
    assert!(fails(&scene, &another).await.contains("there is no archive below prod/test/nobody/"));
    // A second cluster of that name has written there: which one has to be said.
    ship(&scene, &s3, "other").await;
    let mut which = order(&s3, RestoreTarget::Newest);
    let several = fails(&scene, &which).await;
    assert!(several.contains("other, uid"), "{several}");
    which.uid = Some("other".to_owned());
    scene.topology(1).restore(&which, CALL).await.unwrap();
    let state = scene.until(1, "restored", has_data).await;
    assert_eq!(state.restored.unwrap().archive, "prod/test/db/other/");
    assert_eq!(state.problem, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_steps_a_restore_begins_anew() {
    let (mut scene, s3, [_, last], _) = archived().await;
    for step in ["planned", "loaded", "fetched", "replayed", "settled"] {
        scene.power_off(1);
        scene.start_with(1, &[("PELORUS_FAILPOINTS", &format!("restore.after.{step}=kill"))]);
        scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
        let _ = scene.topology(1).restore(&order(&s3, RestoreTarget::Newest), CALL).await;
        scene.ended(1).await;
        assert!(!scene.volume(1).join("provisioned.json").exists());
    }
    scene.power_off(1);
    scene.start(1);
    scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
    scene.topology(1).restore(&order(&s3, RestoreTarget::Newest), CALL).await.unwrap();
    let state = scene.until(1, "restored", has_data).await;
    assert_eq!(scene.value(1, CONTENT).await, last);
    let gtids = state.restored.unwrap().gtids;
    // What it was made from is known after a crash, and all of the data is there: nothing of it was in memory only.
    scene.power_off(1);
    scene.start(1);
    scene.until(1, "crashed", |state| state.phase == Phase::Crashed && state.restored.is_some()).await;
    scene.promote(1, 1, 0, &[]).await.unwrap();
    let state = scene.until(1, "a primary", |state| state.in_force).await;
    assert_eq!(state.mysqld.unwrap().executed, gtids);
    assert_eq!(scene.value(1, CONTENT).await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_begins_with_the_newest_dump_within_its_target() {
    let (mut scene, s3, [before, _], _) = archived().await;
    let mut admin = scene.admin(0).await;
    let first = dump(&scene, &s3, "uid").await;
    assert_eq!(first.gtid, executed(&scene, 0).await);
    admin.exec("INSERT INTO t.`rows` VALUES (1001)", SQL).await.unwrap();
    let then = executed(&scene, 0).await;
    let wanted = value(&mut admin, CONTENT).await;
    let second = dump(&scene, &s3, "uid").await;
    // The newest of all, and of no use to begin with.
    let without = vec![("t".to_owned(), "rows".to_owned())];
    let some = dump::schema::Selection { without, ..dump::schema::Selection::default() };
    assert!(!dump_of(&scene, &s3, "uid", some).await.whole);
    // Binlogs from before the first dump are not needed any more.
    admin.exec("CREATE USER late IDENTIFIED BY 'l'", SQL).await.unwrap();
    admin.exec("DELETE FROM t.`rows`", SQL).await.unwrap();
    ship(&scene, &s3, "uid").await;
    let restore = async |scene: &mut Scene, target| {
        scene.power_off(1);
        std::fs::remove_dir_all(scene.volume(1)).unwrap();
        std::fs::create_dir(scene.volume(1)).unwrap();
        scene.start(1);
        scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
        let begun = scene.log(1).len();
        scene.topology(1).restore(&order(&s3, target), CALL).await.unwrap();
        let state = scene.until(1, "restored", has_data).await;
        (state.restored.unwrap().gtids, scene.log(1)[begun..].to_owned())
    };
    let (gtids, log) = restore(&mut scene, RestoreTarget::Gtid(then.clone())).await;
    assert_eq!(gtids, then);
    assert!(log.contains(&second.id), "the second holds nothing more: {log}");
    assert_eq!(scene.value(1, CONTENT).await, wanted);
    assert_eq!(scene.value(1, "SELECT @@GLOBAL.event_scheduler").await, "ON");
    let (gtids, log) = restore(&mut scene, RestoreTarget::Gtid(first.gtid.clone())).await;
    assert_eq!(gtids, first.gtid);
    assert!(log.contains(&first.id), "{log}");
    // Before any dump: from the first transaction on.
    let all: GtidSet = first.gtid.clone();
    let accident = all.iter().last().unwrap();
    let mut short = GtidSet::default();
    for gtid in all.iter().filter(|gtid| *gtid != accident) {
        short.insert(&gtid);
    }
    let (gtids, _) = restore(&mut scene, RestoreTarget::Gtid(short.clone())).await;
    assert_eq!((gtids, scene.value(1, CONTENT).await), (short, before));
    // To the end, and it serves.
    let (gtids, log) = restore(&mut scene, RestoreTarget::Newest).await;
    assert_eq!(gtids, executed(&scene, 0).await);
    assert!(log.contains(&second.id), "{log}");
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM mysql.user WHERE user IN ('app', 'late')").await, "2");
    assert_eq!(scene.value(1, "SELECT COUNT(*) FROM mysql.user WHERE user='root'").await, "0");
    scene.promote(1, 1, 0, &[]).await.unwrap();
    scene.admin(1).await.exec("INSERT INTO t.`rows` VALUES (1)", SQL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_begins_with_the_dump_that_is_named_or_says_why_not() {
    let (scene, s3, _, _) = archived().await;
    let first = dump(&scene, &s3, "uid").await;
    scene.admin(0).await.exec("INSERT INTO t.`rows` VALUES (1001)", SQL).await.unwrap();
    let second = dump(&scene, &s3, "uid").await;
    let without = vec![("t".to_owned(), "rows".to_owned())];
    let some = dump::schema::Selection { without, ..dump::schema::Selection::default() };
    let part = dump_of(&scene, &s3, "uid", some).await;
    ship(&scene, &s3, "uid").await;
    let named = |id: &str, target| RestoreOrder { dump: Some(id.to_owned()), ..order(&s3, target) };
    let refused = fails(&scene, &named("nobody", RestoreTarget::Newest)).await;
    assert!(refused.contains("the dump nobody in prod/test/db/uid/ is not there"), "{refused}");
    assert!(fails(&scene, &named(&part.id, RestoreTarget::Newest)).await.contains("is one of a part"));
    let beyond = fails(&scene, &named(&second.id, RestoreTarget::Gtid(first.gtid.clone()))).await;
    assert!(beyond.contains("holds what is not within the target"), "{beyond}");
    scene.topology(1).restore(&named(&first.id, RestoreTarget::Newest), CALL).await.unwrap();
    let state = scene.until(1, "restored", has_data).await;
    assert_eq!(state.restored.unwrap().gtids, executed(&scene, 0).await);
    assert!(scene.log(1).contains(&first.id), "the older one, as it was asked for");
}

/// What an instance threw away outlives its volume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_what_was_thrown_away_go_to_the_bucket_once() {
    let scene = Scene::cluster(2, 1).await;
    let s3 = S3::start();
    scene.make_table(0).await;
    scene.until_value(1, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='t'", "1").await;
    scene.write_to_replica(1, "INSERT INTO t.`rows` VALUES (7)").await;
    assert!(scene.follow(1, 2, 0, false).await.is_err(), "it holds what its source lacks");
    let state = scene.until(1, "a copy", |state| state.copies_to_archive == 1).await;
    assert_eq!(state.phase, Phase::Failed);
    let order = ArchiveOrder { location: serde_json::from_str(&s3.location("prod/")).unwrap() };
    scene.topology(1).archive(&order, CALL).await.unwrap();
    scene.until(1, "the copy to be archived", |state| state.copies_to_archive == 0).await;
    let folder = s3.folder().join("prod/test/db/uid/rewound/db-1");
    let copies: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    for file in ["2-1.binlog", "2-1.json"] {
        let own = std::fs::read(scene.volume(1).join("rewound").join(file)).unwrap();
        assert_eq!(std::fs::read(copies[0].join(file)).unwrap(), own, "{file}");
    }
    // Once it is there nothing is put again.
    std::fs::remove_dir_all(&folder).unwrap();
    scene.topology(1).archive(&order, CALL).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!folder.exists());
}

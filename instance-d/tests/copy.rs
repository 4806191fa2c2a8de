//! A physical dump: the files of one instance, by way of another that keeps nothing, and back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::fs;
use std::time::Duration;

use archive::{Root, Store};
use common::instance::{CopyOrder, InstanceState, Phase, RefusalCode, RestoreOrder, RestoreTarget};
use common::mysql::{Credentials, Password, Session};
use common::names::account;
use dump::Manifest;
use scene::{CALL, SQL, Scene, refused};
use testkit::S3;

const DUMP: &str = "20261130T000000000Z-physical";
const CONTENT: &str = "SELECT CONCAT_WS('/', COUNT(*), SUM(id), (SELECT SUM(LENGTH(v)) FROM t.v)) FROM t.`rows`";

fn store(s3: &S3) -> Store {
    Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap()
}

async fn manifest(s3: &S3) -> Option<Manifest> {
    let found = dump::load::manifest(&store(s3), &Root::new("prod", "test", "db", "uid"), DUMP).await.unwrap();
    found.map(|found| found.manifest)
}

fn copy(scene: &Scene, s3: &S3) -> CopyOrder {
    CopyOrder {
        location: serde_json::from_str(&s3.location("prod")).unwrap(),
        namespace: "test".to_owned(),
        cluster: "db".to_owned(),
        uid: "uid".to_owned(),
        dump: DUMP.to_owned(),
        donor_host: scene.address(0).to_string(),
        donor_authority: fs::read_to_string(scene.path("db-0/tls/ca.crt")).unwrap(),
        donor_password: Password::new(scene.password(account::CLONE)),
    }
}

fn restore(s3: &S3) -> RestoreOrder {
    RestoreOrder {
        location: serde_json::from_str(&s3.location("prod")).unwrap(),
        namespace: "test".to_owned(),
        cluster: "db".to_owned(),
        uid: None,
        dump: None,
        target: RestoreTarget::Newest,
    }
}

/// A server with data and a user, and an instance without beside it.
async fn scene() -> (Scene, S3, Session) {
    let mut scene = Scene::cluster(1, 0).await;
    let mut admin = scene.make_table(0).await;
    for sql in [
        "INSERT INTO t.`rows` VALUES (1),(2),(3)",
        "CREATE TABLE t.v (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)",
        "INSERT INTO t.v (v) VALUES (REPEAT('x', 3000000)), (REPEAT('y', 70000))",
        "CREATE USER app IDENTIFIED BY 'known only here'",
        "GRANT SELECT ON t.* TO app",
    ] {
        admin.exec(sql, SQL).await.unwrap();
    }
    scene.start(1);
    scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
    (scene, S3::start(), admin)
}

/// Orders a copy, and waits until the instance is empty again.
async fn copied(scene: &Scene, order: &CopyOrder) -> InstanceState {
    let begun = scene.topology(1).copy(order, CALL).await.unwrap();
    assert_eq!(begun.phase, Phase::Initialising);
    scene.until(1, "empty again", |state| state.phase == Phase::Empty).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_and_restored_under_the_accounts_of_the_new_cluster() {
    let (mut scene, s3, mut admin) = scene().await;
    let order = copy(&scene, &s3);

    // Cut in the middle it leaves nothing, and is begun anew.
    scene.topology(1).copy(&order, CALL).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    scene.power_off(1);
    scene.start(1);
    scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
    assert!(manifest(&s3).await.is_none());

    let state = copied(&scene, &order).await;
    assert_eq!(state.problem, None);
    let manifest = manifest(&s3).await.unwrap();
    let executed = scene.value(0, "SELECT @@GLOBAL.gtid_executed").await.replace('\n', "");
    assert_eq!(manifest.gtid, executed.parse().unwrap());
    assert!(manifest.whole && manifest.is_physical() && manifest.bytes() > manifest.stored());
    assert!(manifest.files.iter().all(|file| !file.path.contains("binlog.") && file.path != "auto.cnf"));
    assert_eq!(copied(&scene, &order).await.problem, None, "it was made already");

    // Of what comes after it nothing is in it.
    let before: String = admin.first::<(String,)>(CONTENT, SQL).await.unwrap().unwrap().0;
    admin.exec("INSERT INTO t.`rows` VALUES (7)", SQL).await.unwrap();
    let uuid = scene.value(0, "SELECT @@server_uuid").await;
    let old = scene.password(account::ADMIN);
    for file in fs::read_dir(scene.path("accounts")).unwrap() {
        let path = file.unwrap().path();
        let password = format!("{}-of-the-new-cluster", fs::read_to_string(&path).unwrap());
        fs::write(&path, password).unwrap();
    }
    scene.topology(1).restore(&restore(&s3), CALL).await.unwrap();
    let state = scene.until(1, "restored", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    let mysqld = state.mysqld.unwrap();
    assert_eq!((state.restored.unwrap().gtids, mysqld.executed), (manifest.gtid.clone(), manifest.gtid));
    assert!(mysqld.super_read_only && mysqld.replication.is_none());
    scene.promote(1, 2, 0, &[]).await.unwrap();
    let login = async |user: &str, password: &str| {
        Session::connect(&scene.endpoint(1), &Credentials::new(user, Password::new(password)), SQL).await
    };
    let mut app = login("app", "known only here").await.unwrap();
    assert_eq!(app.first::<(String,)>(CONTENT, SQL).await.unwrap().unwrap().0, before);
    assert_ne!(app.first::<(String,)>("SELECT @@server_uuid", SQL).await.unwrap().unwrap().0, uuid);
    assert!(login(account::ADMIN, &format!("{old}-of-the-new-cluster")).await.is_ok());
    assert!(login(account::ADMIN, &old).await.is_err(), "the password of the other cluster is good here");
    assert!(login("root", "").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_or_is_not_what_was_put_is_said_and_leaves_an_empty_instance() {
    let (scene, s3, _admin) = scene().await;
    let order = copy(&scene, &s3);
    let wrong = CopyOrder { donor_password: Password::new("wrong"), ..order.clone() };
    let problem = copied(&scene, &wrong).await.problem.unwrap();
    assert!(problem.contains("copy:") && problem.contains("denied"), "{problem}");
    let stranger = S3::start();
    let untrusted = CopyOrder { donor_authority: stranger.authority().to_owned(), ..order.clone() };
    let problem = copied(&scene, &untrusted).await.problem.unwrap();
    assert!(problem.contains("SSL") || problem.contains("certificate"), "{problem}");
    assert!(manifest(&s3).await.is_none());
    let (code, _) = refused(scene.topology(0).copy(&order, CALL).await);
    assert_eq!(code, RefusalCode::HoldsData);

    assert_eq!(copied(&scene, &order).await.problem, None);
    let key = manifest(&s3).await.unwrap().files.iter().find(|file| file.path == "mysql.ibd").unwrap().pieces[0]
        .blob
        .key
        .clone();
    let path = s3.folder().join(&key);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    scene.topology(1).restore(&restore(&s3), CALL).await.unwrap();
    let failed = |state: &InstanceState| state.phase == Phase::Empty && state.problem.is_some();
    let problem = scene.until(1, "empty again", failed).await.problem.unwrap();
    assert!(problem.contains(&key), "{problem}");
}

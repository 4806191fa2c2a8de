//! Clone, settings, accounts and certificates on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod scene;

use std::collections::BTreeMap;
use std::time::Duration;

use common::instance::{ConfigRequest, FenceOrder, Phase, RefusalCode, SettingVerdict};
use common::mysql::Session;
use scene::{CALL, PORT, SQL, Scene, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_instance_is_cloned_from_a_replica_and_follows() {
    let mut scene = Scene::cluster(2, 1).await;
    let mut admin = scene.make_table(0).await;
    admin.exec("INSERT INTO t.`rows` VALUES (1),(2)", SQL).await.unwrap();
    scene.until_value(1, "SELECT COUNT(*) FROM t.`rows`", "2").await;
    scene.start(2);
    scene.until(2, "empty", |state| state.phase == Phase::Empty).await;
    assert_eq!(refused(scene.follow(2, 1, 0, false).await).0, RefusalCode::NoData);
    let state = scene.clone_from(2, 1, None).await.unwrap();
    assert_eq!(state.phase, Phase::Cloning);
    let state = scene.until(2, "cloned", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    let mysqld = state.mysqld.unwrap();
    assert!(mysqld.replication.is_none(), "the donor's channel is forgotten");
    assert_eq!(mysqld.executed, scene.failover(0).state(CALL).await.unwrap().mysqld.unwrap().executed);
    assert_ne!(scene.failover(1).state(CALL).await.unwrap().data_id, state.data_id);
    assert_eq!(refused(scene.clone_from(2, 1, Some("other data".into())).await).0, RefusalCode::HoldsData);
    // Its account is locked on the primary since the promotion: it may come, without counting.
    let acks = common::instance::AcksOrder { epoch: 2, acks_needed: 1, struck: vec![] };
    scene.failover(0).acks(&acks, CALL).await.unwrap();
    scene.follow(2, 2, 0, false).await.unwrap();
    scene.until_connected(2).await;
    admin.exec("INSERT INTO t.`rows` VALUES (3)", SQL).await.unwrap();
    scene.until_value(2, "SELECT COUNT(*) FROM t.`rows`", "3").await;
    // Caught up: it may count from now on.
    scene.follow(2, 2, 0, true).await.unwrap();
    scene.until_connected(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_clone_leaves_an_empty_instance_that_says_why() {
    let mut scene = Scene::cluster(1, 0).await;
    scene.start(1);
    scene.until(1, "empty", |state| state.phase == Phase::Empty).await;
    scene.clone_from(1, 2, None).await.unwrap();
    let state = scene.until(1, "empty again", |state| state.phase == Phase::Empty && state.problem.is_some()).await;
    assert!(state.problem.unwrap().contains("clone"));
    scene.clone_from(1, 0, None).await.unwrap();
    let state = scene.until(1, "cloned", |state| state.phase == Phase::Running).await;
    assert_eq!(state.problem, None);
}

fn request(settings: &[(&str, &str)]) -> ConfigRequest {
    ConfigRequest {
        settings: settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<BTreeMap<_, _>>(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_judged_by_mysqld_and_dynamic_ones_are_set() {
    let scene = Scene::cluster(1, 0).await;
    let api = scene.topology(0);
    let good = request(&[
        ("max_connections", "77"),
        ("innodb_read_io_threads", "2"),
        ("long_query_time", "10"),
        ("innodb_buffer_pool_size", "64M"),
        ("sql_mode", "STRICT_TRANS_TABLES"),
        ("mysqlx_max_connections", "33"),
    ]);
    let answer = api.check_config(&good, CALL).await.unwrap();
    assert_eq!(answer.refused, None);
    assert_eq!(answer.settings["max_connections"], SettingVerdict::Dynamic);
    assert_eq!(answer.settings["innodb_read_io_threads"], SettingVerdict::NeedsRestart);
    assert_eq!(answer.settings["long_query_time"], SettingVerdict::InForce);
    assert_eq!(scene.value(0, "SELECT @@max_connections").await, "151", "a check changes nothing");
    let answer = api.apply_config(&good, CALL).await.unwrap();
    for key in ["max_connections", "innodb_buffer_pool_size", "sql_mode", "mysqlx_max_connections"] {
        assert_eq!(answer.settings[key], SettingVerdict::InForce, "{key}");
    }
    assert_eq!(answer.settings["innodb_read_io_threads"], SettingVerdict::NeedsRestart);
    assert_eq!(scene.value(0, "SELECT @@max_connections").await, "77");

    let bad = request(&[
        ("no_such_thing", "1"),
        ("max_connections", "9999999"),
        ("sync_binlog", "0"),
        ("sort_buffer_size", "1M"),
        ("event_scheduler", "SOMETIMES"),
    ]);
    let answer = api.apply_config(&bad, CALL).await.unwrap();
    println!("{answer:#?}");
    assert!(answer.refused.is_some());
    let reason = |key: &str| match &answer.settings[key] {
        SettingVerdict::Invalid { reason } => reason.clone(),
        other => panic!("{key} is {other:?}"),
    };
    assert!(reason("no_such_thing").contains("unknown variable"));
    assert!(reason("max_connections").contains("adjusted"));
    assert!(reason("sync_binlog").contains("acknowledged write"));
    assert!(reason("event_scheduler").contains("event_scheduler") || reason("event_scheduler").contains("SOMETIMES"));
    assert_eq!(
        answer.settings["sort_buffer_size"],
        SettingVerdict::Dynamic,
        "nothing is set when the whole is refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_owns_the_data_and_cannot_break_the_cluster() {
    let scene = Scene::cluster(1, 0).await;
    let mut admin = scene.make_table(0).await;
    for allowed in [
        "CREATE USER app IDENTIFIED BY 'x'",
        "GRANT SELECT, INSERT ON t.* TO app",
        "CREATE ROLE reader",
        "GRANT SELECT ON *.* TO reader",
        "GRANT reader TO app",
        "CREATE EVENT t.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t.`rows`",
        "CREATE DEFINER=app PROCEDURE t.p() SELECT 1",
        "CREATE VIEW t.v AS SELECT * FROM t.`rows`",
        "FLUSH TABLES t.`rows`",
        "SELECT COUNT(*) FROM mysql.user",
        "SHOW BINARY LOG STATUS",
        "ALTER USER app IDENTIFIED BY 'y' RETAIN CURRENT PASSWORD",
        "REVOKE INSERT ON t.* FROM app",
        "DROP PROCEDURE t.p",
        "DROP USER app",
    ] {
        admin.exec(allowed, SQL).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    for refused in [
        "SHUTDOWN",
        "RESTART",
        "RESET BINARY LOGS AND GTIDS",
        "PURGE BINARY LOGS BEFORE NOW()",
        "SET GLOBAL rpl_semi_sync_source_enabled=OFF",
        "SET GLOBAL super_read_only=ON",
        "SET PERSIST max_connections=5",
        "SET SESSION sql_log_bin=0",
        "SET GLOBAL offline_mode=ON",
        "UPDATE mysql.user SET account_locked='N'",
        "DELETE FROM mysql.gtid_executed",
        "DROP TABLE mysql.help_topic",
        "ALTER USER pelorus_local@localhost IDENTIFIED BY 'mine'",
        "DROP USER pelorus_repl_1",
        "SET PASSWORD FOR pelorus_backup = 'mine'",
        "CREATE DEFINER=pelorus_local@localhost PROCEDURE t.q() SHUTDOWN",
        "GRANT SHUTDOWN ON *.* TO reader",
        "GRANT CONNECTION_ADMIN ON *.* TO reader",
        "UNINSTALL PLUGIN rpl_semi_sync_source",
        "CREATE TABLE t.m (a INT) ENGINE=MyISAM",
        "STOP REPLICA",
        "CLONE LOCAL DATA DIRECTORY '/tmp/stolen'",
        "SELECT 1 INTO OUTFILE '/tmp/pelorus-stolen'",
        "SET gtid_next='11111111-2222-3333-4444-555555555555:1'",
        "ALTER INSTANCE DISABLE INNODB REDO_LOG",
        "INSTALL COMPONENT 'file://component_validate_password'",
    ] {
        assert!(admin.exec(refused, SQL).await.is_err(), "{refused} must be refused");
    }
    let ids: Vec<(u64,)> = scene
        .local(0)
        .await
        .rows("SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_USER='pelorus_local'", SQL)
        .await
        .unwrap();
    assert!(
        admin.exec(&format!("KILL {}", ids[0].0), SQL).await.is_err(),
        "KILL of instance-d's session must be refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_encrypted_and_certificates_are_reloaded() {
    use common::mysql::{Ca, Credentials, Endpoint, Password, Tls};
    let scene = Scene::cluster(1, 0).await;
    // Classic protocol without TLS.
    let mysql = testkit::program("mysql");
    let address = scene.address(0).to_string();
    let plain = std::process::Command::new(mysql)
        .args([
            "--no-defaults",
            "-h",
            &address,
            "-P",
            &PORT.to_string(),
            "-u",
            "admin",
            "--ssl-mode=DISABLED",
            "-e",
            "SELECT 1",
        ])
        .env("MYSQL_PWD", scene.password("admin"))
        .output()
        .unwrap();
    assert!(!plain.status.success(), "plaintext must be refused");
    assert!(String::from_utf8_lossy(&plain.stderr).contains("secure"), "{}", String::from_utf8_lossy(&plain.stderr));

    // Without a daemon's certificate: probes only.
    let stranger = scene.client_as(0, "db-0/tls");
    let (code, _) = refused(stranger.state(CALL).await);
    assert_eq!(code, RefusalCode::Forbidden);
    let (code, _) = refused(scene.topology(0).fence(&FenceOrder { epoch: 9, start: false }, CALL).await);
    assert_eq!(code, RefusalCode::Forbidden, "role orders are for failover-d");

    // A new certificate is taken into use.
    let before = scene.value(0, "SELECT VALUE FROM performance_schema.tls_channel_status WHERE CHANNEL='mysql_main' AND PROPERTY='Ssl_server_not_after'").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.certify(0);
    let serial = |session: Result<Session, common::mysql::Error>| session.is_ok();
    let endpoint = Endpoint::Tcp {
        host: address.clone(),
        port: PORT,
        tls: Tls { ca: Ca::File(scene.path("db-0/tls/ca.crt")), server_name: address.clone() },
    };
    let credentials = Credentials::new("admin", Password::new(scene.password("admin")));
    assert!(serial(Session::connect(&endpoint, &credentials, SQL).await));
    let mut after = before.clone();
    for _ in 0..100 {
        after = scene.value(0, "SELECT VALUE FROM performance_schema.tls_channel_status WHERE CHANNEL='mysql_main' AND PROPERTY='Ssl_server_not_after'").await;
        if after != before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_ne!(after, before, "mysqld has taken the new certificate");
    assert!(serial(Session::connect(&endpoint, &credentials, SQL).await));
    scene.failover(0).state(CALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binlogs_of_a_cluster_with_an_archive_are_not_purged_by_mysqld() {
    let mut scene = Scene::cluster(1, 0).await;
    let purges = "SELECT CAST(@@GLOBAL.binlog_expire_logs_auto_purge AS CHAR)";
    assert_eq!(scene.value(0, purges).await, "1");
    scene.archive();
    scene.until_value(0, purges, "0").await;
    // And from the start, when it is started with that.
    scene.terminate(0);
    scene.ended(0).await;
    scene.start(0);
    scene.until(0, "up", |state| state.phase == Phase::Running && state.mysqld.is_some()).await;
    assert_eq!(scene.value(0, purges).await, "0");
    scene.configure(&[]);
    scene.until_value(0, purges, "1").await;
}

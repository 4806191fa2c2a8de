//! `dump`, through the port of a pod, from a real server with TLS.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use common::tls::{Authority, LeafRequest};
use k8s_openapi::ByteString;
use serde_json::json;
use testkit::{Mysqld, Options};

use super::{Said, Scene};

/// Of the account; a quote and a backslash go over the wire, not through SQL.
const PASSWORD: &str = "it's-secret";

/// A server whose certificate is that of an instance, and the objects by which it is found.
fn instance(scene: &Scene) -> Mysqld {
    let home = scene.home.path();
    let authority = Authority::generate("test", Duration::from_secs(3600)).unwrap();
    let leaf = LeafRequest {
        common_name: "mysqld".to_owned(),
        dns_names: vec!["shop-0.shop.team-a.svc".to_owned()],
        addresses: Vec::new(),
        lifetime: Duration::from_secs(3600),
    };
    let leaf = authority.issue(&leaf).unwrap();
    let mut options = Options::default().tcp();
    for (name, option, text) in [
        ("ca.crt", "ca", authority.certificate()),
        ("tls.crt", "cert", &leaf.certificate),
        ("tls.key", "key", &leaf.key),
    ] {
        fs::write(home.join(name), text).unwrap();
        options = options.arg(format!("--ssl-{option}={}", home.join(name).display()));
    }
    let mysqld = Mysqld::start(options);
    let secret = |key: &str, text: &str| json!({"data": {key: ByteString(text.as_bytes().to_vec())}});
    scene.api.put("Secret", "shop-tls", secret("ca.crt", authority.certificate()));
    scene.api.put("Secret", "shop-accounts", secret("pelorus_backup", PASSWORD));
    let instances = json!([{"name": "shop-0", "role": "Primary", "state": "Running"}]);
    scene.api.put("MySQLCluster", "shop", json!({"status": {"primary": "shop-0", "instances": instances}}));
    mysqld
        .sql(
            "CREATE USER pelorus_backup IDENTIFIED BY 'it''s-secret' REQUIRE SSL; \
             GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, PROCESS, REPLICATION CLIENT, BACKUP_ADMIN, FLUSH_TABLES, \
             SHOW_ROUTINE, XA_RECOVER_ADMIN, SYSTEM_USER ON *.* TO pelorus_backup; \
             CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000), KEY (v(10))); \
             SET SESSION cte_max_recursion_depth=100000; \
             INSERT INTO d.a (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT REPEAT(CHAR(64 + i % 26), 500) FROM n; \
             CREATE TABLE d.b (id INT PRIMARY KEY); CREATE VIEW d.c AS SELECT COUNT(*) AS n FROM d.a",
        )
        .unwrap();
    mysqld
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_goes_through_the_api_server_and_loads() {
    let scene = Scene::new().await;
    let mut mysqld = instance(&scene);
    scene.run("dump shop").await.is(1, "forward port 3306 of pod shop-0");
    let port = mysqld.port().unwrap();
    scene.api.pods(SocketAddr::from(([127, 0, 0, 1], port)));
    let output = scene.command("dump shop --exclude-tables d.b").output().await.unwrap();
    let said = Said::of(&output);
    said.is(0, "1 tables, 20 000 rows from shop-0");
    assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD));
    let file = scene.home.path().join("dump.sql");
    fs::write(&file, &output.stdout).unwrap();
    let copy = Mysqld::start(Options::default());
    copy.read(&file).unwrap();
    let picture = "CHECKSUM TABLE d.a; SELECT * FROM d.c; SHOW CREATE TABLE d.a";
    assert_eq!(copy.sql(picture), mysqld.sql(picture));
    assert!(copy.sql("SELECT * FROM d.b").is_err(), "it was left out");

    scene.run("dump shop --exclude-tables b").await.is(2, "'b' is no table");
    scene.run("dump bare").await.is(1, "the cluster has no status yet");
    scene.api.put("Secret", "shop-accounts", json!({"data": {}}));
    scene.run("dump shop").await.is(3, "Secret shop-accounts has no key pelorus_backup");
    let wrong = ByteString(b"another".to_vec());
    scene.api.put("Secret", "shop-accounts", json!({"data": {"pelorus_backup": wrong}}));
    scene.run("dump shop").await.is(1, "Access denied");
    mysqld.kill();
    scene.run("dump shop").await.is(1, "forward port 3306 of pod shop-0: Connection refused");
}

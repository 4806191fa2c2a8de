//! The kit itself: servers start, differ, survive a kill, and leave nothing behind.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use testkit::{Mysqld, Options, program};

#[test]
fn server_starts_and_leaves_nothing_behind() {
    let mysqld = Mysqld::start(Options::default());
    let (home, pid) = (mysqld.home().to_owned(), mysqld.pid().unwrap());
    assert_eq!(mysqld.sql("SELECT @@gtid_mode, @@gtid_executed, @@log_bin").unwrap(), "ON\t\t1\n");
    assert!(mysqld.sql("SELEKT 1").unwrap_err().contains("1064"));
    drop(mysqld);
    assert!(!home.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn servers_have_their_own_uuid_and_data() {
    let (a, b) = (Mysqld::start(Options::default()), Mysqld::start(Options::default().arg("--server-id=2").tcp()));
    let uuid = |mysqld: &Mysqld| mysqld.sql("SELECT @@server_uuid").unwrap();
    assert_ne!(uuid(&a), uuid(&b));
    assert_eq!(b.sql("SELECT @@server_id, @@port").unwrap(), format!("2\t{}\n", b.port().unwrap()));
    a.sql("CREATE DATABASE d").unwrap();
    assert!(b.sql("USE d").is_err());
}

#[test]
fn killed_and_stopped_server_comes_back_with_its_data() {
    let mut mysqld = Mysqld::start(Options::default());
    mysqld.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)").unwrap();
    mysqld.kill();
    assert!(mysqld.sql("SELECT 1").is_err());
    mysqld.run();
    mysqld.stop();
    mysqld.run();
    assert_eq!(mysqld.sql("SELECT a FROM d.t").unwrap(), "1\n");
}

#[test]
fn programs_run_on_this_host() {
    for name in ["mysqld", "mysql", "mysqlbinlog"] {
        let output = Command::new(program(name)).arg("--version").output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Ver "), "{name}");
    }
}

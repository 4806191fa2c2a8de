//! A frozen server costs the deadline and no more. Alone in its process: it counts sockets.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use common::mysql::{Ca, Credentials, Endpoint, Password, Session, Tls};
use testkit::{Mysqld, Options};

const WITHIN: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// Open sockets of this process.
fn sockets() -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[tokio::test]
async fn frozen_server_costs_the_deadline_and_leaks_no_socket() {
    let mysqld = Mysqld::start(Options::default().tcp());
    let root = Credentials::new("root", Password::default());
    let socket = Endpoint::Socket(mysqld.socket());
    let authority = rcgen::generate_simple_self_signed(vec!["db".to_owned()]).unwrap().cert.pem();
    let tls = Tls { ca: Ca::Pem(authority), server_name: "db".to_owned() };
    let tcp = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: mysqld.port().unwrap(), tls };
    let mut held = Session::connect(&socket, &root, WITHIN).await.unwrap();
    let mut other = Session::connect(&socket, &root, WITHIN).await.unwrap();
    other.exec("BEGIN", WITHIN).await.unwrap();
    let before = sockets();
    mysqld.freeze();
    for endpoint in [&socket, &tcp].repeat(5) {
        let start = Instant::now();
        let late = Session::connect(endpoint, &root, SHORT).await.unwrap_err();
        assert!(late.is_timeout() && start.elapsed() < SHORT * 3, "{late}");
    }
    assert!(held.exec("DO 1", SHORT).await.unwrap_err().is_timeout());
    assert!(other.exec("DO 1", SHORT).await.unwrap_err().is_timeout());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(sockets(), before - 2);
    mysqld.thaw();
    Session::connect(&socket, &root, WITHIN).await.unwrap().exec("DO 1", WITHIN).await.unwrap();
}

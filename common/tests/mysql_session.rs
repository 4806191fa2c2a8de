//! Sessions against a real server: deadlines, TLS, errors without secrets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::mysql::{Ca, Credentials, Endpoint, Error, Password, Session, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use testkit::{Mysqld, Options};

const WITHIN: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn root() -> Credentials {
    Credentials::new("root", Password::default())
}

async fn session(mysqld: &Mysqld) -> Session {
    Session::connect(&Endpoint::Socket(mysqld.socket()), &root(), WITHIN).await.unwrap()
}

#[tokio::test]
async fn rows_come_back_as_asked() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let rows: Vec<(i64, Option<String>)> =
        session.rows("SELECT 1, 'a' UNION ALL SELECT 2, NULL", WITHIN).await.unwrap();
    assert_eq!(rows, [(1, Some("a".to_owned())), (2, None)]);
    assert_eq!(session.first::<(i64,)>("SELECT 7", WITHIN).await.unwrap(), Some((7,)));
    assert_eq!(session.first::<(i64,)>("SELECT 7 FROM DUAL WHERE 0", WITHIN).await.unwrap(), None);
    let mode = session.first::<(String,)>("SELECT @@sql_mode", WITHIN).await.unwrap().unwrap().0;
    assert_eq!(mode, common::mysql::SQL_MODE);
    let shape = session.rows::<(i64,)>("SELECT 'text'", WITHIN).await.unwrap_err();
    assert!(matches!(shape, Error::Shape { .. }), "{shape}");
    assert!(!session.is_closed());
}

#[tokio::test]
async fn server_errors_carry_the_code_and_no_secret() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let missing = session.exec("SELECT * FROM mysql.nothing", WITHIN).await.unwrap_err();
    assert_eq!(missing.code(), Some(1146));
    let syntax = session.exec("CREATE USER a IDENTIFIED BY 'hunter2' NONSENSE 'hunter2'", WITHIN).await.unwrap_err();
    assert_eq!(syntax.code(), Some(1064));
    assert!(!format!("{syntax} {syntax:?}").contains("hunter2"), "{syntax}");
    session.exec("SELECT 1", WITHIN).await.expect("the session is usable after an error");
    let credentials = Credentials::new("root", Password::new("hunter2"));
    assert!(!format!("{credentials:?}").contains("hunter2"));
    let denied = Session::connect(&Endpoint::Socket(mysqld.socket()), &credentials, WITHIN).await.unwrap_err();
    assert_eq!(denied.code(), Some(1045), "{denied}");
}

#[tokio::test]
async fn missed_deadline_closes_the_session() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let start = Instant::now();
    let late = session.exec("SELECT SLEEP(30)", SHORT).await.unwrap_err();
    assert!(late.is_timeout() && start.elapsed() < SHORT * 4, "{late}");
    assert!(session.is_closed());
    assert!(matches!(session.exec("SELECT 1", WITHIN).await.unwrap_err(), Error::Closed { .. }));
}

#[tokio::test]
async fn abandoned_call_cannot_answer_the_next_one() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    let abandoned = tokio::time::timeout(SHORT, session.first::<(i64,)>("SELECT SLEEP(2) + 40", WITHIN)).await;
    assert!(abandoned.is_err());
    assert!(matches!(session.first::<(i64,)>("SELECT 1", WITHIN).await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn killed_session_ends_and_a_gone_one_is_no_error() {
    let mysqld = Mysqld::start(Options::default());
    let (mut victim, mut killer) = (session(&mysqld).await, session(&mysqld).await);
    let id = u64::from(victim.id());
    let (ended, killed) = tokio::join!(victim.exec("SELECT SLEEP(30)", WITHIN), async {
        tokio::time::sleep(SHORT).await;
        killer.kill(id, WITHIN).await
    });
    killed.unwrap();
    assert!(ended.is_err());
    killer.kill(id, WITHIN).await.unwrap();
    killer.kill(4_000_000, WITHIN).await.unwrap();
}

#[tokio::test]
async fn dropped_session_is_gone_from_the_server() {
    let mysqld = Mysqld::start(Options::default());
    let mut session = session(&mysqld).await;
    for _ in 0..5 {
        Session::connect(&Endpoint::Socket(mysqld.socket()), &root(), WITHIN).await.unwrap().close();
    }
    let start = Instant::now();
    let count = "SELECT COUNT(*) FROM performance_schema.threads WHERE type='FOREGROUND' AND processlist_user='root'";
    while session.first::<(u32,)>(count, WITHIN).await.unwrap() != Some((1,)) {
        assert!(start.elapsed() < WITHIN, "sessions stay behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A CA and a server certificate for one name, as files.
struct Pki {
    ca: String,
    directory: tempfile::TempDir,
}

impl Pki {
    fn new(name: &str) -> Self {
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let server = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&server, &issuer).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [("ca", ca.clone()), ("cert", certificate.pem()), ("key", server.serialize_pem())] {
            fs::write(directory.path().join(file), text).unwrap();
        }
        Self { ca, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[tokio::test]
async fn tls_verifies_authority_and_name() {
    let (pki, stranger) = (Pki::new("db-0.db.shop.svc"), Pki::new("db-0.db.shop.svc"));
    let mut options = Options::default().tcp().arg("--require-secure-transport=ON");
    for (option, file) in [("ca", "ca"), ("cert", "cert"), ("key", "key")] {
        options = options.arg(format!("--ssl-{option}={}", pki.file(file).display()));
    }
    let mysqld = Mysqld::start(options);
    session(&mysqld).await.exec("CREATE USER app IDENTIFIED BY 'long enough'", WITHIN).await.unwrap();
    let app = Credentials::new("app", Password::new("long enough"));
    let endpoint = |ca: Ca, server_name: &str| Endpoint::Tcp {
        host: "127.0.0.1".to_owned(),
        port: mysqld.port().unwrap(),
        tls: Tls { ca, server_name: server_name.to_owned() },
    };
    for ca in [Ca::Pem(pki.ca.clone()), Ca::File(pki.file("ca"))] {
        let mut session = Session::connect(&endpoint(ca, "db-0.db.shop.svc"), &app, WITHIN).await.unwrap();
        let cipher: Option<(String, String)> = session.first("SHOW STATUS LIKE 'Ssl_version'", WITHIN).await.unwrap();
        assert_eq!(cipher.unwrap().1, "TLSv1.3");
    }
    let own = Ca::Pem(pki.ca.clone());
    let other_name = Session::connect(&endpoint(own.clone(), "db-1.db.shop.svc"), &app, WITHIN).await.unwrap_err();
    let other_ca = Session::connect(&endpoint(Ca::Pem(stranger.ca.clone()), "db-0.db.shop.svc"), &app, WITHIN).await;
    for error in [other_name, other_ca.unwrap_err()] {
        assert!(matches!(&error, Error::Connection { reason, .. } if reason.contains("certificate")), "{error}");
    }
    let no_ca = Session::connect(&endpoint(Ca::Pem(String::new()), "db-0.db.shop.svc"), &app, WITHIN).await;
    assert!(matches!(no_ca, Err(Error::Connection { .. })));
}

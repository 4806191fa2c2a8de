//! A server with TLS and an account for streaming, a bucket, and what compares the two.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic, missing_docs)]

mod filled;
mod weather;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use archive::catalogue::{self, Held, Known};
use archive::{Root, SegmentKey, Store, segment};
use binlog_shipper::ship::{self, Progress, Step, Stream};
use binlog_shipper::source::{Source, Until};
use common::gtid::GtidSet;
use common::mysql::Password;
use common::tls::{Authority, LeafRequest, server_name, trusting};
use tempfile::TempDir;
use testkit::{Mysqld, Options, S3, program};
use uuid::Uuid;

pub use self::filled::{empty, restore, rows, write};
pub use self::weather::bad_weather;

/// Of the streaming account. A quote and a backslash: it goes over the wire, not through SQL.
const PASSWORD: &str = "it's \\ secret";

/// What a server needs for TLS, and who believes it.
struct Tls {
    home: TempDir,
    authority: String,
}

impl Tls {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::generate("test", Duration::from_secs(3600)).unwrap();
        let leaf = authority
            .issue(&LeafRequest {
                common_name: "mysqld".to_owned(),
                dns_names: vec!["localhost".to_owned()],
                addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                lifetime: Duration::from_secs(3600),
            })
            .unwrap();
        let parts = [("ca.crt", authority.certificate()), ("tls.crt", &leaf.certificate), ("tls.key", &leaf.key)];
        for (name, text) in parts {
            fs::write(home.path().join(name), text).unwrap();
        }
        Self { home, authority: authority.certificate().to_owned() }
    }

    fn options(&self, options: Options) -> Options {
        let file = |name: &str| self.home.path().join(name).display().to_string();
        options
            .tcp()
            .arg(format!("--ssl-ca={}", file("ca.crt")))
            .arg(format!("--ssl-cert={}", file("tls.crt")))
            .arg(format!("--ssl-key={}", file("tls.key")))
    }
}

pub struct Scene {
    pub mysqld: Mysqld,
    pub s3: S3,
    pub root: Root,
    pub store: Store,
    tls: Tls,
}

impl Scene {
    pub fn new(options: Options) -> Self {
        let tls = Tls::new();
        let mysqld = Mysqld::start(tls.options(options));
        account(&mysqld);
        mysqld
            .sql("CREATE DATABASE shop; CREATE TABLE shop.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)")
            .unwrap();
        let s3 = S3::start();
        let store = Store::new(&serde_json::from_str(&s3.location("prod")).unwrap()).unwrap();
        let root = Root::new("prod", "team-a", "shop", "uid");
        Self { mysqld, s3, root, store, tls }
    }

    /// Another server, with nothing in it.
    pub fn another(&self, options: Options) -> Mysqld {
        let mysqld = Mysqld::start(self.tls.options(options));
        account(&mysqld);
        mysqld.sql("RESET BINARY LOGS AND GTIDS").unwrap();
        mysqld
    }

    pub fn stream(&self) -> Stream {
        self.stream_from(&self.mysqld, 1)
    }

    pub fn stream_from(&self, mysqld: &Mysqld, epoch: u64) -> Stream {
        Stream {
            source: Source {
                host: "127.0.0.1".to_owned(),
                port: mysqld.port().unwrap(),
                tls: Arc::new(trusting(&self.tls.authority).unwrap()),
                server_name: server_name("localhost").unwrap(),
                user: "shipper".to_owned(),
                password: Password::new(PASSWORD),
                asker: Uuid::new_v4(),
            },
            server: ask(mysqld, "SELECT @@server_uuid").parse().unwrap(),
            epoch,
            executed: executed(mysqld),
            root: self.root.clone(),
            store: self.store.clone(),
            spool: self.tls.home.path().join(format!("spool-{}", Uuid::new_v4())),
            flush_every: Duration::from_millis(100),
            spool_max: 64 << 20,
        }
    }

    /// Ships everything that there is.
    pub async fn ship(&self, known: &Known) -> Progress {
        self.ship_from(&self.stream(), known).await
    }

    pub async fn ship_from(&self, stream: &Stream, known: &Known) -> Progress {
        let mut last = Progress::default();
        let watched = std::sync::Mutex::new(&mut last);
        let watch = |_: &Step<'_>, progress: &Progress| **watched.lock().unwrap() = progress.clone();
        ship::run(stream, known, Until::Now, watch).await.unwrap();
        last
    }

    pub fn ask(&self, question: &str) -> String {
        ask(&self.mysqld, question)
    }

    pub fn executed(&self) -> GtidSet {
        executed(&self.mysqld)
    }

    pub async fn held(&self) -> Vec<Held> {
        catalogue::read(&self.store, &self.root).await.unwrap()
    }

    pub async fn known(&self) -> Known {
        Known::of(&self.held().await)
    }

    pub async fn shipped(&self) -> GtidSet {
        catalogue::shipped(&self.held().await)
    }

    /// What the archive has of one file, put together: every byte, or a panic that says where it is missing.
    pub async fn bytes(&self, held: &Held) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for part in &held.segments {
            let key = SegmentKey::new(held.file.clone(), part.first, part.last).unwrap();
            let object = self.store.get(&self.root.segment(&key)).await.unwrap().unwrap();
            let (segment, content) = segment::decode(&object, &key).unwrap();
            assert_eq!((segment.gtid, segment.sha256), (part.gtid.clone(), part.sha256.clone()));
            let first = usize::try_from(part.first).unwrap();
            assert!(first <= bytes.len(), "{} has a hole before {first}", held.file);
            // Segments that overlap have the same bytes.
            let known = content.len().min(bytes.len() - first);
            let differs =
                bytes[first..first + known].iter().zip(&content[..known]).position(|(one, other)| one != other);
            assert_eq!(
                differs,
                None,
                "{:x?} is not {:x?}",
                &bytes[first..first + known.min(200)],
                &content[..known.min(200)]
            );
            bytes.extend(&content[known..]);
        }
        bytes
    }

    /// A binlog file of the server.
    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.mysqld.datadir().join(name)).unwrap()
    }

    /// What `mysqlbinlog` makes of a binlog.
    pub fn mysqlbinlog(&self, bytes: &[u8]) -> String {
        let path: PathBuf = self.tls.home.path().join("restored.000001");
        fs::write(&path, bytes).unwrap();
        let output = Command::new(program("mysqlbinlog")).arg("--verify-binlog-checksum").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// An account for streaming, as every instance has: without a GTID.
fn account(mysqld: &Mysqld) {
    let password = common::sql::quote_str(PASSWORD, false);
    mysqld
        .sql(&format!(
            "SET sql_log_bin=0; CREATE USER shipper IDENTIFIED BY {password} REQUIRE SSL; \
             GRANT REPLICATION SLAVE ON *.* TO shipper"
        ))
        .unwrap();
}

pub fn ask(mysqld: &Mysqld, question: &str) -> String {
    mysqld.sql(question).unwrap().trim().replace("\\n", "")
}

pub fn executed(mysqld: &Mysqld) -> GtidSet {
    ask(mysqld, "SELECT @@gtid_executed").parse().unwrap()
}

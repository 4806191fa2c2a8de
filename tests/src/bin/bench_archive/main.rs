//! The archive, side by side with what one would use instead, on real servers and a real bucket of this host (no Kubernetes):
//! `make bench-archive`.
//!
//! ```text
//! dump     MySQL -> bucket           mysqldump --single-transaction | zstd -1 > file
//! load     bucket -> empty server    zstd -dc file | mysql
//! replay   bucket -> relay logs      mysqlbinlog binlogs | mysql
//! stream   commit -> bucket, at a pace; without one; many at once
//! ```
//!
//! Ten tables, one of which has four fifths of all, each with two secondary indexes. Both sides write with the same settings of
//! durability. `GB` sets the size (1), `RUNS` the rounds (3), `TRANSACTIONS` what is replayed (20000), `PARTS` what is measured
//! (`dumps,replays,streams`).

mod dumps;
mod replays;
mod streams;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use archive::{Root, Store};
use binlog_shipper::ship::Stream;
use binlog_shipper::source;
use common::gtid::GtidSet;
use common::mysql::{Credentials, Endpoint, Password};
use common::tls::{Authority, LeafRequest, server_name, trusting};
use testkit::{Mysqld, Options, S3, program};
use tests::bench::{report, setting};
use uuid::Uuid;

/// In no event.
const SERVER_ID: u32 = 4_000_000_000;
/// What a restore sets while it replays: nothing counts before it is over.
const QUICK: &str = "SET GLOBAL sync_binlog=0; SET GLOBAL innodb_flush_log_at_trx_commit=0";

/// As a small production server has it, durable.
fn options() -> Options {
    [
        "--innodb-buffer-pool-size=1G",
        "--innodb-redo-log-capacity=1G",
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-doublewrite=ON",
        "--sync-binlog=1",
        "--local-infile=ON",
        "--max-allowed-packet=64M",
        // A hundred streams, and a writer.
        "--max-connections=300",
    ]
    .into_iter()
    .fold(Options::default(), Options::arg)
}

fn sql(mysqld: &Mysqld, statements: &str) -> Result<String> {
    mysqld.sql(statements).map_err(anyhow::Error::msg)
}

fn root(mysqld: &Mysqld) -> (Endpoint, Credentials) {
    (Endpoint::Socket(mysqld.socket()), Credentials::new("root", Password::default()))
}

/// Runs a pipeline of the shell; its seconds.
fn pipeline(text: &str) -> Result<f64> {
    let begun = Instant::now();
    let output =
        Command::new("bash").args(["-c", &format!("set -euo pipefail; {text}")]).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed().as_secs_f64())
}

fn client(name: &str, mysqld: &Mysqld) -> String {
    format!("{} --no-defaults --user=root --socket={}", program(name).display(), mysqld.socket().display())
}

/// The most memory that this process has had since it was asked last, MiB.
fn peak() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    fs::write("/proc/self/clear_refs", "5")?;
    Ok(kib / 1024.0)
}

struct Bucket {
    server: S3,
    store: Store,
    root: Root,
}

impl Bucket {
    fn open() -> Result<Self> {
        let server = S3::start();
        let store = Store::new(&serde_json::from_str(&server.location("bench"))?)?;
        Ok(Self { server, store, root: Root::new("bench", "n", "c", "u") })
    }

    /// How many objects are there.
    fn objects(&self) -> Result<usize> {
        let (mut folders, mut count) = (vec![self.server.folder()], 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { count += 1 }
            }
        }
        Ok(count)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (gigabytes, runs) = (setting("GB", 1)?, setting("RUNS", 3)?);
    let bucket = Bucket::open()?;
    let scratch = std::env::temp_dir().join(format!("bench-archive-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let mut rows = Vec::new();
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "dumps,replays,streams".to_owned());
    let is_asked = |part: &str| parts.split(',').any(|one| one == part);
    if is_asked("dumps") {
        dumps::measure(gigabytes, runs, &bucket, &scratch, &mut rows).await?;
    }
    if is_asked("replays") {
        replays::measure(setting("TRANSACTIONS", 20_000)?, runs, &scratch, &mut rows).await?;
    }
    if is_asked("streams") {
        streams::measure(&scratch, &mut rows).await?;
    }
    fs::remove_dir_all(&scratch)?;
    report("archive", &rows)
}

/// A server that binlogs can be streamed from, and how.
struct Source {
    mysqld: Mysqld,
    stream: Stream,
}

impl Source {
    fn start(bucket: &Bucket, scratch: &Path) -> Result<Self> {
        let authority = Authority::generate("bench", Duration::from_secs(86400))?;
        let leaf = authority.issue(&LeafRequest {
            common_name: "mysqld".to_owned(),
            dns_names: vec!["localhost".to_owned()],
            addresses: vec![],
            lifetime: Duration::from_secs(86400),
        })?;
        let mut options = options().tcp().arg("--max-binlog-size=64M");
        let parts = [("ca", authority.certificate()), ("cert", &leaf.certificate), ("key", &leaf.key)];
        for (name, text) in parts {
            let path = scratch.join(name);
            fs::write(&path, text)?;
            options = options.arg(format!("--ssl-{name}={}", path.display()));
        }
        let mysqld = Mysqld::start(options);
        sql(
            &mysqld,
            "SET sql_log_bin=0; CREATE USER shipper IDENTIFIED BY 'shipper' REQUIRE SSL; \
             GRANT REPLICATION SLAVE ON *.* TO shipper; RESET BINARY LOGS AND GTIDS",
        )?;
        let stream = Stream {
            source: source::Source {
                host: "127.0.0.1".to_owned(),
                port: mysqld.port().context("no port")?,
                tls: Arc::new(trusting(authority.certificate())?),
                server_name: server_name("localhost")?,
                user: "shipper".to_owned(),
                password: Password::new("shipper"),
                asker: Uuid::new_v4(),
            },
            server: sql(&mysqld, "SELECT @@server_uuid")?.trim().parse()?,
            epoch: 1,
            executed: GtidSet::default(),
            root: bucket.root.clone(),
            store: bucket.store.clone(),
            spool: scratch.join("spool"),
            flush_every: Duration::from_secs(1),
            spool_max: 256 << 20,
        };
        Ok(Self { mysqld, stream })
    }
}

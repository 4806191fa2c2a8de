//! Dumps, loads and replays, side by side with what one would use instead, on real servers and a real bucket of this host (no
//! Kubernetes): `make bench-archive`.
//!
//! ```text
//! dump    MySQL -> bucket           mysqldump --single-transaction | zstd -1 > file
//! load    bucket -> empty server    zstd -dc file | mysql
//! replay  bucket -> relay logs      mysqlbinlog binlogs | mysql
//! ```
//!
//! Ten tables, one of which has four fifths of all, each with two secondary indexes. Both sides write with the same settings of
//! durability. `GB` sets the size (1), `RUNS` the rounds (3), `TRANSACTIONS` what is replayed (20000).

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use archive::catalogue::{self, Known};
use archive::plan::{Target, plan};
use archive::{Root, Store, fetch};
use binlog_shipper::ship::{self, Stream};
use binlog_shipper::source::{self, Until};
use common::gtid::GtidSet;
use common::mysql::{Credentials, Endpoint, Password};
use common::tls::{Authority, LeafRequest, server_name, trusting};
use dump::make::Progress;
use dump::manifest::Found;
use dump::schema::Selection;
use testkit::{Mysqld, Options, S3, program};
use tests::bench::{Row, report, setting};
use uuid::Uuid;

/// Bytes of a row, about.
const ROW: u64 = 200;
/// In no event.
const SERVER_ID: u32 = 4_000_000_000;
/// Connections that dump, and that load.
const CONNECTIONS: usize = 4;

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

/// Ten tables with so many rows in all.
fn fill(mysqld: &Mysqld, rows: u64) -> Result<()> {
    sql(mysqld, "CREATE DATABASE d")?;
    for number in 0..10 {
        let wanted = if number == 0 { rows * 4 / 5 } else { rows / 45 };
        sql(
            mysqld,
            &format!(
                "CREATE TABLE d.t{number} (id BIGINT PRIMARY KEY AUTO_INCREMENT, a INT NOT NULL, b VARCHAR(60) NOT NULL, \
                 c DOUBLE, d DATETIME(6), e VARCHAR(120), KEY (a), KEY (b)); \
                 INSERT INTO d.t{number} (a, b, c, d, e) SELECT RAND()*1e9, UUID(), RAND(), NOW(6), REPEAT(HEX(RAND()*1e9), 10) \
                 FROM information_schema.COLUMNS LIMIT 1000"
            ),
        )?;
        let mut count = 1000;
        while count < wanted {
            let more = (wanted - count).min(count);
            sql(
                mysqld,
                &format!(
                    "INSERT INTO d.t{number} (a, b, c, d, e) SELECT RAND()*1e9, UUID(), RAND(), NOW(6), \
                     REPEAT(HEX(RAND()*1e9), 10) FROM d.t{number} LIMIT {more}"
                ),
            )?;
            count += more;
        }
        sql(mysqld, &format!("ANALYZE TABLE d.t{number}"))?;
    }
    Ok(())
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
    _server: S3,
    store: Store,
    root: Root,
}

impl Bucket {
    fn open() -> Result<Self> {
        let server = S3::start();
        let store = Store::new(&serde_json::from_str(&server.location("bench"))?)?;
        Ok(Self { _server: server, store, root: Root::new("bench", "n", "c", "u") })
    }

    async fn dump(&self, mysqld: &Mysqld) -> Result<(f64, Found)> {
        let (endpoint, credentials) = root(mysqld);
        let order = dump::make::Order {
            endpoint: &endpoint,
            credentials: &credentials,
            connections: CONNECTIONS,
            selection: Selection { schemas: vec!["d".to_owned()], ..Selection::default() },
            store: &self.store,
            root: &self.root,
        };
        let begun = Instant::now();
        let made = dump::make::make(&order, &dump::make::new_id(), &Progress::default()).await?;
        Ok((begun.elapsed().as_secs_f64(), made))
    }

    async fn load(&self, mysqld: &Mysqld, Found { manifest, .. }: &Found) -> Result<f64> {
        let (endpoint, credentials) = root(mysqld);
        let done = AtomicU64::new(0);
        let order = dump::load::Order {
            endpoint: &endpoint,
            credentials: &credentials,
            connections: CONNECTIONS,
            store: &self.store,
            done: &done,
        };
        let begun = Instant::now();
        dump::load::load(&order, manifest).await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn checksums(mysqld: &Mysqld) -> Result<String> {
    let tables: Vec<String> = (0..10).map(|number| format!("d.t{number}")).collect();
    sql(mysqld, &format!("CHECKSUM TABLE {}", tables.join(",")))
}

#[tokio::main]
async fn main() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (gigabytes, runs) = (setting("GB", 1)?, setting("RUNS", 3)?);
    let bucket = Bucket::open()?;
    let scratch = std::env::temp_dir().join(format!("bench-archive-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let mut rows = Vec::new();
    dumps(gigabytes, runs, &bucket, &scratch, &mut rows).await?;
    replays(setting("TRANSACTIONS", 20_000)?, runs, &scratch, &mut rows).await?;
    fs::remove_dir_all(&scratch)?;
    report("archive", &rows)
}

async fn dumps(gigabytes: u64, runs: u64, bucket: &Bucket, scratch: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let source = Mysqld::start(options());
    fill(&source, (gigabytes << 30) / ROW)?;
    let wanted = checksums(&source)?;
    println!("{gigabytes} GB are there");
    let file = scratch.join("dump.sql.zst");
    let [mut ours, mut theirs, mut our_loads, mut their_loads, mut memory] = [const { Vec::new() }; 5];
    for round in 0..runs {
        peak()?;
        let (seconds, made) = bucket.dump(&source).await?;
        ours.push(seconds);
        memory.push(peak()?);
        theirs.push(pipeline(&format!(
            "{} --single-transaction --quick --databases d | zstd -q -1 -f -o {}",
            client("mysqldump", &source),
            file.display()
        ))?);
        println!("round {round}: dumps {seconds:.1} s and {:.1} s", theirs.last().unwrap_or(&0.0));
        {
            let copy = Mysqld::start(options());
            our_loads.push(bucket.load(&copy, &made).await?);
            ensure!(checksums(&copy)? == wanted, "what was loaded is not what was dumped");
        }
        let copy = Mysqld::start(options());
        sql(&copy, "RESET BINARY LOGS AND GTIDS")?;
        their_loads.push(pipeline(&format!("zstd -dc {} | {}", file.display(), client("mysql", &copy)))?);
        println!(
            "round {round}: loads {:.1} s and {:.1} s",
            our_loads.last().unwrap_or(&0.0),
            their_loads.last().unwrap_or(&0.0)
        );
    }
    let size = format!("{gigabytes} GB in 10 tables, {CONNECTIONS} connections");
    rows.push(Row::new("dump: Pelorus into S3", "s", ours).note(&size));
    rows.push(Row::new("dump: mysqldump | zstd into a file", "s", theirs));
    rows.push(Row::new("dump: peak memory of Pelorus", "MiB", memory).note("the bench's own included"));
    rows.push(
        Row::new("load: Pelorus from S3", "s", our_loads)
            .note("sync_binlog=1, doublewrite, no binlog written by either"),
    );
    rows.push(Row::new("load: zstd | mysql from a file", "s", their_loads));
    Ok(())
}

/// Many small transactions over several connections, as an application makes them.
fn write(mysqld: &Mysqld, transactions: u64) -> Result<()> {
    sql(
        mysqld,
        "CREATE DATABASE w; CREATE TABLE w.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, a INT, v VARCHAR(200), KEY (a))",
    )?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    for _ in 0..transactions / 16 / 100 {
                        let one = "INSERT INTO w.t (a, v) VALUES (RAND()*1e6, REPEAT('v', 150)); \
                            UPDATE w.t SET a=a+1 WHERE id=LAST_INSERT_ID();";
                        sql(mysqld, &one.repeat(50))?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
    })
}

async fn replays(transactions: u64, runs: u64, scratch: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let bucket = Bucket::open()?;
    let Source { mysqld: source, mut stream } = Source::start(&bucket, scratch)?;
    write(&source, transactions)?;
    sql(&source, "FLUSH BINARY LOGS")?;
    stream.executed = sql(&source, "SELECT @@GLOBAL.gtid_executed")?.replace("\\n", "").trim().parse()?;
    ship::run(&stream, &Known::default(), Until::Now, |_, _| {}).await?;
    let index = fs::read_to_string(source.datadir().join("binlog.index"))?;
    let names: Vec<String> = index.lines().map(|name| name.trim_start_matches("./").to_owned()).collect();
    let executed = stream.executed.clone();
    let [mut ours, mut theirs, mut alike] = [const { Vec::new() }; 3];
    for round in 0..runs {
        {
            let copy = Mysqld::start(options().replays(SERVER_ID));
            sql(&copy, "RESET BINARY LOGS AND GTIDS")?;
            let begun = Instant::now();
            let held = catalogue::read(&bucket.store, &bucket.root).await?;
            let plan = plan(&GtidSet::default(), &held, &Target::Newest)?;
            let mut count = 0;
            let written = fetch::relay_logs(&bucket.store, &bucket.root, &held, &plan, |number| {
                count = number + 1;
                copy.relay_log(number).map(BufWriter::new)
            })
            .await?;
            ensure!(written == executed, "{written} was fetched");
            // As a restore does: nothing counts before it is over.
            sql(&copy, QUICK)?;
            copy.replay(count, &written.to_string());
            sql(
                &copy,
                "SET GLOBAL sync_binlog=1; SET GLOBAL innodb_flush_log_at_trx_commit=1; FLUSH ENGINE LOGS, BINARY LOGS",
            )?;
            ours.push(begun.elapsed().as_secs_f64());
        }
        let files: Vec<String> = names.iter().map(|name| source.datadir().join(name).display().to_string()).collect();
        for (settings, seconds) in [("SELECT 1", &mut theirs), (QUICK, &mut alike)] {
            let copy = Mysqld::start(options());
            sql(&copy, &format!("RESET BINARY LOGS AND GTIDS; {settings}"))?;
            let binlog = program("mysqlbinlog");
            let text = format!("{} --no-defaults {} | {}", binlog.display(), files.join(" "), client("mysql", &copy));
            seconds.push(pipeline(&text)?);
        }
        println!(
            "round {round}: replays {:.1} s and {:.1} s",
            ours.last().unwrap_or(&0.0),
            theirs.last().unwrap_or(&0.0)
        );
    }
    rows.push(Row::new("replay: Pelorus from S3", "s", ours).note(format!("{} transactions", executed.count())));
    rows.push(Row::new("replay: mysqlbinlog | mysql", "s", theirs).note("from files, durable at each commit"));
    rows.push(
        Row::new("replay: mysqlbinlog | mysql, as quick", "s", alike).note("with the same settings as Pelorus' replay"),
    );
    Ok(())
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

//! Dumps and loads, and what a dump costs those who write meanwhile.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dump::make::Progress;
use dump::manifest::Found;
use dump::schema::Selection;
use testkit::Mysqld;
use tests::bench::Row;

use crate::streams::{Pace, load};
use crate::{Bucket, client, options, peak, pipeline, root, sql};

/// Bytes of a row, about.
const ROW: u64 = 200;
/// Connections that dump, and that load.
const CONNECTIONS: usize = 4;

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

impl Bucket {
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

pub async fn measure(gigabytes: u64, runs: u64, bucket: &Bucket, scratch: &Path, rows: &mut Vec<Row>) -> Result<()> {
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
    let losses = losses(&source, bucket, runs).await?;
    let size = format!("{gigabytes} GB in 10 tables, {CONNECTIONS} connections");
    rows.push(Row::new("dump: Pelorus into S3", "s", ours).note(&size));
    rows.push(Row::new("dump: mysqldump | zstd into a file", "s", theirs));
    rows.push(Row::new("dump: peak memory of Pelorus", "MiB", memory).note("the bench's own included"));
    rows.push(
        Row::new("load: Pelorus from S3", "s", our_loads)
            .note("sync_binlog=1, doublewrite, no binlog written by either"),
    );
    rows.push(Row::new("load: zstd | mysql from a file", "s", their_loads));
    rows.extend(losses);
    Ok(())
}

/// What is committed on a server of its own while it is dumped, of what is committed when it is not, in percent: at a pace that it has
/// room for, and as fast as it goes.
async fn losses(source: &Mysqld, bucket: &Bucket, runs: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, pace) in [("at 200 commits/s", Pace::PerSecond(200)), ("as fast as it goes", Pace::Free)] {
        let mut shares = Vec::new();
        for _ in 0..runs {
            let before = load(source, pace, Duration::from_secs(10)).await?;
            let begun = Instant::now();
            let dumping = async {
                bucket.dump(source).await?;
                Ok::<_, anyhow::Error>(begun.elapsed())
            };
            // Writers go on for longer than a dump takes here: what counts is what they do while it lasts.
            let (during, took) = tokio::join!(load(source, pace, Duration::from_secs(10)), dumping);
            let (during, took) = (during?, took?);
            let within = took.min(Duration::from_secs(10)).as_secs_f64();
            let count = during.iter().filter(|at| at.as_secs_f64() <= within).count();
            #[allow(clippy::cast_precision_loss)]
            let rates = (count as f64 / within, before.len() as f64 / 10.0);
            shares.push(100.0 * rates.0 / rates.1);
        }
        let note = "of the same server, on the cores that dump and write and serve; a replica is dumped elsewhere";
        rows.push(Row::new(format!("writes during a dump, {name}"), "%", shares).note(note));
    }
    Ok(rows)
}

//! Binlogs of many small transactions, replayed.

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use archive::catalogue::{self, Known};
use archive::fetch;
use archive::plan::{Target, plan};
use binlog_shipper::ship;
use binlog_shipper::source::Until;
use common::gtid::GtidSet;
use testkit::{Mysqld, program};
use tests::bench::Row;

use crate::{Bucket, QUICK, SERVER_ID, Source, client, options, pipeline, sql};

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

pub async fn measure(transactions: u64, runs: u64, scratch: &Path, rows: &mut Vec<Row>) -> Result<()> {
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

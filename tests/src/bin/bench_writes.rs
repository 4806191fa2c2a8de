//! Acknowledged single-row inserts per second through the primary Service at 1, 8 and 64 connections: lossless
//! semi-synchronous replication (three instances) against the same server alone, in turns within one run:
//! `cargo run -p tests --bin bench_writes`.
//!
//! `PELORUS_BENCH_RUNS` sets the rounds (3), `PELORUS_BENCH_SECONDS` the length of each (10).

use std::time::Duration;

use anyhow::Result;
use tests::bench::{Row, report};
use tests::ledger::{Ledger, Options};
use tests::{Cluster, run, spec};

const CONNECTIONS: [u32; 3] = [1, 8, 64];

#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    milliseconds: Vec<f64>,
    lost: usize,
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn measure(cluster: &Cluster, writers: u32, measured: &mut Measured) -> Result<()> {
    let options = Options { writers, rest: Duration::ZERO, ..Options::default() };
    let ledger = Ledger::start(cluster, options).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (rows, at) = (ledger.acknowledged(), ledger.now());
    tokio::time::sleep(Duration::from_secs(setting("PELORUS_BENCH_SECONDS", 10))).await;
    #[allow(clippy::cast_precision_loss)]
    measured.per_second.push((ledger.acknowledged() - rows) as f64 / ledger.now().saturating_sub(at).as_secs_f64());
    let log = ledger.finish().await?;
    let latency = log.acknowledged().map(|entry| entry.answered.saturating_sub(entry.sent).as_secs_f64() * 1000.0);
    measured.milliseconds.extend(latency);
    measured.lost += log.check(cluster).await?.lost.len();
    cluster.write(&["TRUNCATE TABLE ledger.entries"]).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut rows = Vec::new();
    run("bench-writes", async |scene| {
        let alone = scene.create("alone", spec::small(1)).await?;
        let lossless = scene.create("lossless", spec::small(3)).await?;
        for writers in CONNECTIONS {
            let mut measured = [Measured::default(), Measured::default()];
            for round in 0..setting("PELORUS_BENCH_RUNS", 3) {
                scene.step(&format!("{writers} connections, round {round}"));
                let [without, with] = &mut measured;
                measure(&alone, writers, without).await?;
                measure(&lossless, writers, with).await?;
            }
            for (name, measured) in ["alone, without replication", "lossless, three instances"].iter().zip(measured) {
                let name = format!("{writers} connections, {name}");
                rows.push(Row::new(&name, "rows/s", measured.per_second).lost(measured.lost));
                rows.push(Row::new(format!("{name}: one insert"), "ms", measured.milliseconds));
            }
        }
        Ok(())
    })
    .await?;
    report("writes", &rows)
}

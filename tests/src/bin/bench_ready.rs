//! From apply to Ready, for one, three and five instances: `cargo run -p tests --bin bench_ready`.
//!
//! `PELORUS_BENCH_RUNS` sets the runs of each (3).

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::bench::{Row, report};
use tests::cluster::READY;
use tests::{run, spec};

#[tokio::main]
async fn main() -> Result<()> {
    let runs = std::env::var("PELORUS_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut rows = Vec::new();
    for instances in [1, 3, 5] {
        let (mut ready, mut writable) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let (first, all) = (&mut writable, &mut ready);
            run("bench-ready", async |scene| {
                let shop = scene.cluster("shop");
                let started = Instant::now();
                shop.create(spec::small(instances)).await?;
                let open = |status: &common::crd::MySQLClusterStatus| {
                    status.condition("Ready").is_some_and(|ready| ready.status == "True")
                };
                shop.wait_status("a primary that takes writes", READY, open).await?;
                first.push(started.elapsed().as_secs_f64());
                shop.wait_ready(instances, READY).await?;
                all.push(started.elapsed().as_secs_f64());
                Ok(())
            })
            .await?;
            // The pods of the last run take the processor while they stop.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        rows.push(Row::new(format!("apply to writable, {instances} instances"), "s", writable));
        rows.push(Row::new(format!("apply to ready {instances}/{instances}"), "s", ready).note("goal 20 s for three"));
    }
    report("ready", &rows)
}

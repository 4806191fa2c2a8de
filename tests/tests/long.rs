//! What is too heavy for each landing: `make test-long`.
//!
//! `PELORUS_LONG_MINUTES` sets how long the cluster is scaled up and down (60).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tests::ledger::{Ledger, Options};
use tests::pace::{Look, until};
use tests::sessions::ANSWER;
use tests::{Scene, run, spec};

/// Rows of 16 MiB: 2.2 GiB in all.
const ROWS: usize = 141;
/// Longest time that the commit, and a replica behind it, may take.
const HUGE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn long_a_transaction_of_2200_megabytes_commits_and_replicates() -> Result<()> {
    run("huge", async |scene| {
        let mut wanted = spec::small(3);
        wanted.storage.size = Quantity("20Gi".to_owned());
        wanted.config = spec::config(&[("innodb_buffer_pool_size", "128M"), ("max_allowed_packet", "67108864")]);
        let shop = scene.create("shop", wanted).await?;
        let epoch = shop.status().await?.epoch();
        shop.write(&["CREATE DATABASE huge", "CREATE TABLE huge.t (id INT PRIMARY KEY, v LONGBLOB)"]).await?;
        let started = Instant::now();
        let seconds = shop
            .through_primary(async |session| {
                session.exec("BEGIN", ANSWER).await?;
                for id in 0..ROWS {
                    let row = format!("INSERT INTO huge.t VALUES ({id}, REPEAT(RANDOM_BYTES(1024), 16384))");
                    session.exec(&row, HUGE).await?;
                }
                let committing = Instant::now();
                session.exec("COMMIT", HUGE).await?;
                Ok(committing.elapsed().as_secs_f64())
            })
            .await?;
        scene.step(&format!("written in {:.1?}, of which the commit took {seconds:.1} s", started.elapsed()));
        let pods = shop.wait_caught_up(HUGE).await?;
        scene.step("replicated");
        let mut sums = std::collections::BTreeSet::new();
        for pod in pods {
            let mut session = shop.instance(&pod).await?.connect().await?;
            let sql =
                "SELECT COUNT(*), CAST(SUM(LENGTH(v)) AS UNSIGNED), CAST(BIT_XOR(CRC32(v)) AS UNSIGNED) FROM huge.t";
            let row: Option<(i64, u64, u64)> = session.first(sql, HUGE).await?;
            sums.insert(row.context("no sum")?);
        }
        ensure!(sums.len() == 1, "instances differ: {sums:?}");
        let (count, bytes, _) = sums.into_iter().next().context("no sum")?;
        ensure!(count == i64::try_from(ROWS)? && bytes > 2_200_000_000, "{count} rows of {bytes} bytes");
        shop.wait_ready(3, Duration::from_secs(60)).await?;
        ensure!(shop.status().await?.epoch() == epoch, "nothing changed hands meanwhile");
        Ok(())
    })
    .await
}

/// Bytes that this host can still give to processes.
fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) << 10
}

/// Clusters at once.
const MANY: usize = 20;
/// What a server of the smallest size takes, with its pod around it and room for what else this host does.
const SERVER_BYTES: u64 = 400 << 20;

#[tokio::test]
async fn long_twenty_clusters_at_once_become_ready_and_take_writes() -> Result<()> {
    run("many", async |scene| {
        // Three instances each want 24 GiB to spare; where there is less, two each: replicated and semi-synchronous, too.
        let instances = if memory_available() > 3 * MANY as u64 * SERVER_BYTES { 3 } else { 2 };
        scene.step(&format!("{MANY} clusters of {instances}, {} MiB are free", memory_available() >> 20));
        let clusters: Vec<_> = (0..MANY).map(|n| scene.cluster(&format!("shop{n}"))).collect();
        let started = Instant::now();
        for cluster in &clusters {
            cluster.create(smallest(instances)).await?;
        }
        let ready = clusters.iter().map(|cluster| async {
            cluster.wait_ready(instances, Duration::from_secs(1200)).await?;
            anyhow::Ok(started.elapsed().as_secs_f64())
        });
        let mut seconds = futures::future::try_join_all(ready).await?;
        seconds.sort_by(f64::total_cmp);
        scene.step(&format!("ready after {:?} to {:?} s", seconds.first(), seconds.last()));
        memory(scene).await?;
        let mut primaries = Vec::new();
        for cluster in &clusters {
            primaries.push(cluster.status().await?.primary);
        }
        let gentle = Options { writers: 1, rest: Duration::from_millis(200), ..Options::default() };
        let mut ledgers = Vec::new();
        for cluster in &clusters {
            ledgers.push(Ledger::start(cluster, gentle.clone()).await?);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        for ((cluster, ledger), primary) in clusters.iter().zip(ledgers).zip(primaries) {
            ledger.finish().await?.expect_flawless(cluster).await?;
            let status = cluster.status().await?;
            ensure!(
                status.primary == primary && status.failovers.is_empty(),
                "the primary of {} changed without a fault: {primary:?}, {:?}, failovers {:?}",
                cluster.name,
                status.primary,
                status.failovers
            );
        }
        Ok(())
    })
    .await
}

fn smallest(instances: u32) -> common::crd::MySQLClusterSpec {
    let mut wanted = spec::small(instances);
    wanted.config = spec::config(&[("innodb_buffer_pool_size", "32M"), ("max_connections", "50")]);
    wanted
}

async fn memory(scene: &Scene) -> Result<()> {
    for daemon in tests::harness::DAEMONS {
        for pod in scene.harness.daemon_pods(daemon).await? {
            let name = pod.metadata.name.unwrap_or_default();
            let container = pod.spec.and_then(|spec| spec.containers.into_iter().next()).context("no container")?.name;
            let bytes = scene.harness.resident_bytes("pelorus-system", &name, &container, daemon).await?;
            scene.step(&format!("{name} takes {} MiB", bytes >> 20));
        }
    }
    Ok(())
}

#[tokio::test]
async fn long_an_hour_of_scaling_up_and_down_under_a_writer_loses_nothing() -> Result<()> {
    let minutes = std::env::var("PELORUS_LONG_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    run("hour", async |scene| {
        let shop = scene.create("shop", spec::small(1)).await?;
        let ledger = Ledger::start(&shop, Options { rest: Duration::from_millis(50), ..Options::default() }).await?;
        let (started, mut rounds) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(minutes * 60) {
            for instances in [5_u32, 1, 3, 1] {
                let took = shop.scale(instances).await?;
                until("superfluous pods to be gone", Duration::from_secs(150), async || {
                    let pods = shop.pods().await?.len();
                    let done = pods == usize::try_from(instances)?;
                    Ok(if done { Look::Done(()) } else { Look::Not(format!("{pods} pods")) })
                })
                .await?;
                ledger.wait_for(40, Duration::from_secs(30)).await?;
                scene.step(&format!("round {rounds}: {instances} instances after {:.1} s", took.as_secs_f64()));
            }
            rounds += 1;
        }
        shop.scale(3).await?;
        ensure!(rounds > 0, "not a single round");
        ledger.finish().await?.expect_lossless(&shop).await
    })
    .await
}

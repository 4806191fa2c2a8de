//! A random walk over all faults with the ledger running: `make chaos SEED=n MINUTES=m`.
//!
//! | variable | meaning |
//! |---|---|
//! | `SEED` | of the walk (1) |
//! | `MINUTES` | how long it is (20) |
//! | `PLAN=1` | only print the walk |
//!
//! The cluster is archived, and dumped each minute. In the end all faults are undone, the cluster has to be Ready by itself,
//! nothing that was acknowledged may be missing, and a cluster that is made of the archive has the same rows.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;
use tests::bench::setting;
use tests::bucket::Bucket;
use tests::chaos::{Step, Walker, walk};
use tests::ledger::{Log, Tries};
use tests::probe::Probes;
use tests::timeline::Watch;
use tests::trial::{Expect, Findings, wait_whole};
use tests::{Scene, run, spec};

/// Longest recovery after the walk.
const READY: Duration = Duration::from_secs(300);

async fn wander(scene: &Scene, steps: &[Step]) -> Result<()> {
    let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
    let mut wanted = spec::small(3);
    wanted.archive = Some(bucket.archive());
    wanted.failover.max_changes = 100;
    wanted.failover.window = Duration::from_secs(60).into();
    let shop = scene.create("shop", wanted).await?;
    wait_whole(&shop, 3, READY).await?;
    let origin = Instant::now();
    bucket.dump_each_minute(&shop).await?;
    let mut walker = Walker::new(&shop, bucket, origin).await?;
    let pods: Vec<String> = shop.pods().await?.into_keys().collect();
    let _followed = tests::follow::pods(&shop, "chaos", &pods);
    let watch = Watch::start(&shop, origin);
    let probes = Probes::start(&shop, &pods, origin).await?;
    let tries = Tries::start(&shop, &pods, origin).await?;
    walker.go(steps).await;
    scene.step("the walk is over");
    walker.heal().await?;
    let begun = Instant::now();
    shop.patch(json!({"primary": null})).await?;
    let mut findings = Findings::default();
    if let Err(error) = wait_whole(&shop, 3, READY).await {
        findings.violations.push(format!("I6: {error:#}"));
    }
    scene.step(&format!("whole after {:.1} s", begun.elapsed().as_secs_f64()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut log, bucket) = walker.finish().await?;
    println!("{}", log.summary());
    log.merge(Log::new(tries.finish().await?, log.ended));
    let (samples, timeline) = (probes.finish().await?, watch.finish().await?);
    println!("{}", timeline.lines());
    findings.compare(&shop, &log, &samples, &timeline, &Expect::anything()).await;
    println!("\n{} changes of primary, {} acknowledged rows lost", findings.changes, findings.lost);
    match bucket.restores_as(&shop, "copy", READY).await {
        Ok(how) => scene.step(&how),
        Err(error) => findings.violations.push(format!("I9: {error:#}")),
    }
    ensure!(findings.violations.is_empty(), "violated: {}", findings.violations.join(" | "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (seed, minutes) = (setting("SEED", 1)?, setting("MINUTES", 20)?);
    let steps = walk(seed, Duration::from_secs(60 * minutes));
    println!("seed {seed}, {minutes} minutes, {} steps", steps.len());
    if setting("PLAN", 0)? == 1 {
        for step in &steps {
            println!("{step}");
        }
        return Ok(());
    }
    if steps.is_empty() {
        bail!("a walk of {minutes} minutes has no steps");
    }
    run("chaos", async |scene| wander(scene, &steps).await).await?;
    println!("seed {seed}: nothing was lost, nothing errant was served, Ready again by itself");
    Ok(())
}

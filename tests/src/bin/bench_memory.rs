//! Resident memory of each daemon: `cargo run -p tests --bin bench_memory`.
//!
//! `PELORUS_BENCH_CLUSTERS` sets how many clusters of one instance there are (1).

use std::time::Duration;

use anyhow::{Context, Result};
use common::names;
use kube::ResourceExt;
use tests::bench::{Row, report};
use tests::cluster::READY;
use tests::harness::{DAEMONS, OPERATOR_NAMESPACE};
use tests::{Scene, run, spec};

/// Samples, a second apart.
const SAMPLES: usize = 10;

#[allow(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn sample(scene: &Scene, namespace: &str, pods: &[(String, String)], program: &str) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        for (pod, container) in pods {
            samples.push(mebibytes(scene.harness.resident_bytes(namespace, pod, container, program).await?));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(samples)
}

#[tokio::main]
async fn main() -> Result<()> {
    let count: usize = std::env::var("PELORUS_BENCH_CLUSTERS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let instances = if count == 1 { 3 } else { 1 };
    let mut rows = Vec::new();
    run("bench-memory", async |scene| {
        let clusters: Vec<_> = (0..count).map(|n| scene.cluster(&format!("shop{n}"))).collect();
        for cluster in &clusters {
            cluster.create(spec::small(instances)).await?;
        }
        for cluster in &clusters {
            cluster.wait_ready(instances, READY * 4).await?;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for daemon in DAEMONS {
            let pods = scene.harness.daemon_pods(daemon).await?.into_iter().map(|pod| {
                let container =
                    pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|first| first.name.clone());
                Some((pod.name_any(), container?))
            });
            let pods: Vec<_> = pods.collect::<Option<_>>().context("a pod without a container")?;
            let samples = sample(scene, OPERATOR_NAMESPACE, &pods, daemon).await?;
            let name = format!("{daemon}, {count} clusters of {instances}");
            rows.push(Row::new(name, "MiB", samples).note("each replica; goal 32 MiB with 1 cluster, 64 MiB with 20"));
        }
        let mut pods = Vec::new();
        for cluster in &clusters {
            pods.extend(cluster.pods().await?.into_keys().map(|pod| (pod, names::CONTAINER_MYSQL.to_owned())));
        }
        for (program, note) in [("instance-d", "goal 24 MiB"), ("mysqld", "small settings of the tests")] {
            let samples = sample(scene, &scene.namespace, &pods, program).await?;
            rows.push(Row::new(format!("{program}, {} instances", pods.len()), "MiB", samples).note(note));
        }
        Ok(())
    })
    .await?;
    report(&format!("memory-{count}"), &rows)
}

//! Names do not resolve, and many clusters lose their primary at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::crd::MySQLClusterSpec;
use tests::cluster::READY;
use tests::faults::{Faults, MYSQLD};
use tests::ledger::{Ledger, Options};
use tests::trial::{Expect, READY_AGAIN, SOON, Setup, away_from, row, row_with, settled, wait_whole};
use tests::{Cluster, spec};

/// Clusters beside the row's own (F65; the list says 500, on simulated nodes).
const OTHERS: usize = 2;
/// Each of them takes writes again within this.
const ALL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn f64_no_name_resolves() -> Result<()> {
    row("F64", async |trial| {
        let old = trial.primary.clone();
        trial.faults.scale("kube-system", "coredns", 0).await?;
        // Answers that are cached run out.
        tokio::time::sleep(Duration::from_secs(10)).await;
        trial.step("no name resolves");
        trial.kill(&old, MYSQLD).await?;
        trial.failed_over(SOON).await?;
        trial.heal().await?;
        trial.whole().await?;
        Ok(Expect::changes(1))
    })
    .await
}

fn smallest() -> MySQLClusterSpec {
    let mut wanted = spec::small(3);
    wanted.config = spec::config(&[("innodb_buffer_pool_size", "32M"), ("max_connections", "60")]);
    wanted
}

#[tokio::test]
async fn f65_several_clusters_lose_their_primary_at_once() -> Result<()> {
    let gentle = Options { writers: 2, ..Options::impatient() };
    row_with("F65", Setup { spec: smallest(), options: gentle.clone() }, async |trial| {
        let others: Vec<Cluster> =
            (0..OTHERS).map(|n| Cluster { name: format!("other{n}"), ..trial.shop.clone() }).collect();
        for other in &others {
            other.create(smallest()).await?;
        }
        let mut victims = Vec::new();
        for other in &others {
            other.wait_ready(3, READY * 2).await?;
            settled(other, 3, READY).await?;
            let (faults, primary) = (Faults::new(other), other.primary().await?);
            let node = away_from(faults.node_of(&primary).await?)?;
            let ledger = Ledger::start(other, Options { node: Some(node), ..gentle.clone() }).await?;
            victims.push((other, faults, primary, ledger));
        }
        trial.step("all of them are ready");
        let old = trial.primary.clone();
        trial.kill(&old, MYSQLD).await?;
        let mut killed = Vec::new();
        for (_, faults, primary, ledger) in &victims {
            let server = ledger.tally().server();
            killed.push((ledger.at(faults.kill(primary, MYSQLD).await?), server));
        }
        trial.failed_over(SOON).await?;
        for ((other, _, _, ledger), (at, server)) in victims.into_iter().zip(killed) {
            let first = ledger.wait_elsewhere(at, server, SOON).await.with_context(|| other.name.clone())?;
            trial.step(&format!("{}: {:.3} s", other.name, first.saturating_sub(at).as_secs_f64()));
            ensure!(first.saturating_sub(at) < ALL, "{} took {:?}", other.name, first.saturating_sub(at));
            let again = Instant::now();
            wait_whole(other, 3, READY_AGAIN).await?;
            trial.step(&format!("{} is ready again {:.1} s later", other.name, again.elapsed().as_secs_f64()));
            ledger.finish().await?.expect_lossless(other).await?;
        }
        Ok(Expect::changes(1))
    })
    .await
}

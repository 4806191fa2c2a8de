//! A worker of dumps that falls silent is replaced, and cannot spoil what the other has made when it wakes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{DumpPhase, MySQLDump, MySQLDumpStatus};
use common::names::account;
use tests::bucket::Bucket;
use tests::pace::{Look, until};
use tests::sessions::{ANSWER, Target};
use tests::{Cluster, Faults, run, spec};

const BACKUP_D: &str = "backup-d";
/// A seat is free after 15 s of silence, and the next attempt waits for the lock as the first did.
const REPLACED: Duration = Duration::from_secs(60);

async fn status(cluster: &Cluster) -> Result<MySQLDumpStatus> {
    Ok(cluster.api::<MySQLDump>().get("first").await?.status.unwrap_or_default())
}

#[tokio::test]
async fn a_dump_whose_worker_is_paused_is_made_by_another() -> Result<()> {
    run("workers", async |scene| {
        let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let shop = scene.create("shop", spec::small(1)).await?;
        let fruit = [
            "CREATE DATABASE shop",
            "CREATE TABLE shop.fruit (id INT PRIMARY KEY)",
            "INSERT INTO shop.fruit VALUES (7)",
        ];
        shop.write(&fruit).await?;
        // As long as somebody writes to a table, no snapshot is had.
        let target =
            Target { credentials: shop.account(account::ADMIN).await?, ..shop.instance(&shop.primary().await?).await? };
        let mut holder = target.connect().await?;
        holder.exec("LOCK TABLES shop.fruit WRITE", ANSWER).await?;
        bucket.dump(&shop, "first", false, DumpPhase::Running).await?;
        let first = status(&shop).await?.worker.context("nobody makes it")?;
        let mut faults = Faults::new(&shop);
        let programs = faults.programs_of(BACKUP_D).await?.into_iter().find(|programs| programs.pod == first);
        faults.freeze_in(programs.with_context(|| format!("no pod is called {first}"))?).await?;
        scene.step(&format!("{first} is paused"));
        let second = until("another worker", REPLACED, async || {
            let status = status(&shop).await?;
            Ok(match status.worker {
                Some(worker) if worker != first => Look::Done(worker),
                _ => Look::Not(format!("{status:?}")),
            })
        })
        .await?;
        scene.step(&format!("{second} makes it"));
        drop(holder);
        let made = until("the dump", REPLACED, async || {
            let status = status(&shop).await?;
            Ok(if status.phase == Some(DumpPhase::Succeeded) {
                Look::Done(status)
            } else {
                Look::Not(format!("{status:?}"))
            })
        })
        .await?;
        ensure!(made.worker.is_none() && made.duration.is_some(), "{made:?}");

        faults.heal().await?;
        scene.step("the first wakes");
        // It finds the lock gone, and would be ready with its own in a moment.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = status(&shop).await?;
            ensure!(now == made, "{made:?} became {now:?}");
        }
        let objects = bucket.objects()?;
        let manifests = objects.iter().filter(|(path, _)| path.ends_with("manifest.json"));
        let (given_up, whole): (Vec<_>, Vec<_>) = manifests.partition(|(_, body)| *body == dump::manifest::GIVEN_UP);
        ensure!((whole.len(), given_up.len()) == (1, 1), "{whole:?} {given_up:?}");
        Ok(())
    })
    .await
}

//! A dump is proven by a restore into a scratch cluster.

use anyhow::{Context, Result, ensure};
use common::crd::{DumpPhase, MySQLCluster, MySQLDump};
use kube::api::ListParams;
use tests::bucket::Bucket;
use tests::cluster::READY;
use tests::pace::{Look, until};
use tests::{Cluster, run, spec};

/// Waits until it is known whether it restores, and nothing is left of the attempt.
async fn judged(cluster: &Cluster, name: &str) -> Result<MySQLDump> {
    let dump = until(&format!("{name} to be verified"), READY, async || {
        let dump: MySQLDump = cluster.api().get(name).await?;
        let status = dump.status.clone().unwrap_or_default();
        Ok(match status.phase {
            Some(DumpPhase::Succeeded) => Look::Done(dump),
            _ => Look::Not(format!("{status:?}")),
        })
    })
    .await?;
    until("the scratch cluster to be gone", READY, async || {
        let scratches = ListParams::default().labels("pelorus.dev/verifies");
        let left = cluster.api::<MySQLCluster>().list(&scratches).await?.items.len();
        Ok(if left == 0 { Look::Done(()) } else { Look::Not(format!("{left} are there")) })
    })
    .await?;
    Ok(dump)
}

fn said(dump: &MySQLDump) -> Result<(String, String)> {
    let conditions = dump.status.iter().flat_map(|status| &status.conditions);
    let verified = conditions.into_iter().find(|condition| condition.type_ == "Verified").context("no condition")?;
    Ok((verified.status.clone(), verified.message.clone()))
}

#[tokio::test]
async fn a_dump_is_verified_and_a_damaged_one_is_refuted() -> Result<()> {
    run("verification", async |scene| {
        let bucket = Bucket::open(&scene.harness.client, &scene.namespace, "here").await?;
        let shop = scene.create("shop", spec::small(1)).await?;
        shop.write(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.fruit (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), KEY (v))",
            "INSERT INTO shop.fruit (v) VALUES ('apple'), ('pear'), ('quince')",
        ])
        .await?;
        bucket.dump(&shop, "good", true, DumpPhase::Verifying).await?;
        let good = judged(&shop, "good").await?;
        let status = good.status.clone().context("no status")?;
        let verified = status.verified.context("it is not verified")?;
        ensure!(
            Some(&verified.gtid) == status.gtid.as_ref(),
            "{} was dumped and {:?} restored",
            verified.gtid,
            status.gtid
        );
        ensure!(said(&good)?.0 == "True", "{good:?}");
        scene.step("a dump was verified");

        let made = bucket.dump(&shop, "bad", true, DumpPhase::Verifying).await?;
        let key = made.status.and_then(|status| status.manifest).context("no manifest")?.key;
        let data = bucket.server.folder().join(&key).with_file_name("data");
        let piece = std::fs::read_dir(&data)?.next().context("no table")??.path();
        let piece = std::fs::read_dir(&piece)?.next().context("no piece")??.path();
        let mut bytes = std::fs::read(&piece)?;
        let last = bytes.last_mut().context("an empty piece")?;
        *last ^= 1;
        std::fs::write(&piece, bytes)?;
        let bad = judged(&shop, "bad").await?;
        let (holds, why) = said(&bad)?;
        ensure!(holds == "False" && bad.status.as_ref().is_some_and(|status| status.verified.is_none()), "{bad:?}");
        let name = piece.file_name().context("no name")?.to_string_lossy().into_owned();
        ensure!(why.contains(&name), "{name} is not named: {why}");
        scene.step(&format!("a damaged dump was refuted: {why}"));
        scene.harness.wait_events(&shop, &["backup.verified", "backup.refuted"], READY).await?;
        Ok(())
    })
    .await
}

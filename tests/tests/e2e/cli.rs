//! The kubectl plugin, as a person and a script use it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::{DumpPhase, MySQLCluster, MySQLDump};
use common::gtid::GtidSet;
use kube::api::ListParams;
use testkit::{Mysqld, Options};
use tests::bucket::Bucket;
use tests::{Scene, run};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(60);
/// Longer than any command waits by itself here.
const PATIENCE: Duration = Duration::from_secs(300);
const ROWS: &str = "SELECT CONCAT(COUNT(*), ' with the sum ', SUM(id)) FROM shop.fruit";
/// As a person writes it, in UTC.
const NOW: &str = "SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%d %H:%i:%s.%f')";

/// What the program said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn is(self, code: i32, words: &str) -> Result<Self> {
        ensure!(self.code == Some(code) && self.err.contains(words), "not {code} and {words:?}: {self:?}");
        Ok(self)
    }
}

async fn plugin(scene: &Scene, args: &[&str]) -> Result<Said> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl_pelorus"));
    command.args(args).args(["-n", &scene.namespace, "--kubeconfig"]).arg(&scene.harness.kubeconfig);
    command.env("TZ", "UTC").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("the plugin takes too long")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// A server on this host into which a person loads what `dump` wrote.
fn loaded(sql: &str) -> Result<Mysqld> {
    let mysqld = Mysqld::start(Options::default());
    let file = mysqld.home().join("dump.sql");
    std::fs::write(&file, sql)?;
    mysqld.read(&file).map_err(anyhow::Error::msg)?;
    Ok(mysqld)
}

#[tokio::test]
async fn a_person_backs_up_restores_and_dumps_by_kubectl() -> Result<()> {
    run("cli", async |scene| {
        let (bucket, shop) = Bucket::with_shop(scene, 3).await?;
        shop.write(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.fruit (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), KEY (v))",
            "INSERT INTO shop.fruit (v) VALUES ('apple'), ('pear'), ('quince')",
            "INSERT INTO shop.fruit (v) SELECT CONCAT(x.v, ' or ', y.v) FROM shop.fruit x, shop.fruit y",
            "CREATE VIEW shop.apples AS SELECT * FROM shop.fruit WHERE v LIKE '%apple%'",
        ])
        .await?;
        let primary = shop.primary().await?;

        plugin(scene, &["backup", "nobody"]).await?.is(3, "there is no MySQLCluster nobody")?;
        let said = plugin(scene, &["backup", "shop", "--name", "first", "--timeout", "90s", "-o", "json"]).await?;
        let made: MySQLDump = serde_json::from_str(&said.is(0, "MySQLDump first is asked for")?.out)?;
        let status = made.status.context("no status")?;
        ensure!(status.phase == Some(DumpPhase::Succeeded) && status.source.as_ref() != Some(&primary), "{status:?}");
        let key = status.manifest.context("no manifest")?.key;
        ensure!(bucket.server.folder().join(&key).exists(), "{key} is not in the bucket");
        plugin(scene, &["backup", "shop", "--name", "first"]).await?.is(4, "already exists")?;
        plugin(scene, &["backup", "shop", "--name", "second", "--timeout", "1ms"]).await?.is(5, "dumps shop")?;
        plugin(scene, &["backup", "shop", "--name", "No Name", "--no-wait"]).await?.is(4, "make MySQLDump")?;
        scene.step("a backup was made, and others were refused");

        let before: String = shop.value(&primary, ROWS).await?;
        let moment: String = shop.value(&primary, NOW).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        shop.write(&["DELETE FROM shop.fruit WHERE id > 2"]).await?;
        let after: String = shop.value(&primary, ROWS).await?;
        bucket.has_all(&shop).await?;
        shop.wait_status("a window", SOON, |status| status.restorable.as_ref().is_some_and(|it| it.to.is_some()))
            .await?;
        let listed = plugin(scene, &["dumps", "shop"]).await?.is(0, "")?.out;
        ensure!(listed.contains("first") && listed.contains("Succeeded"), "{listed}");
        ensure!(listed.contains("Restorable from "), "{listed}");
        scene.step(&listed);

        for (target, words) in [("2199-01-01T00:00:00Z", "is in the future"), ("2001-01-01 00:00", "restorable from ")]
        {
            plugin(scene, &["restore", "shop", "--as", "copy", "--at", target]).await?.is(4, words)?;
        }
        plugin(scene, &["restore", "shop", "--as", "copy", "--at", "then"]).await?.is(2, "'then' is no time")?;
        let clusters = shop.api::<MySQLCluster>().list(&ListParams::default()).await?;
        ensure!(clusters.items.len() == 1, "nothing was made of what was refused");
        let restore = ["restore", "shop", "--as", "copy", "--at", &moment, "--instances", "1", "--timeout", "4m"];
        let said = plugin(scene, &restore).await?.is(0, "MySQLCluster copy is asked for")?;
        scene.step(&format!("restored: {}", said.out));
        let copy = scene.cluster("copy");
        ensure!(copy.value::<String>("copy-0", ROWS).await? == before, "another content");
        ensure!(copy.get().await?.spec.archive.is_some(), "the copy is archived, too");
        plugin(scene, &restore).await?.is(4, "already exists")?;

        for (cluster, instance, rows) in [("shop", None, &after), ("copy", Some("copy-0"), &before)] {
            let said = plugin(scene, &["dump", cluster]).await?.is(0, "1 tables, ")?;
            ensure!(instance.is_none_or(|instance| said.err.contains(instance)), "{}", said.err);
            let (_, set) = said.out.split_once("GTID_PURGED='+").context("no GTID set")?;
            let set = set.split('\'').next().unwrap_or_default().parse::<GtidSet>()?;
            let held = scene.cluster(cluster).executed(instance.unwrap_or(&primary)).await?;
            ensure!(!set.is_empty() && set.is_subset(&held), "{set} is in the dump, and {held} in {cluster}");
            let mysqld = loaded(&said.out)?;
            let there = mysqld.sql(ROWS).map_err(anyhow::Error::msg)?;
            ensure!(there.trim() == rows.as_str(), "{cluster} has {rows}, and its dump {there}");
            // Definers stay as they are, and no accounts come along.
            let definer = "CREATE USER 'admin'@'%'; GRANT SELECT ON shop.* TO 'admin'@'%'";
            mysqld.sql(&format!("{definer}; SELECT * FROM shop.apples")).map_err(anyhow::Error::msg)?;
            scene.step(&format!("{cluster} was dumped and loaded: {}", said.err));
        }
        Ok(())
    })
    .await
}

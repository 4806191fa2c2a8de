//! Clusters come, grow, shrink and go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::Retention;
use common::names;
use kube::ResourceExt;
use tests::ledger::{Ledger, Options};
use tests::pace::{Look, until};
use tests::{run, spec};

#[tokio::test]
async fn three_instances_become_ready() -> Result<()> {
    run("ready", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let settled = |status: &common::crd::MySQLClusterStatus| {
            status.epoch() == 1
                && status.operation.is_none()
                && status.ackers.len() == 2
                && status.acks_needed == Some(1)
        };
        let status = shop.wait_status("one of two replicas to acknowledge", Duration::from_secs(60), settled).await?;
        let primary = status.primary.clone().context("no primary")?;
        ensure!(!status.ackers.contains(&primary), "the primary is no acker: {status:?}");
        for kind in ["SpecAccepted", "ConfigApplied"] {
            shop.wait_condition(kind, "True", Duration::from_secs(30)).await?;
        }
        for kind in ["Degraded", "FailoverBlocked"] {
            shop.wait_condition(kind, "False", Duration::from_secs(30)).await?;
        }
        let role = |pod: &str| if pod == primary { "primary" } else { "replica" };
        until("the role labels", Duration::from_secs(10), async || {
            let wrong: Vec<String> = shop
                .pods()
                .await?
                .into_iter()
                .filter(|(name, pod)| pod.labels().get(names::LABEL_ROLE).map(String::as_str) != Some(role(name)))
                .map(|(name, _)| name)
                .collect();
            Ok(if wrong.is_empty() { Look::Done(()) } else { Look::Not(format!("wrong on {wrong:?}")) })
        })
        .await?;
        let mut identities = std::collections::BTreeSet::new();
        for pod in shop.pods().await?.into_keys() {
            let rows: Vec<(u32, String, String)> =
                shop.rows(&pod, "SELECT @@server_id, @@server_uuid, @@GLOBAL.gtid_purged").await?;
            let (id, uuid, purged) = rows.into_iter().next().context("no row")?;
            let ordinal = names::ordinal("shop", &pod).context("no ordinal")?;
            ensure!(id == ordinal + 1, "{pod} has server_id {id}");
            ensure!(purged.is_empty(), "a fresh cluster has purged nothing, {pod} has {purged}");
            identities.insert(uuid);
        }
        ensure!(identities.len() == 3, "three servers, three UUIDs: {identities:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scales_three_to_five_to_three_under_a_writer() -> Result<()> {
    run("scale", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        scene.step(&format!("five instances after {:.1?}", shop.scale(5).await?));
        let wanted =
            |status: &common::crd::MySQLClusterStatus| status.ackers.len() == 4 && status.acks_needed == Some(2);
        shop.wait_status("two of four replicas to acknowledge", Duration::from_secs(60), wanted).await?;
        ledger.wait_for(50, Duration::from_secs(30)).await?;
        scene.step(&format!("three instances after {:.1?}", shop.scale(3).await?));
        until("two pods to be gone", Duration::from_secs(90), async || {
            let pods = shop.pods().await?.len();
            Ok(if pods == 3 { Look::Done(()) } else { Look::Not(format!("{pods} pods")) })
        })
        .await?;
        let status = shop.status().await?;
        ensure!(status.acks_needed == Some(1) && status.ackers.len() == 2, "as before: {status:?}");
        ledger.wait_for(50, Duration::from_secs(30)).await?;
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

#[tokio::test]
async fn a_primary_that_is_scaled_away_hands_over_first() -> Result<()> {
    run("scale-primary", async |scene| {
        let shop = scene.create("shop", spec::small(2)).await?;
        shop.patch(serde_json::json!({"primary": "shop-1"})).await?;
        let moved = |status: &common::crd::MySQLClusterStatus| {
            status.primary.as_deref() == Some("shop-1") && status.operation.is_none()
        };
        shop.wait_status("shop-1 to be primary", Duration::from_secs(60), moved).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.patch(serde_json::json!({"instances": 1, "primary": null})).await?;
        shop.wait_ready(1, Duration::from_secs(120)).await?;
        ensure!(shop.primary().await? == "shop-0", "shop-0 is what is left");
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        let log = ledger.finish().await?;
        until("shop-1 to be gone", Duration::from_secs(90), async || {
            let pods: Vec<String> = shop.pods().await?.into_keys().collect();
            Ok(if pods == ["shop-0"] { Look::Done(()) } else { Look::Not(format!("{pods:?}")) })
        })
        .await?;
        log.expect_lossless(&shop).await
    })
    .await
}

#[tokio::test]
async fn volumes_are_kept_when_scaling_down_and_used_again() -> Result<()> {
    run("retain", async |scene| {
        let shop = scene.create("shop", spec::small(2)).await?;
        let volume = shop.claim_of("shop-1").await?.uid();
        let server: String = shop.value("shop-1", "SELECT @@server_uuid").await?;
        shop.write(&["CREATE DATABASE a", "CREATE TABLE a.t (id INT PRIMARY KEY)", "INSERT INTO a.t VALUES (1)"])
            .await?;
        shop.scale(1).await?;
        until("shop-1 to be gone", Duration::from_secs(90), async || {
            let pods: Vec<String> = shop.pods().await?.into_keys().collect();
            Ok(if pods == ["shop-0"] { Look::Done(()) } else { Look::Not(format!("{pods:?}")) })
        })
        .await?;
        ensure!(shop.claim_of("shop-1").await?.uid() == volume, "the volume of shop-1 is kept");
        shop.write(&["INSERT INTO a.t VALUES (2)"]).await?;
        shop.scale(2).await?;
        ensure!(shop.claim_of("shop-1").await?.uid() == volume, "the volume of shop-1 is used again");
        let again: String = shop.value("shop-1", "SELECT @@server_uuid").await?;
        ensure!(again == server, "its data is used again: server {server} has become {again}");
        shop.wait_caught_up(Duration::from_secs(30)).await?;
        let count: i64 = shop.value("shop-1", "SELECT COUNT(*) FROM a.t").await?;
        ensure!(count == 2, "shop-1 has caught up: {count} rows");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn volumes_are_deleted_when_scaling_down_if_asked() -> Result<()> {
    run("delete-down", async |scene| {
        let mut wanted = spec::small(2);
        wanted.volume_retention.on_scale_down = Retention::Delete;
        let shop = scene.create("shop", wanted).await?;
        let volume = shop.claim_of("shop-1").await?.uid();
        shop.scale(1).await?;
        until("the volume of shop-1 to be gone", Duration::from_secs(90), async || {
            let claims: Vec<String> = shop.claims().await?.into_keys().collect();
            Ok(if claims.len() == 1 { Look::Done(()) } else { Look::Not(format!("{claims:?}")) })
        })
        .await?;
        shop.scale(2).await?;
        ensure!(shop.claim_of("shop-1").await?.uid() != volume, "shop-1 has a new volume");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_cluster_leaves_its_volumes_and_a_new_one_of_its_name_serves_the_old_data() -> Result<()> {
    run("recreate", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        ledger.wait_for(100, Duration::from_secs(30)).await?;
        let log = ledger.finish().await?;
        let volumes: Vec<_> = shop.claims().await?.into_values().map(|claim| claim.uid()).collect();
        ensure!(volumes.len() == 3, "three volumes: {volumes:?}");
        shop.delete(Duration::from_secs(150)).await?;
        scene.step("the cluster is gone");
        let left: Vec<_> = shop.claims().await?.into_values().map(|claim| claim.uid()).collect();
        ensure!(left == volumes, "its volumes stay: {left:?}, were {volumes:?}");
        let shop = scene.create("shop", spec::small(3)).await?;
        log.expect_lossless(&shop).await?;
        shop.write(&["CREATE DATABASE again"]).await
    })
    .await
}

#[tokio::test]
async fn a_deleted_cluster_takes_its_volumes_along_if_asked() -> Result<()> {
    run("delete-all", async |scene| {
        let mut wanted = spec::small(1);
        wanted.volume_retention.on_delete = Retention::Delete;
        let shop = scene.create("shop", wanted).await?;
        shop.delete(Duration::from_secs(150)).await?;
        until("its volumes to be gone", Duration::from_secs(60), async || {
            let left: Vec<String> = shop.claims().await?.into_keys().collect();
            Ok(if left.is_empty() { Look::Done(()) } else { Look::Not(format!("{left:?}")) })
        })
        .await
    })
    .await
}

#[tokio::test]
async fn two_clusters_live_in_one_namespace() -> Result<()> {
    run("two", async |scene| {
        let (shop, shop_1) = (scene.cluster("shop"), scene.cluster("shop-1"));
        // Names on purpose: pod shop-1-0 of one, pod shop-1 of the other.
        for cluster in [&shop, &shop_1] {
            cluster.create(spec::small(2)).await?;
        }
        for cluster in [&shop, &shop_1] {
            cluster.wait_ready(2, tests::cluster::READY).await?;
            cluster.write(&[&format!("CREATE DATABASE {}", cluster.name.replace('-', "_"))]).await?;
        }
        for (cluster, foreign) in [(&shop, "shop_1"), (&shop_1, "shop")] {
            let pods = cluster.wait_caught_up(Duration::from_secs(30)).await?;
            ensure!(pods.len() == 2, "{} has pods {pods:?}", cluster.name);
            for pod in pods {
                let schemas: Vec<(String,)> = cluster.rows(&pod, "SHOW DATABASES").await?;
                ensure!(schemas.iter().all(|(name,)| name != foreign), "{pod} has the other's schema: {schemas:?}");
            }
        }
        let passwords = [shop.admin().await?.password, shop_1.admin().await?.password];
        let [one, other] = &passwords;
        ensure!(one != other, "each cluster has passwords of its own");
        Ok(())
    })
    .await
}

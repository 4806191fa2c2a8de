//! Changes that a running cluster takes: settings, primary, image, size of the volumes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::crd::MySQLClusterStatus;
use kube::ResourceExt;
use serde_json::json;
use tests::kubectl::exec;
use tests::ledger::{Ledger, Options};
use tests::pace::{LOOK, Look, until};
use tests::{Cluster, Scene, run, spec};

/// A roll-out pauses writes for planned changes of primary only; an outage would be longer than this. (How long the pauses
/// are is measured by the benchmarks, not here.)
const GAP: Duration = Duration::from_secs(3);

#[tokio::test]
async fn dynamic_settings_are_in_force_without_a_restart() -> Result<()> {
    run("dynamic", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = shop.pod_uids().await?;
        for wanted in ["123", "124"] {
            shop.patch(json!({"config": {"max_connections": wanted}})).await?;
            shop.wait_condition("ConfigApplied", "True", Duration::from_secs(90)).await?;
            for pod in before.keys() {
                let now: String = shop.value(pod, "SELECT @@GLOBAL.max_connections").await?;
                ensure!(now == wanted, "{pod}: max_connections is {now}, {wanted} was asked for");
            }
        }
        ensure!(shop.pod_uids().await? == before, "no pod was replaced");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_setting_that_is_taken_back_falls_back_to_the_default() -> Result<()> {
    run("removed", async |scene| {
        let mut wanted = spec::small(1);
        wanted.config.insert("max_connections".to_owned(), "123".to_owned());
        let shop = scene.create("shop", wanted).await?;
        let before: String = shop.value("shop-0", "SELECT @@GLOBAL.max_connections").await?;
        ensure!(before == "123", "max_connections is {before}");
        shop.patch(json!({"config": {"max_connections": null}})).await?;
        shop.wait_condition("ConfigApplied", "True", Duration::from_secs(90)).await?;
        let after: String = shop.value("shop-0", "SELECT @@GLOBAL.max_connections").await?;
        ensure!(after == "151", "ConfigApplied says that all is in force, and max_connections is {after}");
        Ok(())
    })
    .await
}

/// Waits until every pod is another one and all serve; the order in which they were replaced.
async fn rolled(scene: &Scene, cluster: &Cluster, before: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let (started, mut order) = (Instant::now(), Vec::new());
    while order.len() < before.len() {
        ensure!(started.elapsed() < Duration::from_secs(300), "only {order:?} were replaced in 300 s");
        let now = cluster.pod_uids().await?;
        for (pod, uid) in before {
            // A pod that is gone is being replaced.
            if now.get(pod) != Some(uid) && !order.contains(pod) {
                scene.step(&format!("{pod} is replaced"));
                order.push(pod.clone());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    cluster.wait_ready(3, Duration::from_secs(120)).await?;
    Ok(order)
}

#[tokio::test]
async fn static_settings_roll_out_replicas_first_and_the_primary_last() -> Result<()> {
    run("static", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let (before, primary) = (shop.pod_uids().await?, shop.primary().await?);
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.patch(json!({"config": {"back_log": "77"}})).await?;
        let order = rolled(scene, &shop, &before).await?;
        ensure!(order.last() == Some(&primary), "{primary} was the primary, the order was {order:?}");
        shop.wait_condition("ConfigApplied", "True", Duration::from_secs(60)).await?;
        for pod in before.keys() {
            let now: String = shop.value(pod, "SELECT @@GLOBAL.back_log").await?;
            ensure!(now == "77", "{pod}: back_log is {now}");
        }
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        let log = ledger.finish().await?;
        log.expect_lossless(&shop).await?;
        ensure!(log.longest_gap() < GAP, "{}", log.summary());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_image_rolls_out_replicas_first_and_the_primary_last() -> Result<()> {
    run("image", async |scene| {
        let other = format!("{}-b", spec::image());
        let shop = scene.create("shop", spec::small(3)).await?;
        let (before, primary) = (shop.pod_uids().await?, shop.primary().await?);
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.patch(json!({"image": other})).await?;
        let order = rolled(scene, &shop, &before).await?;
        ensure!(order.last() == Some(&primary), "{primary} was the primary, the order was {order:?}");
        for (name, pod) in shop.pods().await? {
            let images = pod.spec.into_iter().flat_map(|spec| spec.containers).filter_map(|container| container.image);
            let images: Vec<String> = images.collect();
            ensure!(images.contains(&other), "{name} runs {images:?}");
        }
        ledger.wait_for(20, Duration::from_secs(30)).await?;
        let log = ledger.finish().await?;
        log.expect_lossless(&shop).await?;
        ensure!(log.longest_gap() < GAP, "{}", log.summary());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_primary_moves_where_the_spec_wishes() -> Result<()> {
    run("switchover", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = shop.pod_uids().await?;
        let mut epoch = shop.status().await?.epoch();
        let mut replicas = shop.replicas().await?;
        replicas.push(shop.primary().await?);
        let ledger = Ledger::start(&shop, Options { rest: Duration::from_millis(3), ..Options::default() }).await?;
        for wanted in replicas {
            let started = Instant::now();
            shop.patch(json!({"primary": wanted})).await?;
            let moved =
                |status: &MySQLClusterStatus| status.primary.as_deref() == Some(&wanted) && status.operation.is_none();
            let status = shop.wait_status(&format!("{wanted} to be primary"), Duration::from_secs(60), moved).await?;
            scene.step(&format!("{wanted} is primary after {:.2?}", started.elapsed()));
            ensure!(status.epoch() > epoch, "the epoch grows: {epoch}, {}", status.epoch());
            epoch = status.epoch();
            ledger.wait_for(50, Duration::from_secs(30)).await?;
            shop.wait_ready(3, Duration::from_secs(60)).await?;
            let others = shop.replicas().await?;
            for pod in others {
                let read_only: i64 = shop.value(&pod, "SELECT @@GLOBAL.super_read_only").await?;
                ensure!(read_only == 1, "{pod} could commit beside {wanted}");
            }
        }
        ensure!(shop.pod_uids().await? == before, "no pod was replaced");
        let log = ledger.finish().await?;
        log.expect_lossless(&shop).await?;
        ensure!(log.longest_gap() < GAP, "{}", log.summary());
        Ok(())
    })
    .await
}

/// Size of the file system that holds the data, as the pod sees it.
async fn size_bytes(cluster: &Cluster, pod: &str) -> Result<u64> {
    let command = ["df", "-B1", "--output=size", common::names::DIR_VOLUME];
    let said = exec(&cluster.harness, &cluster.namespace, pod, &command).await?;
    said.lines().last().unwrap_or_default().trim().parse().with_context(|| format!("df said {said:?}"))
}

#[tokio::test]
async fn volumes_grow_online() -> Result<()> {
    run("grow", async |scene| {
        let mut wanted = spec::small(2);
        wanted.storage.storage_class_name =
            Some(std::env::var("PELORUS_TEST_SIZED_CLASS").unwrap_or_else(|_| "sized".to_owned()));
        let shop = scene.create("shop", wanted).await?;
        let before = shop.pod_uids().await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        let small = size_bytes(&shop, "shop-0").await?;
        shop.patch(json!({"storage": {"size": "2Gi"}})).await?;
        for pod in before.keys() {
            until(&format!("{pod} to see 2Gi"), Duration::from_secs(120), async || {
                let now = size_bytes(&shop, pod).await?;
                let grown = now > small + (800 << 20);
                Ok(if grown { Look::Done(()) } else { Look::Not(format!("{now} bytes, was {small}")) })
            })
            .await?;
            let claim = shop.claim_of(pod).await?;
            let capacity = claim.status.and_then(|status| status.capacity).and_then(|mut all| all.remove("storage"));
            ensure!(capacity.is_some_and(|size| size.0 == "2Gi"), "the claim of {pod} says 2Gi");
        }
        scene.step("both volumes have grown");
        shop.wait_ready(2, Duration::from_secs(60)).await?;
        ensure!(shop.pod_uids().await? == before, "no pod was replaced");
        // A claim that is made later has the new size, too.
        shop.scale(3).await?;
        let size = shop.claim_of("shop-2").await?.spec.and_then(|spec| spec.resources).and_then(|all| all.requests);
        ensure!(
            size.and_then(|mut all| all.remove("storage")).is_some_and(|size| size.0 == "2Gi"),
            "shop-2 asks for 2Gi"
        );
        let sets = shop.find::<k8s_openapi::api::apps::v1::StatefulSet>("shop").await?.context("no StatefulSet")?;
        ensure!(sets.uid().is_some(), "the StatefulSet is there");
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

//! What cannot be is refused with words that help, and the cluster goes on as it was.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::crd::{MySQLCluster, MySQLClusterSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use serde_json::{Value, json};
use tests::ledger::{Ledger, Options};
use tests::pace::{Look, until};
use tests::{Cluster, Harness, run, spec};

const SOON: Duration = Duration::from_secs(45);

/// Makes the change, expects the condition to say no with these words, and takes the change back; a writer sees nothing.
async fn refused(
    name: &str,
    wanted: MySQLClusterSpec,
    change: Value,
    back: Value,
    condition: &str,
    words: &[&str],
) -> Result<()> {
    run(name, async |scene| {
        let instances = wanted.instances;
        let shop = scene.create("shop", wanted).await?;
        let before = shop.pod_uids().await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        shop.patch(change).await.context("the schema takes the change")?;
        let said = shop.wait_condition(condition, "False", SOON).await?;
        scene.step(&format!("refused: {} {}", said.reason, said.message));
        for word in words {
            ensure!(said.message.contains(word), "{word:?} is missing in {:?}", said.message);
        }
        ledger.wait_for(30, Duration::from_secs(30)).await?;
        shop.patch(back).await?;
        shop.wait_condition(condition, "True", SOON).await?;
        shop.wait_ready(instances, SOON).await?;
        ensure!(shop.pod_uids().await? == before, "no pod was replaced");
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

#[tokio::test]
async fn guarded_settings_are_refused_while_the_cluster_serves() -> Result<()> {
    refused(
        "guarded",
        spec::small(2),
        json!({"config": {"sync_binlog": "0"}}),
        json!({"config": {"sync_binlog": null}}),
        "SpecAccepted",
        &["spec.config.sync_binlog"],
    )
    .await
}

#[tokio::test]
async fn a_smaller_volume_is_refused_while_the_cluster_serves() -> Result<()> {
    let mut wanted = spec::small(1);
    wanted.storage.size = Quantity("2Gi".to_owned());
    refused(
        "shrink",
        wanted,
        json!({"storage": {"size": "1Gi"}}),
        json!({"storage": {"size": "2048Mi"}}),
        "SpecAccepted",
        &["spec.storage.size", "1Gi", "2Gi"],
    )
    .await
}

#[tokio::test]
async fn unknown_settings_are_refused_while_the_cluster_serves() -> Result<()> {
    refused(
        "unknown-key",
        spec::small(2),
        json!({"config": {"no_such_setting": "1"}}),
        json!({"config": {"no_such_setting": null}}),
        "ConfigApplied",
        &["no_such_setting"],
    )
    .await
}

#[tokio::test]
async fn values_that_mysqld_would_not_start_with_are_refused_while_the_cluster_serves() -> Result<()> {
    refused(
        "bad-value",
        spec::small(1),
        json!({"config": {"binlog_row_image": "SOME"}}),
        json!({"config": {"binlog_row_image": null}}),
        "ConfigApplied",
        &["binlog_row_image"],
    )
    .await
}

#[tokio::test]
async fn absurd_memory_is_refused_while_the_cluster_serves() -> Result<()> {
    refused(
        "absurd-memory",
        spec::small(1),
        json!({"resources": {"limits": {"memory": "1Pi"}}}),
        json!({"resources": {"limits": {"memory": "1Gi"}}}),
        "SpecAccepted",
        &["spec.resources.limits.memory"],
    )
    .await
}

#[tokio::test]
async fn an_image_that_does_not_exist_stops_at_the_first_replica_and_is_healed_by_taking_it_back() -> Result<()> {
    run("bad-image", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let primary = shop.primary().await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        let image = "localhost/mysql:no-such-tag";
        shop.patch(json!({"image": image})).await?;
        let said = until("a condition that names the image", Duration::from_secs(90), async || {
            let status = shop.status().await?;
            let named = status.conditions.iter().find(|condition| {
                let good = if condition.type_ == "Degraded" { "False" } else { "True" };
                condition.status != good && condition.message.contains(image)
            });
            Ok(match named {
                Some(condition) => Look::Done(condition.clone()),
                None => Look::Not(format!("{:?}", status.conditions)),
            })
        })
        .await?;
        scene.step(&format!("refused: {} {} {}", said.type_, said.reason, said.message));
        ledger.wait_for(50, Duration::from_secs(30)).await?;
        ensure!(shop.primary().await? == primary, "the primary is left alone");
        let running = shop.pods().await?.into_values().filter(|pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|all| all.iter().all(|container| container.ready))
        });
        ensure!(running.count() == 2, "two instances serve on");
        shop.patch(json!({"image": spec::image()})).await?;
        let took = shop.wait_ready(3, Duration::from_secs(150)).await?;
        scene.step(&format!("healed after {:.1} s", took.as_secs_f64()));
        ledger.finish().await?.expect_flawless(&shop).await
    })
    .await
}

/// What the API server says to a new cluster with this spec, without making one.
async fn creation(harness: &Harness, name: &str, spec: Value) -> std::result::Result<(), String> {
    let cluster = Cluster { harness: harness.clone(), namespace: "default".to_owned(), name: name.to_owned() };
    let object =
        json!({"apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster", "metadata": {"name": name}, "spec": spec});
    let mut params = PatchParams::apply("pelorus-e2e").validation(ValidationDirective::Strict);
    params.dry_run = true;
    let answer = cluster.api::<MySQLCluster>().patch(name, &params, &Patch::Apply(&object)).await;
    match answer {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => Err(format!("not an answer of the API server: {error}")),
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() -> Result<()> {
    let harness = Harness::open().await?;
    for (spec, field) in [
        (json!({"instnaces": 3}), "instnaces"),
        (json!({"storage": {"sise": "1Gi"}}), "sise"),
        (json!({"failover": {"enable": true}}), "enable"),
    ] {
        match creation(&harness, "shop", spec).await {
            Ok(()) => bail!("{field} was taken"),
            Err(said) => ensure!(said.contains(field), "{field} is missing in {said:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn absurd_sizes_and_names_are_refused_by_name() -> Result<()> {
    let harness = Harness::open().await?;
    let long = "a".repeat(41);
    let pairs = |n: usize| -> Value {
        (0..n).map(|n| (format!("setting_{n}"), json!("1"))).collect::<serde_json::Map<_, _>>().into()
    };
    for (name, spec, word) in [
        ("shop", json!({"instances": 0}), "spec.instances"),
        ("shop", json!({"instances": 10}), "spec.instances"),
        ("shop", json!({"instances": -1}), "spec.instances"),
        ("shop", json!({"storage": {"size": "1Mi"}}), "spec.storage.size"),
        ("shop", json!({"storage": {"size": "65Ti"}}), "spec.storage.size"),
        ("shop", json!({"storage": {"size": "much"}}), "spec.storage.size"),
        ("shop", json!({"resources": {"limits": {"memory": "1Mi"}}}), "spec.resources"),
        ("shop", json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}}}), "spec.resources"),
        ("shop", json!({"config": {"max_connections": "x".repeat(1025)}}), "spec.config"),
        ("shop", json!({"config": {"max-connections": "1"}}), "spec.config"),
        ("shop", json!({"config": pairs(201)}), "spec.config"),
        ("shop", json!({"image": ""}), "spec.image"),
        ("shop", json!({"primary": "shop-3"}), "primary"),
        ("shop", json!({"primary": "other-0"}), "primary"),
        ("shop", json!({"failover": {"hangAfter": "1ms"}}), "hangAfter"),
        ("shop", json!({"reads": {"maxLag": "9999h"}}), "maxLag"),
        (&long, json!({"instances": 3}), "40 characters"),
        ("9lives", json!({"instances": 3}), "name"),
    ] {
        let text = spec.to_string().chars().take(80).collect::<String>();
        match creation(&harness, name, spec).await {
            Ok(()) => bail!("{name} {text} was taken"),
            Err(said) => ensure!(said.contains(word), "{text}: {word:?} is missing in {said:?}"),
        }
    }
    creation(&harness, "shop", json!({"instances": 9, "primary": "shop-8"})).await.map_err(anyhow::Error::msg)
}

#[tokio::test]
async fn the_schema_gives_defaults() -> Result<()> {
    let harness = Harness::open().await?;
    let object = MySQLCluster::new("shop", MySQLClusterSpec::default());
    let api: kube::Api<MySQLCluster> = kube::Api::namespaced(harness.client.clone(), "default");
    let made = api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await?;
    ensure!(made.spec == MySQLClusterSpec::default(), "the schema and the types agree: {:?}", made.spec);
    Ok(())
}

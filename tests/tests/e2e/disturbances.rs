//! What all clusters share is taken away. nextest runs these alone.

mod workers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::names::daemon;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pelorus_dev::{Node, fault};
use serde_json::json;
use tests::faults::MYSQLD;
use tests::harness::{DAEMONS, OPERATOR_NAMESPACE};
use tests::ledger::{Ledger, Options};
use tests::pace::{Look, until};
use tests::{Cluster, Faults, Scene, run, spec};

/// The node that a pod runs on.
fn node_of(pod: &Pod) -> Option<Node> {
    Node::parse(pod.spec.as_ref()?.node_name.as_deref()?)
}

#[tokio::test]
async fn one_instance_becomes_three_under_load_without_stalling_writes() -> Result<()> {
    run("grow-loaded", async |scene| {
        let shop = scene.create("shop", spec::small(1)).await?;
        // As much as two cores replicate: three servers share them with all of Kubernetes.
        let load = Options { writers: 8, rest: Duration::from_millis(20), payload: 500, ..Options::default() };
        let ledger = Ledger::start(&shop, load).await?;
        ledger.wait_for(2000, Duration::from_secs(60)).await?;
        scene.step(&format!("three instances after {:.1?}", shop.scale(3).await?));
        let wanted =
            |status: &common::crd::MySQLClusterStatus| status.ackers.len() == 2 && status.acks_needed == Some(1);
        shop.wait_status("one of two replicas to acknowledge", Duration::from_secs(60), wanted).await?;
        ledger.wait_for(1000, Duration::from_secs(60)).await?;
        let log = ledger.finish().await?;
        log.expect_flawless(&shop).await?;
        ensure!(log.longest_gap() < Duration::from_secs(1), "writes stalled; {}", log.summary());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn all_daemons_restarted_or_gone_leave_mysql_alone() -> Result<()> {
    run("daemons", async |scene| {
        let single = scene.create("single", spec::small(1)).await?;
        let shop = scene.create("shop", spec::small(3)).await?;
        let before = [shop.pod_uids().await?, single.pod_uids().await?];
        let epoch = shop.status().await?.epoch();
        let ledger = Ledger::start(&shop, Options::default()).await?;
        let lonely = Ledger::start(&single, Options { writers: 1, ..Options::default() }).await?;

        for daemon in DAEMONS {
            scene.step(&format!("deleted {:?}", scene.harness.delete_daemon_pods(daemon).await?));
        }
        scene.harness.wait_daemons(Duration::from_secs(90)).await?;
        ledger.wait_for(50, Duration::from_secs(30)).await?;

        let mut replicas = Vec::new();
        for daemon in DAEMONS {
            replicas.push(scene.harness.scale_daemon(daemon, 0).await?);
        }
        scene.step("no daemon runs");
        let result = without_daemons(scene, &ledger, &lonely).await;
        for (daemon, replicas) in DAEMONS.iter().zip(replicas) {
            scene.harness.scale_daemon(daemon, replicas).await?;
        }
        result?;
        scene.harness.wait_daemons(Duration::from_secs(90)).await?;
        scene.step("the daemons are back");
        shop.wait_ready(3, Duration::from_secs(60)).await?;
        ensure!([shop.pod_uids().await?, single.pod_uids().await?] == before, "no MySQL pod was replaced");
        ensure!(shop.status().await?.epoch() == epoch, "the primary and the ackers stayed");
        ledger.finish().await?.expect_flawless(&shop).await?;
        lonely.finish().await?.expect_flawless(&single).await?;
        move_primary(&shop).await
    })
    .await
}

async fn without_daemons(scene: &Scene, ledger: &Ledger, lonely: &Ledger) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(15) {
        ledger.wait_for(20, Duration::from_secs(15)).await?;
        lonely.wait_for(5, Duration::from_secs(15)).await.context("a cluster of one without daemons")?;
    }
    scene.step("writes went on without them");
    Ok(())
}

/// The daemons work: the primary moves when it should.
async fn move_primary(cluster: &Cluster) -> Result<()> {
    let wanted = cluster.replicas().await?.into_iter().next().context("no replica")?;
    cluster.patch(json!({"primary": wanted})).await?;
    let moved = |status: &common::crd::MySQLClusterStatus| status.primary.as_deref() == Some(&wanted);
    cluster.wait_status(&format!("{wanted} to be primary"), Duration::from_secs(60), moved).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_node_with_a_replica_comes_back_by_itself() -> Result<()> {
    run("node-cut", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        let pods = shop.pods().await?;
        let primary = shop.primary().await?;
        let home = pods.get(&primary).and_then(node_of).context("the primary has no node")?;
        let (replica, node) = pods
            .iter()
            .filter_map(|(name, pod)| Some((name.clone(), node_of(pod)?)))
            .find(|(_, node)| *node != home)
            .context("all instances are on one node")?;
        let clients = Node::all().find(|other| *other != node);
        let ledger = Ledger::start(&shop, Options { node: clients, ..Options::default() }).await?;
        ledger.wait_for(50, Duration::from_secs(30)).await?;
        scene.harness.dev(move |cluster| fault::cut_node(cluster, node)).await?;
        scene.step(&format!("{} with {replica} is cut off", node.name()));
        let gone = shop.wait_status("the replica to be missed", Duration::from_secs(30), |status| {
            status.ready.as_deref() == Some("2/3")
        });
        let result = gone.await.map(drop).and(ledger.wait_for(300, Duration::from_secs(60)).await);
        tokio::time::sleep(Duration::from_secs(8)).await;
        scene.harness.dev(move |cluster| fault::heal_node(cluster, node)).await?;
        result.context("writes go on while a replica's node is cut off")?;
        let took = shop.wait_ready(3, Duration::from_secs(120)).await?;
        scene.step(&format!("ready again {:.1} s after the heal", took.as_secs_f64()));
        ensure!(shop.primary().await? == primary, "the primary stayed");
        let log = ledger.finish().await?;
        log.expect_flawless(&shop).await?;
        scene.harness.wait_daemons(Duration::from_secs(120)).await
    })
    .await
}

#[tokio::test]
async fn without_nats_everything_goes_on() -> Result<()> {
    run("nats", async |scene| {
        let shop = scene.create("shop", spec::small(2)).await?;
        let ledger = Ledger::start(&shop, Options::default()).await?;
        scene.harness.scale_nats(0).await?;
        scene.step("NATS is gone");
        let result = goes_on(scene, &shop, &ledger).await;
        scene.harness.scale_nats(1).await?;
        result?;
        scene.step("NATS is back");
        let kinds = scene.harness.wait_events(&shop, &["switchover.completed"], Duration::from_secs(120)).await?;
        scene.step(&format!("events in the stream: {kinds:?}"));
        ledger.finish().await?.expect_lossless(&shop).await
    })
    .await
}

async fn goes_on(scene: &Scene, shop: &Cluster, ledger: &Ledger) -> Result<()> {
    ledger.wait_for(50, Duration::from_secs(30)).await?;
    scene.step(&format!("three instances after {:.1?}", shop.scale(3).await?));
    move_primary(shop).await?;
    shop.wait_ready(3, Duration::from_secs(60)).await?;
    let pods: Vec<String> = scene.harness.daemon_pods("").await?.iter().map(ResourceExt::name_any).collect();
    scene.step(&format!("the daemons run on: {pods:?}"));
    ledger.wait_for(50, Duration::from_secs(30)).await
}

/// A reader can follow one failover everywhere by its id.
#[tokio::test]
async fn one_failover_has_one_id_in_logs_events_nats_and_metrics() -> Result<()> {
    run("one-id", async |scene| {
        let shop = scene.create("shop", spec::small(3)).await?;
        shop.wait_ready(3, Duration::from_secs(60)).await?;
        let old = shop.primary().await?;
        Faults::new(&shop).kill(&old, MYSQLD).await?;
        let moved = |status: &common::crd::MySQLClusterStatus| {
            status.operation.is_none() && status.primary.as_ref().is_some_and(|primary| *primary != old)
        };
        shop.wait_status("another primary", Duration::from_secs(30), moved).await?;
        let id = format!("failover-{}", shop.status().await?.epoch());
        shop.wait_ready(3, Duration::from_secs(60)).await?;
        scene.step(&format!("{id} is over"));

        let news = Duration::from_secs(20);
        until("the id in Events", news, async || {
            let lines = shop.event_lines().await?;
            let told = ["FailoverStarted", "FailoverCompleted"].map(|reason| format!("{reason} {id}: "));
            let all = told.iter().all(|start| lines.iter().any(|line| line.starts_with(start)));
            Ok(if all { Look::Done(()) } else { Look::Not(format!("{lines:?}")) })
        })
        .await?;
        until("the id in exemplars of metrics", news, async || {
            let wanted = format!("# {{cluster=\"shop\",operation=\"{id}\"}}");
            for metric in ["pelorus_failover_operation_seconds_bucket", "pelorus_failover_step_seconds_bucket"] {
                let lines = scene.harness.metrics(daemon::FAILOVER_D, metric).await?;
                if !lines.iter().any(|line| line.contains(&wanted)) {
                    return Ok(Look::Not(format!("{metric}: {lines:#?}")));
                }
            }
            Ok(Look::Done(()))
        })
        .await?;
        let kinds = ["failover.started", "failover.completed"];
        scene.harness.wait_events(&shop, &kinds, news).await?;
        for kind in kinds {
            let event = scene.harness.last_event(&shop, kind).await?;
            let named = event.pointer("/data/operation").and_then(|operation| operation.as_str());
            ensure!(named == Some(&id), "{kind} in NATS: {event}");
        }
        let said = |logs: &BTreeMap<String, String>, who: &str, what: &str| {
            let of = logs.iter().filter(|(name, _)| name.contains(who));
            of.flat_map(|(_, text)| text.lines()).any(|line| line.contains(what) && line.contains(&format!("\"{id}\"")))
        };
        let daemons = scene.harness.logs(OPERATOR_NAMESPACE).await?;
        // The election is written with the claim where the fences had answered by then.
        for what in ["operation claimed", "order obeyed", "\"phase\":\"Promoting\"", "operation ended"] {
            ensure!(said(&daemons, daemon::FAILOVER_D, what), "no line {what:?} of {id} in the logs of failover-d");
        }
        let instances = scene.harness.logs(&shop.namespace).await?;
        // Who died may be up again when the operation is over.
        for pod in shop.pods().await?.keys().filter(|pod| **pod != old) {
            ensure!(said(&instances, pod, "obeying"), "{pod} does not say that it obeyed {id}");
        }
        Ok(())
    })
    .await
}

//! Passwords never leave their place (invariant 9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::crd::MySQLCluster;
use common::names;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use k8s_openapi::api::events::v1::Event as NewEvent;
use kube::ResourceExt;
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde_json::json;
use tests::harness::{DAEMONS, OPERATOR_NAMESPACE};
use tests::{Cluster, Scene, run, spec};

/// Passwords that no quoting may trip over, and that can be found whatever quotes them.
fn planted() -> BTreeMap<String, String> {
    let fixed = [
        names::account::LOCAL,
        names::account::CLONE,
        names::account::BACKUP,
        names::account::SHIPPER,
        names::account::USERS,
        names::account::MONITOR,
        names::account::ADMIN,
    ];
    let replication = (0..names::INSTANCES_MAX).map(names::account::replication);
    let accounts = fixed.into_iter().map(str::to_owned).chain(replication);
    accounts
        .enumerate()
        .map(|(n, account)| (account, format!("Canary{n}x{:08x}'\"\\`$%z", rand::random::<u32>())))
        .collect()
}

/// The part of a planted password that no quoting changes.
fn core(password: &str) -> &str {
    password.split('\'').next().unwrap_or(password)
}

async fn plant(cluster: &Cluster, passwords: &BTreeMap<String, String>) -> Result<()> {
    let metadata = ObjectMeta { name: Some(names::object::accounts_secret(&cluster.name)), ..ObjectMeta::default() };
    let secret = Secret { metadata, string_data: Some(passwords.clone()), ..Secret::default() };
    cluster.api::<Secret>().create(&PostParams::default(), &secret).await.context("plant the passwords")?;
    Ok(())
}

/// Everything that could have taken a password along: place and text.
async fn places(scene: &Scene, cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut places = BTreeMap::new();
    for namespace in [OPERATOR_NAMESPACE, &scene.namespace] {
        for (name, text) in scene.harness.logs(namespace).await? {
            places.insert(format!("log {namespace}/{name}"), text);
        }
    }
    let all = ListParams::default();
    let mut object = |kind: &str, name: String, object: serde_json::Result<String>| {
        places.insert(format!("{kind} {name}"), object.unwrap_or_default());
    };
    for event in cluster.api::<Event>().list(&all).await? {
        object("event", event.name_any(), serde_json::to_string(&event));
    }
    for event in cluster.api::<NewEvent>().list(&all).await? {
        object("event", event.name_any(), serde_json::to_string(&event));
    }
    for made in cluster.api::<MySQLCluster>().list(&all).await? {
        object("MySQLCluster", made.name_any(), serde_json::to_string(&made));
    }
    for made in cluster.api::<ConfigMap>().list(&all).await? {
        object("ConfigMap", made.name_any(), serde_json::to_string(&made));
    }
    for made in cluster.api::<Pod>().list(&all).await? {
        object("Pod", made.name_any(), serde_json::to_string(&made));
    }
    if scene.harness.dev.is_some() {
        for pod in cluster.pods().await?.into_keys() {
            for program in ["instance-d", "mysqld"] {
                processes(scene, &scene.namespace, &pod, names::CONTAINER_MYSQL, program, &mut places).await?;
            }
        }
        for daemon in DAEMONS {
            for pod in scene.harness.daemon_pods(daemon).await? {
                let containers = pod.spec.clone().unwrap_or_default().containers;
                for container in containers {
                    processes(scene, OPERATOR_NAMESPACE, &pod.name_any(), &container.name, daemon, &mut places).await?;
                }
            }
        }
    }
    Ok(places)
}

/// Arguments and environment of a program, as the kernel knows them.
async fn processes(
    scene: &Scene,
    namespace: &str,
    pod: &str,
    container: &str,
    program: &str,
    places: &mut BTreeMap<String, String>,
) -> Result<()> {
    for pid in scene.harness.pids(namespace, pod, container, program).await? {
        for what in ["cmdline", "environ"] {
            let text = tokio::fs::read(format!("/proc/{pid}/{what}")).await?;
            places.insert(
                format!("{what} of {program} in {namespace}/{pod}"),
                String::from_utf8_lossy(&text).into_owned(),
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn planted_passwords_are_in_no_log_event_status_argument_or_environment() -> Result<()> {
    run("canaries", async |scene| {
        let passwords = planted();
        let shop = scene.cluster("shop");
        plant(&shop, &passwords).await?;
        scene.create("shop", spec::small(2)).await?;
        ensure!(
            passwords.get(names::account::ADMIN).map(String::as_str) == Some(shop.admin().await?.password.expose()),
            "a prepared password is kept"
        );
        // Whatever handles passwords: clone, a switchover, settings, a pod that starts again.
        shop.scale(3).await?;
        shop.patch(json!({"primary": "shop-1", "config": {"max_connections": "99"}})).await?;
        let moved = |status: &common::crd::MySQLClusterStatus| status.primary.as_deref() == Some("shop-1");
        shop.wait_status("shop-1 to be primary", Duration::from_secs(60), moved).await?;
        shop.delete_pod("shop-2").await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        shop.wait_ready(3, Duration::from_secs(120)).await?;
        // A login that fails is logged somewhere, perhaps.
        let mut target = shop.instance("shop-0").await?;
        target.credentials = shop.account(names::account::MONITOR).await?;
        target.connect().await.context("the monitor account works")?;
        target.credentials.user = "pelorus_backup".to_owned();
        ensure!(target.connect().await.is_err(), "a wrong password is refused");

        let places = places(scene, &shop).await?;
        scene.step(&format!("looking at {} places", places.len()));
        for wanted in ["log pelorus-system/", "cmdline of mysqld", "environ of instance-d", "MySQLCluster ", "event "] {
            ensure!(
                scene.harness.dev.is_none() || places.keys().any(|place| place.starts_with(wanted)),
                "nothing was looked at of {wanted:?}"
            );
        }
        let found: BTreeSet<String> = places
            .iter()
            .flat_map(|(place, text)| {
                let inside = passwords.iter().filter(|(_, password)| text.contains(core(password)));
                inside.map(move |(account, _)| format!("that of {account} in {place}"))
            })
            .collect();
        ensure!(found.is_empty(), "passwords have left their place: {found:#?}");
        Ok(())
    })
    .await
}

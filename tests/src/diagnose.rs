//! What a failed test leaves for people: objects, pods, events and logs. Secrets are never read.

use std::fmt::Write;

use common::crd::MySQLCluster;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use crate::Harness;
use crate::harness::OPERATOR_NAMESPACE;

const LINES: i64 = 50;

/// Prints what is in the namespace, and the daemons' last words.
pub async fn tell(harness: &Harness, namespace: &str) {
    println!("---- what was there, in {namespace}");
    clusters(harness, namespace).await;
    let pods = pods(harness, namespace).await;
    events(harness, namespace).await;
    logs(harness, namespace, &pods).await;
    let daemons = pods_of(harness, OPERATOR_NAMESPACE).await;
    logs(harness, OPERATOR_NAMESPACE, &daemons).await;
    println!("---- end of what was there");
}

async fn clusters(harness: &Harness, namespace: &str) {
    let api: Api<MySQLCluster> = Api::namespaced(harness.client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(all) => {
            for mut cluster in all {
                cluster.metadata.managed_fields = None;
                println!("{}", serde_json::to_string_pretty(&cluster).unwrap_or_else(|error| error.to_string()));
            }
        }
        Err(error) => println!("MySQLClusters cannot be listed: {error}"),
    }
}

async fn pods_of(harness: &Harness, namespace: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(harness.client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(pods) => pods.items,
        Err(error) => {
            println!("pods of {namespace} cannot be listed: {error}");
            Vec::new()
        }
    }
}

async fn pods(harness: &Harness, namespace: &str) -> Vec<Pod> {
    let pods = pods_of(harness, namespace).await;
    for pod in &pods {
        let mut line = format!("pod {}", pod.name_any());
        if let Some(status) = &pod.status {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
            write!(line, " {} on {node}", status.phase.as_deref().unwrap_or("?")).ok();
            for container in
                status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
            {
                let state = serde_json::to_string(&container.state).unwrap_or_default();
                write!(
                    line,
                    "; {}: ready {}, restarts {}, {state}",
                    container.name, container.ready, container.restart_count
                )
                .ok();
            }
        }
        println!("{line}");
    }
    pods
}

async fn events(harness: &Harness, namespace: &str) {
    let api: Api<Event> = Api::namespaced(harness.client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(mut events) => {
            events.items.sort_by_key(|event| event.metadata.creation_timestamp.clone());
            for event in events {
                let object = event.involved_object;
                println!(
                    "event {} {} {}/{}: {}",
                    event.type_.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    object.kind.unwrap_or_default(),
                    object.name.unwrap_or_default(),
                    event.message.unwrap_or_default(),
                );
            }
        }
        Err(error) => println!("events cannot be listed: {error}"),
    }
}

async fn logs(harness: &Harness, namespace: &str, pods: &[Pod]) {
    let api: Api<Pod> = Api::namespaced(harness.client.clone(), namespace);
    for pod in pods {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for container in containers {
            let last =
                LogParams { container: Some(container.name.clone()), tail_lines: Some(LINES), ..LogParams::default() };
            match api.logs(&pod.name_any(), &last).await {
                Ok(text) => println!("---- log of {}/{}\n{text}", pod.name_any(), container.name),
                Err(error) => println!("---- no log of {}/{}: {error}", pod.name_any(), container.name),
            }
        }
    }
}

//! The scene of one test: a namespace of its own, told about when the test fails, removed when it ends.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use common::crd::MySQLClusterSpec;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};

use crate::cluster::{Cluster, READY};
use crate::pace::{Look, until};
use crate::{Harness, diagnose};

/// Label of every namespace of the tests: `kubectl delete namespace -l pelorus.dev/e2e` removes what is left over.
pub const LABEL: &str = "pelorus.dev/e2e";

/// Where one test happens.
pub struct Scene {
    /// The Kubernetes.
    pub harness: Harness,
    /// The test's own namespace.
    pub namespace: String,
    started: Instant,
}

/// Runs a test in a namespace of its own. On failure it tells what was there; in the end it removes the namespace,
/// unless `PELORUS_KEEP=1`.
///
/// # Errors
/// Those of the test; a panic is one too.
pub fn run<'a>(name: &'a str, test: impl AsyncFnOnce(&Scene) -> Result<()> + 'a) -> LocalBoxFuture<'a, Result<()>> {
    Box::pin(on_scene(name, test))
}

async fn on_scene(name: &str, test: impl AsyncFnOnce(&Scene) -> Result<()>) -> Result<()> {
    let harness = Harness::open().await?;
    let namespace = format!("e2e-{name}-{:04x}", rand::random::<u16>());
    create_namespace(&harness, &namespace, name).await?;
    let scene = Scene { harness, namespace, started: Instant::now() };
    let result = guarded(test(&scene)).await;
    if result.is_err() {
        diagnose::tell(&scene.harness, &scene.namespace).await;
    }
    scene.step("the test is over");
    if std::env::var_os("PELORUS_KEEP").is_some_and(|value| value == "1") {
        println!("PELORUS_KEEP=1: namespace {} stays", scene.namespace);
    } else {
        remove_namespace(&scene.harness, &scene.namespace).await;
    }
    result
}

/// Turns a panic into an error, so that what was made is told about and removed.
pub(crate) async fn guarded<T>(test: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(test).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("the test panicked: {}", text.unwrap_or("without words")))
        }
    }
}

impl Scene {
    /// Says what happens now, and when.
    pub fn step(&self, what: &str) {
        println!("[{:7.2} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// A cluster of this namespace, whether it exists or not.
    pub fn cluster(&self, name: &str) -> Cluster {
        Cluster { harness: self.harness.clone(), namespace: self.namespace.clone(), name: name.to_owned() }
    }

    /// Makes a cluster and waits until all its instances serve.
    ///
    /// # Errors
    /// When it is refused, or not ready in time.
    pub async fn create(&self, name: &str, spec: MySQLClusterSpec) -> Result<Cluster> {
        let cluster = self.cluster(name);
        let instances = spec.instances;
        cluster.create(spec).await.with_context(|| format!("create MySQLCluster {name}"))?;
        let took = cluster.wait_ready(instances, READY).await?;
        self.step(&format!("{name} is ready {instances}/{instances} after {:.1} s", took.as_secs_f64()));
        Ok(cluster)
    }
}

/// Makes a namespace of the tests.
pub(crate) async fn create_namespace(harness: &Harness, namespace: &str, test: &str) -> Result<()> {
    let api: Api<Namespace> = Api::all(harness.client.clone());
    let labels = BTreeMap::from([
        (LABEL.to_owned(), test.chars().take(63).collect()),
        ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned()),
    ]);
    let metadata = ObjectMeta { name: Some(namespace.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    let wanted = Namespace { metadata, ..Namespace::default() };
    api.create(&PostParams::default(), &wanted).await.with_context(|| format!("create namespace {namespace}"))?;
    Ok(())
}

/// Removes a namespace of the tests, as fast as it goes: nobody needs its data, and the next test needs the memory.
pub(crate) async fn remove_namespace(harness: &Harness, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(harness.client.clone());
    let pods: Api<Pod> = Api::namespaced(harness.client.clone(), namespace);
    if let Err(error) = namespaces.delete(namespace, &DeleteParams::default()).await {
        println!("namespace {namespace} is left over: {error}");
        return;
    }
    let at_once = DeleteParams::default().grace_period(1);
    let gone = until("the pods of the test to be gone", Duration::from_secs(30), async || {
        let left = pods.list_metadata(&ListParams::default()).await?;
        for pod in &left {
            if pod.metadata.deletion_grace_period_seconds != Some(1) {
                pods.delete(&pod.name_any(), &at_once).await.ok();
            }
        }
        Ok(if left.items.is_empty() { Look::Done(()) } else { Look::Not(format!("{} pods", left.items.len())) })
    });
    if let Err(error) = gone.await {
        println!("namespace {namespace}: {error:#}");
    }
}

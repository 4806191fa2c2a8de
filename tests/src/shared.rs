//! One cluster of three that tests share which disturb nobody: each works in schemas of its own.
//!
//! Test processes run side by side and know nothing of each other: whoever comes first makes it, the others wait. One
//! that an earlier run of the suite has left is made anew.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use crate::cluster::{Cluster, READY};
use crate::pace::{Look, until};
use crate::scene::{create_namespace, guarded, remove_namespace};
use crate::{Harness, diagnose, spec};

/// Namespace of the shared cluster.
pub const NAMESPACE: &str = "pelorus-e2e-shared";
/// Older than this, it is of an earlier run.
const OLD: Duration = Duration::from_secs(45 * 60);

/// Runs a test on the shared cluster. On failure it tells what was there.
///
/// # Errors
/// Those of the test; a panic is one too.
pub async fn run(test: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let harness = Harness::open().await?;
    let result = guarded(async {
        let cluster = open(&harness).await?;
        test(&cluster).await
    })
    .await;
    if result.is_err() {
        diagnose::tell(&harness, NAMESPACE).await;
    }
    result
}

/// The shared cluster, ready; made when there is none.
async fn open(harness: &Harness) -> Result<Cluster> {
    let namespaces: Api<Namespace> = Api::all(harness.client.clone());
    until("the namespace of the shared cluster", Duration::from_secs(120), async || {
        let Some(found) = namespaces.get_opt(NAMESPACE).await? else {
            create_namespace(harness, NAMESPACE, "shared").await?;
            return Ok(Look::Done(()));
        };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Look::Not("it is being removed".to_owned()));
        }
        if !is_old(&found) {
            return Ok(Look::Done(()));
        }
        // Only this very one: another process may have made a new one meanwhile.
        let very = kube::api::Preconditions { uid: found.uid(), ..kube::api::Preconditions::default() };
        let delete = DeleteParams { preconditions: Some(very), ..DeleteParams::default() };
        if namespaces.delete(NAMESPACE, &delete).await.is_ok() {
            remove_namespace(harness, NAMESPACE).await;
        }
        Ok(Look::Not("it was of an earlier run".to_owned()))
    })
    .await?;
    let cluster = Cluster { harness: harness.clone(), namespace: NAMESPACE.to_owned(), name: "shared".to_owned() };
    match cluster.create(spec::small(3)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).context("create the shared cluster"),
    }
    cluster.wait_ready(3, READY).await?;
    Ok(cluster)
}

fn is_old(namespace: &Namespace) -> bool {
    let now = jiff::Timestamp::now();
    namespace.metadata.creation_timestamp.as_ref().is_some_and(|made| now.duration_since(made.0).unsigned_abs() > OLD)
}

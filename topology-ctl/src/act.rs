//! Changes to the world: server-side apply, deletions, orders to instances. Every call has a deadline.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{
    Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, ValidationDirective,
};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::build::{Cluster, Object};
use crate::error::Error;

/// Field manager of everything that this daemon applies.
pub const FIELD_MANAGER: &str = "pelorus/topology-ctl";
/// Deadline of one call to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an orphaning deletion may take.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pace of looking whether it is done.
const ORPHAN_POLL: Duration = Duration::from_millis(100);

/// Awaits a call for [`CALL_TIMEOUT`] at most, and says what failed.
pub async fn bounded<T>(
    verb: &'static str,
    kind: &str,
    name: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => {
            Err(Error::Kubernetes { verb, kind: kind.to_owned(), name: name.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(Error::Timeout { verb, kind: kind.to_owned(), name: name.to_owned(), after: CALL_TIMEOUT }),
    }
}

/// Applies objects side by side.
pub async fn apply(client: &Client, cluster: &Cluster, objects: &[Object]) -> Result<(), Error> {
    let mut params = PatchParams::apply(FIELD_MANAGER).force();
    params.field_validation = Some(ValidationDirective::Strict);
    let params = &params;
    let calls = objects.iter().map(async |object| {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &cluster.namespace, &object.resource);
        let patch = Patch::Apply(&object.body);
        bounded("apply", &object.resource.kind, &object.name, api.patch(&object.name, params, &patch)).await
    });
    try_join_all(calls).await.map(|_| ())
}

/// Creates a Secret; `false` when somebody else was first.
pub async fn create_secret(client: &Client, cluster: &Cluster, object: &Object) -> Result<bool, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let secret: Secret = serde_json::from_value(object.body.clone())?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match bounded("create", "Secret", &object.name, api.create(&params, &secret)).await {
        Ok(_) => Ok(true),
        Err(Error::Kubernetes { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.is_already_exists()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Merges into a Secret that is still what was read.
pub async fn merge_secret(client: &Client, existing: &Secret, mut patch: serde_json::Value) -> Result<(), Error> {
    let name = existing.name_any();
    let api: Api<Secret> = Api::namespaced(client.clone(), &existing.namespace().unwrap_or_default());
    if let Some(version) = existing.resource_version()
        && let Some(body) = patch.as_object_mut()
    {
        let metadata = body.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
    }
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    bounded("patch", "Secret", &name, api.patch(&name, &params, &Patch::Merge(&patch))).await.map(|_| ())
}

/// Reads a Secret.
pub async fn secret(client: &Client, cluster: &Cluster, name: &str) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    bounded("get", "Secret", name, api.get_opt(name)).await
}

/// Deletes a pod, when it is still the one that was looked at. Its StatefulSet makes a new one.
pub async fn delete_pod(client: &Client, cluster: &Cluster, name: &str, uid: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    gone_is_fine(bounded("delete", "Pod", name, api.delete(name, &params)).await.map(|_| ()))
}

/// Deletes a volume claim.
pub async fn delete_claim(client: &Client, cluster: &Cluster, name: &str) -> Result<(), Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    let params = DeleteParams::default();
    gone_is_fine(bounded("delete", "PersistentVolumeClaim", name, api.delete(name, &params)).await.map(|_| ()))
}

/// Asks for a larger volume.
pub async fn grow_claim(client: &Client, cluster: &Cluster, name: &str, size: &str) -> Result<(), Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    bounded("patch", "PersistentVolumeClaim", name, api.patch(name, &params, &Patch::Merge(&patch))).await.map(|_| ())
}

/// Deletes the StatefulSet and leaves its pods and volumes running, so that it can be made anew with other immutable
/// fields. Returns when it is gone.
pub async fn orphan_statefulset(client: &Client, cluster: &Cluster, uid: Option<String>) -> Result<(), Error> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    gone_is_fine(
        bounded("delete", "StatefulSet", &cluster.name, api.delete(&cluster.name, &params)).await.map(|_| ()),
    )?;
    let gone = async {
        while bounded("get", "StatefulSet", &cluster.name, api.get_metadata_opt(&cluster.name)).await?.is_some() {
            tokio::time::sleep(ORPHAN_POLL).await;
        }
        Ok(())
    };
    tokio::time::timeout(ORPHAN_TIMEOUT, gone).await.map_err(|_| Error::Timeout {
        verb: "delete",
        kind: "StatefulSet".to_owned(),
        name: cluster.name.clone(),
        after: ORPHAN_TIMEOUT,
    })?
}

/// Applies our part of the status.
pub async fn apply_status(client: &Client, cluster: &Cluster, status: serde_json::Value) -> Result<(), Error> {
    let api: Api<common::crd::MySQLCluster> = Api::namespaced(client.clone(), &cluster.namespace);
    let body = json!({
        "apiVersion": format!("{}/{}", common::names::GROUP, common::names::VERSION),
        "kind": "MySQLCluster",
        "metadata": {"name": cluster.name, "uid": cluster.uid},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(
        "apply status of",
        "MySQLCluster",
        &cluster.name,
        api.patch_status(&cluster.name, &params, &Patch::Apply(&body)),
    )
    .await
    .map(|_| ())
}

/// Takes an annotation off the MySQLCluster, if it still has this value.
pub async fn remove_annotation(client: &Client, cluster: &Cluster, key: &str, value: &str) -> Result<(), Error> {
    let api: Api<common::crd::MySQLCluster> = Api::namespaced(client.clone(), &cluster.namespace);
    let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    let operations = json!([
        {"op": "test", "path": path, "value": value},
        {"op": "remove", "path": path},
    ]);
    let patch = Patch::<()>::Json(serde_json::from_value(operations)?);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match bounded("patch", "MySQLCluster", &cluster.name, api.patch_metadata(&cluster.name, &params, &patch)).await {
        // The test failed: somebody was first, or wants something else by now.
        Err(Error::Kubernetes { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 422) => {
            Ok(())
        }
        done => gone_is_fine(done.map(|_| ())),
    }
}

/// Gone, or replaced by another of the same name: what was to be deleted is no more.
fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Kubernetes { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.is_not_found() || status.is_conflict()) => {
            Ok(())
        }
        other => other,
    }
}

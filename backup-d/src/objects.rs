//! What the controllers of all our objects share.

use std::fmt::Debug;

use common::crd::MySQLDump;
use common::daemon::Complaint;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Error as RunError};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::controller::Error;

/// Field manager of our writes.
const MANAGER: &str = "pelorus/backup-d";

/// Runs a controller until the token is cancelled. A look that failed is logged where its pause is decided.
pub async fn drive<K: Resource<DynamicType = ()>>(
    looks: impl Stream<Item = Result<(ObjectRef<K>, Action), RunError<Error, watcher::Error>>>,
    token: CancellationToken,
) {
    let complaint = Complaint::default();
    let looks = looks.for_each(async |outcome| match outcome {
        Ok((object, action)) => debug!(name = object.name, ?action, "looked"),
        Err(RunError::ObjectNotFound(_) | RunError::ReconcilerFailed(..)) => {}
        Err(error) => complaint.about(&K::plural(&()), &error),
    });
    token.run_until_cancelled(looks).await;
}

/// Without the fields that are null: apply takes what is left out away, and a schema refuses null.
pub fn present(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    status
}

/// Writes the whole status of an object, without what is null; one that is gone needs none.
pub async fn say<K>(client: &Client, object: &K, status: Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    say_at(client, object, None, status).await.map(drop)
}

/// The same, to exactly this version of it, which is a conflict when it has changed since. The object as it is then, unless it is gone.
pub async fn say_at<K>(
    client: &Client,
    object: &K,
    version: Option<&str>,
    status: Value,
) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": present(status)});
    if let (Some(version), Some(fields)) = (version, patch.as_object_mut()) {
        fields.insert("metadata".to_owned(), json!({"resourceVersion": version}));
    }
    match api.patch_status(&object.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        done => done.map(Some),
    }
}

/// Asks for a dump, unless it was asked for already.
pub async fn ask(api: &Api<MySQLDump>, dump: &MySQLDump) -> Result<(), kube::Error> {
    match api.create(&PostParams::default(), dump).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        done => done.map(drop),
    }
}

/// As the API server keeps times.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

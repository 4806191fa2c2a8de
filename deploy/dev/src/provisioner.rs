//! The provisioner of volumes: claims of our StorageClasses get a PersistentVolume on the host's disk, grow when they ask for more, and lose
//! it when they go and the policy says so.
//!
//! It looks at everything again whenever a claim, a volume or a class changes, and every few seconds; each step may be repeated.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, reflector, reflector::Store, watcher},
};
use serde_json::json;
use tracing::{info, warn};

use crate::{
    error::{Error, Result},
    paths::Paths,
    volume::{Kind, Volume, parse_quantity},
};

/// Name in the StorageClasses.
pub const NAME: &str = "dev.pelorus.dev/volumes";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Everything is looked at again at this pace, so that a step that failed is repeated.
const PACE: Duration = Duration::from_secs(3);

/// What is known of the cluster.
struct Stores {
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
}

/// Runs until the process is killed.
pub async fn run(paths: Paths) -> Result<()> {
    let client = client(&paths).await?;
    for volume in Volume::all(&paths) {
        // After a reboot of the host nothing is mounted.
        if let Err(error) = volume.ensure(&paths) {
            warn!("volume {}: {error}", volume.name);
        }
    }
    let (claims, claim_events) = watch::<PersistentVolumeClaim>(&client);
    let (volumes, volume_events) = watch::<PersistentVolume>(&client);
    let (classes, class_events) = watch::<StorageClass>(&client);
    let mut events =
        pin!(futures::stream::select_all([claim_events.boxed(), volume_events.boxed(), class_events.boxed()]));
    let stores = Stores { claims, volumes, classes };
    loop {
        // Claims that were provisioned a moment ago must be seen as such: the API server refuses a second volume of the same name.
        if let Ok(None) = tokio::time::timeout(PACE, events.next()).await {
            return Err(Error::Invalid("the watches have ended".into()));
        }
        pass(&client, &paths, &stores).await;
    }
}

async fn client(paths: &Paths) -> Result<Client> {
    let file = paths.kubeconfig_of("provisioner");
    let failed = |source: kube::config::KubeconfigError| Error::Invalid(format!("read {}: {source}", file.display()));
    let kubeconfig = Kubeconfig::read_from(&file).map_err(failed)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Above the 290 s after which a watch is renewed.
    config.read_timeout = Some(Duration::from_secs(300));
    Client::try_from(config).map_err(kube_error("make a client"))
}

fn kube_error(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    let action = action.into();
    move |source| Error::Kube { action, source: Box::new(source) }
}

/// A cache of all objects of a kind, and a stream with an item for each change of it.
fn watch<K>(client: &Client) -> (Store<K>, impl Stream<Item = ()> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    let changes = reflector(writer, stream).filter_map(|event| async move {
        match event {
            Ok(_) => Some(()),
            Err(error) => {
                warn!("watch: {error}");
                None
            }
        }
    });
    (reader, changes)
}

async fn pass(client: &Client, paths: &Paths, stores: &Stores) {
    let classes: BTreeMap<_, _> = stores
        .classes
        .state()
        .into_iter()
        .filter(|class| class.provisioner == NAME)
        .map(|class| (class.name_any(), class))
        .collect();
    for claim in stores.claims.state() {
        let class = claim.spec.as_ref().and_then(|spec| classes.get(spec.storage_class_name.as_ref()?));
        let result = match class {
            Some(class) => serve(client, paths, stores, &claim, class).await,
            None => Ok(()),
        };
        if let Err(error) = result {
            warn!("claim {}/{}: {error}", claim.namespace().unwrap_or_default(), claim.name_any());
        }
    }
    for volume in stores.volumes.state() {
        if is_abandoned(&volume)
            && let Err(error) = delete(client, paths, &volume.name_any()).await
        {
            warn!("volume {}: {error}", volume.name_any());
        }
    }
}

/// A volume whose claim is gone and whose policy says that it goes too.
fn is_abandoned(volume: &PersistentVolume) -> bool {
    volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == NAME)
        && volume.metadata.deletion_timestamp.is_none()
        && volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released")
        && volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) == Some("Delete")
}

fn requested(claim: &PersistentVolumeClaim) -> Option<(String, u64)> {
    let quantity = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?;
    Some((quantity.0.clone(), parse_quantity(&quantity.0)?))
}

async fn serve(
    client: &Client,
    paths: &Paths,
    stores: &Stores,
    claim: &Arc<PersistentVolumeClaim>,
    class: &StorageClass,
) -> Result<()> {
    let (text, bytes) = requested(claim).ok_or_else(|| Error::Invalid("its request is no quantity".into()))?;
    let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    if claim.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    match bound {
        None => provision(client, paths, stores, claim, class, &text, bytes).await,
        Some(name) => grow(client, paths, claim, &name, &text, bytes).await,
    }
}

async fn provision(
    client: &Client,
    paths: &Paths,
    stores: &Stores,
    claim: &Arc<PersistentVolumeClaim>,
    class: &StorageClass,
    text: &str,
    bytes: u64,
) -> Result<()> {
    let (uid, namespace) = (claim.uid().unwrap_or_default(), claim.namespace().unwrap_or_default());
    let name = format!("pvc-{uid}");
    if claim.spec.as_ref().is_some_and(|spec| spec.selector.is_some()) {
        return Err(Error::Invalid("claims with a selector are not provisioned".into()));
    }
    if stores.volumes.state().iter().any(|volume| volume.name_any() == name) {
        return Ok(());
    }
    let kind = Kind::of_class(
        class.parameters.as_ref().and_then(|all| all.get("kind")).map(String::as_str).unwrap_or_default(),
    )?;
    let volume = Volume { name: name.clone(), kind, bytes, namespace: namespace.clone(), claim: claim.name_any() };
    blocking(paths, {
        let volume = volume.clone();
        move |paths| volume.ensure(paths)
    })
    .await?;
    let object: PersistentVolume = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: NAME}},
        "spec": {
            "capacity": {"storage": text},
            "accessModes": claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_else(|| vec!["ReadWriteOnce".into()]),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name_any(),
            "hostPath": {"path": volume.folder(paths), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim.name_any(), "uid": uid
            },
        },
    }))
    .map_err(Error::json(format!("build volume {name}")))?;
    match within(Api::all(client.clone()).create(&PostParams::default(), &object)).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(kube_error(format!("create volume {name}"))(error)),
        Ok(_) => {
            info!("volume {name} of {text} for {namespace}/{}", claim.name_any());
            Ok(())
        }
    }
}

/// First the file system, then the volume's capacity, then the claim's: each number is true when it is written.
async fn grow(
    client: &Client,
    paths: &Paths,
    claim: &Arc<PersistentVolumeClaim>,
    name: &str,
    text: &str,
    bytes: u64,
) -> Result<()> {
    let granted = claim.status.as_ref().and_then(|status| parse_quantity(&status.capacity.as_ref()?.get("storage")?.0));
    let (Some(granted), Some(mut volume)) = (granted, Volume::load(paths, name)) else { return Ok(()) };
    if granted >= bytes {
        return Ok(());
    }
    blocking(paths, move |paths| volume.grow(paths, bytes)).await?;
    let capacity = json!({"storage": text});
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"capacity": capacity}}));
    within(volumes.patch(name, &PatchParams::default(), &patch))
        .await
        .map_err(kube_error(format!("write capacity of volume {name}")))?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"status": {"capacity": capacity, "conditions": null}}));
    within(claims.patch_status(&claim.name_any(), &PatchParams::default(), &patch))
        .await
        .map_err(kube_error(format!("write capacity of claim {}", claim.name_any())))?;
    info!("volume {name} has grown to {text}");
    Ok(())
}

async fn delete(client: &Client, paths: &Paths, name: &str) -> Result<()> {
    if let Some(volume) = Volume::load(paths, name) {
        blocking(paths, move |paths| volume.delete(paths)).await?;
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    match within(volumes.delete(name, &DeleteParams::default())).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(kube_error(format!("delete volume {name}"))(error)),
        Ok(_) => info!("volume {name} deleted"),
    }
    Ok(())
}

/// Bounds a call of the API.
async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(Duration::from_secs(20), call).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service("no answer within 20 s".into())),
    }
}

/// Runs work on files off the threads of the runtime.
async fn blocking(paths: &Paths, work: impl FnOnce(&Paths) -> Result<()> + Send + 'static) -> Result<()> {
    let paths = paths.clone();
    tokio::task::spawn_blocking(move || work(&paths))
        .await
        .unwrap_or_else(|_| Err(Error::Invalid("work on a volume panicked".into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn volume(by: &str, phase: &str, policy: &str) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "pvc-1", "annotations": {PROVISIONED_BY: by}},
            "spec": {"persistentVolumeReclaimPolicy": policy},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn only_released_volumes_of_ours_with_policy_delete_go() {
        assert!(is_abandoned(&volume(NAME, "Released", "Delete")));
        assert!(!is_abandoned(&volume(NAME, "Released", "Retain")));
        assert!(!is_abandoned(&volume(NAME, "Bound", "Delete")));
        assert!(!is_abandoned(&volume("somebody.else/csi", "Released", "Delete")));
    }
}

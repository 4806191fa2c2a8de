//! Scratch clusters of one instance: what a dump is restored into to prove it, and what a physical one is made by. They belong to their
//! dump, and go with it.

use std::collections::BTreeMap;

use common::crd::{
    MySQLCluster, MySQLClusterSpec, MySQLDump, PodTemplate, Restore, RestoreLocation, Retention, VolumeRetention,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};

use super::{Api, Error, Look, ResourceExt, everywhere, read};

/// What one is for.
pub(super) struct Scratch<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Label that says what it is for; its value is the dump's name.
    pub(super) label: &'static str,
    /// What it is told besides.
    pub(super) annotations: BTreeMap<String, String>,
    /// Name of the dump in the archive.
    pub(super) id: &'a str,
    /// How far it is restored.
    pub(super) gtid: Option<String>,
}

impl Look {
    fn scratches(&self) -> Api<MySQLCluster> {
        Api::namespaced(self.context.client.clone(), &self.dump.namespace().unwrap_or_default())
    }

    /// Whether so many of a kind are there, in all namespaces, that this one has to wait.
    pub(super) async fn are_enough(&self, label: &str) -> Result<bool, Error> {
        let config = &self.context.config;
        let all: Api<MySQLCluster> = everywhere(&self.context.client, config.watch_namespace.as_deref());
        Ok(all.list(&ListParams::default().labels(label)).await?.items.len() >= config.verifications)
    }

    /// The cluster that the dump is of.
    pub(super) async fn cluster(&self) -> Result<MySQLCluster, read::Error> {
        let namespace = self.dump.namespace().unwrap_or_default();
        read::object(&self.context.client, &namespace, &self.dump.spec.cluster_ref.name).await
    }

    /// Makes one; why it is refused.
    pub(super) async fn begin_scratch(
        &self,
        of: &MySQLCluster,
        wanted: Scratch<'_>,
    ) -> Result<Result<(), String>, Error> {
        let Some(scratch) = scratch(&self.dump, of, wanted) else {
            return Ok(Err("the dump has no uid".to_owned()));
        };
        match self.scratches().create(&PostParams::default(), &scratch).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Ok(())),
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                Ok(Err(format!("the scratch cluster is refused: {}", status.message)))
            }
            done => {
                done?;
                Ok(Ok(()))
            }
        }
    }

    /// The one of this name, if it is there; or that a stranger has the name.
    pub(super) async fn scratch(&self, name: &str) -> Result<Result<Option<MySQLCluster>, String>, Error> {
        let there = self.scratches().get_opt(name).await?;
        Ok(match there {
            Some(stranger) if !self.is_ours(&stranger) => {
                Err(format!("a MySQLCluster {name} is there that is none of this dump's"))
            }
            there => Ok(there),
        })
    }

    fn is_ours(&self, scratch: &MySQLCluster) -> bool {
        scratch.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == self.dump.uid().as_ref())
    }

    /// That very one: another of its name is not ours to take away.
    pub(super) async fn throw_away(&self, scratch: &MySQLCluster) -> Result<(), Error> {
        let preconditions = Some(Preconditions { uid: scratch.uid(), ..Preconditions::default() });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.scratches().delete(&scratch.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            done => done.map(drop).map_err(Error::from),
        }
    }
}

/// One instance as those of the cluster are, which has to do with the dump and with nothing else.
fn scratch(dump: &MySQLDump, of: &MySQLCluster, wanted: Scratch<'_>) -> Option<MySQLCluster> {
    let from_location = Some(RestoreLocation {
        location_ref: dump.spec.location_ref.clone(),
        cluster: of.name_any(),
        namespace: None,
        uid: of.uid(),
        dump: Some(wanted.id.to_owned()),
    });
    let restore = Restore { from_selector: None, from_location, point_in_time: None, gtid: wanted.gtid };
    let volume_retention = VolumeRetention { on_scale_down: Retention::Delete, on_delete: Retention::Delete };
    let MySQLClusterSpec { image, storage, resources, config, pod_template, .. } = of.spec.clone();
    let spec = MySQLClusterSpec {
        instances: 1,
        image,
        storage,
        resources,
        config,
        // Where it may run; what runs beside has no business with a copy.
        pod_template: PodTemplate { sidecars: Vec::new(), ..pod_template },
        volume_retention,
        restore: Some(restore),
        ..MySQLClusterSpec::default()
    };
    let mut scratch = MySQLCluster::new(wanted.name, spec);
    scratch.metadata.labels = Some(BTreeMap::from([(wanted.label.to_owned(), dump.name_any())]));
    scratch.metadata.annotations = Some(wanted.annotations).filter(|annotations| !annotations.is_empty());
    // A dump that is deleted takes it along.
    scratch.metadata.owner_references = Some(vec![OwnerReference {
        api_version: MySQLDump::api_version(&()).into_owned(),
        kind: MySQLDump::kind(&()).into_owned(),
        name: dump.name_any(),
        uid: dump.uid()?,
        ..OwnerReference::default()
    }]);
    Some(scratch)
}

//! From an accepted spec to objects in Kubernetes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::instance::{ConfigRequest, Phase};
use common::tls::client_config;
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::info;

use super::Pass;
use crate::act;
use crate::build::{Object, configmap, networkpolicy, pdb, services, statefulset};
use crate::credentials::{self, Credentials};
use crate::decide::scale::{self, Replicas};
use crate::decide::settings::{self, Accepted, Answer, Change, Settings, hex};
use crate::error::Error;
use crate::observe::{self, Observed};
use crate::status::{CONFIG_APPLIED, Finding};

/// Everything is applied anew this often, whether or not it changed.
const APPLY_EVERY: Duration = Duration::from_secs(60);
/// mysqld validates the whole configuration by starting half way.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// What the spec came to.
pub(super) struct Converged {
    /// Digest of the pod template in force.
    pub template: String,
    /// Pods that there shall be.
    pub replicas: Replicas,
    /// Settings in force.
    pub settings: Settings,
}

impl Pass<'_> {
    /// Settings, sizes, objects. What did not change and was applied lately is not applied again.
    pub(super) async fn converge(&mut self, observed: &Observed) -> Result<Converged, Error> {
        let accepted = self.settle_settings(observed).await;
        let spec = &self.object.spec;
        let replicas = scale::replicas(
            &self.cluster.name,
            spec.instances,
            spec.hibernated,
            current_replicas(observed),
            self.record,
        );
        self.grow_volumes(observed).await?;

        let template = crate::build::pod::digest(spec, &accepted)?;
        let objects = self.objects(&accepted, replicas.count)?;
        let digest = hex(
            &Sha256::digest(serde_json::to_vec(&objects.iter().map(|object| &object.body).collect::<Vec<_>>())?),
            32,
        );
        let is_current = observed.statefulset.is_some()
            && observed.config.is_some()
            && self.memory.tls.is_some()
            && self.memory.applied.as_ref().is_some_and(|(before, at)| *before == digest && at.elapsed() < APPLY_EVERY);
        if !is_current {
            self.apply(objects, observed).await?;
            self.memory.applied = Some((digest, Instant::now()));
        }
        Ok(Converged { template, replicas, settings: accepted.settings })
    }

    /// Certificates under a spec that is refused.
    pub(super) async fn renew_credentials(&mut self) -> Result<(), Error> {
        let is_current =
            self.memory.tls.is_some() && self.memory.applied.as_ref().is_some_and(|(_, at)| at.elapsed() < APPLY_EVERY);
        if is_current {
            return Ok(());
        }
        let credentials = self.credentials().await?;
        act::apply(&self.context.client, self.cluster, &credentials.objects).await?;
        self.credentials_applied(credentials).await?;
        // The next spec that is accepted is applied whatever was applied before.
        self.memory.applied = Some((String::new(), Instant::now()));
        Ok(())
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let now = common::clock::now().as_second();
        credentials::ensure(&self.context.client, self.cluster, &self.object.spec, now).await
    }

    async fn apply(&mut self, mut objects: Vec<Object>, observed: &Observed) -> Result<(), Error> {
        let is_new = observed.statefulset.is_none();
        let mut credentials = self.credentials().await?;
        objects.append(&mut credentials.objects);
        act::apply(&self.context.client, self.cluster, &objects).await?;
        self.credentials_applied(credentials).await?;
        if is_new && self.record.is_new() && !self.memory.announced {
            self.memory.announced = true;
            info!(instances = self.object.spec.instances, "the cluster was created");
            let note = format!("{} instances of {}", self.object.spec.instances, self.object.spec.image);
            self.announcer.normal("Created", "Create", &note, None).await;
            self.announcer.event(
                "cluster.created",
                json!({"instances": self.object.spec.instances, "image": self.object.spec.image}),
            );
        }
        Ok(())
    }

    async fn credentials_applied(&mut self, credentials: Credentials) -> Result<(), Error> {
        if let Some(material) = &credentials.client {
            let mut hasher = Sha256::new();
            for part in [&material.certificate, &material.authorities] {
                hasher.update(part.as_bytes());
            }
            let digest = hex(&hasher.finalize(), 32);
            if self.memory.tls.is_none() || self.memory.tls_digest != digest {
                let config =
                    client_config(material).map_err(|source| Error::Tls { name: self.cluster.name.clone(), source })?;
                self.memory.tls = Some(Arc::new(config));
                self.memory.tls_digest = digest;
            }
        }
        for secret in &credentials.rotated {
            info!(secret, "the certificate was renewed");
            self.context.metrics.certificates_rotated.inc();
            let note = format!("the certificate in Secret {secret} was renewed");
            self.announcer.normal("CertificateRotated", "Rotate", &note, None).await;
            self.announcer.event("certificate.rotated", json!({"secret": secret}));
        }
        Ok(())
    }

    fn objects(&self, accepted: &Accepted, replicas: u32) -> Result<Vec<Object>, Error> {
        let (cluster, spec, config) = (self.cluster, &self.object.spec, &self.context.config);
        Ok(vec![
            configmap::build(cluster, spec, accepted)?,
            services::headless(cluster),
            services::primary(cluster, spec),
            services::replicas(cluster, spec),
            pdb::budget(cluster),
            networkpolicy::policy(cluster, &config.operator_namespace),
            statefulset::build(cluster, spec, config, accepted, replicas)?,
        ])
    }

    /// Decides on the wanted settings, and returns those in force.
    async fn settle_settings(&mut self, observed: &Observed) -> Accepted {
        let wanted = &self.object.spec.config;
        let before = observed.config.as_ref().and_then(configmap::accepted);
        let differs = before.as_ref().is_some_and(|before| before.settings != *wanted);
        let is_running = observed
            .members
            .iter()
            .any(|member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Running));
        let answers = if differs && is_running { self.ask_about(wanted, observed).await } else { Vec::new() };
        let kept = |before: Option<Accepted>| before.unwrap_or_else(|| Accepted::at_start(wanted.clone()));
        match settings::change(wanted, before.as_ref(), is_running, &answers) {
            Change::None => kept(before),
            Change::Accept { accepted, restart } => {
                if before.is_some() {
                    let restart: Vec<&String> = restart.iter().collect();
                    info!(?restart, "settings accepted");
                }
                accepted
            }
            Change::Refuse { key, reason } => {
                let subject = key.map_or_else(|| "spec.config".to_owned(), |key| format!("spec.config.{key}"));
                let message = format!("{subject} is not taken, the settings before stay in force: {reason}");
                self.findings.push(Finding::bad(CONFIG_APPLIED, "SettingInvalid", message));
                kept(before)
            }
            Change::Ask { reason } => {
                let message = format!("no instance could judge the settings yet: {reason}");
                self.findings.push(Finding::bad(CONFIG_APPLIED, "Checking", message));
                kept(before)
            }
        }
    }

    async fn ask_about(&self, wanted: &Settings, observed: &Observed) -> Vec<Answer> {
        let Some(tls) = self.memory.tls.as_ref() else { return Vec::new() };
        let request = &ConfigRequest { settings: wanted.clone() };
        let running = observed
            .members
            .iter()
            .filter(|member| member.state.as_ref().is_some_and(|state| state.phase == Phase::Running));
        join_all(running.filter_map(|member| {
            let address = *observed.addresses.get(&member.name)?;
            let client = observe::instance(self.cluster, &member.name, address, tls)?;
            Some(async move {
                let answer = client.check_config(request, CHECK_TIMEOUT).await.map_err(|error| error.to_string());
                Answer { instance: member.name.clone(), answer }
            })
        }))
        .await
    }

    /// Asks for larger volumes, then makes the StatefulSet anew: its volume templates are immutable, and the next
    /// instance is to get the new size too. The pods run on.
    async fn grow_volumes(&self, observed: &Observed) -> Result<(), Error> {
        let size = &self.object.spec.storage.size;
        let Ok(wanted) = self.object.spec.storage.size_bytes() else { return Ok(()) };
        let mut grown = Vec::new();
        for (name, claim) in &observed.claims {
            if observe::storage(claim).is_some_and(|(bytes, _)| bytes < wanted)
                && claim.metadata.deletion_timestamp.is_none()
            {
                act::grow_claim(&self.context.client, self.cluster, name, &size.0).await?;
                grown.push(name.clone());
            }
        }
        if !grown.is_empty() {
            info!(?grown, size = size.0, "larger volumes asked for");
            let note = format!("volumes grow to {}: {}", size.0, grown.join(", "));
            self.announcer.normal("StorageResized", "Resize", &note, None).await;
            self.announcer.event("storage.resized", json!({"size": size.0, "claims": grown}));
        }
        if let Some(statefulset) = &observed.statefulset
            && observe::template_storage(statefulset).is_some_and(|(bytes, _)| bytes != wanted)
        {
            info!(size = size.0, "making the StatefulSet anew for its volume templates");
            act::orphan_statefulset(&self.context.client, self.cluster, statefulset.uid()).await?;
        }
        Ok(())
    }
}

/// Pods that there are to be now: while the StatefulSet is made anew its pods tell.
fn current_replicas(observed: &Observed) -> Option<u32> {
    let pods = observed.members.iter().filter(|member| member.pod.is_some()).map(|member| member.ordinal + 1).max();
    observed.statefulset.as_ref().map(observe::replicas).or(pods)
}

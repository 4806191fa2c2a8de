//! One look at one cluster, from what is there to what is done about it.
//!
//! ```text
//! observe ─> validate ─(refused: the last accepted objects stay)──────────────┐
//!               └─> settings ─> replicas ─> volumes grow ─> build ─> apply ───┤   converge
//!            provision · lost volumes · roll-out · settings in force  <───────┘   instances
//!            conditions, Events                                                   status
//! ```
//!
//! What keeps a running cluster whole (provisioning, roll-outs that were begun, certificates) goes on under a spec that
//! is refused.

mod converge;
mod instances;
mod restore;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use common::conditions;
use common::crd::MySQLCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use serde_json::json;
use tracing::{info, warn};

use crate::act;
use crate::announce::Announcer;
use crate::build::Cluster;
use crate::controller::Context;
use crate::decide::{Record, provision};
use crate::error::Error;
use crate::image;
use crate::memory::Memory;
use crate::metrics::Label;
use crate::observe::{self, Observed};
use crate::status::{CONFIG_APPLIED, Finding, OURS, RESTORED, ROLLED_OUT, SPEC_ACCEPTED};
use crate::validate::{self, Existing, Violation};

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All is as wanted.
    Settled,
    /// Something is under way, or wrong; the picture tells whether it moves.
    Moving {
        /// Digest of what was seen.
        picture: u64,
    },
}

/// One look.
pub struct Pass<'a> {
    context: &'a Context,
    object: &'a MySQLCluster,
    cluster: &'a Cluster,
    record: &'a Record,
    memory: &'a mut Memory,
    announcer: Announcer<'a>,
    findings: Vec<Finding>,
}

impl<'a> Pass<'a> {
    /// A look at `object`.
    pub fn new(
        context: &'a Context,
        object: &'a MySQLCluster,
        cluster: &'a Cluster,
        record: &'a Record,
        memory: &'a mut Memory,
    ) -> Self {
        let announcer = Announcer {
            recorder: &context.recorder,
            events: &context.events,
            cluster,
            reference: object.object_ref(&()),
        };
        Self { context, object, cluster, record, memory, announcer, findings: Vec::new() }
    }

    /// Looks and acts.
    pub async fn run(mut self) -> Result<Pace, Error> {
        let tls = self.memory.tls.clone();
        let observed =
            observe::observe(&self.context.client, self.cluster, self.object.spec.instances, tls.as_ref()).await?;
        self.review(&observed).await;

        let violations = validate::validate(&self.object.spec, &existing(&observed, self.object));
        let wanted = if violations.is_empty() {
            match self.converge(&observed).await {
                Ok(converged) => {
                    self.findings.push(Finding::good(SPEC_ACCEPTED, "Accepted", ""));
                    Some(converged)
                }
                Err(error) => {
                    let Some(refusal) = error.refusal() else { return Err(error) };
                    warn!(%error, "the API server refused what the spec asks for");
                    self.findings.push(Finding::bad(
                        SPEC_ACCEPTED,
                        "Rejected",
                        format!("the API server refused {refusal}"),
                    ));
                    None
                }
            }
        } else {
            self.refuse(&violations);
            if observed.statefulset.is_some() {
                self.renew_credentials().await?;
            }
            None
        };
        let moving = self.keep_whole(&observed, wanted.as_ref()).await?;
        self.report().await?;

        let accepted = self.findings.iter().all(|finding| finding.holds);
        if accepted && !moving {
            return Ok(Pace::Settled);
        }
        Ok(Pace::Moving { picture: self.picture(&observed) })
    }

    /// What became of earlier provisioning orders.
    async fn review(&mut self, observed: &Observed) {
        for outcome in provision::review(&mut self.memory.attempts, &observed.members, Instant::now()) {
            match outcome {
                provision::Outcome::Done { instance, donor: Some(donor) } => {
                    info!(instance, donor, "the instance was filled by clone");
                    let note = format!("{instance} was filled with the data of {donor}");
                    self.announcer.normal("InstanceRebuilt", "Clone", &note, Some(&instance)).await;
                    self.announcer.event("instance.rebuilt", json!({"instance": instance, "donor": donor}));
                }
                provision::Outcome::Done { instance, donor: None } => info!(instance, "the instance was initialised"),
                provision::Outcome::Failed { instance, problem } => {
                    warn!(instance, problem, "provisioning failed and will be ordered again");
                    let note = format!("provisioning of {instance} failed and will be tried again: {problem}");
                    self.announcer.warning("ProvisioningFailed", "Provision", &note, Some(&instance)).await;
                }
            }
        }
    }

    fn refuse(&mut self, violations: &[Violation]) {
        let message = violations.iter().map(|violation| violation.message.as_str()).collect::<Vec<_>>().join("; ");
        let reason = violations.first().map_or("Invalid", |violation| violation.reason);
        self.findings.push(Finding::bad(SPEC_ACCEPTED, reason, message));
    }

    /// Writes conditions that changed, and tells of those whose status or reason did.
    async fn report(&self) -> Result<(), Error> {
        let generation = self.object.metadata.generation;
        let now = Time(common::clock::now());
        let report = conditions::report(&OURS, self.object.status.as_ref(), &self.findings, generation, &now);
        if report.changed {
            act::apply_status(&self.context.client, self.cluster, report.status()).await?;
        }
        for news in &report.news {
            if news.holds {
                info!(condition = news.type_, reason = news.reason, detail = news.message, "condition holds");
                self.announcer.normal(news.reason, news.type_, &news.message, None).await;
                continue;
            }
            info!(condition = news.type_, reason = news.reason, detail = news.message, "condition does not hold");
            let refusal = match (news.type_, news.reason) {
                (SPEC_ACCEPTED, _) => Some("cluster.spec-refused"),
                (CONFIG_APPLIED, "SettingInvalid") => Some("cluster.config-refused"),
                (ROLLED_OUT, "PodStuck") => Some("cluster.rollout-stuck"),
                (RESTORED, "RestoreFailed" | "HoldsData") => Some("cluster.restore-failed"),
                _ => None,
            };
            match refusal {
                Some(kind) => {
                    self.context.metrics.refusals.get_or_create(&Label { kind: news.reason }).inc();
                    self.announcer.warning(news.reason, news.type_, &news.message, None).await;
                    self.announcer.event(kind, json!({"reason": news.reason, "message": news.message}));
                }
                None => self.announcer.normal(news.reason, news.type_, &news.message, None).await,
            }
        }
        Ok(())
    }

    /// Digest of what was seen: while it changes, something moves.
    fn picture(&self, observed: &Observed) -> u64 {
        let mut hasher = DefaultHasher::new();
        for member in &observed.members {
            member.name.hash(&mut hasher);
            if let Some(pod) = &member.pod {
                (&pod.uid, &pod.template, pod.ready, pod.deleting, pod.pending, &pod.stuck).hash(&mut hasher);
            }
            if let Some(state) = &member.state {
                (&state.incarnation, state.phase, state.promised, state.leaving).hash(&mut hasher);
            }
        }
        for finding in &self.findings {
            (finding.type_, finding.holds, finding.reason, &finding.message).hash(&mut hasher);
        }
        (self.record.epoch, &self.record.primary, &self.record.ackers, self.record.operation).hash(&mut hasher);
        self.object.metadata.generation.hash(&mut hasher);
        hasher.finish()
    }
}

/// What the spec is measured against.
fn existing(observed: &Observed, object: &MySQLCluster) -> Existing {
    let template = observed.statefulset.as_ref();
    let claims = || {
        let names = observed.members.iter().map(|member| crate::build::statefulset::claim_name(&member.name));
        names.filter_map(|name| observed.claims.get(&name))
    };
    let storage = template
        .and_then(observe::template_storage)
        .into_iter()
        .chain(claims().filter_map(observe::storage))
        .max_by_key(|(bytes, _)| *bytes);
    let storage_class = template
        .and_then(observe::template_class)
        .or_else(|| claims().find_map(|claim| claim.spec.as_ref()?.storage_class_name.clone()));
    let reported = object.status.iter().flat_map(|status| {
        status.instances.iter().filter_map(|instance| instance.version.as_deref()).chain(status.version.as_deref())
    });
    let running =
        observed.members.iter().filter_map(|member| Some(member.state.as_ref()?.mysqld.as_ref()?.version.as_str()));
    let versions = running.chain(reported).filter_map(image::version).collect();
    Existing { storage, storage_class, versions }
}

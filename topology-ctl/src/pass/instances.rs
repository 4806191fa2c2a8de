//! What keeps a cluster whole: data for empty instances, new volumes for lost ones, roll-outs, settings in force.

use std::time::{Duration, Instant};

use common::instance::{
    ArchiveOrder, CloneOrder, ConfigAnswer, ConfigRequest, InitialiseOrder, InstanceState, Phase, SettingVerdict,
};
use common::location::Location;
use common::names;
use kube::ResourceExt;
use serde_json::json;
use tracing::{info, warn};

use super::Pass;
use super::converge::Converged;
use crate::act;
use crate::build::statefulset::claim_name;
use crate::decide::closed;
use crate::decide::provision::{self, Attempt, Order, Provision};
use crate::decide::rebuild::{self, Why};
use crate::decide::restore;
use crate::decide::rollout::{self, Input, Rollout};
use crate::decide::settings::{self, Settings};
use crate::decide::{Member, volume};
use crate::error::Error;
use crate::metrics::Label;
use crate::observe::{self, Observed};
use crate::status::{CONFIG_APPLIED, Finding, PROVISIONED, RESTORED, ROLLED_OUT};

/// Orders are accepted at once; what they begin shows in the state.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Setting dynamic variables.
const APPLY_TIMEOUT: Duration = Duration::from_secs(20);

impl Pass<'_> {
    /// Does what is due now; whether anything is under way. `converged` is `None` under a spec that is refused.
    pub(super) async fn keep_whole(
        &mut self,
        observed: &Observed,
        converged: Option<&Converged>,
    ) -> Result<bool, Error> {
        let replicas = converged.map_or_else(
            || observed.statefulset.as_ref().map_or(0, observe::replicas),
            |converged| converged.replicas.count,
        );
        let expected: Vec<&Member> = observed.members.iter().filter(|member| member.ordinal < replicas).collect();
        self.provision(observed, &expected, converged).await;
        self.archive_copies(observed).await;
        self.replace_volumes(observed).await?;
        let settled = self.roll_out(observed, converged, replicas).await?;
        if let Some(converged) = converged {
            self.confirm_settings(observed, &expected, converged).await;
        }
        let all_ready = expected.iter().all(|member| member.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting));
        let leftover = observed.members.iter().any(|member| member.ordinal >= replicas && member.pod.is_some());
        Ok(!settled || !all_ready || leftover || !self.memory.attempts.is_empty())
    }

    /// Orders data for instances that have none.
    async fn provision(&mut self, observed: &Observed, expected: &[&Member], converged: Option<&Converged>) {
        let now = Instant::now();
        let asked = self.asked(observed).await;
        let restores = self.object.spec.restore.is_some();
        self.memory.closed = closed::watch(self.memory.closed.take(), self.record, &observed.members, now);
        let Provision { orders, waiting } = provision::provision(
            self.record,
            &observed.members,
            &self.memory.attempts,
            self.memory.closed.as_ref(),
            restores,
            asked.as_deref(),
            now,
        );
        let mut refused = Vec::new();
        for order in orders {
            if let Err(error) = self.order(observed, &order).await {
                let instance = instance_of(&order);
                warn!(instance, %error, "the provisioning order was not accepted");
                let mut attempt =
                    self.memory.attempts.get(instance).cloned().unwrap_or_else(|| Attempt::started(None, None, now));
                attempt.failed(Instant::now());
                self.memory.attempts.insert(instance.to_owned(), attempt);
                refused.push(format!("{instance}: {error}"));
            }
        }
        if restores && self.record.is_new() && !refused.is_empty() {
            self.findings.push(Finding::bad(RESTORED, "RestoreFailed", refused.join("; ")));
        } else if restores {
            let holds_already = self.holds_already(RESTORED);
            self.findings.extend(restore::finding(self.record, &observed.members, holds_already));
        }

        if let Some(held) = converged.and_then(|converged| converged.replicas.held.as_ref()) {
            self.findings.push(Finding::bad(PROVISIONED, "ScaleDownHeld", held.text()));
        } else if expected.is_empty() && self.object.spec.hibernated {
            self.findings.push(Finding::good(PROVISIONED, "Hibernated", "no pods, the data is kept"));
        } else if !refused.is_empty() {
            self.findings.push(Finding::bad(PROVISIONED, "OrderRefused", refused.join("; ")));
        } else if self.was_refused() && waiting.iter().any(|(_, wait)| *wait == provision::Wait::BackingOff) {
            // It stays said until the order is given again.
        } else if let Some(finding) = provisioned(expected, &waiting) {
            self.findings.push(finding);
        } else if !self.holds_already(PROVISIONED) {
            let silent: Vec<&str> =
                expected.iter().filter(|member| member.state.is_none()).map(|member| member.name.as_str()).collect();
            let message = format!("no word yet from {}", silent.join(", "));
            self.findings.push(Finding::bad(PROVISIONED, "Starting", message));
        }
    }

    /// Copies of transactions that were thrown away go to the cluster's archive. Nobody waits for that: what fails is said, and
    /// ordered again by a later look.
    async fn archive_copies(&self, observed: &Observed) {
        let waits = |member: &&Member| member.state.as_ref().is_some_and(|state| state.copies_to_archive > 0);
        let waiting: Vec<&Member> = observed.members.iter().filter(waits).collect();
        let Some(archive) = self.object.spec.archive.as_ref().filter(|_| !waiting.is_empty()) else { return };
        let (client, namespace) = (&self.context.client, &self.cluster.namespace);
        let location = match Location::resolve(client, namespace, &archive.location_ref.name).await {
            Ok(location) => location,
            Err(error) => {
                info!(%error, "copies of what was thrown away stay on their volumes for now");
                return;
            }
        };
        for Member { name, .. } in waiting {
            let address = observed.addresses.get(name).zip(self.memory.tls.as_ref());
            let client = address.and_then(|(address, tls)| observe::instance(self.cluster, name, *address, tls));
            let Some(client) = client else { continue };
            let order = ArchiveOrder { location: location.clone() };
            if let Err(error) = client.archive(&order, observe::ASK_TIMEOUT).await {
                info!(instance = name, %error, "copies of what was thrown away stay on its volume for now");
            }
        }
    }

    /// The instance that a person wants rebuilt. The wish is taken off when it cannot be followed, or is under way.
    async fn asked(&self, observed: &Observed) -> Option<String> {
        let asked = self.object.annotations().get(names::ANNOTATION_REBUILD)?.clone();
        if let Some(refusal) = rebuild::refusal(self.record, &observed.members, &asked) {
            warn!(instance = asked, refusal, "it is not rebuilt");
            self.announcer.warning("RebuildRefused", "Rebuild", &format!("not rebuilt: {refusal}"), None).await;
            self.forget_wish(&asked).await;
            return None;
        }
        let member = observed.members.iter().find(|member| member.name == asked)?;
        if rebuild::is_under_way(member) {
            self.forget_wish(&asked).await;
            return None;
        }
        Some(asked)
    }

    /// A failure is tried again by the next look.
    async fn forget_wish(&self, asked: &str) {
        let key = names::ANNOTATION_REBUILD;
        if let Err(error) = act::remove_annotation(&self.context.client, self.cluster, key, asked).await {
            warn!(annotation = key, %error, "the annotation could not be removed yet");
        }
    }

    async fn order(&mut self, observed: &Observed, order: &Order) -> Result<(), String> {
        let name = instance_of(order);
        let tls = self.memory.tls.as_ref().ok_or("no client certificate yet")?;
        let address = observed.addresses.get(name).ok_or("its pod has no address")?;
        let client = observe::instance(self.cluster, name, *address, tls).ok_or("its name is no host name")?;
        let (kind, donor, result) = match order {
            Order::Initialise { .. } => {
                ("initialise", None, client.initialise(&InitialiseOrder {}, ORDER_TIMEOUT).await)
            }
            Order::Restore { .. } if self.copies().is_some() => {
                let order = self.copy_order().await?;
                ("copy", None, client.copy(&order, ORDER_TIMEOUT).await)
            }
            Order::Restore { .. } => {
                let order = self.restore_order().await?;
                ("restore", None, client.restore(&order, ORDER_TIMEOUT).await)
            }
            Order::Clone { donor, condemns, .. } => {
                let donor_host = names::instance_host(&self.cluster.namespace, &self.cluster.name, donor);
                let order = CloneOrder {
                    donor: donor.clone(),
                    donor_host,
                    condemns: condemns.as_ref().map(|condemned| condemned.data_id.clone()),
                    saves: condemns.as_ref().and_then(|condemned| condemned.saves.clone()),
                };
                ("clone", Some(donor.clone()), client.clone_from(&order, ORDER_TIMEOUT).await)
            }
        };
        self.context.metrics.order(kind, result.is_ok());
        let state = result.map_err(|error| error.to_string())?;
        info!(instance = name, step = kind, donor, phase = ?state.phase, "provisioning ordered");
        if let Order::Clone { condemns: Some(condemned), .. } = order {
            let why = condemned.why.text();
            warn!(instance = name, data_id = condemned.data_id, why, "its data is thrown away");
            let note = format!("the data of {name} is thrown away: {why}");
            self.announcer.warning("Rebuilding", "Rebuild", &note, Some(name)).await;
            if condemned.why == Why::Asked {
                self.forget_wish(name).await;
            }
        }
        if matches!(order, Order::Restore { .. }) && self.copies().is_none() {
            let note = format!("{name} is being filled from the archive");
            self.announcer.normal("Restoring", "Restore", &note, Some(name)).await;
        }
        if let Some(donor) = &donor {
            let note = format!("{name} is being filled with the data of {donor}");
            self.announcer.normal("Cloning", "Clone", &note, Some(name)).await;
        }
        let attempt = Attempt::started(self.memory.attempts.get(name), donor, Instant::now());
        self.memory.attempts.insert(name.to_owned(), attempt);
        Ok(())
    }

    /// Clears away what stands in the way of a new volume.
    async fn replace_volumes(&self, observed: &Observed) -> Result<(), Error> {
        for lost in volume::replace(self.record, &observed.members) {
            let note = format!("the volume of {} is gone: it gets a new one and is filled by clone", lost.instance);
            warn!(instance = lost.instance, claim = lost.claim, "the volume is gone, making a new one");
            self.announcer.warning("VolumeLost", "Rebuild", &note, Some(&lost.instance)).await;
            if lost.claim {
                act::delete_claim(&self.context.client, self.cluster, &claim_name(&lost.instance)).await?;
            }
            act::delete_pod(&self.context.client, self.cluster, &lost.instance, &lost.pod_uid).await?;
            self.context.metrics.pods_replaced.get_or_create(&Label { kind: "volume" }).inc();
        }
        Ok(())
    }

    /// Takes the next step of a roll-out; whether there is none left.
    async fn roll_out(
        &mut self,
        observed: &Observed,
        converged: Option<&Converged>,
        replicas: u32,
    ) -> Result<bool, Error> {
        let Some(statefulset) = &observed.statefulset else { return Ok(false) };
        let in_force = observe::template_digest(statefulset);
        let Some(wanted) = converged.map(|converged| converged.template.clone()).or_else(|| in_force.clone()) else {
            return Ok(true);
        };
        let degraded = self
            .object
            .status
            .as_ref()
            .and_then(|status| status.condition("Degraded"))
            .is_some_and(|condition| condition.status == "True");
        let decided = rollout::rollout(Input {
            record: self.record,
            members: &observed.members,
            wanted: &wanted,
            replicas,
            template_observed: in_force.as_ref() == Some(&wanted) && observe::is_observed(statefulset),
            degraded,
        });
        let total = replicas;
        let finding = match decided {
            Rollout::Done => {
                self.findings.push(Finding::good(ROLLED_OUT, "RolledOut", ""));
                return Ok(true);
            }
            Rollout::Settling { waiting_for } => {
                // A pod that comes and goes does not undo a roll-out that was finished.
                if !self.holds_already(ROLLED_OUT) {
                    let message = format!("every pod has the template, waiting for {}", waiting_for.join(", "));
                    self.findings.push(Finding::bad(ROLLED_OUT, "Settling", message));
                }
                return Ok(false);
            }
            Rollout::Replace { pods, reason, outdated } => {
                for (name, uid) in &pods {
                    info!(instance = name, reason, outdated, "replacing the pod");
                    self.announcer.normal("ReplacingPod", "RollOut", &format!("{name}: {reason}"), Some(name)).await;
                    act::delete_pod(&self.context.client, self.cluster, name, uid).await?;
                    self.context.metrics.pods_replaced.get_or_create(&Label { kind: "rollout" }).inc();
                }
                let names: Vec<&str> = pods.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("{outdated} of {total} pods to go, replacing {}: {reason}", names.join(", "));
                Finding::bad(ROLLED_OUT, "RollingOut", message)
            }
            Rollout::Waiting { reason, outdated } => {
                Finding::bad(ROLLED_OUT, "RollingOut", format!("{outdated} of {total} pods to go: {reason}"))
            }
            Rollout::Stuck { instance, reason, outdated } => {
                let message = format!(
                    "{instance} cannot start, {outdated} of {total} pods to go: {reason}. Change the spec back or on"
                );
                Finding::bad(ROLLED_OUT, "PodStuck", message)
            }
        };
        self.findings.push(finding);
        Ok(false)
    }

    /// Sees to it that the accepted settings are in force on every running instance; each incarnation is asked once.
    async fn confirm_settings(&mut self, observed: &Observed, expected: &[&Member], converged: &Converged) {
        let wanted = &converged.settings;
        if self.findings.iter().any(|finding| finding.type_ == CONFIG_APPLIED) {
            return;
        }
        let digest = settings::digest(wanted);
        let (mut pending, mut restart, mut invalid, mut down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for member in expected {
            if wanted.is_empty() {
                continue;
            }
            // A pod on its way out answers for the last time: what is in force there says nothing about its successor.
            let stays = member.pod.as_ref().is_some_and(|pod| !pod.deleting);
            let running = |state: &&InstanceState| stays && state.phase == Phase::Running && !state.leaving;
            let Some(state) = member.state.as_ref().filter(running) else {
                down.push(member.name.as_str());
                continue;
            };
            let confirmed = (state.incarnation.clone(), digest.clone());
            if self.memory.confirmed.get(&member.name) == Some(&confirmed) {
                continue;
            }
            match self.bring_into_force(observed, &member.name, wanted).await {
                Ok(answer) => match judge(&answer) {
                    Verdict::InForce => {
                        self.memory.confirmed.insert(member.name.clone(), confirmed);
                    }
                    // It was made after the change was accepted: what mysqld then reports differently (an option without
                    // a variable, a value that it rounded) no restart would change.
                    Verdict::Restart(_) if member.has_template(&converged.template) => {
                        self.memory.confirmed.insert(member.name.clone(), confirmed);
                    }
                    Verdict::Restart(keys) => restart.push(format!("{} ({keys})", member.name)),
                    Verdict::Invalid(reason) => invalid.push(format!("{}: {reason}", member.name)),
                },
                Err(error) => pending.push(format!("{}: {error}", member.name)),
            }
        }
        let finding = if !invalid.is_empty() {
            Finding::bad(CONFIG_APPLIED, "SettingInvalid", invalid.join("; "))
        } else if !restart.is_empty() {
            Finding::bad(
                CONFIG_APPLIED,
                "RestartPending",
                format!("in force after a restart of {}", restart.join(", ")),
            )
        } else if !pending.is_empty() {
            Finding::bad(CONFIG_APPLIED, "Applying", pending.join("; "))
        } else if !down.is_empty() {
            // It reads the settings when it starts.
            if self.holds_already(CONFIG_APPLIED) {
                return;
            }
            Finding::bad(CONFIG_APPLIED, "Applying", format!("in force when it runs: {}", down.join(", ")))
        } else if self.findings.iter().any(|finding| matches!(finding.reason, "RollingOut" | "PodStuck")) {
            Finding::bad(CONFIG_APPLIED, "RollingOut", "pods are being replaced")
        } else {
            Finding::good(CONFIG_APPLIED, "Applied", "")
        };
        self.findings.push(finding);
    }

    /// Whether the status says that the last order was refused.
    fn was_refused(&self) -> bool {
        let condition = self.object.status.as_ref().and_then(|status| status.condition(PROVISIONED));
        condition.is_some_and(|condition| condition.reason == "OrderRefused")
    }

    /// Whether the status says that a condition of ours holds for this very spec.
    fn holds_already(&self, type_: &str) -> bool {
        self.object.status.as_ref().and_then(|status| status.condition(type_)).is_some_and(|condition| {
            condition.status == "True" && condition.observed_generation == self.object.metadata.generation
        })
    }

    async fn bring_into_force(
        &self,
        observed: &Observed,
        name: &str,
        wanted: &Settings,
    ) -> Result<ConfigAnswer, String> {
        let tls = self.memory.tls.as_ref().ok_or("no client certificate yet")?;
        let address = observed.addresses.get(name).ok_or("its pod has no address")?;
        let client = observe::instance(self.cluster, name, *address, tls).ok_or("its name is no host name")?;
        let request = ConfigRequest { settings: wanted.clone() };
        let answer = client.apply_config(&request, APPLY_TIMEOUT).await;
        self.context.metrics.order("config", answer.is_ok());
        let answer = answer.map_err(|error| error.to_string())?;
        info!(instance = name, answer = %json!(verdicts(&answer)), "settings applied");
        Ok(answer)
    }
}

/// What an instance's answer amounts to.
enum Verdict {
    InForce,
    Restart(String),
    Invalid(String),
}

fn judge(answer: &ConfigAnswer) -> Verdict {
    let mut restart = Vec::new();
    for (key, verdict) in &answer.settings {
        match verdict {
            SettingVerdict::Invalid { reason } => return Verdict::Invalid(format!("{key}: {reason}")),
            SettingVerdict::NeedsRestart | SettingVerdict::Dynamic => restart.push(key.as_str()),
            SettingVerdict::InForce => {}
        }
    }
    if let Some(reason) = &answer.refused {
        return Verdict::Invalid(reason.clone());
    }
    if restart.is_empty() { Verdict::InForce } else { Verdict::Restart(restart.join(", ")) }
}

/// Keys and verdicts without values: a value may be private.
fn verdicts(answer: &ConfigAnswer) -> Vec<String> {
    let word = |verdict: &SettingVerdict| match verdict {
        SettingVerdict::InForce => "in force",
        SettingVerdict::Dynamic => "dynamic",
        SettingVerdict::NeedsRestart => "needs a restart",
        SettingVerdict::Invalid { .. } => "invalid",
    };
    answer.settings.iter().map(|(key, verdict)| format!("{key}: {}", word(verdict))).collect()
}

fn instance_of(order: &Order) -> &str {
    match order {
        Order::Initialise { instance } | Order::Restore { instance } | Order::Clone { instance, .. } => instance,
    }
}

/// Whether every expected instance has data; `None` when that cannot be judged now.
fn provisioned(expected: &[&Member], waiting: &[(String, provision::Wait)]) -> Option<Finding> {
    if !waiting.is_empty() {
        let reasons: Vec<String> = waiting.iter().map(|(name, wait)| format!("{name}: {}", wait.text())).collect();
        return Some(Finding::bad(PROVISIONED, "Waiting", reasons.join("; ")));
    }
    let mut filling = Vec::new();
    let mut unknown = false;
    for member in expected {
        match member.state.as_ref().map(|state| state.phase) {
            Some(Phase::Initialising) => filling.push(format!("{} is initialised", member.name)),
            Some(Phase::Cloning) => filling.push(format!("{} is cloned", member.name)),
            Some(Phase::Empty) => filling.push(format!("{} has no data yet", member.name)),
            Some(Phase::Failed) if member.is_empty() => filling.push(format!("{} has no data yet", member.name)),
            Some(
                Phase::Failed | Phase::Crashed | Phase::Rewinding | Phase::Starting | Phase::Running | Phase::Stopping,
            ) => {}
            None => unknown = true,
        }
    }
    if !filling.is_empty() {
        return Some(Finding::bad(PROVISIONED, "Provisioning", filling.join("; ")));
    }
    (!unknown).then(|| Finding::good(PROVISIONED, "Provisioned", ""))
}

//! What people see: instances, conditions and role labels. Nothing is decided from any of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::crd::MySQLCluster;
use common::crd::{InstancePhase, InstanceRole, InstanceStatus};
use common::instance::{InstanceState, Phase, Role};
use common::names::LABEL_ROLE;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::decide::{self, Observed, Plan};

/// Field manager of these writes.
const MANAGER: &str = "pelorus/failover-d";
/// Numbers that only move (executed sets, lag, space) are written this often at most.
const PACE: Duration = Duration::from_secs(10);
/// Changes that matter are gathered for this long.
const GATHER: Duration = Duration::from_millis(100);
/// And for this long after a change of the record: clients are coming back just then.
const CALM: Duration = Duration::from_millis(400);
/// And for this long by whoever did not write the record last: by then it stands there.
const LEAVE: Duration = Duration::from_millis(1200);
/// Deadline of one call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Ready`, `Degraded`, `FailoverBlocked`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// As conditions have it.
    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

/// All that is reported of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// `3/3`.
    pub ready: String,
    /// Version of the primary.
    pub version: Option<String>,
    /// Reason of the worst condition, empty when all is well.
    pub reason: String,
    /// Conditions.
    pub verdicts: Vec<Verdict>,
    /// Instances.
    pub instances: Vec<InstanceStatus>,
    /// Role labels by pod: what they are and what they should be.
    pub labels: BTreeMap<String, (Option<String>, Option<&'static str>)>,
    /// Generation of the spec that was decided on.
    pub generation: Option<i64>,
}

impl Report {
    /// The part whose changes are written at once.
    fn urgent(&self) -> impl PartialEq + use<> {
        let roles: Vec<_> = self
            .instances
            .iter()
            .map(|instance| {
                (
                    instance.name.clone(),
                    instance.role,
                    instance.state,
                    instance.problem.clone(),
                    instance.errant.clone(),
                )
            })
            .collect();
        (
            self.ready.clone(),
            self.version.clone(),
            self.reason.clone(),
            self.verdicts.clone(),
            roles,
            self.labels.clone(),
            self.generation,
        )
    }
}

fn instance_status(name: &str, instance: &decide::Instance, fresh: bool) -> InstanceStatus {
    let state = instance.state.as_ref();
    let mysqld = state.and_then(|state| state.mysqld.as_ref());
    InstanceStatus {
        name: name.to_owned(),
        role: state.map(|state| InstanceRole::from(&state.role)),
        state: Some(match state {
            Some(state) if fresh => InstancePhase::from(state.phase),
            _ => InstancePhase::Unreachable,
        }),
        version: mysqld.map(|mysqld| mysqld.version.clone()),
        server_uuid: mysqld.map(|mysqld| mysqld.server_uuid.clone()),
        executed: mysqld.map(|mysqld| mysqld.executed.to_string()),
        lag: instance.lag().map(|lag| (lag * 10.0).round() / 10.0),
        // What keeps it from following, by its own account, when it is down.
        errant: Some(match state.and_then(|state| state.errant.as_ref()) {
            Some(own) if instance.errant.is_empty() => own.gtids.to_string(),
            Some(_) | None => instance.errant.to_string(),
        }),
        disk_free: state.map(|state| Quantity(format!("{}Mi", state.disk.free_bytes >> 20))),
        problem: state.and_then(|state| {
            state.problem.clone().or_else(|| {
                let replication = state.mysqld.as_ref()?.replication.as_ref()?;
                [&replication.applier_error, &replication.receiver_error]
                    .into_iter()
                    .find(|error| !error.is_empty())
                    .cloned()
            })
        }),
    }
}

/// Puts together what people see.
pub fn compose(
    cluster: &MySQLCluster,
    seen: &Observed,
    plan: &Plan,
    pods: &BTreeMap<String, Option<String>>,
) -> Report {
    let ready = decide::ready_instances(seen);
    let wanted = usize::try_from(seen.wish.instances).unwrap_or(usize::MAX);
    let instances: Vec<InstanceStatus> = seen
        .instances
        .iter()
        .map(|(name, instance)| instance_status(name, instance, instance.fresh(&seen.wish)))
        .collect();
    let primary = seen.record.primary.as_ref().and_then(|name| Some((name, seen.instances.get(name)?)));
    let serving = primary.is_some_and(|(_, instance)| instance.serves_as_primary() && instance.fresh(&seen.wish));
    let acknowledging = seen
        .record
        .ackers
        .iter()
        .filter(|name| ready.contains(*name) && seen.instances.get(*name).is_some_and(decide::Instance::acknowledges))
        .count();
    let writable = serving && acknowledging >= seen.record.acks_needed as usize;
    let hibernated = cluster.spec.hibernated;
    let verdict = |kind, holds, reason: &str, message: String| Verdict { kind, holds, reason: reason.into(), message };
    let missing: Vec<String> = (0..seen.wish.instances)
        .filter_map(|ordinal| {
            let (name, instance) = seen.instances.iter().find(|(_, instance)| instance.ordinal == ordinal)?;
            (!ready.contains(name)).then(|| {
                let state = instance.state.as_ref().filter(|_| instance.fresh(&seen.wish));
                format!("{name} is {}", state.map_or("unreachable".to_owned(), doing))
            })
        })
        .collect();
    let ready_verdict = if hibernated {
        verdict("Ready", false, "Hibernated", "hibernated: no pods run".into())
    } else if writable {
        verdict("Ready", true, "Serving", format!("{} takes writes", primary.map_or("", |(name, _)| name)))
    } else if seen.record.primary.is_none() {
        verdict("Ready", false, "NoPrimaryYet", "no instance has been promoted yet".into())
    } else if serving {
        let needed = seen.record.acks_needed;
        verdict(
            "Ready",
            false,
            "WritesWait",
            format!("{acknowledging} of {needed} needed ackers acknowledge: writes wait for them"),
        )
    } else {
        verdict("Ready", false, "PrimaryNotServing", "the primary takes no writes".into())
    };
    let degraded = if hibernated || (writable && missing.is_empty() && ready.len() >= wanted) {
        verdict("Degraded", false, "AsWanted", String::new())
    } else {
        verdict("Degraded", true, "InstancesMissing", missing.join("; "))
    };
    let blocked = match &plan.blocked {
        Some(blocked) => verdict("FailoverBlocked", true, blocked.reason, blocked.message.clone()),
        None => verdict("FailoverBlocked", false, "NotBlocked", String::new()),
    };
    let reason = if !ready_verdict.holds {
        ready_verdict.reason.clone()
    } else if degraded.holds {
        degraded.reason.clone()
    } else if blocked.holds {
        blocked.reason.clone()
    } else {
        String::new()
    };
    let labels = pods
        .iter()
        .map(|(name, current)| {
            let role = seen.instances.get(name).and_then(|instance| instance.state.as_ref()).and_then(|state| {
                match &state.role {
                    Role::Primary { .. } if seen.record.primary.as_ref() == Some(name) => Some("primary"),
                    Role::Replica { .. } if ready.contains(name) => Some("replica"),
                    Role::Primary { .. } | Role::Replica { .. } | Role::None | Role::Fenced => None,
                }
            });
            (name.clone(), (current.clone(), role))
        })
        .collect();
    Report {
        ready: format!("{}/{}", ready.len(), seen.wish.instances),
        version: primary
            .and_then(|(_, instance)| instance.state.as_ref()?.mysqld.as_ref())
            .map(|mysqld| mysqld.version.clone()),
        reason,
        verdicts: vec![ready_verdict, degraded, blocked],
        instances,
        labels,
        generation: cluster.metadata.generation,
    }
}

fn doing(state: &InstanceState) -> String {
    let what = match state.phase {
        Phase::Empty => "without data",
        Phase::Initialising => "being initialised",
        Phase::Cloning => "being cloned",
        Phase::Crashed => "down after an unclean stop",
        Phase::Rewinding => "being rewound",
        Phase::Starting => "starting",
        Phase::Running => "running, not in service yet",
        Phase::Stopping => "stopping",
        Phase::Failed => "failed",
    };
    match &state.problem {
        Some(problem) => format!("{what} ({problem})"),
        None => what.to_owned(),
    }
}

fn status_patch(cluster: &MySQLCluster, report: &Report) -> Value {
    let known = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let conditions: Vec<Condition> = report
        .verdicts
        .iter()
        .map(|verdict| {
            let status = verdict.status();
            let since = known
                .iter()
                .find(|condition| condition.type_ == verdict.kind && condition.status == status)
                .map_or_else(|| Time(common::clock::now()), |condition| condition.last_transition_time.clone());
            Condition {
                type_: verdict.kind.into(),
                status: status.into(),
                reason: verdict.reason.clone(),
                message: verdict.message.clone(),
                last_transition_time: since,
                observed_generation: report.generation,
            }
        })
        .collect();
    let mut status = json!({
        "ready": report.ready,
        "reason": report.reason,
        "observedGeneration": report.generation,
        "instances": report.instances,
        "conditions": conditions,
    });
    // Left out, never null: the schema wants text, and before there is a primary nobody knows the version.
    if let (Some(version), Some(fields)) = (&report.version, status.as_object_mut()) {
        fields.insert("version".to_owned(), json!(version));
    }
    json!({"apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster", "status": status})
}

/// A report on its way.
#[derive(Clone, Debug)]
pub struct Told {
    /// The object that it was made for.
    pub cluster: MySQLCluster,
    /// The report.
    pub report: Report,
    /// Changes that matter are gathered for this long.
    pub gather: Duration,
    /// Numbers that only move are written this often at most.
    pub pace: Duration,
}

impl Told {
    /// `has_pen`: this process wrote the record last, which changed so long ago.
    pub fn new(cluster: MySQLCluster, report: Report, has_pen: bool, since_change: Duration) -> Self {
        let (gather, pace) = match has_pen {
            false => (LEAVE, PACE * 3),
            true if since_change < CALM => (CALM, PACE),
            true => (GATHER, PACE),
        };
        Self { cluster, report, gather, pace }
    }
}

/// Whether the object and its pods say already what matters: another failover-d was first.
fn is_said(cluster: &MySQLCluster, report: &Report) -> bool {
    let Some(status) = &cluster.status else { return false };
    let verdicts = || {
        report.verdicts.iter().all(|verdict| {
            status.conditions.iter().any(|condition| {
                let same = condition.reason == verdict.reason && condition.message == verdict.message;
                condition.type_ == verdict.kind && condition.status == verdict.status() && same
            })
        })
    };
    let labels = || report.labels.values().all(|(is, wanted)| is.as_deref() == *wanted);
    let said = Report {
        ready: status.ready.clone().unwrap_or_default(),
        version: status.version.clone(),
        reason: status.reason.clone().unwrap_or_default(),
        verdicts: report.verdicts.clone(),
        instances: status.instances.clone(),
        labels: report.labels.clone(),
        generation: status.observed_generation,
    };
    said.urgent() == report.urgent() && verdicts() && labels()
}

/// Writes reports as they change, until the sender is dropped.
pub async fn run(client: Client, namespace: String, name: String, mut reports: watch::Receiver<Told>) {
    let clusters: Api<MySQLCluster> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let mut written: Option<Report> = None;
    let mut written_at = Instant::now();
    loop {
        if reports.changed().await.is_err() {
            return;
        }
        let urgent = |report: &Report| written.as_ref().is_none_or(|written| written.urgent() != report.urgent());
        let (due, gather) = {
            let told = reports.borrow();
            let due = written_at.elapsed() >= told.pace;
            (due, (due || urgent(&told.report)).then_some(told.gather))
        };
        let Some(gather) = gather else { continue };
        tokio::time::sleep(gather).await;
        let Told { cluster, report, .. } = reports.borrow_and_update().clone();
        if cluster.metadata.deletion_timestamp.is_some() || report.ready.is_empty() {
            continue;
        }
        if !due && is_said(&cluster, &report) {
            written = Some(report);
            continue;
        }
        let patch = status_patch(&cluster, &report);
        match tokio::time::timeout(TIMEOUT, clusters.patch_status(&name, &parameters, &Patch::Apply(&patch))).await {
            Ok(Ok(_)) => {
                written = Some(report.clone());
                written_at = Instant::now();
            }
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => continue,
            Ok(Err(error)) => warn!(namespace, cluster = name, %error, "status not written"),
            Err(_) => warn!(namespace, cluster = name, "status not written: no answer within {TIMEOUT:?}"),
        }
        for (pod, (current, wanted)) in &report.labels {
            if current.as_deref() == *wanted {
                continue;
            }
            let patch = json!({"metadata": {"labels": {LABEL_ROLE: wanted}}});
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
            if !matches!(tokio::time::timeout(TIMEOUT, pods.patch(pod, &parameters, &patch)).await, Ok(Ok(_))) {
                warn!(namespace, cluster = name, pod, "role label not written");
            }
        }
    }
}

//! The recorded facts: reading them from a status, and writing them by compare-and-swap.

use std::time::Duration;

use common::crd::MySQLCluster;
use common::crd::{self as status, MySQLClusterStatus, OperationKind as StatusKind, OperationPhase as StatusPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams};

use crate::decide::{Kind, Loss, Operation, OperationPhase, Record, Reign};

/// Field manager of the compare-and-swap writes.
const MANAGER: &str = "pelorus/failover-d-record";
/// Deadline of one write. The API server answers in milliseconds or there is trouble.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else was faster: look again.
    #[error("the cluster changed since it was read")]
    Conflict,
    /// The API server said no.
    #[error("write the record: {0}")]
    Kube(#[from] Box<kube::Error>),
    /// The API server said nothing: the write may or may not have happened.
    #[error("write the record: no answer within {TIMEOUT:?}")]
    Timeout,
    /// A test.
    #[error(transparent)]
    Injected(#[from] common::failpoint::Injected),
}

/// The record in a status.
pub fn read(cluster: &MySQLCluster) -> Record {
    let recorded = cluster.status.as_ref().map(MySQLClusterStatus::record).unwrap_or_default();
    Record {
        epoch: recorded.epoch,
        primary: recorded.primary,
        ackers: recorded.ackers.into_iter().collect(),
        acks_needed: recorded.acks_needed,
        primary_data: recorded.primary_data,
        unproven: recorded
            .unproven
            .into_iter()
            .map(|reign| Reign {
                primary: reign.primary,
                primary_data: reign.primary_data,
                ackers: reign.ackers.into_iter().collect(),
                acks_needed: reign.acks_needed,
            })
            .collect(),
        losses: recorded
            .losses
            .into_iter()
            .map(|loss| Loss {
                epoch: u64::try_from(loss.epoch).unwrap_or(0),
                kept: loss.kept,
                known_lost: loss.known_lost.parse().unwrap_or_default(),
            })
            .collect(),
        operation: recorded.operation.map(|operation| Operation {
            id: operation.id,
            kind: match operation.kind {
                StatusKind::Bootstrap => Kind::Bootstrap,
                StatusKind::Failover => Kind::Failover,
                StatusKind::Switchover => Kind::Switchover,
                StatusKind::Reconfigure => Kind::Reconfigure,
                StatusKind::Fence => Kind::Fence,
            },
            epoch: u64::try_from(operation.epoch).unwrap_or(0),
            from: operation.from,
            to: operation.to,
            to_data: operation.to_data,
            phase: match operation.phase {
                StatusPhase::Fencing => OperationPhase::Fencing,
                StatusPhase::Demoting => OperationPhase::Demoting,
                StatusPhase::HandingOver => OperationPhase::HandingOver,
                StatusPhase::Promoting => OperationPhase::Promoting,
                StatusPhase::Striking => OperationPhase::Striking,
            },
            ackers: operation.ackers.into_iter().collect(),
            acks_needed: operation.acks_needed,
            reason: operation.reason,
        }),
    }
}

/// The status form of a record. `started_at` of an operation that goes on is kept.
fn to_status(record: &Record, before: Option<&MySQLClusterStatus>, holder: &str) -> status::Record {
    let known = before.and_then(|status| status.operation.as_ref());
    status::Record {
        epoch: record.epoch,
        primary: record.primary.clone(),
        ackers: record.ackers.iter().cloned().collect(),
        acks_needed: record.acks_needed,
        primary_data: record.primary_data.clone(),
        unproven: record
            .unproven
            .iter()
            .map(|reign| status::Reign {
                primary: reign.primary.clone(),
                primary_data: reign.primary_data.clone(),
                ackers: reign.ackers.iter().cloned().collect(),
                acks_needed: reign.acks_needed,
            })
            .collect(),
        losses: losses(record, before),
        failovers: failovers(record, before),
        operation: record.operation.as_ref().map(|operation| {
            let going_on = known.filter(|known| known.id == operation.id);
            status::Operation {
                id: operation.id.clone(),
                kind: match operation.kind {
                    Kind::Bootstrap => StatusKind::Bootstrap,
                    Kind::Failover => StatusKind::Failover,
                    Kind::Switchover => StatusKind::Switchover,
                    Kind::Reconfigure => StatusKind::Reconfigure,
                    Kind::Fence => StatusKind::Fence,
                },
                epoch: i64::try_from(operation.epoch).unwrap_or(i64::MAX),
                from: operation.from.clone(),
                to: operation.to.clone(),
                to_data: operation.to_data.clone(),
                phase: match operation.phase {
                    OperationPhase::Fencing => StatusPhase::Fencing,
                    OperationPhase::Demoting => StatusPhase::Demoting,
                    OperationPhase::HandingOver => StatusPhase::HandingOver,
                    OperationPhase::Promoting => StatusPhase::Promoting,
                    OperationPhase::Striking => StatusPhase::Striking,
                },
                ackers: operation.ackers.iter().cloned().collect(),
                acks_needed: operation.acks_needed,
                started_at: going_on.map_or_else(|| MicroTime(common::clock::now()), |known| known.started_at.clone()),
                reason: operation.reason.clone(),
                requested_by: Some(holder.to_owned()),
            }
        }),
    }
}

/// Failovers that are remembered, at most.
const FAILOVERS_KEPT: usize = 100;

/// The latest failovers, with the one that this write completes.
fn failovers(record: &Record, before: Option<&MySQLClusterStatus>) -> Vec<MicroTime> {
    let mut failovers = before.map(|status| status.failovers.clone()).unwrap_or_default();
    let operation = before.and_then(|status| status.operation.as_ref());
    let completes = record.operation.is_none()
        && operation.is_some_and(|operation| {
            operation.kind == StatusKind::Failover && u64::try_from(operation.epoch) == Ok(record.epoch)
        });
    if completes {
        failovers.push(MicroTime(common::clock::now()));
    }
    let surplus = failovers.len().saturating_sub(FAILOVERS_KEPT);
    failovers.split_off(surplus)
}

/// Failovers that were completed within the window, by this machine's clock. One that lies in the future (a clock was
/// set back) counts: it is better to ask a person once too often.
pub fn recent_failovers(cluster: &MySQLCluster, window: Duration) -> usize {
    let now = common::clock::now();
    let window = i128::try_from(window.as_nanos()).unwrap_or(i128::MAX);
    let failovers = cluster.status.as_ref().map(|status| status.failovers.as_slice()).unwrap_or_default();
    failovers.iter().filter(|at| now.as_nanosecond() - at.0.as_nanosecond() < window).count()
}

/// Losses are only ever added: those that stand are kept word for word, with their times.
fn losses(record: &Record, before: Option<&MySQLClusterStatus>) -> Vec<status::Loss> {
    let mut losses = before.map(|status| status.losses.clone()).unwrap_or_default();
    losses.extend(record.losses.iter().skip(losses.len()).map(|loss| status::Loss {
        epoch: i64::try_from(loss.epoch).unwrap_or(i64::MAX),
        at: MicroTime(common::clock::now()),
        kept: loss.kept.clone(),
        known_lost: loss.known_lost.to_string(),
    }));
    losses
}

/// Writes `record` over what `cluster` held, and only over that. Returns the object as it is now.
///
/// # Errors
/// [`Error::Conflict`] when the object has changed since; the caller looks and decides again.
pub async fn write(
    api: &Api<MySQLCluster>,
    cluster: &MySQLCluster,
    record: &Record,
    holder: &str,
) -> Result<MySQLCluster, Error> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let version = cluster.metadata.resource_version.as_deref().unwrap_or_default();
    let patch = to_status(record, cluster.status.as_ref(), holder).merge_patch(version);
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match tokio::time::timeout(TIMEOUT, api.patch_status(name, &parameters, &Patch::Merge(&patch))).await {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(Error::Conflict),
        Ok(Err(error)) => Err(Error::Kube(Box::new(error))),
        Err(_) => Err(Error::Timeout),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use common::crd::MySQLCluster;
    use serde_json::json;

    use super::{read, recent_failovers, to_status};

    fn cluster(status: &serde_json::Value) -> MySQLCluster {
        serde_json::from_value(json!({
            "apiVersion": "pelorus.dev/v1alpha1", "kind": "MySQLCluster",
            "metadata": {"name": "shop", "namespace": "team-a"},
            "spec": {"image": "mysql:9.7", "storage": {"size": "1Gi"}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn completed_failover_is_remembered_and_counted_within_the_window() {
        let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(3600);
        let before = cluster(&json!({
            "epoch": 1, "primary": "shop-0", "ackers": ["shop-1"], "acksNeeded": 1, "failovers": [hour_ago],
            "operation": {"id": "failover-2", "kind": "Failover", "epoch": 2, "from": "shop-0", "to": "shop-1",
                "phase": "Promoting", "startedAt": hour_ago},
        }));
        let mut record = read(&before);
        assert_eq!(to_status(&record, before.status.as_ref(), "me").failovers.len(), 1, "it goes on");
        record.operation = None;
        record.epoch = 3;
        assert_eq!(to_status(&record, before.status.as_ref(), "me").failovers.len(), 1, "it was undone");
        record.epoch = 2;
        let status = to_status(&record, before.status.as_ref(), "me");
        let after = cluster(&json!({"failovers": status.failovers}));
        assert_eq!(recent_failovers(&after, Duration::from_secs(60)), 1);
        assert_eq!(recent_failovers(&after, Duration::from_secs(7200)), 2);
    }
}

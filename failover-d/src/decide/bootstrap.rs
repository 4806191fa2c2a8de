//! The first primary of a cluster.
//!
//! Fresh instances have the same accounts and no history: any of them will do. Instances whose volumes were kept from an
//! earlier life of the cluster have one: the one that contains all others is chosen, and there must be one. Such a life may
//! have ended in the middle of a failover.

use std::collections::BTreeSet;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{FenceOrder, Phase, Role};

use super::{
    Blocked, Instance, Kind, Name, Observed, Operation, OperationPhase, Order, Plan, acks_wanted, claim, next_epoch,
    operation_id,
};

/// After this long a fresh cluster starts without instances that cannot be scheduled; they join later.
const PATIENCE: Duration = Duration::from_secs(90);

/// Volumes of an earlier life may have been left by servers that died. Nothing is recorded that they could be rewound to:
/// they are started as they are, closed, and what they hold is part of the history that has to contain all.
fn start_those_that_are_down(seen: &Observed) -> Vec<(Name, Order)> {
    let order = Order::Fence(FenceOrder { epoch: next_epoch(seen), start: true });
    let down = seen.instances.iter().filter(|(name, instance)| {
        let wanted = instance.ordinal < seen.wish.instances && !seen.wish.fenced.contains(*name);
        wanted && instance.phase(&seen.wish) == Some(Phase::Crashed)
    });
    down.map(|(name, _)| (name.clone(), order.clone())).collect()
}

/// Claims the bootstrap when enough instances stand ready.
pub fn start(seen: &Observed) -> Plan {
    let wanted = seen.wish.instances;
    let standing: Vec<(&Name, &Instance)> = seen
        .instances
        .iter()
        .filter(|(_, instance)| {
            instance.ordinal < wanted
                && instance.phase(&seen.wish) == Some(Phase::Running)
                && instance.state.as_ref().is_some_and(|state| {
                    matches!(state.role, Role::None | Role::Fenced)
                        || state.mysqld.as_ref().is_some_and(|mysqld| mysqld.super_read_only)
                })
                && instance.received().is_some()
        })
        .collect();
    let count = u32::try_from(standing.len()).unwrap_or(u32::MAX);
    let with_history = standing.iter().any(|(_, instance)| instance.received().is_some_and(|set| !set.is_empty()));
    let enough = acks_wanted(wanted, wanted.saturating_sub(1) as usize) + 1;
    let patient = with_history || seen.unborn_age < PATIENCE;
    if count < enough.min(wanted) || (patient && count < wanted) {
        return Plan {
            orders: start_those_that_are_down(seen),
            blocked: Some(Blocked {
                reason: "WaitingForInstances",
                message: format!("{count} of {wanted} instances are provisioned"),
            }),
            ..Plan::default()
        };
    }
    let contains_all = |candidate: &Instance| {
        let empty = GtidSet::default();
        let own = candidate.received().unwrap_or(&empty);
        standing.iter().all(|(_, other)| other.received().is_some_and(|set| set.is_subset(own)))
    };
    let chosen = standing
        .iter()
        .filter(|(_, instance)| contains_all(instance))
        .min_by_key(|(name, instance)| (seen.wish.primary.as_ref() != Some(*name), instance.ordinal));
    let Some((to, _)) = chosen else {
        return Plan {
            blocked: Some(Blocked {
                reason: "SplitHistory",
                message:
                    "the volumes hold different histories and none contains all; remove the volumes whose data is \
                          not wanted, or restore from a backup"
                        .into(),
            }),
            ..Plan::default()
        };
    };
    let ackers: BTreeSet<Name> = standing.iter().map(|(name, _)| (*name).clone()).filter(|name| name != *to).collect();
    let epoch = next_epoch(seen);
    let why = format!("{to} becomes the first primary");
    let operation = Operation {
        id: operation_id(Kind::Bootstrap, epoch),
        kind: Kind::Bootstrap,
        epoch,
        from: None,
        to: Some((*to).clone()),
        to_data: seen.data_of(to),
        phase: OperationPhase::Promoting,
        acks_needed: acks_wanted(wanted, ackers.len()),
        ackers,
        reason: why.clone(),
    };
    claim(seen, operation, why)
}

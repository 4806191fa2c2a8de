//! The decision: from what is observed to what is done next. Pure, synchronous, without IO.
//!
//! ```text
//! operation recorded? -- yes --> carry it on (operation.rs)       no primary yet --> bootstrap.rs
//!         | no                                                            |
//!         +-- primary failed? failover.rs -- asked to go? switchover.rs --+-- else tend the replicas: steady.rs
//! ```
//!
//! Invariants 1 to 6 of `docs/architecture.md` are kept here: nothing is promoted without proof, an acker stops counting
//! before it is struck and is recorded before it counts, and a recorded `acks_needed` is never more than what the primary
//! really waits for.

mod bootstrap;
mod by_hand;
mod failover;
mod model;
mod operation;
mod plan;
mod proof;
mod routes;
mod steady;
mod switchover;

#[cfg(test)]
mod explore;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use model::{
    Answer, Instance, Kind, Loss, Name, Observed, Operation, OperationPhase, Outcome, Record, Reign, Wish, is_open,
};
pub use plan::{Blocked, Order, Plan, Routes};
pub use proof::errant;
pub use routes::ready_instances;

use common::instance::{DemoteOrder, Epoch};

/// A replica that has been missing for longer stops counting, so that the next failure still finds a proof.
pub const STRIKE_AFTER: std::time::Duration = std::time::Duration::from_secs(30);

/// Budget of `super_read_only=ON` of a cluster that is put to sleep; given again until it succeeds.
const CLOSE_BUDGET_MS: u64 = 5_000;

/// What to do now.
pub fn decide(seen: &Observed) -> Plan {
    if let Some(why) = seen.wish.hands_off {
        let close = if seen.wish.hibernated { close(seen) } else { Plan::default() };
        return Plan {
            blocked: Some(Blocked { reason: "HandsOff", message: format!("{why}: nothing is decided") }),
            ..close
        };
    }
    let mut plan = match (&seen.record.operation, &seen.record.primary) {
        (Some(operation), _) => operation::carry_on(seen, operation),
        (None, None) => bootstrap::start(seen),
        (None, Some(primary)) => by_hand::fences(seen).unwrap_or_else(|| steady::tend(seen, primary)),
    };
    plan.routes = routes::routes(seen, &plan);
    plan
}

/// A primary that goes to sleep with its cluster stops taking writes first, so that it can stop cleanly. The demotion has
/// an epoch of its own, which is recorded first.
fn close(seen: &Observed) -> Plan {
    let primary = seen.record.primary.as_ref().filter(|_| seen.record.operation.is_none());
    let Some((name, instance)) = primary.and_then(|name| Some((name, seen.instances.get(name)?))) else {
        return Plan::default();
    };
    if !instance.serves_as_primary() {
        return Plan::default();
    }
    if instance.state.as_ref().is_some_and(|state| state.promised >= seen.record.epoch) {
        let record = Record { epoch: next_epoch(seen), ..seen.record.clone() };
        return Plan { record: Some(record), why: "the cluster is put to sleep".into(), ..Plan::default() };
    }
    let order = DemoteOrder { epoch: seen.record.epoch, budget_ms: CLOSE_BUDGET_MS, kill: false };
    Plan { orders: vec![(name.clone(), Order::Demote(order))], ..Plan::default() }
}

/// The acknowledgements that a commit should wait for: half of the instances, as many as there are ackers, and at least
/// one when there is one.
pub fn acks_wanted(instances: u32, ackers: usize) -> u32 {
    let ackers = u32::try_from(ackers).unwrap_or(u32::MAX);
    (instances / 2).max(1).min(ackers)
}

/// An epoch above everything that was recorded or promised.
pub(crate) fn next_epoch(seen: &Observed) -> Epoch {
    let promised = seen.instances.values().filter_map(|instance| instance.state.as_ref()).map(|state| state.promised);
    let recorded = seen.record.operation.as_ref().map_or(seen.record.epoch, |operation| operation.epoch);
    promised.fold(recorded.max(seen.record.epoch), Epoch::max) + 1
}

/// Claims an operation: the intent, before anything is done. The id is derived, so that two racers claim the same.
pub(crate) fn claim(seen: &Observed, operation: Operation, why: String) -> Plan {
    let record = Record { operation: Some(operation), ..seen.record.clone() };
    Plan { record: Some(record), why, ..Plan::default() }
}

/// Names an operation by what makes it unique within its cluster.
pub(crate) fn operation_id(kind: Kind, epoch: Epoch) -> String {
    format!("{}-{epoch}", format!("{kind:?}").to_lowercase())
}

//! What a person asks for: an instance that holds still, and a loss that is accepted because its proof is gone for good.

use std::collections::BTreeSet;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{DemoteOrder, FenceOrder, InstanceState, Phase, Role};

use super::{
    Blocked, Kind, Loss, Name, Observed, Operation, OperationPhase, Order, Outcome, Plan, Record, claim, failover,
    next_epoch, operation_id,
};

/// Budget of `super_read_only=ON` on a primary that is fenced by hand, before its mysqld is killed.
const CLOSE_BUDGET_MS: u64 = 1_500;
/// A fence of the primary that is not answered within this time is given up, and asked for anew.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// An accepted loss waits so long for instances that could still answer and make it smaller.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Brings the instances that a person fenced to a standstill: a replica stops receiving, a primary takes no more writes
/// and nobody takes its place. `None`: all that run stand still.
pub fn fences(seen: &Observed) -> Option<Plan> {
    let moving = |name: &Name| -> Option<&InstanceState> {
        let instance = seen.instances.get(name)?;
        let state = instance.state.as_ref().filter(|_| instance.phase(&seen.wish) == Some(Phase::Running))?;
        (state.role != Role::Fenced).then_some(state)
    };
    let mut orders = Vec::new();
    for name in &seen.wish.fenced {
        let Some(state) = moving(name) else { continue };
        let why = format!("{name} is fenced by hand");
        if seen.record.primary.as_ref() == Some(name) {
            let epoch = next_epoch(seen);
            let operation = Operation {
                id: operation_id(Kind::Fence, epoch),
                kind: Kind::Fence,
                epoch,
                from: Some(name.clone()),
                to: None,
                to_data: None,
                phase: OperationPhase::Demoting,
                ackers: seen.record.ackers.clone(),
                acks_needed: seen.record.acks_needed,
                reason: why.clone(),
            };
            return Some(claim(seen, operation, why));
        }
        if state.promised >= seen.record.epoch {
            // A fence contradicts what was obeyed in the same epoch: it takes one of its own.
            let record = Record { epoch: next_epoch(seen), ..seen.record.clone() };
            return Some(Plan { record: Some(record), why, ..Plan::default() });
        }
        orders.push((name.clone(), Order::Fence(FenceOrder { epoch: seen.record.epoch, start: false })));
    }
    (!orders.is_empty()).then(|| Plan { orders, ..Plan::default() })
}

/// The primary is closed because a person wants it, and stays the primary.
pub fn closing(seen: &Observed, operation: &Operation) -> Plan {
    let closed = operation
        .from
        .as_ref()
        .is_none_or(|from| matches!(seen.answer_of(from, operation.epoch), Some(Outcome::Held(_) | Outcome::Dead)));
    if closed || seen.operation_age > CLOSE_PATIENCE {
        let record = Record { epoch: operation.epoch, operation: None, ..seen.record.clone() };
        let why = if closed { operation.reason.clone() } else { "the primary did not answer".to_owned() };
        return Plan { record: Some(record), why, undone: !closed, ..Plan::default() };
    }
    let order = DemoteOrder { epoch: operation.epoch, budget_ms: CLOSE_BUDGET_MS, kill: true };
    let orders = operation.from.iter().map(|from| (from.clone(), Order::Demote(order.clone()))).collect();
    Plan { orders, ..Plan::default() }
}

/// Whether a person accepts that what was acknowledged in the recorded epoch may be lost. It names that epoch, so that
/// it means this loss and none that comes later.
pub fn accepts_loss(seen: &Observed) -> bool {
    seen.record.epoch > 0 && seen.wish.accept_loss == Some(seen.record.epoch)
}

/// Goes on without proof, with what is left. Who has answered is chosen when it contains all others that have; where
/// they differ, `spec.primary` has to name the one to keep.
pub fn accept(seen: &Observed, operation: &Operation) -> Plan {
    let held: Vec<(&Name, &GtidSet)> = seen
        .answers
        .keys()
        .filter_map(|name| Some((name, &seen.held_by(name, operation.epoch)?.mysqld.as_ref()?.received)))
        .collect();
    let waiting = |reason, message: String| Plan { blocked: Some(Blocked { reason, message }), ..Plan::default() };
    let could_answer = |name: &Name| {
        let phase = seen.instances.get(name).and_then(|instance| instance.phase(&seen.wish));
        matches!(phase, Some(Phase::Running | Phase::Crashed)) && held.iter().all(|(other, _)| *other != name)
    };
    if held.is_empty() || (seen.operation_age < LAST_WORDS && seen.instances.keys().any(could_answer)) {
        return waiting("AcceptingLoss", "the loss is accepted; waiting for whoever can still answer".to_owned());
    }
    let errant = |name: &Name| seen.instances.get(name).is_some_and(|instance| !instance.errant.is_empty());
    let contains_all = |set: &GtidSet| held.iter().all(|(_, other)| other.is_subset(set));
    let fit = held.iter().filter(|(name, _)| !errant(name));
    let named = fit.clone().find(|(name, _)| seen.wish.primary.as_ref() == Some(*name));
    let Some((to, kept)) = named.or_else(|| fit.clone().find(|(_, set)| contains_all(set))) else {
        let message = "the instances that are left hold different transactions: name the one to keep in spec.primary";
        return waiting("SplitHistory", message.to_owned());
    };
    let mut known = GtidSet::default();
    for instance in seen.instances.values() {
        known.extend_with(&instance.high_water);
        known.extend_with(&instance.received().cloned().unwrap_or_default());
    }
    for (_, set) in &held {
        known.extend_with(set);
    }
    let loss = Loss { epoch: seen.record.epoch, kept: (*to).clone(), known_lost: known.subtract(kept) };
    let ackers: BTreeSet<Name> = held.iter().map(|(name, _)| (*name).clone()).filter(|name| name != *to).collect();
    let advanced = failover::promoting(seen, operation, to, ackers);
    let why = format!("a person accepted the loss; {to} is kept, known to be lost: {}", shown(&loss.known_lost));
    let mut losses = seen.record.losses.clone();
    losses.push(loss);
    // Nothing that was acknowledged before has to be proven any more.
    let record = Record {
        primary: None,
        primary_data: None,
        ackers: BTreeSet::new(),
        acks_needed: 0,
        unproven: Vec::new(),
        losses,
        operation: Some(advanced),
        ..seen.record.clone()
    };
    Plan { record: Some(record), why, ..Plan::default() }
}

fn shown(set: &GtidSet) -> String {
    if set.is_empty() { "nothing".to_owned() } else { set.to_string() }
}

//! The primary is gone: knowing it, and putting another in its place with proof.

use common::instance::{DemoteOrder, FenceOrder, Phase, ReceiverState};

use super::proof::{Proof, prove};
use super::{
    Blocked, Kind, Name, Observed, Operation, OperationPhase, Order, Plan, Record, acks_wanted, claim, next_epoch,
    operation_id,
};

/// Budget of `super_read_only=ON` on the old primary before its mysqld is killed. Its answer is welcome, never needed.
const DEMOTE_BUDGET_MS: u64 = 200;

/// How it is known that the primary is gone.
fn evidence(seen: &Observed, primary: &Name) -> Option<String> {
    let Some(instance) = seen.instances.get(primary) else {
        return Some(format!("{primary} has no pod"));
    };
    if !instance.reachable {
        return Some(format!("{primary} has no pod with an address"));
    }
    if instance.refused {
        return Some(format!("{primary} refuses connections: its processes are gone"));
    }
    let state = instance.state.as_ref()?;
    if instance.fresh(&seen.wish) {
        let hang_after = u64::try_from(seen.wish.hang_after.as_millis()).unwrap_or(u64::MAX);
        return match state.phase {
            Phase::Crashed => Some(format!("mysqld of {primary} has died")),
            Phase::Empty | Phase::Initialising | Phase::Cloning => Some(format!("{primary} has lost its data")),
            Phase::Running => state
                .canary
                .filter(|canary| canary.session_age_ms > hang_after || canary.login_age_ms > hang_after)
                .map(|_| format!("mysqld of {primary} hangs: no answer for more than {hang_after} ms")),
            Phase::Rewinding | Phase::Starting | Phase::Stopping | Phase::Failed => None,
        };
    }
    // Silent. That may be our own network: only the replicas' receivers can tell.
    let silent_after = u64::try_from(seen.wish.silent_after.as_millis()).unwrap_or(u64::MAX);
    let mut witnesses = 0;
    for (name, replica) in &seen.instances {
        if name == primary || !replica.fresh(&seen.wish) {
            continue;
        }
        let Some(replication) = replica.state.as_ref().and_then(|state| state.mysqld.as_ref()?.replication.as_ref())
        else {
            continue;
        };
        let hears = replication.receiver == ReceiverState::Yes
            && replication.heard_age_ms.is_some_and(|age| age < silent_after);
        if hears {
            return None;
        }
        witnesses += 1;
    }
    (witnesses > 0).then(|| format!("{primary} is silent, and {witnesses} replicas hear nothing from it"))
}

/// Claims a failover when the primary is proven gone and there is somebody to take over.
pub fn start(seen: &Observed, primary: &Name) -> Option<Plan> {
    let why = evidence(seen, primary)?;
    if seen.record.ackers.is_empty() {
        // Nobody else can hold what it acknowledged; it opens again when it is back.
        return None;
    }
    let block = |reason, message| Some(Plan { blocked: Some(Blocked { reason, message }), ..Plan::default() });
    if !seen.wish.failover {
        return block("FailoverDisabled", format!("{why}; spec.failover.enabled is false"));
    }
    if seen.recent_changes >= seen.wish.max_changes {
        return block(
            "TooManyChanges",
            format!("{why}; {} changes of primary within the window of spec.failover", seen.recent_changes),
        );
    }
    let in_phase = |phases: &[Phase]| {
        let ackers = seen.record.ackers.iter().filter_map(|name| seen.instances.get(name));
        ackers.filter(|acker| acker.phase(&seen.wish).is_some_and(|phase| phases.contains(&phase))).count()
    };
    let enough = |count: usize| count + seen.record.acks_needed as usize > seen.record.ackers.len();
    let here = seen.instances.get(primary).is_some_and(|instance| instance.phase(&seen.wish) == Some(Phase::Crashed));
    if here && !enough(in_phase(&[Phase::Running])) {
        // It holds everything itself and is here: it starts again in place.
        return None;
    }
    // Ackers whose mysqld is down after an unclean stop are started by the fence order.
    if !enough(in_phase(&[Phase::Running, Phase::Crashed])) {
        return block(
            "QuorumNotProvable",
            format!("{why}; not enough recorded ackers are reachable to prove what was acknowledged"),
        );
    }
    Some(begin(seen, primary, why))
}

fn begin(seen: &Observed, primary: &Name, why: String) -> Plan {
    let epoch = next_epoch(seen);
    let operation = Operation {
        id: operation_id(Kind::Failover, epoch),
        kind: Kind::Failover,
        epoch,
        from: Some(primary.clone()),
        to: None,
        phase: OperationPhase::Fencing,
        ackers: seen.record.ackers.clone(),
        acks_needed: seen.record.acks_needed,
        reason: why.clone(),
    };
    claim(seen, operation, why)
}

/// An operation that promoted nobody yet gives way when its primary dies.
pub fn supersede(seen: &Observed, operation: &Operation) -> Option<Plan> {
    let from = operation.from.as_ref()?;
    start(seen, from).filter(|plan| plan.record.is_some())
}

/// Collect promises and received sets, then choose.
pub fn fencing(seen: &Observed, operation: &Operation) -> Plan {
    let unanswered = |name: &Name| seen.answers.get(name).is_none_or(|answer| answer.epoch != operation.epoch);
    let mut orders = Vec::new();
    for (name, instance) in &seen.instances {
        if instance.refused || !unanswered(name) {
            continue;
        }
        if operation.from.as_ref() == Some(name) {
            let order = DemoteOrder { epoch: operation.epoch, budget_ms: DEMOTE_BUDGET_MS, kill: true };
            orders.push((name.clone(), Order::Demote(order)));
        } else if matches!(instance.phase(&seen.wish), Some(Phase::Running | Phase::Crashed)) {
            orders.push((name.clone(), Order::Fence(FenceOrder { epoch: operation.epoch })));
        }
    }
    match prove(seen, operation.epoch) {
        Proof::Candidate(to) => {
            let mut ackers = operation.ackers.clone();
            ackers.remove(to);
            if ackers.is_empty() && !seen.wish.available {
                // The old primary is the only one left to acknowledge: writes wait for it.
                ackers.extend(operation.from.clone());
            }
            let advanced = Operation {
                to: Some(to.clone()),
                phase: OperationPhase::Promoting,
                acks_needed: acks_wanted(seen.wish.instances, ackers.len()),
                ackers,
                ..operation.clone()
            };
            let record = Record { operation: Some(advanced), ..seen.record.clone() };
            Plan { record: Some(record), why: format!("{to} holds every acknowledged transaction"), ..Plan::default() }
        }
        Proof::Missing { fenced } => Plan {
            orders,
            blocked: Some(Blocked {
                reason: "QuorumNotProvable",
                message: format!(
                    "{} of {} recorded ackers have answered and a commit needs {}: waiting for the others",
                    fenced.len(),
                    seen.record.ackers.len(),
                    seen.record.acks_needed
                ),
            }),
            ..Plan::default()
        },
        Proof::Split => Plan {
            orders,
            blocked: Some(Blocked {
                reason: "SplitHistory",
                message: "the recorded ackers hold different transactions and none holds all; a person has to choose"
                    .into(),
            }),
            ..Plan::default()
        },
    }
}

//! The primary is gone: knowing it, and putting another in its place with proof.

use common::instance::{DemoteOrder, Epoch, FenceOrder, InstanceState, Phase, ReceiverState, Role};
use std::collections::BTreeSet;
use std::time::Duration;

use common::names::ANNOTATION_ACCEPT_LOSS;

use super::proof::{Proof, prove};
use super::{
    Blocked, Instance, Kind, Name, Observed, Operation, OperationPhase, Order, Outcome, Plan, Record, Reign,
    acks_wanted, by_hand, claim, next_epoch, operation_id,
};

/// Budget of `super_read_only=ON` on the old primary before its mysqld is killed. Its answer is welcome, never needed.
const DEMOTE_BUDGET_MS: u64 = 200;
/// And of one without a pod, which its kubelet kills in a moment: until then clients would wait there for acknowledgements.
const DEPARTED_BUDGET_MS: u64 = 20;

/// So long a failover asks for a proof before it goes back to the instance that failed, or has a former primary started
/// for its word, if that is here and down.
const PATIENCE: Duration = Duration::from_secs(5);

/// So long an instance that a failover went back to is started again and again before another failover is begun.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);

/// Whether an instance is known to serve nobody: the API server says that it has no pod with an address, or its instance-d that
/// mysqld is down. (A refused connection may be one to where it was before, for who does not hear of its new address.)
fn is_dead(seen: &Observed, name: &Name) -> bool {
    let serves_nobody = |instance: &Instance| !instance.reachable || instance.phase(&seen.wish) == Some(Phase::Crashed);
    seen.instances.get(name).is_none_or(serves_nobody)
}

/// How it is known that the primary is gone.
pub fn evidence(seen: &Observed, primary: &Name) -> Option<String> {
    let Some(instance) = seen.instances.get(primary) else {
        return Some(format!("{primary} has no pod"));
    };
    if !instance.reachable {
        return Some(format!("{primary} has no pod with an address"));
    }
    if instance.refused {
        return Some(format!("{primary} refuses connections: its processes are gone"));
    }
    let may_have_opened =
        |operation: &Operation| operation.phase.may_have_promoted() && operation.to.as_ref() == Some(primary);
    let promoting = seen.record.operation.as_ref().is_some_and(may_have_opened);
    let state = instance.state.as_ref()?;
    if instance.fresh(&seen.wish) {
        let hang_after = u64::try_from(seen.wish.hang_after.as_millis()).unwrap_or(u64::MAX);
        let other_data = seen.record.primary.as_ref() == Some(primary)
            && seen.record.primary_data.is_some()
            && state.data_id.is_some()
            && state.data_id != seen.record.primary_data;
        if other_data {
            return Some(format!("{primary} has other data than when it became the primary"));
        }
        if promoting && instance.cannot_apply() && !instance.serves_as_primary() {
            return Some(format!("{primary} cannot apply what it received"));
        }
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
        let Some(state) = &replica.state else { continue };
        match &state.role {
            Role::Replica { source, .. } if source == primary => {}
            // It waits for the candidate and does not reach it.
            Role::Fenced if promoting => {
                witnesses += 1;
                continue;
            }
            // Who follows somebody else (a switchover is under way) cannot tell.
            Role::None | Role::Fenced | Role::Replica { .. } | Role::Primary { .. } => continue,
        }
        let Some(replication) = state.mysqld.as_ref().and_then(|mysqld| mysqld.replication.as_ref()) else { continue };
        let hears = replication.receiver == ReceiverState::Yes
            && replication.heard_age_ms.is_some_and(|age| age < silent_after);
        if hears {
            return None;
        }
        witnesses += 1;
    }
    (witnesses > 0).then(|| format!("{primary} is silent, and {witnesses} replicas hear nothing from it"))
}

/// Claims a failover when `gone`, the primary or a candidate that may have become one, is proven gone and there is
/// somebody to take over.
pub fn start(seen: &Observed, gone: &Name) -> Option<Plan> {
    let why = evidence(seen, gone).filter(|_| !seen.wish.fenced.contains(gone))?;
    let reigns = pending(seen);
    if reigns.iter().all(|reign| reign.ackers.is_empty()) {
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
    let enough = |phases: &[Phase]| {
        let here = |name: &Name| name != gone && seen.phase_of(name).is_some_and(|phase| phases.contains(&phase));
        reigns.iter().all(|reign| {
            let count = reign.ackers.iter().filter(|name| here(name)).count();
            count + reign.acks_needed as usize > reign.ackers.len() || (here(&reign.primary) && keeps_data(seen, reign))
        })
    };
    if seen.phase_of(gone) == Some(Phase::Crashed) && !enough(&[Phase::Running]) {
        // It holds everything itself and is here: it starts again in place.
        return None;
    }
    // Ackers whose mysqld is down after an unclean stop are started by the fence order, former primaries when it comes to
    // that.
    let anybody = || {
        seen.instances.keys().any(|name| {
            name != gone && seen.phase_of(name).is_some_and(|phase| matches!(phase, Phase::Running | Phase::Crashed))
        })
    };
    let provable = enough(&[Phase::Running, Phase::Crashed]);
    let given_up = by_hand::accepts_loss(seen) && anybody();
    if !provable && !given_up {
        return block(
            "QuorumNotProvable",
            format!(
                "{why}; not enough recorded ackers are reachable to prove what was acknowledged. They are waited for; {}",
                way_out(seen)
            ),
        );
    }
    Some(begin(seen, gone, why))
}

/// The primary of a reign is on the data of that time: closed, its word counts.
fn keeps_data(seen: &Observed, reign: &Reign) -> bool {
    reign.primary_data.is_some() && seen.data_of(&reign.primary) == reign.primary_data
}

/// The reigns that a failover now would have to prove: the recorded ones, and that of a candidate that may have opened.
fn pending(seen: &Observed) -> Vec<Reign> {
    let mut reigns = seen.record.reigns();
    reigns.extend(seen.record.operation.as_ref().and_then(begun));
    reigns
}

/// The reign that an operation may have begun.
fn begun(operation: &Operation) -> Option<Reign> {
    let to = operation.to.as_ref().filter(|_| operation.phase.may_have_promoted())?;
    Some(Reign {
        primary: to.clone(),
        primary_data: operation.to_data.clone(),
        ackers: operation.ackers.clone(),
        acks_needed: operation.acks_needed,
    })
}

/// A failover from `gone`, which takes the place of the operation under way. It proves what was acknowledged before, and in a
/// reign that this operation may have begun.
pub fn begin(seen: &Observed, gone: &Name, why: String) -> Plan {
    let epoch = epoch_of_next(seen);
    let mut ackers = seen.record.ackers.clone();
    let mut unproven = seen.record.unproven.clone();
    if let Some(before) = &seen.record.operation
        && let Some(reign) = begun(before)
    {
        ackers.extend(before.ackers.iter().cloned());
        if !unproven.contains(&reign) {
            unproven.push(reign);
        }
    }
    let operation = Operation {
        id: operation_id(Kind::Failover, epoch),
        kind: Kind::Failover,
        epoch,
        from: Some(gone.clone()),
        to: None,
        to_data: None,
        phase: OperationPhase::Fencing,
        acks_needed: acks_wanted(seen.wish.instances, ackers.len()),
        ackers,
        reason: why.clone(),
    };
    let mut plan = claim(seen, operation.clone(), why);
    if let Some(record) = &mut plan.record {
        record.unproven = unproven;
    }
    // A higher epoch, for what somebody has promised, or for an operation that may yet succeed, has to stand first: were its
    // claim lost, its promises would stand above those of whoever else claims meanwhile.
    let is_next = seen.record.operation.is_none() && epoch == seen.record.epoch + 1;
    if is_dead(seen, gone) && is_next { fence_first(seen, &operation, plan) } else { plan }
}

/// The epoch of a failover: above everything that was recorded or promised, but for promises to fences that were given
/// ahead of their claim, by whoever: those are of the epoch that is next.
fn epoch_of_next(seen: &Observed) -> Epoch {
    let next = seen.record.epoch + 1;
    let mut known = seen.instances.values().filter_map(|instance| instance.state.as_ref());
    let given_ahead =
        |state: &InstanceState| state.promised < next || (state.promised == next && state.role == Role::Fenced);
    if seen.record.operation.is_none() && known.all(given_ahead) { next } else { next_epoch(seen) }
}

/// Who is dead serves nobody, so holding the others disturbs nobody: that need not wait until the claim stands. And where
/// their answers are a proof by then, the claim is written with its election: one write instead of two.
fn fence_first(seen: &Observed, operation: &Operation, claim: Plan) -> Plan {
    let mut orders = unanswered_fences(seen, operation);
    let can_wait = !orders.is_empty();
    // Without a pod, and not killed yet.
    let departed = |name: &Name| seen.instances.get(name).is_some_and(|it| !it.reachable);
    orders.extend(unanswered_demotion(seen, operation).filter(|(name, _)| departed(name)));
    match (prove(seen, operation.epoch), &claim.record) {
        (Proof::Candidate(to), Some(record)) => {
            let elected = elect(seen, record, operation, to);
            Plan { why: format!("{}; {}", claim.why, elected.why), orders, can_wait, ..elected }
        }
        _ => Plan { orders, can_wait, ..claim },
    }
}

/// The order to close, for the instance that failed, unless it has answered.
fn unanswered_demotion(seen: &Observed, operation: &Operation) -> Option<(Name, Order)> {
    let from = operation.from.as_ref().filter(|from| is_unanswered(seen, operation.epoch, from))?;
    let instance = seen.instances.get(from).filter(|instance| !instance.refused)?;
    let budget_ms = if instance.reachable { DEMOTE_BUDGET_MS } else { DEPARTED_BUDGET_MS };
    Some((from.clone(), Order::Demote(DemoteOrder { epoch: operation.epoch, budget_ms, kill: true })))
}

/// Fence orders of a failover, for all that run, or can be started, and have not answered.
fn unanswered_fences(seen: &Observed, operation: &Operation) -> Vec<(Name, Order)> {
    let epoch = operation.epoch;
    let able = |instance: &Instance| matches!(instance.phase(&seen.wish), Some(Phase::Running | Phase::Crashed));
    seen.instances
        .iter()
        .filter(|(name, instance)| operation.from.as_ref() != Some(*name) && !instance.refused && able(instance))
        .filter(|(name, _)| is_unanswered(seen, epoch, name))
        .map(|(name, _)| (name.clone(), Order::Fence(FenceOrder { epoch, start: false })))
        .collect()
}

/// It has not answered yet, or was down when it did and is up by now.
fn is_unanswered(seen: &Observed, epoch: Epoch, name: &Name) -> bool {
    match seen.answer_of(name, epoch) {
        None => true,
        Some(Outcome::Dead) => seen.phase_of(name) == Some(Phase::Running),
        Some(Outcome::Held(_) | Outcome::Declined(_)) => false,
    }
}

/// An operation that has its candidate.
pub fn promoting(seen: &Observed, operation: &Operation, to: &Name, ackers: BTreeSet<Name>) -> Operation {
    Operation {
        to: Some(to.clone()),
        to_data: seen.data_of(to),
        phase: OperationPhase::Promoting,
        acks_needed: acks_wanted(seen.wish.instances, ackers.len()),
        ackers,
        ..operation.clone()
    }
}

/// Records the candidate of a failover, in `record`.
fn elect(seen: &Observed, record: &Record, operation: &Operation, to: &Name) -> Plan {
    let mut ackers = operation.ackers.clone();
    ackers.remove(to);
    if ackers.is_empty() && !seen.wish.available {
        // The old primary is the only one left to acknowledge: writes wait for it.
        ackers.extend(operation.from.clone().filter(|from| from != to));
    }
    let advanced = promoting(seen, operation, to, ackers);
    let record = Record { operation: Some(advanced), ..record.clone() };
    Plan { record: Some(record), why: format!("{to} holds every acknowledged transaction"), ..Plan::default() }
}

/// Whether nothing is left but the instance that failed: it is here, down, and holds all that it acknowledged.
fn goes_back(seen: &Observed, operation: &Operation) -> bool {
    let Some(from) = &operation.from else { return false };
    let data =
        seen.record.reigns().into_iter().rev().find(|reign| reign.primary == *from).map(|reign| reign.primary_data);
    let state = seen.instances.get(from).filter(|instance| instance.fresh(&seen.wish)).and_then(|it| it.state.as_ref());
    seen.operation_age > PATIENCE
        && !seen.wish.fenced.contains(from)
        && state.is_some_and(|state| state.phase == Phase::Crashed && data.is_some_and(|data| state.data_id == data))
}

/// Whether the failover has gone back to the instance that failed, and that is not up yet: being down is no reason to
/// begin another.
pub fn is_returning(seen: &Observed, operation: &Operation) -> bool {
    let Some(to) = operation.to.as_ref().filter(|to| operation.from.as_ref() == Some(to)) else { return false };
    seen.phase_of(to) == Some(Phase::Crashed)
        && operation.to_data.is_some()
        && seen.data_of(to) == operation.to_data
        && seen.operation_age < RETURN_PATIENCE
}

/// Here and down, and nobody else's word was enough for long.
fn could_speak(seen: &Observed, name: &Name) -> bool {
    let down = seen.phase_of(name) == Some(Phase::Crashed);
    down && seen.operation_age > PATIENCE && !seen.wish.fenced.contains(name)
}

/// The primary of a reign, if it is down with what it held then.
fn silent_primary<'a>(seen: &Observed, reign: &'a Reign) -> Option<&'a Name> {
    Some(&reign.primary).filter(|name| keeps_data(seen, reign) && could_speak(seen, name))
}

/// Whose word a proof needs, of those who are here and down: the reign's primary, or an acker that was a primary once.
fn silent_witness(seen: &Observed, reign: &Reign) -> Option<Name> {
    let acker = || reign.ackers.iter().find(|name| could_speak(seen, name));
    silent_primary(seen, reign).or_else(acker).cloned()
}

/// The same orders, and whoever is down and needed for its word is started.
fn with_witness(mut orders: Vec<(Name, Order)>, epoch: Epoch, witness: Option<Name>) -> Vec<(Name, Order)> {
    if let Some(name) = witness {
        orders.retain(|(to, _)| *to != name);
        orders.push((name, Order::Fence(FenceOrder { epoch, start: true })));
    }
    orders
}

/// The instance that failed is started in place: it opens when enough of its ackers hold what it has.
fn go_back(seen: &Observed, operation: &Operation) -> Plan {
    let Some(from) = &operation.from else { return Plan::default() };
    let why = "no proof without the instance that failed; it is started again in place".to_owned();
    Plan { why, ..elect(seen, &seen.record, operation, from) }
}

/// What a person can do when the proof is gone for good.
fn way_out(seen: &Observed) -> String {
    format!(
        "if they are gone for good, the annotation {ANNOTATION_ACCEPT_LOSS}={} accepts that what only they hold is lost",
        seen.record.epoch
    )
}

/// Collect promises and received sets, then choose.
pub fn fencing(seen: &Observed, operation: &Operation) -> Plan {
    let mut orders = unanswered_fences(seen, operation);
    // Whoever holds more than the candidate, though nobody acknowledged it, would have to be cloned over.
    let can_wait = !orders.is_empty();
    orders.extend(unanswered_demotion(seen, operation));
    match prove(seen, operation.epoch) {
        Proof::Candidate(to) => {
            let orders = if can_wait { orders } else { Vec::new() };
            Plan { orders, can_wait, ..elect(seen, &seen.record, operation, to) }
        }
        Proof::Missing { .. } | Proof::Split | Proof::Unfit(..) if goes_back(seen, operation) => {
            go_back(seen, operation)
        }
        Proof::Missing { .. } | Proof::Split if by_hand::accepts_loss(seen) => {
            Plan { orders, ..by_hand::accept(seen, operation) }
        }
        Proof::Missing { reign, fenced } => Plan {
            orders: with_witness(orders, operation.epoch, silent_witness(seen, &reign)),
            blocked: Some(Blocked {
                reason: "QuorumNotProvable",
                message: format!(
                    "{} of {} ackers of {} have answered, and its commits needed {}: waiting for the others, or for {}; {}",
                    fenced.len(),
                    reign.ackers.len(),
                    reign.primary,
                    reign.acks_needed,
                    reign.primary,
                    way_out(seen)
                ),
            }),
            ..Plan::default()
        },
        Proof::Unfit(name, why) => Plan {
            // Who acknowledged holds everything as well. It is not the one that failed where that is a candidate of before.
            orders: with_witness(
                orders,
                operation.epoch,
                seen.record.reigns().iter().rev().find_map(|reign| silent_primary(seen, reign)).cloned(),
            ),
            blocked: Some(Blocked {
                reason: why.reason(),
                message: format!("only {name} holds everything, and {}", why.remedy()),
            }),
            ..Plan::default()
        },
        Proof::Split => Plan {
            orders,
            blocked: Some(Blocked {
                reason: "SplitHistory",
                message: format!(
                    "the recorded ackers hold different transactions and none holds all; {}",
                    way_out(seen)
                ),
            }),
            ..Plan::default()
        },
    }
}

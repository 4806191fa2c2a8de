//! Carrying on an operation that is recorded, from whatever it has come to. Every step is idempotent in its epoch.

use std::collections::BTreeSet;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{AcksOrder, DemoteOrder, FollowOrder, Phase, PromoteOrder, ReceiverState, Role};

use super::{
    Blocked, Instance, Kind, Name, Observed, Operation, OperationPhase, Order, Outcome, Plan, Record, STRIKE_AFTER,
    by_hand, failover, next_epoch, proof, steady,
};

/// Budget of `super_read_only=ON` in a switchover: writes are paused for so long at most before it is undone.
const DEMOTE_BUDGET: Duration = Duration::from_millis(1500);
/// Longest preparation of a switchover, before writes are paused; then it goes on with what is ready.
const PREPARE_BUDGET: Duration = Duration::from_secs(2);
/// After this long a switchover whose candidate does not catch up, or whose primary does not answer, gives way to a failover.
const CATCH_UP_BUDGET: Duration = Duration::from_secs(6);
/// An instance that is down is started, and an old primary that is not needed turned into a replica, when the candidate has
/// opened, or after this long: both take what the candidate, and its clients, may need on the same machine.
const HEAD_START: Duration = Duration::from_secs(1);
/// So long a candidate that runs waits for its ackers to prove its tail; then others are asked, too.
const HELP_AFTER: Duration = Duration::from_secs(10);
/// A candidate applies what it received within this time; it lagged little when it was chosen.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// A strike that finds no proof within this time is given up; the acker counts again.
const STRIKE_BUDGET: Duration = Duration::from_secs(30);

/// The next step of `operation`.
pub fn carry_on(seen: &Observed, operation: &Operation) -> Plan {
    match operation.phase {
        OperationPhase::Fencing => failover::fencing(seen, operation),
        OperationPhase::Demoting => by_hand::closing(seen, operation),
        OperationPhase::HandingOver => handing_over(seen, operation),
        OperationPhase::Promoting => promoting(seen, operation),
        OperationPhase::Striking => striking(seen, operation),
    }
}

fn blocked(reason: &'static str, message: String) -> Plan {
    Plan { blocked: Some(Blocked { reason, message }), ..Plan::default() }
}

/// Ends an operation without its effect, in an epoch above its own: what its orders made of the instances is taken back
/// by newer orders.
fn undo(seen: &Observed, why: String) -> Plan {
    let record = Record { epoch: next_epoch(seen), operation: None, ..seen.record.clone() };
    Plan { record: Some(record), why, undone: true, ..Plan::default() }
}

/// From its claim on a switchover waits for one word, the old primary's: closed, and that is what it holds; or not closed, and
/// not in this epoch any more. It says the same to whoever asks, so nothing has to be recorded between that and the promotion,
/// and what cannot be ended by it gives way to a failover, which proves who holds what.
fn handing_over(seen: &Observed, operation: &Operation) -> Plan {
    let (Some(from), Some(to)) = (&operation.from, &operation.to) else {
        return undo(seen, "the operation names no instances".into());
    };
    if is_promoted(seen, operation, to) {
        return promoting(seen, operation);
    }
    // From the old primary, whoever is lost: that the candidate holds everything is not known yet.
    let give_way = |why: String| Plan { undone: true, ..failover::begin(seen, from, why) };
    if let Some(why) = failover::evidence(seen, to) {
        return give_way(why);
    }
    if is_handed_over(seen, operation, from, to) {
        return promoting(seen, operation);
    }
    if let Some(why) = failover::evidence(seen, from) {
        return give_way(why);
    }
    let is_over = seen.operation_age > CATCH_UP_BUDGET;
    match seen.answer_of(from, operation.epoch) {
        None if is_over => give_way(format!("{from} did not answer the order to demote")),
        None => {
            let mut orders = Vec::new();
            if seen.operation_age < PREPARE_BUDGET {
                orders = prepare(seen, operation, from, to);
            }
            if orders.is_empty() {
                let budget_ms = u64::try_from(DEMOTE_BUDGET.as_millis()).unwrap_or(u64::MAX);
                let order = DemoteOrder { epoch: operation.epoch, budget_ms, kill: false };
                orders.push((from.clone(), Order::Demote(order)));
            }
            Plan { orders, ..Plan::default() }
        }
        Some(Outcome::Declined(message)) => undo(seen, format!("{from} cannot be demoted in time: {message}")),
        Some(Outcome::Dead) => give_way(format!("{from} died while it was demoted")),
        Some(Outcome::Held(_)) if is_over => give_way(format!("{to} did not catch up within {CATCH_UP_BUDGET:?}")),
        // It opens when it has received the rest; whether clients can be sent ahead is looked at meanwhile.
        Some(Outcome::Held(_)) => {
            let promote = seen.instances.get(to).map(|instance| promote_order(seen, operation, instance, None));
            let orders = promote.into_iter().chain([Order::Look]).map(|order| (to.clone(), order)).collect();
            Plan { orders, ..Plan::default() }
        }
    }
}

/// What the old primary of a switchover has executed, and so all that was acknowledged, once it has said that it is closed. Only
/// the one who asked knows.
pub fn closed_with<'a>(seen: &'a Observed, operation: &Operation) -> Option<&'a GtidSet> {
    let from = operation.from.as_ref().filter(|_| operation.kind == Kind::Switchover)?;
    seen.held_by(from, operation.epoch)?.mysqld.as_ref().map(|mysqld| &mysqld.executed)
}

/// The old primary has closed, and the candidate holds all that it has executed. Who is told to follow the candidate was closed
/// before, to whoever told it.
fn is_handed_over(seen: &Observed, operation: &Operation, from: &Name, to: &Name) -> bool {
    if seen.instances.get(from).is_some_and(|it| it.is_told_to_follow(to, operation.epoch)) {
        return true;
    }
    let received = seen.instances.get(to).and_then(Instance::received);
    closed_with(seen, operation).zip(received).is_some_and(|(closed, received)| closed.is_subset(received))
}

/// The candidate takes writes in the epoch of the operation, and waits for as many acknowledgements as are recorded.
fn is_promoted(seen: &Observed, operation: &Operation, to: &Name) -> bool {
    let Some(instance) = seen.instances.get(to).filter(|it| it.serves_in(operation.epoch)) else { return false };
    let role = instance.state.as_ref().map(|state| &state.role);
    matches!(role, Some(Role::Primary { acks_needed, .. }) if *acks_needed >= operation.acks_needed)
}

/// Before writes are paused, every replica that the old primary does not need for acknowledgements is sent to the
/// candidate, and receives through it: when the candidate opens, its ackers are connected already. Empty: all are.
fn prepare(seen: &Observed, operation: &Operation, from: &Name, to: &Name) -> Vec<(Name, Order)> {
    let needed = seen.instances.get(from).and_then(steady::actual_acks).unwrap_or(0).max(seen.record.acks_needed);
    // The candidate acknowledges, and so many others go on doing so until writes are paused.
    let mut stay = (needed as usize).saturating_sub(1);
    let mut orders = Vec::new();
    for name in seen.record.ackers.iter().filter(|name| *name != to) {
        let Some(instance) = seen.instances.get(name).filter(|instance| !instance.leaving()) else { continue };
        if instance.follows(to, &seen.wish) {
            continue;
        }
        if !instance.follows(from, &seen.wish) && !instance.is_told_to_follow(to, operation.epoch) {
            continue;
        }
        if stay > 0 && instance.acknowledges() {
            stay -= 1;
            continue;
        }
        let order = follow_order(seen, operation.epoch, to, operation.ackers.contains(name));
        orders.push((name.clone(), Order::Follow(order)));
    }
    orders
}

fn promoting(seen: &Observed, operation: &Operation) -> Plan {
    let Some(to) = &operation.to else {
        return undo(seen, "the operation names no candidate".into());
    };
    // A candidate that is lost, and that nothing can be proven without: it is waited for, and that is said.
    let mut refused = None;
    if !failover::is_returning(seen, operation)
        && let Some(plan) = failover::start(seen, to)
    {
        if plan.record.is_some() {
            return plan;
        }
        refused = plan.blocked;
    }
    let Some(instance) = seen.instances.get(to) else {
        return blocked("CandidateGone", format!("{to} was chosen and is not there; waiting for its pod"));
    };
    if is_promoted(seen, operation, to) {
        // What was acknowledged before may so far be on the new primary alone: until enough of its ackers hold it, an
        // election has to prove the reigns before, too.
        let holders = instance.committing().map_or(0, |set| proof::holders(seen, &operation.ackers, &set).count());
        let proven = holders >= operation.acks_needed as usize;
        let record = Record {
            epoch: operation.epoch,
            primary: Some(to.clone()),
            primary_data: instance.state.as_ref().and_then(|state| state.data_id.clone()),
            ackers: operation.ackers.clone(),
            acks_needed: operation.acks_needed,
            unproven: if proven { Vec::new() } else { seen.record.reigns() },
            losses: seen.record.losses.clone(),
            operation: None,
        };
        return Plan {
            record: Some(record),
            why: format!("{to} takes writes in epoch {}", operation.epoch),
            ..Plan::default()
        };
    }
    let proven = proof::proven_tail(seen, instance, &operation.ackers, operation.acks_needed);
    if proven.is_none()
        && instance.waits_for_proof(operation.epoch, &seen.wish)
        && let Some(plan) = ease_proof(seen, operation, to)
    {
        return plan;
    }
    let mut orders = vec![(to.clone(), promote_order(seen, operation, instance, proven))];
    let waits = |name: &Name| {
        let is_down = || seen.phase_of(name) == Some(Phase::Crashed);
        seen.operation_age < HEAD_START && (is_down() || is_not_needed_yet(seen, operation, to, name))
    };
    let follow = follow_orders(seen, operation.epoch, to, &operation.ackers);
    orders.extend(follow.into_iter().filter(|(name, _)| !waits(name)));
    Plan { orders, blocked: refused, ..Plan::default() }
}

/// The old primary of a switchover, when so many others follow the candidate already that clients do not wait for it.
fn is_not_needed_yet(seen: &Observed, operation: &Operation, to: &Name, name: &Name) -> bool {
    if operation.kind != Kind::Switchover || operation.from.as_ref() != Some(name) {
        return false;
    }
    let others = operation.ackers.iter().filter(|acker| *acker != name).filter_map(|acker| seen.instances.get(acker));
    others.filter(|acker| acker.follows(to, &seen.wish)).count() >= operation.acks_needed as usize
}

fn promote_order(seen: &Observed, operation: &Operation, candidate: &Instance, proven: Option<GtidSet>) -> Order {
    Order::Promote(PromoteOrder {
        epoch: operation.epoch,
        acks_needed: operation.acks_needed,
        ackers: operation
            .ackers
            .iter()
            .filter_map(|name| seen.instances.get(name))
            .map(|acker| acker.ordinal)
            .collect(),
        apply_timeout_ms: u64::try_from(APPLY_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        tail_unproven: proven.is_none() && proof::may_be_missed(seen, operation, candidate),
        // What grows with every write would make another order of it each time.
        proven: proven.filter(|_| candidate.state.as_ref().is_some_and(|state| state.tail_unproven)),
        must_hold: closed_with(seen, operation).cloned(),
    })
}

/// The candidate stays closed because nobody proves what it holds: others are asked, too, or fewer have to do.
fn ease_proof(seen: &Observed, operation: &Operation, to: &Name) -> Option<Plan> {
    let advance = |advanced: Operation, why: String| {
        let record = Record { operation: Some(advanced), ..seen.record.clone() };
        Some(Plan { record: Some(record), why, ..Plan::default() })
    };
    if seen.operation_age > HELP_AFTER {
        let helpers = steady::helpers(seen, to, operation.epoch, &operation.ackers);
        if let Some(names) = steady::list(&helpers) {
            let ackers = operation.ackers.union(&helpers).cloned().collect();
            let why = format!("{names} may prove what {to} holds: nobody else does");
            return advance(Operation { ackers, ..operation.clone() }, why);
        }
    }
    if seen.operation_age <= STRIKE_AFTER {
        return None;
    }
    let lost = |name: &Name| !seen.instances.get(name).is_some_and(|acker| acker.follows(to, &seen.wish));
    let acks_needed = steady::make_do(&operation.ackers, operation.acks_needed, lost)?;
    let why = format!("no more than {acks_needed} can prove what {to} holds");
    advance(Operation { acks_needed, ..operation.clone() }, why)
}

/// Follow orders for all instances but the source that need one; only `ackers` acknowledge.
pub fn follow_orders(seen: &Observed, epoch: u64, source: &Name, ackers: &BTreeSet<Name>) -> Vec<(Name, Order)> {
    seen.instances
        .iter()
        .filter(|(name, _)| *name != source)
        .filter(|(name, instance)| needs_follow(seen, name, instance, epoch, source, ackers.contains(*name)))
        .map(|(name, _)| (name.clone(), Order::Follow(follow_order(seen, epoch, source, ackers.contains(name)))))
        .collect()
}

fn follow_order(seen: &Observed, epoch: u64, source: &Name, acknowledges: bool) -> FollowOrder {
    let source_host = seen.instances.get(source).map(|instance| instance.host.clone()).unwrap_or_default();
    let ahead = seen.record.operation.as_ref().is_some_and(|operation| {
        let closed = || operation.from.as_ref().is_some_and(|from| is_handed_over(seen, operation, from, source));
        operation.phase == OperationPhase::HandingOver && !closed()
    });
    let source_address = seen.instances.get(source).and_then(|instance| instance.address);
    // It is no recorded acker, and no reign before waits for a proof, which it could have been an acker of.
    let expendable = !acknowledges && seen.record.operation.is_none() && seen.record.unproven.is_empty();
    let source_holds = candidate_holds(seen, source).cloned();
    let source = source.clone();
    FollowOrder { epoch, source, source_host, source_address, acknowledges, ahead, source_holds, expendable }
}

/// What a candidate said that it holds after it had obeyed an order of its operation: it can only become more. Only of a
/// candidate: of a primary it becomes more all the time, and so would each order be another one, given anew.
fn candidate_holds<'a>(seen: &'a Observed, name: &Name) -> Option<&'a GtidSet> {
    let operation = seen.record.operation.as_ref().filter(|it| it.phase.may_have_promoted())?;
    let state = seen.instances.get(name)?.state.as_ref()?;
    let obeyed = state.promised == operation.epoch && state.in_force;
    state.mysqld.as_ref().filter(|_| obeyed).map(|mysqld| &mysqld.received)
}

fn needs_follow(
    seen: &Observed,
    name: &Name,
    instance: &Instance,
    epoch: u64,
    source: &str,
    acknowledges: bool,
) -> bool {
    if !instance.fresh(&seen.wish) || seen.wish.fenced.contains(name) {
        return false;
    }
    let Some(state) = &instance.state else { return false };
    // A leaving primary waits to be told that it has been followed; a leaving replica is let go.
    if state.leaving && !matches!(state.role, Role::Fenced) {
        return false;
    }
    let wanted = Role::Replica { source: source.to_owned(), acknowledges };
    let works = || {
        state.mysqld.as_ref().is_some_and(|mysqld| {
            state.in_force
                && !mysqld.offline
                && mysqld
                    .replication
                    .as_ref()
                    .is_some_and(|replication| replication.receiver != ReceiverState::No && replication.applier_running)
        })
    };
    match state.phase {
        Phase::Crashed => true,
        Phase::Running => state.promised < epoch || state.role != wanted || !works(),
        // What it was condemned for may be in the history of its source by now.
        Phase::Failed => instance
            .received()
            .zip(seen.instances.get(source).and_then(Instance::executed))
            .is_some_and(|(received, executed)| instance.errant.is_empty() && received.is_subset(executed)),
        Phase::Empty | Phase::Initialising | Phase::Cloning | Phase::Rewinding | Phase::Starting | Phase::Stopping => {
            false
        }
    }
}

/// Reconfigure: the struck acker's account is locked and its dump thread gone before the record says so, and every
/// transaction it may have acknowledged alone is on enough of the others.
fn striking(seen: &Observed, operation: &Operation) -> Plan {
    let Some(primary) = &operation.from else {
        return undo(seen, "the operation names no primary".into());
    };
    let struck: Vec<&Name> = seen.record.ackers.difference(&operation.ackers).collect();
    let named = struck.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(plan) = failover::start(seen, primary).filter(|plan| plan.record.is_some()) {
        return plan;
    }
    let Some(instance) = seen.instances.get(primary).filter(|instance| instance.fresh(&seen.wish)) else {
        return blocked("PrimarySilent", format!("{primary} is not heard of; {named} stays recorded"));
    };
    let ordinals: BTreeSet<u32> = struck.iter().filter_map(|name| seen.ordinal_of(name)).collect();
    let locked_out = instance.state.as_ref().is_some_and(|state| {
        // The role is persisted before it is carried out: only in force it says that they are out.
        state.promised >= operation.epoch
            && state.in_force
            && matches!(&state.role, Role::Primary { struck, .. } if ordinals.iter().all(|ordinal| struck.contains(ordinal)))
    });
    if locked_out && let Some(committing) = instance.committing() {
        let holders = proof::holders(seen, &operation.ackers, &committing).count();
        if holders >= operation.acks_needed as usize {
            let record = Record {
                epoch: operation.epoch,
                ackers: operation.ackers.clone(),
                acks_needed: operation.acks_needed,
                operation: None,
                ..seen.record.clone()
            };
            return Plan { record: Some(record), why: format!("{named} acknowledges no more"), ..Plan::default() };
        }
    }
    if seen.operation_age > STRIKE_BUDGET {
        let why = format!("the other ackers do not hold everything after {STRIKE_BUDGET:?}; {named} stays recorded");
        return undo(seen, why);
    }
    let mut orders = follow_orders(seen, operation.epoch, primary, &operation.ackers);
    if locked_out {
        return Plan { orders, ..Plan::default() };
    }
    let mut locked: BTreeSet<u32> = steady::still_struck(seen, primary, instance).into_iter().collect();
    locked.extend(ordinals);
    let order =
        AcksOrder { epoch: operation.epoch, acks_needed: operation.acks_needed, struck: locked.into_iter().collect() };
    orders.push((primary.clone(), Order::Acks(order)));
    Plan { orders, ..Plan::default() }
}

//! No operation under way: keep the replicas following, and the recorded ackers true.
//!
//! Two rules run through all of this. An acker is recorded before it counts and stops counting before it is struck.
//! A recorded `acks_needed` is never more than what the primary really waits for: lowering is recorded first, raising
//! last.

use std::collections::BTreeSet;
use std::time::Duration;

use common::instance::{AcksOrder, Epoch, Phase, PromoteOrder, ReceiverState, Role};

use super::{
    Blocked, Instance, Kind, Name, Observed, Operation, OperationPhase, Order, Plan, Record, STRIKE_AFTER, acks_wanted,
    claim, failover, next_epoch, operation::follow_orders, operation_id, proof, switchover,
};

/// A replica that misses no more transactions than this has caught up: what is left arrives while it is being recorded.
const CAUGHT_UP_TRANSACTIONS: u64 = 2000;
/// Before commits wait for an acker it misses no more than this: each takes a flush of its relay log (1 ms and more), and
/// the first commit that waits comes after all of them. Looked at with every state that arrives, this comes true under
/// any load that the acker keeps up with: its own state is often newer than the primary's.
const CLOSE_TRANSACTIONS: u64 = 100;
/// And lags no more than this.
const CAUGHT_UP_SECONDS: f64 = 5.0;
/// A promise above the record is left alone for so long: whoever had it given may be about to write its claim.
const OVERTAKE_AFTER: Duration = Duration::from_secs(3);
/// Longest wait for a restarted primary to apply what it received.
const REOPEN_TIMEOUT_MS: u64 = 60_000;

/// What a healthy cluster needs now.
pub fn tend(seen: &Observed, primary: &Name) -> Plan {
    let Some(instance) = seen.instances.get(primary) else {
        return failover::start(seen, primary).unwrap_or_else(|| Plan {
            blocked: Some(Blocked { reason: "PrimaryMissing", message: format!("{primary} has no pod") }),
            ..Plan::default()
        });
    };
    if let Some(plan) = failover::start(seen, primary) {
        if plan.record.is_some() || instance.phase(&seen.wish) != Some(Phase::Crashed) {
            return plan;
        }
        // Nobody may take its place, and it is here: it is started again in place, as without Pelorus.
        return Plan { orders: reopen(seen, primary, instance), ..plan };
    }
    if let Some(plan) = overtake(seen) {
        return plan;
    }
    let mut blocked = None;
    if !seen.wish.fenced.contains(primary)
        && let Some(plan) = switchover::start(seen, primary)
    {
        if plan.record.is_some() {
            return plan;
        }
        blocked = plan.blocked;
    }
    if seen.wish.fenced.contains(primary) {
        let orders = follow_orders(seen, seen.record.epoch, primary, &seen.record.ackers);
        let message = format!("{primary} is fenced by hand: it takes no writes and nobody takes its place");
        return Plan { orders, blocked: Some(Blocked { reason: "FencedByHand", message }), ..Plan::default() };
    }
    if !instance.serves_as_primary() {
        if let Some(plan) = call_in(seen, primary, instance) {
            return plan;
        }
        return Plan {
            orders: reopen(seen, primary, instance),
            blocked: Some(not_serving(seen, primary, instance)),
            ..Plan::default()
        };
    }
    if let Some(plan) = settle(seen, instance)
        .or_else(|| strike(seen, primary))
        .or_else(|| grow(seen, primary, instance))
        .or_else(|| level(seen, instance))
    {
        return plan;
    }
    let mut orders = follow_orders(seen, seen.record.epoch, primary, &seen.record.ackers);
    orders.extend(acks_order(seen, primary, instance));
    Plan { orders, blocked, ..Plan::default() }
}

/// The recorded primary is back (its pod or mysqld restarted) and nothing was promoted in its stead: it opens again.
fn reopen(seen: &Observed, primary: &Name, instance: &Instance) -> Vec<(Name, Order)> {
    let mut orders = follow_orders(seen, seen.record.epoch, primary, &seen.record.ackers);
    let phase = instance.phase(&seen.wish);
    let same_data = seen.record.primary_data.is_none()
        || instance.state.as_ref().is_some_and(|state| state.data_id == seen.record.primary_data);
    // Who has just begun to listen may not have heard yet of those who could take over from a primary that died.
    let early = phase == Some(Phase::Crashed)
        && seen.record.ackers.iter().filter_map(|name| seen.instances.get(name)).any(|acker| {
            acker.reachable && !acker.refused && acker.state.is_none() && acker.age < seen.wish.silent_after
        });
    if matches!(phase, Some(Phase::Running | Phase::Crashed)) && !instance.leaving() && same_data && !early {
        let ackers = seen.record.ackers.iter().filter_map(|name| seen.ordinal_of(name)).collect();
        // Its own tail may be on no replica yet: it opens when enough recorded ackers hold all of it.
        let proven = proof::proven_tail(seen, instance, &seen.record.ackers, seen.record.acks_needed);
        orders.push((
            primary.clone(),
            Order::Promote(PromoteOrder {
                epoch: seen.record.epoch,
                acks_needed: seen.record.acks_needed,
                ackers,
                apply_timeout_ms: REOPEN_TIMEOUT_MS,
                tail_unproven: false,
                proven,
                must_hold: None,
            }),
        ));
    }
    orders
}

/// Somebody has promised more than what is recorded, in a failover whose claim came to nothing, and obeys no order of the
/// recorded epoch any more: the record goes beyond that promise.
fn overtake(seen: &Observed) -> Option<Plan> {
    let record = &seen.record;
    let (name, state) = seen.instances.iter().find_map(|(name, instance)| {
        let state = instance.state.as_ref().filter(|_| instance.fresh(&seen.wish))?;
        (state.promised > record.epoch && instance.ahead_for > OVERTAKE_AFTER).then_some((name, state))
    })?;
    let why = format!("{name} has promised epoch {} in an operation that nobody carries on", state.promised);
    let record = Record { epoch: next_epoch(seen), ..record.clone() };
    Some(Plan { record: Some(record), why, ..Plan::default() })
}

/// Instances that may be recorded as ackers of `source`, the primary or a candidate that runs and stays closed because too
/// few of `ackers` can hold what it has to prove: they have been told in `epoch` to follow it, and hold nothing that it
/// lacks, or are down and have to ask it first, which who is locked out cannot. With more ackers, and as many
/// acknowledgements needed, the record claims less than before: always true.
pub fn helpers(seen: &Observed, source: &Name, epoch: Epoch, ackers: &BTreeSet<Name>) -> BTreeSet<Name> {
    let Some(held) = seen.instances.get(source).and_then(Instance::received) else { return BTreeSet::new() };
    seen.instances
        .iter()
        .filter(|(name, helper)| {
            may_join(seen, source, name, helper)
                && !ackers.contains(*name)
                && helper.is_told_to_follow(source, epoch)
                && helper.errant.is_empty()
                && match helper.phase(&seen.wish) {
                    Some(Phase::Crashed) => true,
                    Some(Phase::Running) => {
                        !helper.cannot_apply() && helper.received().is_some_and(|received| received.is_subset(held))
                    }
                    Some(
                        Phase::Empty
                        | Phase::Initialising
                        | Phase::Cloning
                        | Phase::Rewinding
                        | Phase::Starting
                        | Phase::Stopping
                        | Phase::Failed,
                    )
                    | None => false,
                }
        })
        .map(|(name, _)| name.clone())
        .collect()
}

/// The primary runs and is closed, and those who would prove what it has executed are lost or missing.
fn call_in(seen: &Observed, primary: &Name, instance: &Instance) -> Option<Plan> {
    let record = &seen.record;
    let lost = |name: &Name| seen.phase_of(name) == Some(Phase::Failed) || strike_reason(seen, primary, name).is_some();
    let able = record.ackers.iter().filter(|name| !lost(name)).count();
    if !instance.waits_for_proof(record.epoch, &seen.wish) || able >= record.acks_needed as usize {
        return None;
    }
    let helpers = helpers(seen, primary, record.epoch, &record.ackers);
    let change = |record: Record, why: String| Some(Plan { record: Some(record), why, ..Plan::default() });
    let epoch = next_epoch(seen);
    if let Some(names) = list(&helpers) {
        let ackers = record.ackers.union(&helpers).cloned().collect();
        let why = format!("{names} may acknowledge: too few of the recorded ackers are left");
        return change(Record { epoch, ackers, ..record.clone() }, why);
    }
    let acks_needed = make_do(&record.ackers, record.acks_needed, lost)?;
    let why = format!("no more than {acks_needed} of the recorded ackers are left");
    change(Record { epoch, acks_needed, ..record.clone() }, why)
}

/// The acknowledgements that can still be had, where so many ackers are lost that those needed cannot. To record fewer than are
/// needed claims less than before, which is always true; once there is an open primary the lost can be struck.
pub fn make_do(ackers: &BTreeSet<Name>, acks_needed: u32, lost: impl Fn(&Name) -> bool) -> Option<u32> {
    let left = u32::try_from(ackers.iter().filter(|name| !lost(name)).count()).unwrap_or(u32::MAX);
    (1..acks_needed).contains(&left).then_some(left)
}

/// Names for people; none: there are none.
pub fn list(names: &BTreeSet<Name>) -> Option<String> {
    (!names.is_empty()).then(|| names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// Whether an instance may be made an acker of `source` at all.
fn may_join(seen: &Observed, source: &Name, name: &Name, instance: &Instance) -> bool {
    name != source && !seen.wish.fenced.contains(name) && instance.ordinal < seen.wish.instances && !instance.leaving()
}

fn not_serving(seen: &Observed, primary: &Name, instance: &Instance) -> Blocked {
    let phase = instance.state.as_ref().map_or_else(|| "unknown".to_owned(), |state| format!("{:?}", state.phase));
    let problem = instance.state.as_ref().and_then(|state| state.problem.clone()).unwrap_or_default();
    let message = format!("{primary} takes no writes (phase {phase}) {problem}");
    if seen.wish.failover {
        Blocked { reason: "PrimaryNotServing", message }
    } else {
        // Also while it starts: nobody is put in its place.
        Blocked { reason: "FailoverDisabled", message: format!("{message}; spec.failover.enabled is false") }
    }
}

/// Why a recorded acker has to stop counting, if it has to.
fn strike_reason(seen: &Observed, primary: &Name, name: &Name) -> Option<String> {
    let ordinal = seen.ordinal_of(name)?;
    if ordinal >= seen.wish.instances {
        return Some(format!("{name} is scaled away"));
    }
    let instance = seen.instances.get(name)?;
    match instance.phase(&seen.wish) {
        Some(Phase::Empty | Phase::Initialising | Phase::Cloning) => Some(format!("{name} has lost its data")),
        Some(
            Phase::Crashed | Phase::Rewinding | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Failed,
        )
        | None => (!instance.follows(primary, &seen.wish) && instance.unhealthy_for > STRIKE_AFTER)
            .then(|| format!("{name} has been missing for more than {} s", STRIKE_AFTER.as_secs())),
    }
}

/// All that have to go at once, or else the first that can go alone.
fn strike(seen: &Observed, primary: &Name) -> Option<Plan> {
    let due: Vec<(&Name, String)> =
        seen.record.ackers.iter().filter_map(|name| Some((name, strike_reason(seen, primary, name)?))).collect();
    let (_, why) = due.first()?;
    let all: BTreeSet<&Name> = due.iter().map(|(name, _)| *name).collect();
    let reasons = due.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; ");
    if let Some(plan) = strike_these(seen, primary, &all, reasons) {
        return Some(plan);
    }
    due.iter().find_map(|(name, _)| strike_these(seen, primary, &BTreeSet::from([*name]), why.clone()))
}

fn strike_these(seen: &Observed, primary: &Name, struck: &BTreeSet<&Name>, why: String) -> Option<Plan> {
    let ackers: BTreeSet<Name> = seen.record.ackers.iter().filter(|name| !struck.contains(name)).cloned().collect();
    let acks_needed = acks_wanted(seen.wish.instances, ackers.len());
    if ackers.is_empty() && seen.wish.instances > 1 && !seen.wish.available {
        // Without them no commit is on a second instance. Writes wait rather than lose that promise.
        return None;
    }
    let standing = ackers.iter().filter(|name| {
        seen.instances.get(*name).is_some_and(|acker| acker.follows(primary, &seen.wish) && acker.acknowledges())
    });
    if standing.count() < acks_needed as usize {
        return None;
    }
    let epoch = next_epoch(seen);
    let operation = Operation {
        id: operation_id(Kind::Reconfigure, epoch),
        kind: Kind::Reconfigure,
        epoch,
        from: Some(primary.clone()),
        to: struck.first().map(|name| (*name).clone()),
        to_data: None,
        phase: OperationPhase::Striking,
        ackers,
        acks_needed,
        reason: why.clone(),
    };
    let mut plan = claim(seen, operation, why);
    if let Some(record) = &mut plan.record {
        // Recording fewer than the primary waits for is always safe, and has to come before it waits for fewer.
        record.acks_needed = record.acks_needed.min(acks_needed);
    }
    Some(plan)
}

fn caught_up(seen: &Observed, primary: &Name, instance: &Instance, executed: &common::gtid::GtidSet) -> bool {
    instance.follows(primary, &seen.wish)
        && instance.lag().is_some_and(|lag| lag <= CAUGHT_UP_SECONDS)
        && instance.received().is_some_and(|received| executed.subtract(received).count() <= CAUGHT_UP_TRANSACTIONS)
}

/// Whether commits that wait for this acker would hardly notice.
fn is_close(acker: &Instance, executed: &common::gtid::GtidSet) -> bool {
    acker.received().is_some_and(|received| executed.subtract(received).count() <= CLOSE_TRANSACTIONS)
}

/// Replicas that have caught up are recorded; only then are they told to acknowledge.
fn grow(seen: &Observed, primary: &Name, instance: &Instance) -> Option<Plan> {
    let executed = instance.executed()?;
    let joining: BTreeSet<Name> = seen
        .instances
        .iter()
        .filter(|(name, candidate)| {
            may_join(seen, primary, name, candidate)
                && !seen.record.ackers.contains(*name)
                && caught_up(seen, primary, candidate, executed)
        })
        .map(|(name, _)| name.clone())
        .collect();
    let why = format!("{} caught up and may acknowledge", list(&joining)?);
    let ackers = seen.record.ackers.union(&joining).cloned().collect();
    let record = Record { epoch: next_epoch(seen), ackers, ..seen.record.clone() };
    Some(Plan { record: Some(record), why, ..Plan::default() })
}

/// Acknowledgements that the primary waits for now, by its own account. (The role is persisted before it is in force.)
pub fn actual_acks(instance: &Instance) -> Option<u32> {
    match &instance.state.as_ref().filter(|state| state.in_force)?.role {
        Role::Primary { acks_needed, .. } => Some(*acks_needed),
        Role::None | Role::Fenced | Role::Replica { .. } => None,
    }
}

/// Drops the reigns before from the record once enough of the present ackers hold all that the primary has executed,
/// which contains them; and names the primary's data where an older record does not.
fn settle(seen: &Observed, instance: &Instance) -> Option<Plan> {
    let record = &seen.record;
    if !record.unproven.is_empty() && instance.speaks_of(record.epoch, &seen.wish) {
        let holders = proof::holders(seen, &record.ackers, &instance.committing()?).count();
        if holders >= record.acks_needed as usize {
            let record = Record { unproven: Vec::new(), ..record.clone() };
            return Some(Plan { record: Some(record), why: "the ackers hold all".into(), ..Plan::default() });
        }
    }
    let data = instance.state.as_ref().and_then(|state| state.data_id.clone());
    (record.primary_data.is_none() && data.is_some() && instance.fresh(&seen.wish)).then(|| Plan {
        record: Some(Record { primary_data: data, ..record.clone() }),
        why: "the primary's data has a name".into(),
        ..Plan::default()
    })
}

/// Brings the recorded `acks_needed` to what is wanted: down at once, up only when it already holds.
fn level(seen: &Observed, instance: &Instance) -> Option<Plan> {
    let wanted = acks_wanted(seen.wish.instances, seen.record.ackers.len());
    let recorded = seen.record.acks_needed;
    let change = |why: String| {
        let record = Record { epoch: next_epoch(seen), acks_needed: wanted, ..seen.record.clone() };
        Some(Plan { record: Some(record), why, ..Plan::default() })
    };
    if wanted < recorded {
        return change(format!("commits wait for {wanted} instead of {recorded} acknowledgements"));
    }
    let holds = instance.speaks_of(seen.record.epoch, &seen.wish)
        && actual_acks(instance)? >= wanted
        && proof::holders(seen, &seen.record.ackers, &instance.committing()?).count() >= wanted as usize;
    if wanted > recorded && holds {
        return change(format!("commits wait for {wanted} instead of {recorded} acknowledgements"));
    }
    None
}

/// Ordinals that the primary has to keep out: those it keeps out now and every instance that is no recorded acker, less
/// those that have promised the recorded epoch without acknowledging: no older order can make them acknowledge any more.
/// (What the primary said may be of before the last strike, so its word alone is not enough.)
pub fn still_struck(seen: &Observed, primary: &Name, instance: &Instance) -> Vec<u32> {
    let role = instance.state.as_ref().map(|state| &state.role);
    let mut struck: BTreeSet<u32> = match role {
        Some(Role::Primary { struck, .. }) => struck.iter().copied().collect(),
        Some(Role::None | Role::Fenced | Role::Replica { .. }) | None => BTreeSet::new(),
    };
    for (name, instance) in &seen.instances {
        if name == primary || seen.record.ackers.contains(name) || is_harmless(seen, instance) {
            struck.remove(&instance.ordinal);
        } else {
            struck.insert(instance.ordinal);
        }
    }
    struck.into_iter().collect()
}

/// Cannot acknowledge by any order that was given before the recorded epoch.
fn is_harmless(seen: &Observed, instance: &Instance) -> bool {
    let Some(state) = instance.state.as_ref().filter(|_| instance.fresh(&seen.wish)) else { return false };
    let channel = state.mysqld.as_ref().and_then(|mysqld| mysqld.replication.as_ref());
    // Promised is not done: a receiver that goes on connecting may still have its acknowledgements switched on.
    let done = state.in_force || channel.is_none_or(|channel| channel.receiver == ReceiverState::No);
    state.promised >= seen.record.epoch
        && done
        && match state.role {
            Role::Replica { acknowledges, .. } => !acknowledges,
            Role::None | Role::Fenced => true,
            Role::Primary { .. } => false,
        }
}

/// A replica that is no acker follows well, and has not promised the recorded epoch yet. It does so in a moment; locking
/// it out until then would only disturb it.
fn about_to_promise(seen: &Observed, primary: &Name) -> bool {
    seen.instances.iter().any(|(name, instance)| {
        !seen.record.ackers.contains(name)
            && instance.follows(primary, &seen.wish)
            && !instance.leaving()
            && instance.state.as_ref().is_some_and(|state| state.promised < seen.record.epoch)
    })
}

fn acks_order(seen: &Observed, primary: &Name, instance: &Instance) -> Option<(Name, Order)> {
    let state = instance.state.as_ref()?;
    let Role::Primary { acks_needed: actual, struck } = &state.role else { return None };
    let wanted = acks_wanted(seen.wish.instances, seen.record.ackers.len());
    let raised = wanted > seen.record.acks_needed && {
        let executed = instance.executed()?;
        let able = seen.record.ackers.iter().filter(|name| {
            seen.instances.get(*name).is_some_and(|acker| {
                acker.acknowledges() && caught_up(seen, primary, acker, executed) && is_close(acker, executed)
            })
        });
        able.count() >= wanted as usize
    };
    // Never fewer than what is wanted once it is so many: a record that lags behind (just after a failover) is no
    // reason to wait for fewer.
    let acks_needed = if raised || *actual > wanted { wanted } else { (*actual).max(seen.record.acks_needed) };
    let locked = still_struck(seen, primary, instance);
    let settled = state.in_force && *actual == acks_needed && *struck == locked && state.promised >= seen.record.epoch;
    (!settled && !about_to_promise(seen, primary))
        .then(|| (primary.clone(), Order::Acks(AcksOrder { epoch: seen.record.epoch, acks_needed, struck: locked })))
}

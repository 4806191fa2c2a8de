//! The planned hand-over: when one is wanted, and to whom.

use std::time::Duration;

use common::instance::Phase;

use super::{
    Blocked, Instance, Kind, Name, Observed, Operation, OperationPhase, Plan, acks_wanted, claim, next_epoch,
    operation_id,
};

/// A switchover that was given up is not tried again sooner, so that writes are not paused over and over.
const RETRY_AFTER: Duration = Duration::from_secs(20);
/// The candidate may lag this much: it has to apply it within the pause.
const LAG_MAX_SECONDS: f64 = 1.0;

/// Why the primary should go, and to whom if that was said.
fn wanted(seen: &Observed, primary: &Name, instance: &Instance) -> Option<(String, Option<Name>)> {
    if instance.leaving() {
        return instance.stops.then(|| (format!("{primary} is being stopped"), None));
    }
    if instance.ordinal >= seen.wish.instances {
        return Some((format!("{primary} is scaled away"), None));
    }
    match &seen.wish.primary {
        Some(wish) if wish != primary => Some((format!("spec.primary asks for {wish}"), Some(wish.clone()))),
        _ => None,
    }
}

/// Checked before anything is touched: it holds all it needs, acknowledges, and is here to stay.
fn fit(seen: &Observed, primary: &Name, name: &Name, instance: &Instance) -> bool {
    seen.record.ackers.contains(name)
        && !seen.wish.fenced.contains(name)
        && instance.ordinal < seen.wish.instances
        && !instance.leaving()
        && instance.follows(primary, &seen.wish)
        && instance.lag().is_some_and(|lag| lag <= LAG_MAX_SECONDS)
}

/// Claims a switchover when one is wanted and can succeed. `None`: none is wanted. A plan without a record: wanted and
/// not possible now.
pub fn start(seen: &Observed, primary: &Name) -> Option<Plan> {
    let instance = seen.instances.get(primary)?;
    let (why, asked) = wanted(seen, primary, instance)?;
    if instance.phase(&seen.wish) != Some(Phase::Running) || !instance.serves_as_primary() {
        return None;
    }
    if seen.last_undone.is_some_and(|age| age < RETRY_AFTER) {
        return None;
    }
    let candidate = seen
        .instances
        .iter()
        .filter(|(name, instance)| {
            *name != primary && asked.as_ref().is_none_or(|asked| asked == *name) && fit(seen, primary, name, instance)
        })
        .min_by_key(|(name, instance)| (seen.wish.primary.as_ref() != Some(*name), instance.ordinal));
    let Some((to, _)) = candidate else {
        return Some(Plan {
            blocked: Some(Blocked {
                reason: "NoCandidate",
                message: format!(
                    "{why}, but {} is not ready to take over (it has to follow, acknowledge, and lag less than {LAG_MAX_SECONDS} s)",
                    asked.as_deref().unwrap_or("no replica")
                ),
            }),
            ..Plan::default()
        });
    };
    let mut ackers = seen.record.ackers.clone();
    ackers.remove(to);
    ackers.insert(primary.clone());
    let epoch = next_epoch(seen);
    let operation = Operation {
        id: operation_id(Kind::Switchover, epoch),
        kind: Kind::Switchover,
        epoch,
        from: Some(primary.clone()),
        to: Some(to.clone()),
        to_data: seen.data_of(to),
        phase: OperationPhase::HandingOver,
        acks_needed: acks_wanted(seen.wish.instances, ackers.len()),
        ackers,
        reason: why.clone(),
    };
    Some(claim(seen, operation, why))
}

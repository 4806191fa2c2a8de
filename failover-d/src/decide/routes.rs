//! Where the Services should lead.

use std::collections::BTreeSet;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::Phase;

use super::operation::closed_with;
use super::{Kind, Name, Observed, Operation, OperationPhase, Plan, Record, Routes};

/// The primary that clients may be sent to now, with its epoch: the recorded one until it hands over, or the candidate of an
/// operation as soon as it takes writes in the operation's epoch (recording comes after routing).
fn serving(seen: &Observed) -> Option<(&Name, u64)> {
    if let Some(operation) = election(&seen.record) {
        let opened = |to: &&Name| seen.instances.get(*to).is_some_and(|instance| instance.serves_in(operation.epoch));
        let promoted = operation.to.as_ref().filter(opened);
        let closed = || operation.phase == OperationPhase::Promoting || acknowledged(seen, operation).is_some();
        if promoted.is_some() || closed() {
            return promoted.map(|to| (to, operation.epoch));
        }
    }
    let primary = seen.record.primary.as_ref()?;
    seen.instances.get(primary)?.serves_as_primary().then_some((primary, seen.record.epoch))
}

/// Where clients that want to write are sent: to who takes writes, and to a candidate from the moment that its election is
/// written, or that the old primary has said that it is closed, so that they are there when it opens. The old primary is closed
/// for sure by then, or gone, or obeyed by nobody; and the candidate has applied all that was acknowledged, so that nobody reads
/// there what is older than what he has written. (It is closed until it is elected: should that fail, nobody has written there.)
fn leads_to<'a>(seen: &'a Observed, plan: &'a Plan) -> Option<(&'a Name, u64)> {
    match plan.record.as_ref().and_then(election) {
        Some(operation) => candidate(seen, operation),
        None => serving(seen).or_else(|| candidate(seen, election(&seen.record)?)),
    }
}

/// The operation, when it has a candidate.
fn election(record: &Record) -> Option<&Operation> {
    record.operation.as_ref().filter(|operation| operation.phase.may_have_promoted())
}

/// The candidate, once it may be read.
fn candidate<'a>(seen: &'a Observed, operation: &'a Operation) -> Option<(&'a Name, u64)> {
    let to = operation.to.as_ref()?;
    let state = seen.instances.get(to).filter(|instance| instance.fresh(&seen.wish))?.state.as_ref()?;
    let mysqld = state.mysqld.as_ref().filter(|mysqld| state.phase == Phase::Running && !mysqld.offline)?;
    acknowledged(seen, operation)?.is_subset(&mysqld.executed).then_some((to, operation.epoch))
}

/// What contains everything that was acknowledged: what the candidate of a failover said when it was fenced, or what the
/// old primary of a switchover had executed when it was closed.
fn acknowledged<'a>(seen: &'a Observed, operation: &Operation) -> Option<&'a GtidSet> {
    match operation.kind {
        Kind::Failover => {
            let state = seen.held_by(operation.to.as_ref()?, operation.epoch)?;
            state.mysqld.as_ref().map(|mysqld| &mysqld.received)
        }
        Kind::Switchover => closed_with(seen, operation),
        Kind::Bootstrap | Kind::Reconfigure | Kind::Fence => None,
    }
}

/// While a change of primary goes on, so long the routes are left alone until the primary's moves: replicas that are fenced or
/// sent ahead would be taken off and put on again, and a kube-proxy that has just rewritten its rules for that lets the hand-over
/// wait, for as long as its `minSyncPeriod` says.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// The routes, when there is something to say. A primary that is silent keeps its route: only a hand-over moves it.
/// With no replica fit for reads, reads go to the primary rather than nowhere.
pub fn routes(seen: &Observed, plan: &Plan) -> Option<Routes> {
    let (primary, epoch) = leads_to(seen, plan)?;
    let moves = |operation: &Operation| matches!(operation.kind, Kind::Failover | Kind::Switchover);
    let is_moving = seen.record.operation.as_ref().is_some_and(moves) && seen.operation_age < LEFT_ALONE;
    if is_moving && epoch == seen.record.epoch {
        return None;
    }
    let mut replicas: BTreeSet<Name> = seen
        .instances
        .iter()
        .filter(|(name, instance)| *name != primary && instance.serves_reads(primary, &seen.wish))
        .map(|(name, _)| name.clone())
        .collect();
    if replicas.is_empty() {
        replicas.insert(primary.clone());
    }
    Some(Routes { epoch, primary: Some(primary.clone()), replicas })
}

/// Instances that do their part: the serving primary, and every replica that follows it and may be read. Counted for
/// `status.ready`.
pub fn ready_instances(seen: &Observed) -> BTreeSet<Name> {
    let Some((primary, _)) = serving(seen) else { return BTreeSet::new() };
    let fresh = |name: &Name| seen.instances.get(name).is_some_and(|instance| instance.fresh(&seen.wish));
    let counted = |name: &Name| seen.record.operation.is_some() || name == primary || seen.record.ackers.contains(name);
    seen.instances
        .iter()
        .filter(|(name, instance)| {
            fresh(name) && counted(name) && (*name == primary || instance.serves_reads(primary, &seen.wish))
        })
        .map(|(name, _)| name.clone())
        .collect()
}

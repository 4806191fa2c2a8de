//! Decisions that are broken on purpose: the shipped one, asked about something else than what is there, or overheard
//! wrongly. Sabotage of instances is where they obey (carry.rs).

use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::Role;

use super::super::{Kind, Observed, OperationPhase, Outcome, Plan, Record};
use super::bounds::Sabotage;

fn phase(seen: &Observed) -> Option<OperationPhase> {
    seen.record.operation.as_ref().map(|operation| operation.phase)
}

/// Decides as the sabotage has it.
pub(super) fn decide_with(sabotage: Sabotage, seen: &Observed, decide: fn(&Observed) -> Plan) -> Plan {
    let mut seen = seen.clone();
    match sabotage {
        Sabotage::ProofSkipped if phase(&seen) == Some(OperationPhase::Fencing) => return elect_anybody(&seen, decide),
        Sabotage::StrikeUnproven if phase(&seen) == Some(OperationPhase::Striking) => others_hold_all(&mut seen),
        Sabotage::StrikeUnlocked if phase(&seen) == Some(OperationPhase::Striking) => everybody_is_locked(&mut seen),
        Sabotage::StaleBelieved => everything_is_of_now(&mut seen),
        Sabotage::OwnedIgnored => {
            for mysqld in seen.instances.values_mut().filter_map(|it| it.state.as_mut()?.mysqld.as_mut()) {
                mysqld.owned = GtidSet::default();
            }
        }
        Sabotage::AnyData => any_data(&mut seen),
        Sabotage::ReignsDropped => {
            let mut plan = decide(&seen);
            let promoted = phase(&seen) == Some(OperationPhase::Promoting);
            if let Some(record) = plan.record.as_mut().filter(|record| promoted && record.operation.is_none()) {
                record.unproven = Vec::new();
            }
            return plan;
        }
        Sabotage::Nothing
        | Sabotage::ProofSkipped
        | Sabotage::StrikeUnproven
        | Sabotage::StrikeUnlocked
        | Sabotage::PromiseForgotten
        | Sabotage::RewindSkipped
        | Sabotage::UuidKept
        | Sabotage::Unapplied
        | Sabotage::TailServed
        | Sabotage::DeclineForgotten
        | Sabotage::RestNotAwaited => {}
    }
    decide(&seen)
}

/// Whoever has answered first, whatever it holds.
fn elect_anybody(seen: &Observed, decide: fn(&Observed) -> Plan) -> Plan {
    let Some(operation) = seen.record.operation.as_ref().filter(|operation| operation.kind == Kind::Failover) else {
        return decide(seen);
    };
    let mut answered = seen
        .answers
        .iter()
        .filter(|(name, answer)| Some(*name) != operation.from.as_ref() && matches!(answer.outcome, Outcome::Held(_)));
    let Some((name, _)) = answered.next() else { return decide(seen) };
    let mut advanced = operation.clone();
    advanced.to = Some(name.clone());
    advanced.phase = OperationPhase::Promoting;
    advanced.ackers.remove(name);
    let record = Record { operation: Some(advanced), ..seen.record.clone() };
    Plan { record: Some(record), ..Plan::default() }
}

fn others_hold_all(seen: &mut Observed) {
    let committing = seen.record.primary.as_ref().and_then(|name| seen.instances.get(name)?.committing());
    let Some(all) = committing else { return };
    for mysqld in seen.instances.values_mut().filter_map(|it| it.state.as_mut()?.mysqld.as_mut()) {
        mysqld.received.extend_with(&all);
    }
}

fn everybody_is_locked(seen: &mut Observed) {
    let epoch = seen.record.operation.as_ref().map_or(0, |operation| operation.epoch);
    let Some(primary) = seen.record.primary.clone() else { return };
    let Some(state) = seen.instances.get_mut(&primary).and_then(|it| it.state.as_mut()) else { return };
    state.promised = epoch;
    state.in_force = true;
    if let Role::Primary { struck, .. } = &mut state.role {
        *struck = (0..9).collect();
    }
}

fn everything_is_of_now(seen: &mut Observed) {
    let epoch = seen.record.epoch;
    for instance in seen.instances.values_mut() {
        instance.age = Duration::ZERO;
        if let Some(state) = &mut instance.state {
            state.promised = state.promised.max(epoch);
            state.in_force = true;
        }
    }
}

fn any_data(seen: &mut Observed) {
    let names: Vec<(String, Option<String>)> =
        seen.record.reigns().into_iter().map(|reign| (reign.primary, reign.primary_data)).collect();
    for (name, data) in names {
        if let Some(answer) = seen.answers.get_mut(&name)
            && let Outcome::Held(state) = &mut answer.outcome
        {
            state.data_id.clone_from(&data);
        }
        if let Some(state) = seen.instances.get_mut(&name).and_then(|it| it.state.as_mut())
            && state.data_id.is_some()
        {
            state.data_id = data;
        }
    }
}

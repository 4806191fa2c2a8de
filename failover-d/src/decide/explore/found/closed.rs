//! Who stays closed until its ackers prove what it holds, and is left alone by them.

use super::*;

/// c-2 was started by a fence for its word, so it may hold what nobody acknowledged, and was chosen. Its only acker is
/// c-0, which turns out to be beyond rewinding. c-1 runs, holds nothing that c-2 lacks, and is locked out.
fn candidate_whose_only_acker_is_lost() -> Observed {
    let mut seen = healthy(3);
    failing_over(&mut seen, "c-0");
    let operation = seen.record.operation.as_mut().unwrap();
    (operation.phase, operation.to, operation.to_data) =
        (OperationPhase::Promoting, Some("c-2".into()), Some("data-c-2".into()));
    operation.ackers = [Name::from("c-0")].into();
    set(&mut seen, "c-0", |state| {
        *state = InstanceState { phase: Phase::Failed, promised: 2, role: Role::Fenced, mysqld: None, ..fresh("c-0") };
    });
    holds(&mut seen, "c-1", &format!("{U0}:1-10"));
    set(&mut seen, "c-1", |state| {
        (state.promised, state.role) = (2, Role::Replica { source: "c-2".into(), acknowledges: false });
    });
    holds(&mut seen, "c-2", &format!("{U0}:1-10,{U2}:1"));
    set(&mut seen, "c-2", |state| {
        (state.promised, state.role, state.tail_unproven) = (2, primary(1, &[1]), true);
        let mysqld = state.mysqld.as_mut().unwrap();
        (mysqld.super_read_only, mysqld.read_only, mysqld.replication) = (true, true, None);
    });
    seen.operation_age = Duration::from_secs(3600);
    seen
}

#[test]
fn candidate_whose_ackers_are_lost_is_proven_by_who_is_there() {
    let seen = candidate_whose_only_acker_is_lost();
    let operation = decide(&seen).record.and_then(|record| record.operation).expect("c-1 is recorded");
    assert_eq!((operation.ackers, operation.acks_needed), (["c-0", "c-1"].map(Name::from).into(), 1));
    assert_eq!((operation.epoch, operation.phase), (2, OperationPhase::Promoting));
}

#[test]
fn who_holds_what_the_candidate_lacks_does_not_prove_it() {
    let mut seen = candidate_whose_only_acker_is_lost();
    holds(&mut seen, "c-1", &format!("{U0}:1-11"));
    assert_eq!(decide(&seen).record, None);
}

/// The same of a primary that is recorded, died, and was started again in place.
#[test]
fn closed_primary_whose_ackers_are_lost_is_proven_by_who_is_there() {
    let mut seen = candidate_whose_only_acker_is_lost();
    let operation = seen.record.operation.take().unwrap();
    seen.record = Record {
        epoch: 2,
        primary: operation.to,
        primary_data: operation.to_data,
        ackers: operation.ackers,
        acks_needed: 1,
        ..seen.record
    };
    let record = decide(&seen).record.expect("c-1 is recorded");
    assert_eq!((record.ackers, record.acks_needed), (["c-0", "c-1"].map(Name::from).into(), 1));
    assert!(record.epoch > 2);
}

//! Failovers that had no proof, or took a wrong one: whose word counts, and when they go back to the instance that failed.

use std::collections::BTreeSet;

use common::instance::FenceOrder;

use super::*;

/// The fence order starts an acker whose mysqld was down, and answers at once: `Starting`. A moment later it runs, fenced.
#[test]
fn acker_that_was_started_by_the_fence_is_asked_again() {
    let mut seen = healthy(3);
    failing_over(&mut seen, "c-0");
    seen.instances.get_mut("c-0").unwrap().reachable = false;
    seen.instances.get_mut("c-0").unwrap().state = None;
    held(&mut seen, "c-1");
    held(&mut seen, "c-2");
    let mut starting = seen.instances["c-1"].state.clone().unwrap();
    starting.phase = Phase::Starting;
    starting.mysqld = None;
    let fence = Order::Fence(FenceOrder { epoch: 2, start: false });
    seen.answers.remove("c-1");
    if let Some(answer) = crate::order::outcome(&fence, &Ok(starting)) {
        seen.answers.insert("c-1".into(), answer);
    }
    let plan = decide(&seen);
    let asked = plan.orders.iter().any(|(name, order)| name == "c-1" && *order == fence);
    assert!(asked || plan.record.is_some(), "{:?}", plan.blocked);
}

/// The primary's mysqld has died; while the failover collects promises the other acker loses its volume. The old primary
/// is here and holds everything, but no order starts it.
#[test]
fn failover_without_proof_goes_back_to_a_crashed_primary() {
    let mut seen = healthy(3);
    failing_over(&mut seen, "c-0");
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = Role::Fenced;
        state.tail_unproven = true;
        state.phase = Phase::Crashed;
        state.mysqld = None;
    });
    seen.answers.insert("c-0".into(), Answer { epoch: 2, outcome: Outcome::Dead });
    held(&mut seen, "c-1");
    set(&mut seen, "c-2", |state| {
        state.phase = Phase::Empty;
        state.data_id = None;
        state.mysqld = None;
    });
    seen.operation_age = Duration::from_secs(3600);
    let plan = decide(&seen);
    assert!(plan.record.is_some() || !plan.orders.is_empty(), "{:?}", plan.blocked);
}

/// c-0 reigned, and sent its last, unacknowledged write to c-1 alone; both were away when c-2 was elected. Now c-2 is
/// gone and c-1 is back. c-3 and c-4 prove the reign of c-2 without it: 2 + 2 > 3.
#[test]
fn acker_with_a_foreign_write_does_not_stop_a_proof_that_stands_without_it() {
    let mut seen = healthy(5);
    let ackers = ["c-1", "c-3", "c-4"].map(Name::from);
    seen.record.primary = Some("c-2".into());
    seen.record.primary_data = Some("data-c-2".into());
    seen.record.ackers = ackers.clone().into();
    failing_over(&mut seen, "c-2");
    for name in ackers {
        holds(&mut seen, &name, &format!("{U0}:1-10,{U2}:1-5"));
    }
    holds(&mut seen, "c-1", &format!("{U0}:1-11"));
    for name in ["c-1", "c-3", "c-4"] {
        held(&mut seen, name);
    }
    for name in ["c-0", "c-2"] {
        let mut gone = heard(fresh(name));
        gone.reachable = false;
        gone.state = None;
        seen.instances.insert(name.into(), gone);
    }
    let plan = decide(&seen);
    assert!(plan.record.is_some(), "{:?}", plan.blocked);
}

/// c-0 reigned, and its volume is lost since: it was cloned anew. c-3 reigned after it, is not yet proven on its ackers,
/// and died; c-2 lost its volume. No proof without c-3: the failover has gone back to it.
#[test]
fn failover_that_went_back_is_not_begun_again_on_a_cloned_primarys_word() {
    let mut seen = five();
    let ackers: BTreeSet<Name> = ["c-1", "c-2", "c-4"].map(Name::from).into();
    seen.record = Record {
        epoch: 4,
        primary: Some("c-3".into()),
        primary_data: Some("data-c-3".into()),
        ackers: ackers.clone(),
        acks_needed: 2,
        unproven: vec![Reign {
            primary: "c-0".into(),
            primary_data: Some("lost".into()),
            ackers: ["c-1", "c-2", "c-3", "c-4"].map(Name::from).into(),
            acks_needed: 2,
        }],
        ..seen.record
    };
    failing_over(&mut seen, "c-3");
    let operation = seen.record.operation.as_mut().unwrap();
    (operation.epoch, operation.phase, operation.to) = (5, OperationPhase::Promoting, Some("c-3".into()));
    for name in ["c-0", "c-1", "c-4"] {
        held(&mut seen, name);
    }
    for (name, phase) in [("c-2", Phase::Empty), ("c-3", Phase::Crashed)] {
        set(&mut seen, name, |state| {
            let data_id = (phase == Phase::Crashed).then(|| format!("data-{name}"));
            *state = InstanceState { phase, data_id, mysqld: None, ..fresh(name) };
        });
    }
    let plan = decide(&seen);
    assert_eq!(plan.record.and_then(|record| record.operation).map(|operation| operation.phase), None);
}

/// The candidate's pod dies before it has opened, and so is not heard of. It comes back with all it had. Its reign is
/// pending all the same; without the name of its data its word never counts, and nobody goes back to it: with all
/// volumes there and everybody up, `QuorumNotProvable` for ever. (Who is chosen is known with its data; begun() looks for
/// the data only when it is gone.)
#[test]
fn reign_of_a_lost_candidate_knows_its_data() {
    let mut seen = healthy(3);
    seen.record.ackers = [Name::from("c-1")].into();
    failing_over(&mut seen, "c-0");
    held(&mut seen, "c-1");
    seen.record = decide(&seen).record.expect("c-1 is chosen");
    assert_eq!(seen.record.operation.as_ref().and_then(|operation| operation.to.as_deref()), Some("c-1"));
    let gone = seen.instances.get_mut("c-1").unwrap();
    (gone.reachable, gone.state) = (false, None);
    // Another failover-d, which has no answers.
    seen.answers.clear();
    let record = decide(&seen).record.expect("c-0 runs: a proof is possible");
    let reign = record.unproven.iter().find(|reign| reign.primary == "c-1").expect("its reign");
    assert_eq!(reign.primary_data.as_deref(), Some("data-c-1"));
}

/// Each of those who answer holds something of its own that nobody acknowledged, and c-4 is away. The primary that died
/// is here, down, and holds everything: as when too few answer, it is started again in place.
#[test]
fn failover_among_differing_histories_goes_back_to_a_crashed_primary() {
    let mut seen = five();
    failing_over(&mut seen, "c-0");
    for ordinal in 1..4 {
        let name = format!("c-{ordinal}");
        holds(&mut seen, &name, &format!("{U0}:1-10,00000000-0000-0000-0000-00000000000{ordinal}:1"));
        held(&mut seen, &name);
    }
    deaf_to(&mut seen, "c-4");
    crashed(&mut seen, "c-0", 2);
    seen.operation_age = Duration::from_secs(3600);
    let plan = decide(&seen);
    let to = plan.record.and_then(|record| record.operation).and_then(|operation| operation.to);
    assert_eq!(to.as_deref(), Some("c-0"), "{:?}", plan.blocked);
}

/// c-1 was chosen, and lost its volume before it opened. c-2 alone is no proof of what c-0 acknowledged; c-0 is here,
/// down, and holds everything. Nothing more is done, and nothing is said.
fn candidate_that_lost_its_data() -> Observed {
    let mut seen = healthy(3);
    failing_over(&mut seen, "c-0");
    let operation = seen.record.operation.as_mut().unwrap();
    (operation.phase, operation.to) = (OperationPhase::Promoting, Some("c-1".into()));
    operation.ackers = [Name::from("c-2")].into();
    held(&mut seen, "c-2");
    crashed(&mut seen, "c-0", 2);
    set(&mut seen, "c-1", |state| {
        *state = InstanceState { phase: Phase::Empty, data_id: None, mysqld: None, ..fresh("c-1") };
    });
    seen.operation_age = Duration::from_secs(3600);
    seen
}

#[test]
fn candidate_that_lost_its_data_is_told_of() {
    let plan = decide(&candidate_that_lost_its_data());
    assert!(plan.record.is_some() || plan.blocked.is_some(), "{:?}", plan.orders);
}

#[test]
fn candidate_that_lost_its_data_gives_way_to_a_crashed_primary_that_holds_all() {
    let plan = decide(&candidate_that_lost_its_data());
    assert!(plan.record.is_some(), "{:?}", plan.orders);
}

/// c-1 has answered the fence, and lost its volume since; its phase says so. It is chosen all the same, on its answer, and
/// recorded without the name of its data.
#[test]
fn candidate_that_is_known_to_be_gone_is_not_chosen() {
    let mut seen = healthy(3);
    failing_over(&mut seen, "c-0");
    held(&mut seen, "c-1");
    held(&mut seen, "c-2");
    set(&mut seen, "c-1", |state| {
        *state = InstanceState { phase: Phase::Empty, data_id: None, mysqld: None, ..fresh("c-1") };
    });
    let to = decide(&seen).record.and_then(|record| record.operation).and_then(|operation| operation.to);
    assert_eq!(to.as_deref(), Some("c-2"));
}

/// c-0 died, c-1 took over and lost its volume before c-2 had all that c-0 acknowledged. c-0 is here, down, and would say
/// that c-2 lacks nothing, or what it lacks: a fence does not start a former primary, so nobody ever asks it.
#[test]
fn crashed_former_primary_is_asked_when_the_proof_needs_its_word() {
    let mut seen = healthy(3);
    seen.record = Record {
        epoch: 2,
        primary: Some("c-1".into()),
        primary_data: Some("data-c-1".into()),
        ackers: [Name::from("c-2")].into(),
        unproven: seen.record.reigns(),
        ..seen.record
    };
    crashed(&mut seen, "c-0", 1);
    set(&mut seen, "c-1", |state| {
        *state = InstanceState { phase: Phase::Empty, data_id: None, mysqld: None, ..fresh("c-1") };
    });
    seen.answers.clear();
    let plan = decide(&seen);
    assert!(plan.record.is_some() || plan.orders.iter().any(|(name, _)| name == "c-0"), "{:?}", plan.blocked);
}

/// All ackers run, and hold different things that nobody acknowledged: the failover has gone back to c-0, which is still
/// down. That is no reason to begin another failover, which would go back, and so on for ever: it is to be started.
#[test]
fn failover_that_went_back_starts_the_instance_that_failed() {
    let mut seen = five();
    failing_over(&mut seen, "c-0");
    crashed(&mut seen, "c-0", 2);
    let operation = seen.record.operation.as_mut().unwrap();
    operation.phase = OperationPhase::Promoting;
    (operation.to, operation.to_data) = (Some("c-0".into()), Some("data-c-0".into()));
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert!(plan.orders.iter().any(|(name, order)| name == "c-0" && matches!(order, Order::Promote(_))));
}

//! Violations that reading for the model brought up, and that were mended, each on the shipped functions.

use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{InstanceState, Phase, RefusalCode, Role};

mod closed;
mod proofs;
mod strikes;

use super::super::fixture::{fresh, healthy, heard};
use super::super::*;
use super::instance_decide::{Ask, OrderKind, Standing, Verdict, accept};

const U0: &str = "00000000-0000-0000-0000-000000000000";
const U2: &str = "00000000-0000-0000-0000-000000000002";

fn set(seen: &mut Observed, name: &str, change: impl FnOnce(&mut InstanceState)) {
    change(seen.instances.get_mut(name).unwrap().state.as_mut().unwrap());
}

fn holds(seen: &mut Observed, name: &str, text: &str) {
    let held: GtidSet = text.parse().unwrap();
    set(seen, name, |state| {
        let mysqld = state.mysqld.as_mut().unwrap();
        mysqld.executed = held.clone();
        mysqld.received = held;
    });
}

/// Five instances; the primary waits for 2 and all replicas hold what it said it has executed.
fn five() -> Observed {
    let mut seen = healthy(5);
    for ordinal in 0..5 {
        holds(&mut seen, &format!("c-{ordinal}"), &format!("{U0}:1-10"));
    }
    seen
}

fn deaf_to(seen: &mut Observed, name: &str) {
    seen.instances.get_mut(name).unwrap().age = Duration::from_secs(60);
}

fn primary(acks_needed: u32, struck: &[u32]) -> Role {
    Role::Primary { acks_needed, struck: struck.to_vec() }
}

fn follower(acknowledges: bool) -> Role {
    Role::Replica { source: "c-0".into(), acknowledges }
}

/// What instance-d says to an order.
fn obeys(name: &str, promised: u64, role: &Role, order: OrderKind, ask: &Ask) -> Option<RefusalCode> {
    match accept(&Standing { name, epoch: promised, role, order: Some(order) }, ask) {
        Verdict::Obey => None,
        Verdict::Refuse(code, _) => Some(code),
    }
}

/// The recorded primary runs on other data than that of its reign, and nobody gave it a role on it.
#[test]
fn primary_with_other_data_is_not_opened_again() {
    let mut seen = healthy(3);
    set(&mut seen, "c-0", |state| {
        *state = fresh("c-0");
        state.data_id = Some("another".into());
    });
    let opened = decide(&seen).orders.iter().any(|(_, order)| matches!(order, Order::Promote(_)));
    assert!(!opened, "{:?}", decide(&seen).orders);
}

fn failing_over(seen: &mut Observed, from: &str) {
    seen.record.operation = Some(Operation {
        id: operation_id(Kind::Failover, 2),
        kind: Kind::Failover,
        epoch: 2,
        from: Some(from.into()),
        to: None,
        to_data: None,
        phase: OperationPhase::Fencing,
        ackers: seen.record.ackers.clone(),
        acks_needed: seen.record.acks_needed,
        reason: String::new(),
    });
}

fn held(seen: &mut Observed, name: &str) {
    set(seen, name, |state| {
        let mysqld = state.mysqld.take();
        *state = InstanceState { promised: 2, role: Role::Fenced, in_force: true, mysqld, ..fresh(name) };
    });
    let state = seen.instances[name].state.clone().unwrap();
    seen.answers.insert(name.into(), Answer { epoch: 2, outcome: Outcome::Held(Box::new(state)) });
}

/// The pod of the old primary dies while `super_read_only=ON` has not returned yet. Its promise is of the failover's
/// epoch, its role is still that of a primary. Nothing raises the recorded epoch any more.
#[test]
fn old_primary_that_died_while_it_was_demoted_can_follow() {
    let mut seen = healthy(3);
    seen.record.epoch = 2;
    seen.record.primary = Some("c-1".into());
    seen.record.primary_data = Some("data-c-1".into());
    seen.record.ackers = [Name::from("c-2")].into();
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = primary(1, &[]);
        state.in_force = false;
        state.phase = Phase::Crashed;
        state.mysqld = None;
    });
    set(&mut seen, "c-1", |state| *state = InstanceState { promised: 2, ..super::super::fixture::primary("c-1", 1) });
    set(&mut seen, "c-2", |state| {
        *state = InstanceState { promised: 2, ..super::super::fixture::replica("c-2", "c-1") }
    });
    let plan = decide(&seen);
    assert_eq!(plan.record, None, "the epoch does not grow");
    let (_, order) = plan.orders.iter().find(|(name, _)| name == "c-0").expect("an order");
    let Order::Follow(order) = order else { panic!("{order:?}") };
    let ask = Ask {
        kind: OrderKind::Follow,
        epoch: order.epoch,
        role: Role::Replica { source: order.source.clone(), acknowledges: order.acknowledges },
    };
    assert_eq!(obeys("c-0", 2, &primary(1, &[]), OrderKind::Demote, &ask), None, "refused for ever");
}

/// c-1 was the primary and was stopped; crash recovery had committed what it alone holds. It is back, and runs. Only a
/// follow order makes instance-d look, say so and save it, and only then topology-ctl gives it other data.
#[test]
fn errant_instance_that_runs_is_told_to_follow_so_that_it_is_condemned() {
    let mut seen = healthy(3);
    seen.record.ackers.remove("c-1");
    set(&mut seen, "c-1", |state| *state = fresh("c-1"));
    holds(&mut seen, "c-1", &format!("{U2}:7"));
    seen.instances.get_mut("c-1").unwrap().errant = format!("{U2}:7").parse().unwrap();
    let told = decide(&seen).orders.iter().any(|(name, order)| name == "c-1" && matches!(order, Order::Follow(_)));
    assert!(told, "{:?}", decide(&seen).orders);
}

fn crashed(seen: &mut Observed, name: &str, epoch: u64) {
    set(seen, name, |state| {
        *state = InstanceState { promised: epoch, role: Role::Fenced, tail_unproven: true, ..fresh(name) };
        (state.phase, state.mysqld) = (Phase::Crashed, None);
    });
    seen.answers.insert(name.into(), Answer { epoch, outcome: Outcome::Dead });
}

/// The promise of a follow order that changes only `acknowledges` leaves `inForce` as it was: `moved` in
/// instance-d/src/orders/mod.rs looks at the source alone. Until the receiver has stopped, a controller sees
/// "promised, in force, does not acknowledge" of a mysqld that still does: see
/// `struck_acker_stays_locked_out_until_it_has_done_what_it_promised`. (As a pure function beside `accept` it could be used
/// here as it ships.)
#[test]
fn role_is_not_in_force_while_acknowledgements_are_being_switched_off() {
    let shipped = include_str!("../../../../instance-d/src/orders/mod.rs");
    let looks_at_the_source_alone =
        "(Role::Replica { source, .. }, Role::Replica { source: old, .. }) => source != old";
    assert!(!shipped.contains(looks_at_the_source_alone));
}

/// A switchover's candidate has opened in epoch 2, c-2 has acknowledged its first write, and its mysqld dies before it is
/// recorded. Held against the primary that is still recorded, and that never saw that write, c-2 looks errant: nobody
/// may be elected, the failover goes back, is begun again, and so on for ever (a crash is enough). With an open candidate
/// that was only taken for dead it is `SplitHistory` for ever. Through the memory, where errants are looked for.
#[test]
fn writes_of_a_candidate_that_is_not_recorded_yet_do_not_make_its_ackers_errant() {
    let now = std::time::Instant::now();
    let at = |ms: u64| now + Duration::from_millis(ms);
    let mut seen = healthy(3);
    let mut memory = crate::memory::Memory::new("ns", "c", now);
    let pods = (0..3u8).map(|ordinal| {
        let address = Some(std::net::IpAddr::from([10, 0, 0, ordinal]));
        (format!("c-{ordinal}"), crate::memory::PodFacts { address, ..Default::default() })
    });
    let pods = pods.collect();
    let fenced = |name: &str, text: &str| {
        let mut seen = healthy(3);
        holds(&mut seen, name, text);
        held(&mut seen, name);
        let mut state = seen.instances[name].state.clone().unwrap();
        (state.promised, state.role) = (3, Role::Fenced);
        (state.clone(), Answer { epoch: 3, outcome: Outcome::Held(Box::new(state)) })
    };
    let write = "00000000-0000-0000-0000-000000000001:1";
    let (old, old_answer) = fenced("c-0", "");
    let (acker, acker_answer) = fenced("c-2", write);
    crashed(&mut seen, "c-1", 2);
    let mut dead = seen.instances["c-1"].state.clone().unwrap();
    dead.role = primary(1, &[]);
    failing_over(&mut seen, "c-1");
    seen.record.operation.as_mut().unwrap().epoch = 3;
    seen.record.unproven = vec![Reign {
        primary: "c-1".into(),
        primary_data: Some("data-c-1".into()),
        ackers: ["c-0", "c-2"].map(Name::from).into(),
        acks_needed: 1,
    }];
    let recorded = Name::from("c-0");
    for sequence in 1..4 {
        for state in [&acker, &dead, &old] {
            let state = InstanceState { sequence, ..state.clone() };
            memory.heard(state, Some(&recorded), at(100 * sequence));
        }
    }
    memory.observe(&seen.record, &seen.wish, 0, &pods, at(400));
    memory.answered("c-0", old_answer);
    memory.answered("c-2", acker_answer);
    let seen = memory.observe(&seen.record, &seen.wish, 0, &pods, at(410));
    let plan = decide(&seen);
    let to = plan.record.and_then(|record| record.operation).and_then(|operation| operation.to);
    assert_eq!(to.as_deref(), Some("c-2"), "{:?}", plan.blocked);
}

/// Both ackers were condemned for what c-0 had in its binlog and waited to commit; then c-0 died and was started again in
/// place, and recovery committed it. Only they can prove its tail, and nothing is foreign any more.
#[test]
fn who_was_condemned_for_what_its_source_has_by_now_is_told_to_follow_again() {
    let mut seen = five();
    set(&mut seen, "c-0", |state| {
        state.tail_unproven = true;
        let mysqld = state.mysqld.as_mut().unwrap();
        (mysqld.super_read_only, mysqld.read_only) = (true, true);
    });
    let fail = |seen: &mut Observed, name: &str| {
        set(seen, name, |state| (state.phase, state.in_force) = (Phase::Failed, false));
    };
    fail(&mut seen, "c-1");
    fail(&mut seen, "c-2");
    holds(&mut seen, "c-2", &format!("{U0}:1-11"));
    let plan = decide(&seen);
    let told = |name: &str| plan.orders.iter().any(|(to, order)| to == name && matches!(order, Order::Follow(_)));
    assert!(told("c-1"), "{:?}", plan.orders);
    assert!(!told("c-2"), "it still holds what c-0 lacks: {:?}", plan.orders);
}

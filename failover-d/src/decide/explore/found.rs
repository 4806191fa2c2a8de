//! Violations that reading for the model brought up, and that were mended, each on the shipped functions.

use std::collections::BTreeSet;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{FenceOrder, InstanceState, Phase, RefusalCode, Role};

mod closed;

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

fn acks_of(plan: &Plan) -> Option<common::instance::AcksOrder> {
    plan.orders.iter().find_map(|(_, order)| match order {
        Order::Acks(acks) => Some(acks.clone()),
        _ => None,
    })
}

/// A controller that has not heard the primary for a minute, while the replicas do: what it last heard is of a time when
/// the primary waited for 2. Since then three ackers were struck (it waited for 1) and came back (recorded again).
#[test]
fn recorded_acks_are_not_raised_on_an_old_state_of_the_primary() {
    let mut seen = five();
    seen.record.epoch = 9;
    seen.record.acks_needed = 1;
    deaf_to(&mut seen, "c-0");
    assert_eq!(decide(&seen).record, None);
}

/// The same controller; since then the primary was another, and is the first again.
#[test]
fn earlier_reigns_are_not_dropped_on_an_old_state_of_the_primary() {
    let mut seen = five();
    seen.record.epoch = 9;
    seen.record.unproven = vec![Reign {
        primary: "c-1".into(),
        primary_data: Some("data-c-1".into()),
        ackers: ["c-0", "c-2", "c-3", "c-4"].map(Name::from).into(),
        acks_needed: 2,
    }];
    deaf_to(&mut seen, "c-0");
    assert_eq!(decide(&seen).record, None);
}

/// Both controllers hear everybody. Epoch 3 was recorded by a growth.
///
/// 1. One sees the ackers behind and orders what is recorded: 1 in epoch 3. The order is on its way.
/// 2. The other had ordered 2 in epoch 2; the primary obeys that first.
/// 3. It sees 2 in force, and records 2.
/// 4. The order of epoch 3 arrives: it is above the promise, so fewer are allowed. Commits wait for 1, recorded are 2.
#[test]
fn recorded_acks_are_not_raised_before_the_primary_has_promised_the_recorded_epoch() {
    let mut seen = five();
    seen.record.epoch = 3;
    seen.record.acks_needed = 1;
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = primary(1, &[]);
    });
    holds(&mut seen, "c-0", &format!("{U0}:1-200"));
    let late = acks_of(&decide(&seen)).expect("an order");
    assert_eq!((late.epoch, late.acks_needed), (3, 1));

    let mut seen = five();
    seen.record.epoch = 3;
    seen.record.acks_needed = 1;
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = primary(2, &[]);
    });
    let raised = decide(&seen).record;

    let ask = Ask { kind: OrderKind::Acks, epoch: late.epoch, role: primary(late.acks_needed, &[]) };
    assert_eq!(obeys("c-0", 2, &primary(2, &[]), OrderKind::Acks, &ask), None, "the late order is obeyed");
    assert_eq!(raised, None, "and yet more are recorded");
}

/// The strike of c-1 is recorded (epoch 5); c-1 is still away with acknowledgements switched on. This controller has
/// read the record and not yet the newest state of the primary, as after a pause that is shorter than `silent_after`.
#[test]
fn struck_acker_stays_locked_out_when_the_primarys_state_is_older_than_the_strike() {
    let mut seen = healthy(3);
    seen.record.epoch = 5;
    seen.record.ackers.remove("c-1");
    deaf_to(&mut seen, "c-1");
    let Some(order) = acks_of(&decide(&seen)) else { return };
    let ask = Ask { kind: OrderKind::Acks, epoch: order.epoch, role: primary(order.acks_needed, &order.struck) };
    assert_eq!(obeys("c-0", 5, &primary(1, &[1]), OrderKind::Acks, &ask), None, "the primary obeys");
    assert_eq!(order.struck, [1]);
}

/// c-1 was fenced in epoch 2, which made c-0 the primary, and was away since; it is struck (epoch 5). The order of epoch
/// 2 to follow and acknowledge is still held by a controller that was paused.
#[test]
fn struck_acker_stays_locked_out_until_it_has_promised_the_recorded_epoch() {
    let mut seen = healthy(3);
    seen.record.epoch = 5;
    seen.record.ackers.remove("c-1");
    set(&mut seen, "c-0", |state| {
        state.promised = 5;
        state.role = primary(1, &[1]);
    });
    set(&mut seen, "c-1", |state| {
        *state = fresh("c-1");
        state.promised = 2;
        state.role = Role::Fenced;
        state.in_force = true;
    });
    let ask = Ask { kind: OrderKind::Follow, epoch: 2, role: follower(true) };
    assert_eq!(obeys("c-1", 2, &Role::Fenced, OrderKind::Fence, &ask), None, "the old order is obeyed");
    let unlocked = acks_of(&decide(&seen)).is_some_and(|order| !order.struck.contains(&1));
    assert!(!unlocked, "{:?}", decide(&seen).orders);
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

/// c-1 was frozen and is struck (epoch 5). It has promised not to acknowledge any more, and its mysqld has not done
/// anything about it yet: the receiver goes on connecting, with acknowledgements switched on. Once it is let in, the
/// primary counts it, and nobody has recorded it.
#[test]
fn struck_acker_stays_locked_out_until_it_has_done_what_it_promised() {
    let mut seen = healthy(3);
    seen.record.epoch = 5;
    seen.record.ackers.remove("c-1");
    set(&mut seen, "c-0", |state| {
        state.promised = 5;
        state.role = primary(1, &[1]);
    });
    set(&mut seen, "c-1", |state| {
        state.promised = 5;
        state.role = follower(false);
        state.in_force = false;
        let replication = state.mysqld.as_mut().unwrap().replication.as_mut().unwrap();
        replication.receiver = common::instance::ReceiverState::Connecting;
        replication.acknowledges = false;
    });
    let unlocked = acks_of(&decide(&seen)).is_some_and(|order| !order.struck.contains(&1));
    assert!(!unlocked, "{:?}", decide(&seen).orders);
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

fn crashed(seen: &mut Observed, name: &str, epoch: u64) {
    set(seen, name, |state| {
        *state = InstanceState { promised: epoch, role: Role::Fenced, tail_unproven: true, ..fresh(name) };
        (state.phase, state.mysqld) = (Phase::Crashed, None);
    });
    seen.answers.insert(name.into(), Answer { epoch, outcome: Outcome::Dead });
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

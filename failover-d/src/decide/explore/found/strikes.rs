//! What a primary waits for, who is locked out, and what earlier reigns still count: decided on states that were old.

use super::*;

fn acks_of(plan: &Plan) -> Option<common::instance::AcksOrder> {
    plan.orders.iter().find_map(|(_, order)| match order {
        Order::Acks(acks) => Some(acks.clone()),
        _ => None,
    })
}

/// The strike of c-1 is recorded (epoch 5), and the primary has carried it out.
fn struck() -> Observed {
    let mut seen = healthy(3);
    seen.record.epoch = 5;
    seen.record.ackers.remove("c-1");
    set(&mut seen, "c-0", |state| {
        state.promised = 5;
        state.role = primary(1, &[1]);
    });
    seen
}

fn assert_stays_locked_out(seen: &Observed) {
    let unlocked = acks_of(&decide(seen)).is_some_and(|order| !order.struck.contains(&1));
    assert!(!unlocked, "{:?}", decide(seen).orders);
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
    let mut seen = struck();
    set(&mut seen, "c-1", |state| {
        *state = fresh("c-1");
        state.promised = 2;
        state.role = Role::Fenced;
        state.in_force = true;
    });
    let ask = Ask { kind: OrderKind::Follow, epoch: 2, role: follower(true) };
    assert_eq!(obeys("c-1", 2, &Role::Fenced, OrderKind::Fence, &ask), None, "the old order is obeyed");
    assert_stays_locked_out(&seen);
}

/// c-1 was frozen and is struck (epoch 5). It has promised not to acknowledge any more, and its mysqld has not done
/// anything about it yet: the receiver goes on connecting, with acknowledgements switched on. Once it is let in, the
/// primary counts it, and nobody has recorded it.
#[test]
fn struck_acker_stays_locked_out_until_it_has_done_what_it_promised() {
    let mut seen = struck();
    set(&mut seen, "c-1", |state| {
        state.promised = 5;
        state.role = follower(false);
        state.in_force = false;
        let replication = state.mysqld.as_mut().unwrap().replication.as_mut().unwrap();
        replication.receiver = common::instance::ReceiverState::Connecting;
        replication.acknowledges = false;
    });
    assert_stays_locked_out(&seen);
}

//! The first primary.

use super::*;

#[test]
fn bootstrap_waits_for_all_then_promotes_one_and_records_it() {
    let mut seen = newborn(3);
    set(&mut seen, "c-2", |state| state.phase = Phase::Initialising);
    assert_eq!(decide(&seen).record, None);
    set(&mut seen, "c-2", |state| state.phase = Phase::Running);
    let plan = decide(&seen);
    let operation = claimed(&plan).clone();
    assert_eq!((operation.kind, operation.epoch, operation.to.as_deref()), (Kind::Bootstrap, 1, Some("c-0")));
    assert_eq!((operation.acks_needed, operation.ackers.len()), (1, 2));
    recorded(&mut seen, &plan);
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert!(matches!(&plan.orders[0], (name, Order::Promote(order)) if name == "c-0" && order.ackers == [1, 2]));
    assert_eq!(plan.orders.len(), 3);
    let healthy = healthy(3);
    seen.instances = healthy.instances.clone();
    let plan = decide(&seen);
    assert_eq!(plan.record.as_ref(), Some(&healthy.record));
    assert_eq!(plan.routes.unwrap().primary.as_deref(), Some("c-0"));
}

#[test]
fn bootstrap_over_volumes_of_servers_that_died_starts_them_first() {
    let mut seen = newborn(3);
    for name in ["c-1", "c-2"] {
        executed(&mut seen, name, &format!("{U0}:1-8"));
    }
    set(&mut seen, "c-0", |state| (state.phase, state.mysqld, state.promised) = (Phase::Crashed, None, 4));
    let plan = decide(&seen);
    assert_eq!((plan.record, plan.blocked.unwrap().reason), (None, "WaitingForInstances"));
    assert_eq!(plan.orders, [("c-0".to_owned(), Order::Fence(common::instance::FenceOrder { epoch: 5, start: true }))]);
}

#[test]
fn bootstrap_over_kept_volumes_takes_the_longest_history_above_all_promises() {
    let mut seen = newborn(3);
    executed(&mut seen, "c-0", &format!("{U0}:1-5"));
    executed(&mut seen, "c-1", &format!("{U0}:1-7"));
    executed(&mut seen, "c-2", &format!("{U0}:1-6"));
    set(&mut seen, "c-2", |state| state.promised = 41);
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).to.as_deref(), claimed(&plan).epoch), (Some("c-1"), 42));
    executed(&mut seen, "c-2", "00000000-0000-0000-0000-000000000002:1");
    let plan = decide(&seen);
    assert_eq!((plan.record, plan.blocked.unwrap().reason), (None, "SplitHistory"));
}

//! The planned hand-over.

use super::*;

#[test]
fn primary_is_moved_off_before_it_is_scaled_away() {
    let mut seen = healthy(3);
    seen.wish.instances = 1;
    seen.record.primary = Some("c-2".into());
    seen.record.primary_data = Some("data-c-2".into());
    seen.record.ackers = ["c-0".to_owned(), "c-1".to_owned()].into();
    seen.instances.insert("c-2".into(), heard(super::fixture::primary("c-2", 1)));
    for name in ["c-0", "c-1"] {
        seen.instances.insert(name.into(), heard(replica(name, "c-2")));
    }
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).kind, claimed(&plan).to.as_deref()), (Kind::Switchover, Some("c-0")));
}

#[test]
fn switchover_goes_through_its_phases() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-0", &format!("{U0}:1-9"));
    executed(&mut seen, "c-1", &format!("{U0}:1-8"));
    seen.wish.primary = Some("c-1".into());
    let plan = decide(&seen);
    let operation = claimed(&plan).clone();
    assert_eq!((operation.kind, operation.epoch, operation.phase), (Kind::Switchover, 2, OperationPhase::HandingOver));
    assert_eq!(operation.ackers, ["c-0".to_owned(), "c-2".to_owned()].into());
    recorded(&mut seen, &plan);
    assert!(
        matches!(&decide(&seen).orders[..], [(name, Order::Follow(order))] if name == "c-2" && order.source == "c-1" && order.epoch == 2),
        "c-2 is not needed for acknowledgements and goes ahead"
    );
    let mut slow = seen.clone();
    slow.operation_age = Duration::from_secs(3);
    assert!(matches!(&decide(&slow).orders[..], [(name, Order::Demote(_))] if name == "c-0"), "nobody waits for ever");
    let mut ahead = replica("c-2", "c-1");
    ahead.promised = 2;
    seen.instances.insert("c-2".into(), heard(ahead));
    assert!(
        matches!(&decide(&seen).orders[..], [(name, Order::Demote(order))] if name == "c-0" && !order.kill && order.epoch == 2)
    );
    assert!(decide(&seen).routes.is_none(), "c-2 is not taken off for a moment");
    let mut long = seen.clone();
    long.operation_age = Duration::from_secs(2);
    let routes = decide(&long).routes.unwrap();
    assert_eq!(
        (routes.primary.as_deref(), routes.replicas.len()),
        (Some("c-0"), 1),
        "c-2 receives what c-0 does not know of"
    );
    answer(&mut seen, "c-0", 2);
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    let [(_, Order::Promote(early)), (looked_at, Order::Look)] = &plan.orders[..] else { panic!("{:?}", plan.orders) };
    assert_eq!(looked_at, "c-1");
    assert_eq!(early.must_hold, Some(format!("{U0}:1-9").parse().unwrap()), "the candidate lacks a transaction");
    assert!(plan.routes.is_none());
    let early = plan.orders[0].clone();
    executed(&mut seen, "c-1", &format!("{U0}:1-9"));
    let plan = decide(&seen);
    assert_eq!(plan.record, None, "nothing has to be written before the promotion");
    assert!(
        matches!(&plan.orders[0], (name, Order::Promote(order)) if name == "c-1" && order.epoch == 2 && order.ackers == [0, 2])
    );
    assert_eq!(plan.orders[0], early, "the same order is not given twice");
    assert!(plan.orders.iter().all(|(name, _)| name != "c-2"), "c-2 follows already");
    let mut applying = seen.clone();
    let state = applying.instances.get_mut("c-1").unwrap().state.as_mut().unwrap();
    state.mysqld.as_mut().unwrap().executed = format!("{U0}:1-8").parse().unwrap();
    assert!(decide(&applying).routes.is_none(), "it would show less than clients have written");
    assert_eq!(plan.routes.unwrap().primary.as_deref(), Some("c-1"), "clients are sent ahead: c-0 is closed");
    let mut state = super::fixture::primary("c-1", 1);
    state.promised = 2;
    seen.instances.insert("c-1".into(), heard(state));
    let plan = decide(&seen);
    assert_eq!(plan.routes.clone().unwrap().primary.as_deref(), Some("c-1"));
    let record = plan.record.unwrap();
    assert_eq!((record.epoch, record.primary.as_deref(), record.operation), (2, Some("c-1"), None));
}

#[test]
fn switchover_is_undone_when_the_primary_does_not_yield() {
    let mut seen = healthy(3);
    seen.wish.primary = Some("c-1".into());
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    seen.answers.insert("c-0".into(), Answer { epoch: 2, outcome: Outcome::Declined("a long statement".into()) });
    let plan = decide(&seen);
    assert!(plan.undone);
    let record = plan.record.clone().unwrap();
    assert_eq!((record.epoch, record.primary.as_deref(), record.operation.clone()), (3, Some("c-0"), None));
    recorded(&mut seen, &plan);
    seen.answers.clear();
    seen.last_undone = Some(Duration::from_secs(1));
    assert_eq!(decide(&seen).record, None, "not tried again at once");
}

#[test]
fn leaving_primary_hands_over_and_a_lagging_candidate_is_not_chosen() {
    let mut seen = healthy(3);
    set(&mut seen, "c-0", |state| state.leaving = true);
    seen.instances.get_mut("c-0").unwrap().stops = false;
    assert_eq!(decide(&seen).record, None, "its pod may be gone in a moment");
    seen.instances.get_mut("c-0").unwrap().stops = true;
    set(&mut seen, "c-1", |state| state.mysqld.as_mut().unwrap().replication.as_mut().unwrap().lag_seconds = 9.0);
    assert_eq!(claimed(&decide(&seen)).to.as_deref(), Some("c-2"));
    set(&mut seen, "c-2", |state| state.leaving = true);
    let plan = decide(&seen);
    assert_eq!((plan.record, plan.blocked.unwrap().reason), (None, "NoCandidate"));
}

/// A switchover to c-1 that was claimed, with all sent ahead.
fn handing_over() -> Observed {
    let mut seen = healthy(3);
    for name in ["c-0", "c-1"] {
        executed(&mut seen, name, &format!("{U0}:1-9"));
    }
    seen.wish.primary = Some("c-1".into());
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    let mut ahead = replica("c-2", "c-1");
    ahead.promised = 2;
    seen.instances.insert("c-2".into(), heard(ahead));
    seen
}

#[test]
fn who_did_not_hear_the_answer_goes_on_where_the_primary_was_told_to_follow() {
    let mut seen = handing_over();
    let mut told = replica("c-0", "c-1");
    told.promised = 2;
    seen.instances.insert("c-0".into(), heard(told));
    assert!(matches!(&decide(&seen).orders[0], (name, Order::Promote(_)) if name == "c-1"));
}

#[test]
fn what_the_primary_cannot_answer_is_proven_in_both_reigns() {
    let mut lost = handing_over();
    set(&mut lost, "c-1", |state| state.phase = Phase::Crashed);
    let mut died = handing_over();
    set(&mut died, "c-0", |state| state.phase = Phase::Crashed);
    let mut silent = handing_over();
    silent.operation_age = Duration::from_secs(7);
    let mut behind = silent.clone();
    answer(&mut behind, "c-0", 2);
    executed(&mut behind, "c-1", &format!("{U0}:1-8"));
    for seen in [lost, died, silent, behind] {
        let plan = decide(&seen);
        let operation = claimed(&plan);
        assert_eq!((operation.kind, operation.epoch, operation.from.as_deref()), (Kind::Failover, 3, Some("c-0")));
        let record = plan.record.as_ref().unwrap();
        assert_eq!(record.primary.as_deref(), Some("c-0"));
        assert_eq!(record.unproven[0].primary, "c-1", "it may have been promoted");
        assert!(plan.undone, "a switchover is not tried again at once");
    }
}

//! A primary that is lost: who is held still when, what its candidate may open with, and whose word is asked for.

use common::instance::{Epoch, FenceOrder, PromoteOrder};

use super::*;

fn crash(seen: &mut Observed, name: &str) {
    set(seen, name, |state| (state.phase, state.mysqld) = (Phase::Crashed, None));
}

fn fences(epoch: Epoch, names: &[&str]) -> Vec<(Name, Order)> {
    names.iter().map(|name| ((*name).into(), Order::Fence(FenceOrder { epoch, start: false }))).collect()
}

fn promotion(plan: &Plan) -> &PromoteOrder {
    let order = plan.orders.iter().find_map(|(_, order)| match order {
        Order::Promote(order) => Some(order),
        _ => None,
    });
    order.expect("a promote order")
}

#[test]
fn others_are_held_still_beside_the_claim_when_the_primary_serves_nobody() {
    let mut seen = healthy(3);
    crash(&mut seen, "c-0");
    assert_eq!(decide(&seen).orders, fences(2, &["c-1", "c-2"]));
    let mut seen = healthy(3);
    seen.instances.get_mut("c-0").unwrap().reachable = false;
    assert_eq!(decide(&seen).orders, fences(2, &["c-1", "c-2"]));
}

#[test]
fn nobody_is_held_still_before_the_claim_stands_when_the_primary_may_serve_or_the_epoch_may_be_another() {
    // It hangs: the claim may come to nothing, and it to life.
    let mut seen = healthy(3);
    set(&mut seen, "c-0", |state| state.canary.as_mut().unwrap().session_age_ms = 1600);
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).kind, plan.orders), (Kind::Failover, Vec::new()));
    // Somebody has promised more: who does not know that claims a lower epoch.
    let mut seen = healthy(3);
    crash(&mut seen, "c-0");
    set(&mut seen, "c-2", |state| state.promised = 4);
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).epoch, plan.orders), (5, Vec::new()));
}

#[test]
fn promise_of_a_claim_that_came_to_nothing_is_overtaken() {
    let mut seen = healthy(3);
    set(&mut seen, "c-2", |state| (state.promised, state.role) = (2, Role::Fenced));
    let plan = decide(&seen);
    assert_eq!(plan.record, None, "whoever had it given may be writing its claim");
    seen.instances.get_mut("c-2").unwrap().ahead_for = Duration::from_secs(4);
    let plan = decide(&seen);
    assert_eq!(plan.record, Some(Record { epoch: 3, ..seen.record.clone() }), "{}", plan.why);
    recorded(&mut seen, &plan);
    seen.instances.get_mut("c-2").unwrap().ahead_for = Duration::ZERO;
    let plan = decide(&seen);
    assert!(plan.orders.iter().any(|(name, order)| name == "c-2" && matches!(order, Order::Follow(_))), "{plan:?}");
}

#[test]
fn primary_without_a_pod_is_given_no_time_to_close() {
    let mut seen = healthy(3);
    seen.instances.get_mut("c-0").unwrap().reachable = false;
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    let budget = |seen: &Observed| {
        decide(seen).orders.iter().find_map(|(name, order)| match order {
            Order::Demote(order) if name == "c-0" && order.kill => Some(order.budget_ms),
            _ => None,
        })
    };
    let departed = budget(&seen).expect("it may run on until its kubelet kills it");
    seen.instances.get_mut("c-0").unwrap().reachable = true;
    assert!(departed < budget(&seen).unwrap());
}

/// Five instances, of which two have to acknowledge; c-0 is gone, and c-1 is being promoted with what `held` says.
fn promoting(held: [&str; 4]) -> Observed {
    let mut seen = healthy(5);
    for (ordinal, set) in (1..5).zip(held) {
        executed(&mut seen, &format!("c-{ordinal}"), set);
    }
    crash(&mut seen, "c-0");
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    for ordinal in 1..5 {
        let name = format!("c-{ordinal}");
        set(&mut seen, &name, |state| (state.promised, state.role) = (2, Role::Fenced));
        answer(&mut seen, &name, 2);
    }
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).to.as_deref(), Some("c-1"));
    recorded(&mut seen, &plan);
    seen
}

#[test]
fn candidate_stays_closed_while_the_next_election_could_miss_what_it_holds() {
    let (few, many) = (format!("{U0}:1-8"), format!("{U0}:1-9"));
    let order = |held| promotion(&decide(&promoting(held))).clone();
    assert!(!order([&few, &few, &few, &few]).tail_unproven);
    assert!(!order([&many, &many, &few, &few]).tail_unproven, "two hold it, as many as have to acknowledge");
    assert!(order([&many, &few, &few, &few]).tail_unproven, "it alone holds the last");
    let mut seen = promoting([&many, &many, &few, &few]);
    seen.instances.get_mut("c-1").unwrap().cleared = false;
    assert!(promotion(&decide(&seen)).tail_unproven, "the primary may never have had it, and speak again");

    let mut seen = promoting([&many, &few, &few, &few]);
    executed(&mut seen, "c-2", &many);
    assert!(!promotion(&decide(&seen)).tail_unproven, "one of its ackers has received it");
    seen.record.unproven = vec![Reign {
        primary: "c-3".into(),
        primary_data: Some("data-c-3".into()),
        ackers: ["c-0", "c-1", "c-2", "c-4"].map(Name::from).into(),
        acks_needed: 2,
    }];
    assert!(promotion(&decide(&seen)).tail_unproven, "the word of c-3 may be of before it was written");
    for name in ["c-2", "c-4"] {
        assert!(promotion(&decide(&seen)).tail_unproven);
        executed(&mut seen, name, &few);
        set(&mut seen, name, |state| (state.phase, state.mysqld, state.data_id) = (Phase::Empty, None, None));
    }
    assert!(!promotion(&decide(&seen)).tail_unproven, "two of its ackers can never say anything against it");
    let mut seen = promoting([&many, &few, &few, &few]);
    executed(&mut seen, "c-2", &many);
    executed(&mut seen, "c-4", &many);
    seen.record.unproven =
        vec![Reign { ackers: ["c-0", "c-4"].map(Name::from).into(), ..seen.record.reign().unwrap() }];
    assert!(!promotion(&decide(&seen)).tail_unproven, "as many of its own ackers hold it");
}

#[test]
fn closed_candidate_makes_do_with_the_ackers_that_are_left() {
    let (few, many) = (format!("{U0}:1-8"), format!("{U0}:1-9"));
    let mut seen = promoting([&many, &few, &few, &few]);
    for name in ["c-2", "c-3", "c-4"] {
        crash(&mut seen, name);
    }
    set(&mut seen, "c-1", |state| {
        (state.role, state.in_force) = (Role::Primary { acks_needed: 2, struck: vec![] }, false);
    });
    seen.operation_age = Duration::from_secs(60);
    assert_eq!(decide(&seen).record, None, "nobody can prove it");
    let mut follower = replica("c-2", "c-1");
    follower.promised = 2;
    follower.mysqld.as_mut().unwrap().received = gtids(&few);
    seen.instances.insert("c-2".into(), heard(follower));
    seen.operation_age = Duration::from_secs(20);
    assert_eq!(decide(&seen).record, None, "the others may come back");
    seen.operation_age = Duration::from_secs(60);
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).acks_needed, 1);
    assert_eq!((claimed(&plan).epoch, claimed(&plan).ackers.len()), (2, 3));
    recorded(&mut seen, &plan);
    assert!(promotion(&decide(&seen)).tail_unproven);
    set(&mut seen, "c-2", |state| state.mysqld.as_mut().unwrap().received = gtids(&many));
    assert!(!promotion(&decide(&seen)).tail_unproven);
}

/// c-2 reigned with the ackers c-0 and c-1, and has lost its data. c-0 was a primary before, died, and is down.
#[test]
fn acker_that_was_a_primary_and_is_down_is_started_for_its_word() {
    let mut seen = healthy(3);
    seen.record.primary = Some("c-2".into());
    seen.record.primary_data = Some("data-c-2".into());
    seen.record.ackers = ["c-0", "c-1"].map(Name::from).into();
    set(&mut seen, "c-2", |state| (state.phase, state.mysqld, state.data_id) = (Phase::Empty, None, None));
    set(&mut seen, "c-0", |state| (state.phase, state.mysqld, state.tail_unproven) = (Phase::Crashed, None, true));
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    answer(&mut seen, "c-1", 2);
    seen.answers.insert("c-0".into(), Answer { epoch: 2, outcome: Outcome::Dead });
    let started = |seen: &Observed| {
        decide(seen).orders.contains(&("c-0".into(), Order::Fence(FenceOrder { epoch: 2, start: true })))
    };
    assert!(!started(&seen), "its start would commit what nobody acknowledged");
    seen.operation_age = Duration::from_secs(6);
    assert!(started(&seen));
}

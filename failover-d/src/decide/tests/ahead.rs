//! Fences that go out ahead of the claim of a failover, and what their answers make of it.

use common::instance::{DemoteOrder, Epoch, FenceOrder};

use super::*;

fn fences(epoch: Epoch, names: &[&str]) -> Vec<(Name, Order)> {
    names.iter().map(|name| ((*name).into(), Order::Fence(FenceOrder { epoch, start: false }))).collect()
}

#[test]
fn others_are_held_still_beside_the_claim_when_the_primary_serves_nobody() {
    let mut seen = healthy(3);
    crash(&mut seen, "c-0");
    assert_eq!(decide(&seen).orders, fences(2, &["c-1", "c-2"]));
    let mut seen = healthy(3);
    seen.instances.get_mut("c-0").unwrap().reachable = false;
    let mut wanted = fences(2, &["c-1", "c-2"]);
    // Its kubelet has yet to kill it.
    wanted.push(("c-0".into(), Order::Demote(DemoteOrder { epoch: 2, budget_ms: 20, kill: true })));
    assert_eq!(decide(&seen).orders, wanted);
}

/// `name` has obeyed a fence order of this epoch, which no record knows of yet.
fn answered(seen: &mut Observed, name: &str, epoch: Epoch) {
    set(seen, name, |state| (state.promised, state.role) = (epoch, Role::Fenced));
    answer(seen, name, epoch);
}

#[test]
fn claim_is_written_with_its_election_when_the_answers_are_a_proof_by_then() {
    let mut seen = healthy(3);
    crash(&mut seen, "c-0");
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).phase, plan.can_wait), (OperationPhase::Fencing, true));
    answered(&mut seen, "c-2", 2);
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).phase, claimed(&plan).epoch), (OperationPhase::Fencing, 2), "one is no proof");
    assert_eq!((plan.orders, plan.can_wait), (fences(2, &["c-1"]), true));
    answered(&mut seen, "c-1", 2);
    let plan = decide(&seen);
    let operation = claimed(&plan);
    assert_eq!((operation.phase, operation.epoch), (OperationPhase::Promoting, 2));
    assert_eq!((operation.from.as_deref(), operation.to.as_deref()), (Some("c-0"), Some("c-1")));
    assert_eq!((&plan.orders, plan.can_wait), (&Vec::new(), false));
    assert_eq!(plan.routes.and_then(|routes| routes.primary).as_deref(), Some("c-1"), "clients are led ahead");
}

#[test]
fn election_waits_a_moment_for_whoever_may_hold_more() {
    let mut seen = healthy(4);
    assert_eq!((seen.record.ackers.len(), seen.record.acks_needed), (3, 2), "two of three prove it");
    crash(&mut seen, "c-0");
    answered(&mut seen, "c-1", 2);
    answered(&mut seen, "c-3", 2);
    let early = decide(&seen);
    assert_eq!((claimed(&early).phase, early.can_wait), (OperationPhase::Promoting, true));
    assert_eq!(early.orders, fences(2, &["c-2"]));
    let mut claim = claimed(&early).clone();
    (claim.phase, claim.to, claim.to_data) = (OperationPhase::Fencing, None, None);
    let mut late = seen.clone();
    late.record.operation = Some(claim);
    let plan = decide(&late);
    assert_eq!((claimed(&plan).phase, plan.can_wait), (OperationPhase::Promoting, true));
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    answered(&mut seen, "c-2", 2);
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).to.as_deref(), plan.can_wait), (Some("c-2"), false), "nobody has to be cloned over");
}

#[test]
fn claim_is_not_put_off_when_nobody_is_left_to_answer() {
    let mut seen = healthy(3);
    crash(&mut seen, "c-0");
    answered(&mut seen, "c-1", 2);
    seen.answers.insert("c-2".into(), Answer { epoch: 2, outcome: Outcome::Declined("busy".into()) });
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).phase, plan.can_wait), (OperationPhase::Fencing, false));
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

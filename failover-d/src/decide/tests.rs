#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use common::instance::{FollowOrder, Phase, ReceiverState, Role};

use super::fixture::{fresh, healthy, heard, newborn, replica};
use super::*;

mod ahead;
mod bootstrap;
mod lost;
mod switchover;

fn set(seen: &mut Observed, name: &str, change: impl FnOnce(&mut common::instance::InstanceState)) {
    change(seen.instances.get_mut(name).unwrap().state.as_mut().unwrap());
}

fn crash(seen: &mut Observed, name: &str) {
    set(seen, name, |state| (state.phase, state.mysqld) = (Phase::Crashed, None));
}

fn gtids(text: &str) -> common::gtid::GtidSet {
    text.parse().unwrap()
}

fn executed(seen: &mut Observed, name: &str, text: &str) {
    set(seen, name, |state| {
        let mysqld = state.mysqld.as_mut().unwrap();
        mysqld.executed = gtids(text);
        mysqld.received = gtids(text);
    });
}

fn claimed(plan: &Plan) -> &Operation {
    plan.record.as_ref().expect("a record").operation.as_ref().expect("an operation")
}

/// Writes the plan's record, as the shell does.
fn recorded(seen: &mut Observed, plan: &Plan) {
    seen.record = plan.record.clone().expect("a record");
}

fn answer(seen: &mut Observed, name: &str, epoch: u64) {
    let state = seen.instances[name].state.clone().unwrap();
    seen.answers.insert(name.into(), Answer { epoch, outcome: Outcome::Held(Box::new(state)) });
}

const U0: &str = "00000000-0000-0000-0000-000000000000";

#[test]
fn acks_wanted_is_half_of_the_instances_and_no_more_than_the_ackers() {
    let table = [(1, 0, 0), (2, 1, 1), (3, 2, 1), (3, 1, 1), (3, 0, 0), (4, 3, 2), (5, 4, 2), (5, 1, 1), (9, 8, 4)];
    for (instances, ackers, wanted) in table {
        assert_eq!(acks_wanted(instances, ackers), wanted, "{instances} instances, {ackers} ackers");
    }
}

#[test]
fn healthy_cluster_is_left_alone() {
    for instances in [1, 2, 3, 5, 9] {
        let plan = decide(&healthy(instances));
        assert_eq!(plan.record, None, "{instances}: {}", plan.why);
        assert!(plan.orders.is_empty(), "{instances}: {:?}", plan.orders);
        assert_eq!(plan.blocked, None);
        let routes = plan.routes.unwrap();
        assert_eq!(routes.primary.as_deref(), Some("c-0"));
        assert_eq!(routes.replicas.len(), if instances == 1 { 1 } else { instances as usize - 1 });
    }
}

#[test]
fn restarted_replica_is_told_to_follow_again() {
    let mut seen = healthy(3);
    let mut state = fresh("c-1");
    state.promised = 1;
    state.role = Role::Replica { source: "c-0".into(), acknowledges: true };
    seen.instances.insert("c-1".into(), heard(state));
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert!(
        matches!(&plan.orders[..], [(name, Order::Follow(order))] if name == "c-1" && order.acknowledges && order.source == "c-0" && order.epoch == 1)
    );
    assert!(!plan.routes.unwrap().replicas.contains("c-1"));
}

#[test]
fn lagging_or_broken_replica_leaves_the_reads_and_comes_back() {
    let mut seen = healthy(3);
    let lag = |seen: &mut Observed, seconds: f64| {
        set(seen, "c-1", |state| state.mysqld.as_mut().unwrap().replication.as_mut().unwrap().lag_seconds = seconds);
    };
    lag(&mut seen, 11.0);
    assert_eq!(decide(&seen).routes.unwrap().replicas.into_iter().collect::<Vec<_>>(), ["c-2"]);
    set(&mut seen, "c-2", |state| {
        state.mysqld.as_mut().unwrap().replication.as_mut().unwrap().applier_error = "1062".into();
    });
    assert_eq!(
        decide(&seen).routes.unwrap().replicas.into_iter().collect::<Vec<_>>(),
        ["c-0"],
        "reads go to the primary"
    );
    lag(&mut seen, 1.0);
    assert_eq!(decide(&seen).routes.unwrap().replicas.into_iter().collect::<Vec<_>>(), ["c-1"]);
}

#[test]
fn growing_records_the_acker_before_it_acknowledges_and_raises_the_count_last() {
    let mut seen = healthy(1);
    seen.wish.instances = 3;
    executed(&mut seen, "c-0", &format!("{U0}:1-100"));
    for name in ["c-1", "c-2"] {
        let mut state = replica(name, "c-0");
        state.role = Role::Replica { source: "c-0".into(), acknowledges: false };
        state.mysqld.as_mut().unwrap().replication.as_mut().unwrap().acknowledges = false;
        seen.instances.insert(name.into(), heard(state));
        executed(&mut seen, name, &format!("{U0}:1-99"));
    }
    let plan = decide(&seen);
    let record = plan.record.clone().unwrap();
    assert_eq!((record.epoch, record.ackers.len(), record.acks_needed), (2, 2, 0));
    recorded(&mut seen, &plan);
    // Now they are told; the primary waits for nobody yet.
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert_eq!(
        plan.orders.iter().filter(|(_, order)| matches!(order, Order::Follow(order) if order.acknowledges)).count(),
        2
    );
    assert!(plan.orders.iter().all(|(_, order)| !matches!(order, Order::Acks(order) if order.acks_needed > 0)));
    for name in ["c-1", "c-2"] {
        let mut state = replica(name, "c-0");
        state.promised = 2;
        seen.instances.insert(name.into(), heard(state));
        executed(&mut seen, name, &format!("{U0}:1-99"));
    }
    let plan = decide(&seen);
    assert_eq!(plan.record, None, "not recorded before it holds");
    assert!(
        plan.orders
            .iter()
            .any(|(name, order)| name == "c-0" && matches!(order, Order::Acks(order) if order.acks_needed == 1))
    );
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = Role::Primary { acks_needed: 1, struck: vec![] };
    });
    assert_eq!(decide(&seen).record, None, "not recorded before an acker holds everything");
    executed(&mut seen, "c-2", &format!("{U0}:1-100"));
    assert_eq!(decide(&seen).record.unwrap().acks_needed, 1);
}

#[test]
fn scaling_down_lowers_the_count_then_strikes_with_proof() {
    let mut seen = healthy(5);
    seen.wish.instances = 3;
    for name in ["c-0", "c-1", "c-2", "c-3", "c-4"] {
        executed(&mut seen, name, &format!("{U0}:1-9"));
    }
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).kind, claimed(&plan).to.as_deref()), (Kind::Reconfigure, Some("c-3")));
    assert_eq!(plan.record.as_ref().unwrap().acks_needed, 1, "fewer is recorded before it is fewer");
    recorded(&mut seen, &plan);
    let plan = decide(&seen);
    assert!(plan.orders.iter().any(|(name, order)| name == "c-0"
        && matches!(order, Order::Acks(order) if order.struck == [3, 4] && order.acks_needed == 1)));
    assert!(
        plan.orders
            .iter()
            .any(|(name, order)| name == "c-3" && matches!(order, Order::Follow(order) if !order.acknowledges))
    );
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = Role::Primary { acks_needed: 1, struck: vec![3, 4] };
    });
    for name in ["c-1", "c-2"] {
        executed(&mut seen, name, &format!("{U0}:1-8"));
    }
    assert_eq!(decide(&seen).record, None, "c-3 and c-4 may hold the only acknowledged copies of 9");
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    set(&mut seen, "c-0", |state| state.in_force = false);
    assert_eq!(decide(&seen).record, None, "the lock is persisted and not in force yet");
    set(&mut seen, "c-0", |state| state.in_force = true);
    let record = decide(&seen).record.unwrap();
    assert_eq!((record.epoch, record.ackers.len(), record.acks_needed, record.operation), (2, 2, 1, None));
}

#[test]
fn new_primary_is_no_proof_alone_before_its_ackers_hold_what_it_holds() {
    let mut seen = healthy(3);
    seen.instances.get_mut("c-0").unwrap().refused = true;
    executed(&mut seen, "c-1", &format!("{U0}:1-8"));
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    answer(&mut seen, "c-1", 2);
    answer(&mut seen, "c-2", 2);
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    let mut state = super::fixture::primary("c-2", 1);
    state.role = Role::Primary { acks_needed: 1, struck: vec![0] };
    state.promised = 2;
    seen.instances.insert("c-2".into(), heard(state));
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    let before = seen.record.reign().unwrap();
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((seen.record.primary.as_deref(), seen.record.acks_needed), (Some("c-2"), 1));
    assert_eq!(seen.record.unproven, [before], "what c-0 acknowledged may be on c-2 alone");
    let mut state = replica("c-1", "c-2");
    state.promised = 2;
    seen.instances.insert("c-1".into(), heard(state));
    executed(&mut seen, "c-1", &format!("{U0}:1-8"));
    let mut dead = seen.clone();
    dead.instances.get_mut("c-2").unwrap().refused = true;
    assert_eq!(decide(&dead).blocked.unwrap().reason, "QuorumNotProvable", "9 is on c-2 alone");
    let plan = decide(&seen);
    assert!(plan.record.is_none() && plan.orders.iter().all(|(_, order)| !matches!(order, Order::Acks(_))), "{plan:?}");
    executed(&mut seen, "c-1", &format!("{U0}:1-9"));
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((seen.record.unproven.len(), seen.record.epoch), (0, 2));
    dead.record = seen.record.clone();
    assert_eq!(claimed(&decide(&dead)).kind, Kind::Failover, "c-1 alone proves it now");
}

#[test]
fn last_acker_of_a_lossless_cluster_is_never_struck() {
    let mut seen = healthy(3);
    seen.record.ackers = ["c-1".to_owned()].into();
    for name in ["c-1", "c-2"] {
        let instance = seen.instances.get_mut(name).unwrap();
        instance.state = None;
        instance.unhealthy_for = Duration::from_secs(3600);
    }
    assert_eq!(decide(&seen).record, None);
    seen.wish.available = true;
    assert_eq!(claimed(&decide(&seen)).kind, Kind::Reconfigure);
    seen.record.ackers.insert("c-2".into());
    assert!(claimed(&decide(&seen)).ackers.is_empty(), "both are lost at once");
}

#[test]
fn acker_without_data_is_struck_at_once_and_a_missing_one_after_the_grace() {
    let mut seen = healthy(3);
    set(&mut seen, "c-2", |state| {
        state.phase = Phase::Empty;
        state.mysqld = None;
    });
    assert_eq!(claimed(&decide(&seen)).to.as_deref(), Some("c-2"));
    let mut seen = healthy(3);
    let gone = seen.instances.get_mut("c-1").unwrap();
    gone.reachable = false;
    gone.state = None;
    gone.unhealthy_for = STRIKE_AFTER;
    assert_eq!(decide(&seen).record, None);
    seen.instances.get_mut("c-1").unwrap().unhealthy_for += Duration::from_secs(1);
    assert_eq!(claimed(&decide(&seen)).to.as_deref(), Some("c-1"));
}

#[test]
fn errant_replica_gets_no_order_and_no_reads() {
    let mut seen = healthy(3);
    seen.instances.get_mut("c-1").unwrap().errant = gtids("00000000-0000-0000-0000-000000000007:1");
    let plan = decide(&seen);
    assert!(plan.orders.is_empty());
    assert!(!plan.routes.unwrap().replicas.contains("c-1"));
}

#[test]
fn hands_off_means_nothing_is_done() {
    let mut seen = healthy(3);
    seen.wish.hands_off = Some("spec.paused");
    seen.instances.get_mut("c-0").unwrap().refused = true;
    let plan = decide(&seen);
    assert!(plan.record.is_none() && plan.orders.is_empty() && plan.routes.is_none());
}

#[test]
fn primary_is_closed_before_its_cluster_sleeps_and_opens_again_when_it_wakes() {
    let mut seen = healthy(3);
    seen.wish.hands_off = Some("spec.hibernated");
    seen.wish.hibernated = true;
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((seen.record.epoch, seen.record.operation.clone()), (2, None));
    let plan = decide(&seen);
    assert!(matches!(&plan.orders[..], [(name, Order::Demote(order))] if name == "c-0" && order.epoch == 2));
    let mut state = fresh("c-0");
    state.promised = 2;
    state.role = Role::Fenced;
    seen.instances.insert("c-0".into(), heard(state));
    let plan = decide(&seen);
    assert!(plan.orders.is_empty() && plan.record.is_none());
    seen.wish.hands_off = None;
    seen.wish.hibernated = false;
    let plan = decide(&seen);
    assert!(
        plan.orders
            .iter()
            .any(|(name, order)| name == "c-0" && matches!(order, Order::Promote(order) if order.epoch == 2))
    );
}

#[test]
fn fenced_replica_holds_still_and_comes_back() {
    let mut seen = healthy(3);
    seen.wish.fenced.insert("c-2".into());
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((seen.record.epoch, seen.record.operation.clone()), (2, None), "the fence has an epoch of its own");
    assert_eq!(
        decide(&seen).orders,
        [("c-2".to_owned(), Order::Fence(common::instance::FenceOrder { epoch: 2, start: false }))]
    );
    set(&mut seen, "c-2", |state| {
        state.promised = 2;
        state.role = Role::Fenced;
    });
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert!(plan.orders.iter().all(|(name, _)| name != "c-2"), "{:?}", plan.orders);
    assert!(!plan.routes.unwrap().replicas.contains("c-2"));
    seen.wish.fenced.clear();
    assert!(decide(&seen).orders.iter().any(|(name, order)| name == "c-2" && matches!(order, Order::Follow(_))));
}

#[test]
fn fenced_primary_is_closed_and_nobody_takes_its_place() {
    let mut seen = healthy(3);
    seen.wish.fenced.insert("c-0".into());
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).kind, claimed(&plan).to.clone()), (Kind::Fence, None));
    recorded(&mut seen, &plan);
    assert!(
        matches!(&decide(&seen).orders[..], [(name, Order::Demote(order))] if name == "c-0" && order.kill && order.epoch == 2)
    );
    set(&mut seen, "c-0", |state| {
        state.promised = 2;
        state.role = Role::Fenced;
        state.mysqld.as_mut().unwrap().super_read_only = true;
        state.mysqld.as_mut().unwrap().offline = true;
    });
    answer(&mut seen, "c-0", 2);
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((seen.record.epoch, seen.record.primary.as_deref()), (2, Some("c-0")));
    seen.answers.clear();
    let plan = decide(&seen);
    assert_eq!((plan.record.clone(), plan.blocked.unwrap().reason), (None, "FencedByHand"));
    seen.instances.get_mut("c-0").unwrap().refused = true;
    assert_eq!(decide(&seen).record, None, "not even when it dies");
    seen.instances.get_mut("c-0").unwrap().refused = false;
    seen.wish.fenced.clear();
    assert!(decide(&seen).orders.iter().any(|(name, order)| name == "c-0" && matches!(order, Order::Promote(_))));
}

#[test]
fn loss_is_accepted_for_the_recorded_epoch_only_and_is_recorded() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-0", &format!("{U0}:1-9"));
    executed(&mut seen, "c-1", &format!("{U0}:1-7"));
    seen.instances.get_mut("c-0").unwrap().refused = true;
    seen.instances.get_mut("c-2").unwrap().refused = true;
    seen.wish.accept_loss = Some(7);
    let blocked = decide(&seen).blocked.unwrap();
    assert!(blocked.reason == "QuorumNotProvable" && blocked.message.contains("accept-loss=1"), "{blocked:?}");
    seen.wish.accept_loss = Some(1);
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).kind, Kind::Failover);
    recorded(&mut seen, &plan);
    assert!(decide(&seen).record.is_none(), "c-1 is asked first");
    answer(&mut seen, "c-1", 2);
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!(seen.record.operation.as_ref().unwrap().to.as_deref(), Some("c-1"));
    assert_eq!(seen.record.primary, None);
    let loss = seen.record.losses[0].clone();
    assert_eq!((loss.epoch, loss.kept.as_str(), loss.known_lost), (1, "c-1", gtids(&format!("{U0}:8-9"))));
    let mut state = super::fixture::primary("c-1", 0);
    state.promised = 2;
    seen.instances.insert("c-1".into(), heard(state));
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!(
        (seen.record.primary.as_deref(), seen.record.unproven.len(), seen.record.losses.len()),
        (Some("c-1"), 0, 1)
    );
}

#[test]
fn of_two_histories_a_person_names_the_one_to_keep() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-1", &format!("{U0}:1-7"));
    executed(&mut seen, "c-2", &format!("{U0}:1-6:8"));
    seen.instances.get_mut("c-0").unwrap().refused = true;
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    answer(&mut seen, "c-1", 2);
    answer(&mut seen, "c-2", 2);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "SplitHistory");
    seen.wish.accept_loss = Some(1);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "SplitHistory");
    seen.wish.primary = Some("c-2".into());
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).to.as_deref(), Some("c-2"));
    assert_eq!(plan.record.unwrap().losses[0].known_lost, gtids(&format!("{U0}:7")));
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use common::instance::{FollowOrder, Phase, ReceiverState, Role};

use super::fixture::{fresh, healthy, heard, newborn, replica};
use super::*;

mod lost;

fn set(seen: &mut Observed, name: &str, change: impl FnOnce(&mut common::instance::InstanceState)) {
    change(seen.instances.get_mut(name).unwrap().state.as_mut().unwrap());
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

/// A cluster of five whose failover from c-0 has come to promoting c-1.
fn promoting_of_five() -> Observed {
    let mut seen = healthy(5);
    seen.instances.get_mut("c-0").unwrap().refused = true;
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    for name in ["c-1", "c-2", "c-3", "c-4"] {
        set(&mut seen, name, |state| {
            state.promised = 2;
            state.role = Role::Fenced;
        });
        answer(&mut seen, name, 2);
    }
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!(seen.record.operation.as_ref().unwrap().to.as_deref(), Some("c-1"));
    seen
}

#[test]
fn candidate_that_dies_while_it_is_promoted_is_replaced_with_proof_of_both_reigns() {
    let mut seen = promoting_of_five();
    seen.instances.get_mut("c-1").unwrap().refused = true;
    let plan = decide(&seen);
    let operation = claimed(&plan).clone();
    assert_eq!((operation.kind, operation.epoch, operation.from.as_deref()), (Kind::Failover, 3, Some("c-1")));
    assert_eq!(operation.phase, OperationPhase::Fencing);
    let record = plan.record.clone().unwrap();
    assert_eq!(record.primary.as_deref(), Some("c-0"), "its reign still has to be proven");
    assert_eq!(record.unproven.len(), 1, "and c-1 may have opened");
    assert_eq!(record.unproven[0].primary, "c-1");
    recorded(&mut seen, &plan);
    seen.answers.clear();
    answer(&mut seen, "c-2", 3);
    answer(&mut seen, "c-3", 3);
    assert_eq!(
        decide(&seen).blocked.unwrap().reason,
        "QuorumNotProvable",
        "two of four may lack what the other two hold"
    );
    // c-1 was open for a moment, and what it acknowledged is on c-3 and c-4.
    executed(&mut seen, "c-4", &format!("{U0}:1-3"));
    answer(&mut seen, "c-4", 3);
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).to.as_deref(), Some("c-4"));
}

#[test]
fn candidate_that_dies_in_a_cluster_of_three_is_waited_for_unless_the_old_primary_speaks() {
    let mut seen = healthy(3);
    seen.wish.primary = Some("c-1".into());
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    seen.record.operation.as_mut().unwrap().phase = OperationPhase::Promoting;
    for name in ["c-0", "c-1", "c-2"] {
        set(&mut seen, name, |state| {
            state.promised = 2;
            state.role = Role::Fenced;
            state.mysqld.as_mut().unwrap().super_read_only = true;
        });
    }
    seen.instances.get_mut("c-1").unwrap().refused = true;
    let mut alone = seen.clone();
    alone.instances.get_mut("c-0").unwrap().refused = true;
    assert_eq!(decide(&alone).record, None, "c-2 alone proves nothing of what c-0 acknowledged");
    let plan = decide(&seen);
    recorded(&mut seen, &plan);
    assert_eq!((claimed(&plan).epoch, claimed(&plan).from.as_deref()), (3, Some("c-1")));
    executed(&mut seen, "c-0", &format!("{U0}:1-9"));
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    answer(&mut seen, "c-2", 3);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "QuorumNotProvable");
    let mut other_data = seen.clone();
    set(&mut other_data, "c-0", |state| state.data_id = Some("cloned since".into()));
    answer(&mut other_data, "c-0", 3);
    assert_eq!(decide(&other_data).blocked.unwrap().reason, "QuorumNotProvable", "its data is not what acknowledged");
    answer(&mut seen, "c-0", 3);
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).to.as_deref(), Some("c-0"), "it holds all of its own reign, and what c-2 holds");
}

#[test]
fn ackers_that_are_down_after_an_unclean_stop_are_fenced_too() {
    let mut seen = healthy(3);
    let gone = seen.instances.get_mut("c-0").unwrap();
    gone.reachable = false;
    gone.state = None;
    for name in ["c-1", "c-2"] {
        set(&mut seen, name, |state| {
            state.phase = Phase::Crashed;
            state.mysqld = None;
        });
    }
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).kind, Kind::Failover);
    recorded(&mut seen, &plan);
    assert_eq!(decide(&seen).orders.iter().filter(|(_, order)| matches!(order, Order::Fence(_))).count(), 2);
}

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
fn switchover_goes_through_its_phases() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-0", &format!("{U0}:1-9"));
    executed(&mut seen, "c-1", &format!("{U0}:1-8"));
    seen.wish.primary = Some("c-1".into());
    let plan = decide(&seen);
    let operation = claimed(&plan).clone();
    assert_eq!((operation.kind, operation.epoch, operation.phase), (Kind::Switchover, 2, OperationPhase::Demoting));
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
    answer(&mut seen, "c-0", 2);
    let plan = decide(&seen);
    assert_eq!(plan.record, None, "the candidate lacks a transaction");
    assert_eq!(plan.orders, [("c-1".to_owned(), Order::Look)]);
    executed(&mut seen, "c-1", &format!("{U0}:1-9"));
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).phase, OperationPhase::Promoting);
    assert_eq!(plan.routes.clone().unwrap().primary.as_deref(), Some("c-1"), "clients go there while that is written");
    recorded(&mut seen, &plan);
    let plan = decide(&seen);
    assert!(
        matches!(&plan.orders[0], (name, Order::Promote(order)) if name == "c-1" && order.epoch == 2 && order.ackers == [0, 2])
    );
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
    seen.answers.insert("c-0".into(), Answer { epoch: 2, outcome: Outcome::Refused("a long statement".into()) });
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

#[test]
fn dead_primary_is_failed_over_with_proof() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-1", &format!("{U0}:1-8"));
    executed(&mut seen, "c-2", &format!("{U0}:1-9"));
    set(&mut seen, "c-0", |state| {
        state.phase = Phase::Crashed;
        state.mysqld = None;
    });
    let plan = decide(&seen);
    assert_eq!((claimed(&plan).kind, claimed(&plan).epoch), (Kind::Failover, 2));
    recorded(&mut seen, &plan);
    let plan = decide(&seen);
    assert_eq!(plan.orders.iter().filter(|(_, order)| matches!(order, Order::Fence(_))).count(), 2);
    answer(&mut seen, "c-1", 2);
    assert_eq!(decide(&seen).record, None, "one of two with one ack needed proves nothing");
    answer(&mut seen, "c-2", 2);
    assert_eq!(claimed(&decide(&seen)).to.as_deref(), Some("c-2"));
    executed(&mut seen, "c-1", "00000000-0000-0000-0000-000000000007:1");
    answer(&mut seen, "c-1", 2);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "SplitHistory");
}

#[test]
fn received_set_that_shrank_proves_nothing() {
    let mut seen = healthy(3);
    let plan = {
        seen.instances.get_mut("c-0").unwrap().refused = true;
        decide(&seen)
    };
    recorded(&mut seen, &plan);
    for name in ["c-1", "c-2"] {
        executed(&mut seen, name, &format!("{U0}:1-8"));
        answer(&mut seen, name, 2);
    }
    seen.instances.get_mut("c-1").unwrap().high_water = gtids(&format!("{U0}:1-9"));
    assert_eq!(decide(&seen).blocked.unwrap().reason, "QuorumNotProvable");
}

#[test]
fn silence_alone_is_no_evidence_while_a_replica_hears_the_primary() {
    let mut seen = healthy(3);
    seen.instances.get_mut("c-0").unwrap().age = Duration::from_secs(5);
    assert_eq!(decide(&seen).record, None);
    for name in ["c-1", "c-2"] {
        set(&mut seen, name, |state| {
            state.mysqld.as_mut().unwrap().replication.as_mut().unwrap().receiver = ReceiverState::Connecting;
        });
    }
    assert_eq!(claimed(&decide(&seen)).kind, Kind::Failover);
}

#[test]
fn hung_primary_is_evidence_and_too_many_changes_ask_for_a_person() {
    let mut seen = healthy(3);
    set(&mut seen, "c-0", |state| state.canary.as_mut().unwrap().session_age_ms = 1600);
    assert_eq!(claimed(&decide(&seen)).kind, Kind::Failover);
    seen.recent_changes = 6;
    assert_eq!(decide(&seen).blocked.unwrap().reason, "TooManyChanges");
    seen.recent_changes = 0;
    seen.wish.failover = false;
    assert_eq!(decide(&seen).blocked.unwrap().reason, "FailoverDisabled");
    assert!(decide(&seen).orders.is_empty(), "it hangs: nothing is done without a person");
    let state = seen.instances.get_mut("c-0").unwrap().state.as_mut().unwrap();
    (state.phase, state.mysqld) = (Phase::Crashed, None);
    let plan = decide(&seen);
    assert_eq!((plan.record.is_none(), plan.blocked.unwrap().reason), (true, "FailoverDisabled"));
    assert!(plan.orders.iter().any(|(name, order)| name == "c-0" && matches!(order, Order::Promote(_))), "in place");
    set(&mut seen, "c-0", |state| state.phase = Phase::Starting);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "FailoverDisabled", "and so it stays while it starts");
}

#[test]
fn crashed_primary_is_not_started_in_place_before_the_ackers_had_time_to_speak() {
    let mut seen = healthy(3);
    set(&mut seen, "c-0", |state| (state.phase, state.mysqld) = (Phase::Crashed, None));
    for name in ["c-1", "c-2"] {
        let unheard = seen.instances.get_mut(name).unwrap();
        (unheard.state, unheard.age) = (None, Duration::from_millis(20));
    }
    assert!(decide(&seen).orders.is_empty());
    for name in ["c-1", "c-2"] {
        seen.instances.get_mut(name).unwrap().age = Duration::from_secs(2);
    }
    assert!(decide(&seen).orders.iter().any(|(name, order)| name == "c-0" && matches!(order, Order::Promote(_))));
}

#[test]
fn crashed_primary_without_provable_replicas_starts_again_in_place() {
    let mut seen = healthy(3);
    for name in ["c-1", "c-2"] {
        let gone = seen.instances.get_mut(name).unwrap();
        (gone.state, gone.age) = (None, Duration::from_secs(2));
    }
    set(&mut seen, "c-0", |state| {
        state.phase = Phase::Crashed;
        state.mysqld = None;
    });
    let plan = decide(&seen);
    assert_eq!(plan.record, None);
    assert!(matches!(&plan.orders[..], [(name, Order::Promote(order))] if name == "c-0" && order.epoch == 1));
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

#[test]
fn whoever_is_down_is_started_after_the_candidate_and_followers_know_what_that_holds() {
    let mut seen = promoting_of_five();
    seen.instances.get_mut("c-0").unwrap().refused = false;
    set(&mut seen, "c-0", |state| (state.phase, state.mysqld) = (Phase::Crashed, None));
    executed(&mut seen, "c-1", &format!("{U0}:1-9"));
    let follows = |seen: &Observed| -> BTreeMap<Name, FollowOrder> {
        let orders = decide(seen).orders.into_iter();
        orders.filter_map(|(name, order)| if let Order::Follow(it) = order { Some((name, it)) } else { None }).collect()
    };
    let told = follows(&seen);
    assert_eq!(told.keys().map(String::as_str).collect::<Vec<_>>(), ["c-2", "c-3", "c-4"]);
    assert!(told.values().all(|order| order.source_holds == Some(gtids(&format!("{U0}:1-9")))), "{told:?}");
    set(&mut seen, "c-1", |state| state.in_force = false);
    assert!(follows(&seen).values().all(|order| order.source_holds.is_none()), "it may be of before the fence");
    seen.operation_age = Duration::from_secs(2);
    assert!(follows(&seen).contains_key("c-0"), "the candidate takes long");
    let mut steady = healthy(3);
    set(&mut steady, "c-1", |state| state.in_force = false);
    let before = follows(&steady);
    executed(&mut steady, "c-0", &format!("{U0}:1-9"));
    assert_eq!((follows(&steady), before.len()), (before, 1), "a write makes no new order");
}

//! A primary that is lost: what its candidate may open with, and whose word is asked for.

use common::instance::{FenceOrder, PromoteOrder};

use super::*;

fn promotion(plan: &Plan) -> &PromoteOrder {
    let order = plan.orders.iter().find_map(|(_, order)| match order {
        Order::Promote(order) => Some(order),
        _ => None,
    });
    order.expect("a promote order")
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
fn who_acknowledged_is_started_where_the_only_other_that_holds_all_cannot_apply_it() {
    let mut seen = healthy(3);
    executed(&mut seen, "c-1", &format!("{U0}:1-9"));
    executed(&mut seen, "c-2", &format!("{U0}:1-8"));
    let fenced = |seen: &mut Observed, epoch: u64| {
        for name in ["c-1", "c-2"] {
            set(seen, name, |state| (state.promised, state.role) = (epoch, Role::Fenced));
            answer(seen, name, epoch);
        }
    };
    set(&mut seen, "c-0", |state| (state.phase, state.mysqld) = (Phase::Crashed, None));
    fenced(&mut seen, 2);
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).to.as_deref(), Some("c-1"));
    recorded(&mut seen, &plan);
    // What it received clashes with what is there: known when it is to apply it.
    set(&mut seen, "c-1", |state| {
        let mysqld = state.mysqld.as_mut().unwrap();
        mysqld.executed = gtids(&format!("{U0}:1-7"));
        mysqld.replication.as_mut().unwrap().applier_error = "exists already".to_owned();
    });
    let plan = decide(&seen);
    assert_eq!(claimed(&plan).from.as_deref(), Some("c-1"));
    let epoch = claimed(&plan).epoch;
    recorded(&mut seen, &plan);
    fenced(&mut seen, epoch);
    assert_eq!(decide(&seen).blocked.unwrap().reason, "CandidateBroken");
    let starts = |seen: &Observed| {
        let orders = decide(seen).orders.into_iter();
        orders
            .filter(|(_, order)| matches!(order, Order::Fence(order) if order.start))
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(starts(&seen), Vec::<Name>::new(), "it may be repaired in a moment");
    seen.operation_age = Duration::from_secs(6);
    assert_eq!(starts(&seen), ["c-0"]);
    let mut swapped = seen.clone();
    set(&mut swapped, "c-0", |state| state.data_id = Some("another".to_owned()));
    assert_eq!(starts(&swapped), Vec::<Name>::new(), "not what it was when it acknowledged");
    let back = healthy(3).instances.remove("c-0").unwrap();
    seen.instances.insert("c-0".to_owned(), back);
    set(&mut seen, "c-0", |state| (state.promised, state.role) = (epoch, Role::Fenced));
    executed(&mut seen, "c-0", &format!("{U0}:1-9"));
    answer(&mut seen, "c-0", epoch);
    assert_eq!(claimed(&decide(&seen)).to.as_deref(), Some("c-0"));
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

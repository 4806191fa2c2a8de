//! Who gets data from whom, and who waits for what.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::super::fixtures::{empty, member, members, mysqld, name, record};
use super::super::rebuild::Why;
use super::*;
use common::instance::{ErrantOrigin, ErrantReport};

fn plan(record: &Record, members: &[Member]) -> Provision {
    provision(record, members, &BTreeMap::new(), None, false, None, Instant::now())
}

fn clone_of(instance: u32, donor: u32) -> Order {
    Order::Clone { instance: name(instance), donor: name(donor), condemns: None }
}

#[test]
fn a_new_cluster_initialises_side_by_side() {
    let plan = plan(&Record::default(), &[empty(0), empty(1), empty(2)]);
    assert_eq!(plan.orders, [0, 1, 2].map(|ordinal| Order::Initialise { instance: name(ordinal) }));
}

#[test]
fn a_new_cluster_beside_old_data_initialises_nobody() {
    let plan = plan(&Record::default(), &[member(0), empty(1)]);
    assert_eq!(plan.orders, []);
    assert_eq!(plan.waiting, [(name(1), Wait::DataFromBefore)]);
}

#[test]
fn nobody_is_provisioned_while_the_bootstrap_is_claimed() {
    let record = Record { operation: true, ..Record::default() };
    assert_eq!(plan(&record, &[empty(0)]).waiting, [(name(0), Wait::Bootstrapping)]);
}

#[test]
fn a_joining_instance_clones_a_replica_before_the_primary() {
    let mut members = members(3);
    members.push(empty(3));
    assert_eq!(plan(&record(3), &members).orders, [clone_of(3, 1)]);
    members[1].state.as_mut().unwrap().mysqld.as_mut().unwrap().replication.as_mut().unwrap().applier_error =
        "duplicate key".into();
    assert_eq!(plan(&record(3), &members).orders, [clone_of(3, 2)]);
    members[2].state = None;
    assert_eq!(plan(&record(3), &members).orders, [clone_of(3, 0)]);
    members[0].state = None;
    assert_eq!(plan(&record(3), &members).waiting, [(name(3), Wait::NoDonor)]);
}

#[test]
fn a_lone_primary_gets_its_first_replica_before_the_second_is_cloned() {
    let record = record(1);
    assert_eq!(plan(&record, &[member(0), empty(1), empty(2)]).waiting, [(name(2), Wait::FirstJoining)]);
    let joining = plan(&record, &[member(0), member(1), empty(2)]);
    assert_eq!((joining.orders, joining.waiting), (vec![], vec![(name(2), Wait::FirstJoining)]));
    let recorded = Record { ackers: [name(1)].into(), acks_needed: 1, ..record };
    assert_eq!(plan(&recorded, &[member(0), member(1), empty(2)]).orders, [clone_of(2, 1)]);
}

#[test]
fn a_donor_serves_one_clone_at_a_time() {
    let mut members = members(3);
    members.extend([empty(3), empty(4), empty(5)]);
    let plan = plan(&record(3), &members);
    assert_eq!(plan.orders, [clone_of(3, 1), clone_of(4, 2)]);
    assert_eq!(plan.waiting, [(name(5), Wait::DonorsBusy)]);
}

#[test]
fn a_recorded_acker_that_lost_its_data_waits_until_it_is_struck() {
    let mut members = members(3);
    members[2] = empty(2);
    assert_eq!(plan(&record(3), &members).waiting, [(name(2), Wait::StillAcker)]);
    let mut record = record(3);
    record.ackers.remove(&name(2));
    assert_eq!(plan(&record, &members).orders, [clone_of(2, 1)]);
    record.operation = true;
    assert_eq!(plan(&record, &members).waiting, [(name(2), Wait::Operation)]);
}

#[test]
fn the_recorded_primary_is_never_cloned_over() {
    let mut members = members(3);
    members[0] = empty(0);
    assert_eq!(plan(&record(3), &members).waiting, [(name(0), Wait::StillPrimary)]);
}

#[test]
fn an_instance_of_an_older_epoch_is_no_donor() {
    let mut members = members(1);
    members[0].state.as_mut().unwrap().promised = 0;
    members.push(empty(1));
    assert_eq!(plan(&record(1), &members).waiting, [(name(1), Wait::NoDonor)]);
}

#[test]
fn an_instance_that_can_never_catch_up_is_cloned_over_unless_it_is_errant() {
    let mut members = members(4);
    let mut record = record(3);
    let primary = members[0].state.as_mut().unwrap().mysqld.as_mut().unwrap();
    primary.purged = "11111111-1111-1111-1111-111111111111:1-8".parse().unwrap();
    let old = |executed: &str| {
        let mut old = mysqld(executed);
        old.replication = None;
        Some(old)
    };
    members[3].state.as_mut().unwrap().mysqld = old("11111111-1111-1111-1111-111111111111:1-3");
    let condemned = Condemned { data_id: "d3".into(), saves: None, why: Why::Outdated };
    assert_eq!(
        plan(&record, &members).orders,
        [Order::Clone { instance: name(3), donor: name(1), condemns: Some(condemned) }]
    );
    record.ackers.insert(name(3));
    assert_eq!(plan(&record, &members).orders, []);
    record.ackers.remove(&name(3));
    members[3].state.as_mut().unwrap().mysqld =
        old("11111111-1111-1111-1111-111111111111:1-3,22222222-2222-2222-2222-222222222222:1");
    assert_eq!(plan(&record, &members).orders, []);
    members[3].state.as_mut().unwrap().mysqld = old("11111111-1111-1111-1111-111111111111:1-9");
    assert_eq!(plan(&record, &members).orders, []);
}

#[test]
fn condemned_data_waits_for_its_time() {
    let mut members = members(4);
    let state = members[3].state.as_mut().unwrap();
    state.phase = Phase::Failed;
    state.errant = Some(ErrantReport {
        gtids: "22222222-2222-2222-2222-222222222222:1".parse().unwrap(),
        origin: ErrantOrigin::Tail,
        saved: true,
    });
    let mut record = record(4);
    assert_eq!(plan(&record, &members).waiting, [(name(3), Wait::StillAcker)]);
    record.ackers.remove(&name(3));
    assert!(matches!(plan(&record, &members).orders.as_slice(), [Order::Clone { condemns: Some(_), .. }]));
    record.operation = true;
    assert_eq!(plan(&record, &members).waiting, [(name(3), Wait::Operation)]);
    record.operation = false;
    record.primary = Some(name(3));
    assert_eq!(plan(&record, &members).waiting, [(name(3), Wait::StillPrimary)]);
}

#[test]
fn a_failed_clone_is_ordered_again_after_a_growing_pause() {
    let mut members = members(3);
    members.push(empty(3));
    let start = Instant::now();
    let mut attempts = BTreeMap::from([(name(3), Attempt::started(None, Some(name(1)), start))]);
    assert_eq!(review(&mut attempts, &members, start), []);
    let failed = start + ORDER_SHOWS_AFTER;
    assert_eq!(
        review(&mut attempts, &members, failed),
        [Outcome::Failed { instance: name(3), problem: String::new() }]
    );
    let record = record(3);
    assert_eq!(
        provision(&record, &members, &attempts, None, false, None, failed).waiting,
        [(name(3), Wait::BackingOff)]
    );
    let later = failed + BACKOFF_FIRST;
    assert_eq!(provision(&record, &members, &attempts, None, false, None, later).orders, [clone_of(3, 1)]);
    let again = Attempt::started(attempts.get(&name(3)), Some(name(1)), later);
    attempts.insert(name(3), again);
    let failed = later + ORDER_SHOWS_AFTER;
    review(&mut attempts, &members, failed);
    assert_eq!(
        provision(&record, &members, &attempts, None, false, None, failed + BACKOFF_FIRST).waiting,
        [(name(3), Wait::BackingOff)]
    );
    members[3] = member(3);
    attempts.get_mut(&name(3)).unwrap().running = true;
    assert_eq!(review(&mut attempts, &members, later), [Outcome::Done { instance: name(3), donor: Some(name(1)) }]);
    assert!(attempts.is_empty());
}

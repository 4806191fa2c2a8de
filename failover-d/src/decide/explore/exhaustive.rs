//! Every state within small bounds: each run has its own disturbances, so that it is deep in them.

use super::bounds::{Bounds, Mood, kind};
use super::long;
use super::model::Small;
use super::scenes::reigns;
use super::world::World;

const PROMPT: &[Mood] = &[Mood::Prompt];
const LATE: &[Mood] = &[Mood::Prompt, Mood::Late];
const ALL: &[Mood] = &[Mood::Prompt, Mood::Patient, Mood::Late];
const WARY: &[Mood] = &[Mood::Prompt, Mood::Wary];

/// Deeper when there is time.
fn depth(short: usize) -> usize {
    if long() { short + 3 } else { short }
}

/// One of so many states is let come to rest.
const CALM_EVERY: u64 = 61;

fn explore(bounds: Bounds, short: usize, what: &str) {
    Small::new(bounds).lively(CALM_EVERY).explore(depth(short), what);
}

/// Only what is safe.
fn explore_safety(bounds: Bounds, short: usize, what: &str) {
    Small::new(bounds).explore(depth(short), what);
}

#[test]
fn mysqld_and_pods_that_die() {
    let bounds = Bounds { faults: 2, kinds: kind::CRASH | kind::VANISH, moods: LATE, ..Bounds::three() };
    explore(bounds, 11, "two of mysqld and pods die");
}

#[test]
fn a_primary_that_is_taken_for_dead_and_lives() {
    let kinds = kind::WARY | kind::ISOLATE;
    let bounds = Bounds { faults: 2, kinds, moods: WARY, commit: true, ..Bounds::three() };
    explore_safety(bounds, 11, "a primary that is taken for dead");
}

#[test]
fn a_second_controller_that_is_slow() {
    let kinds = kind::CRASH | kind::WARY;
    let bounds = Bounds { faults: 1, kinds, moods: WARY, slow: 1, slow_steps: 5, writes: 1, ..Bounds::three() };
    explore(bounds, 11, "a slow controller beside a prompt one");
}

/// Four instances, of which two have to acknowledge: strikes, and fewer acknowledgements.
#[test]
fn ackers_that_go_and_come_back() {
    let kinds = kind::VANISH | kind::LOSE;
    let bounds = Bounds { instances: 4, faults: 2, kinds, moods: LATE, writes: 1, epochs: 6, ..Bounds::three() };
    explore_safety(bounds, 9, "four instances, of which two go");
}

/// One acker is left, and two others follow again: they are recorded, let in, and counted. One controller is slow.
#[test]
fn acknowledgements_that_are_raised() {
    let bounds = Bounds {
        instances: 4,
        slow: 1,
        slow_steps: 4,
        faults: 1,
        kinds: kind::CRASH,
        writes: 1,
        epochs: 9,
        ..Bounds::three()
    };
    let mut world = World::new(&bounds);
    reigns(&mut world, 0, 5, 0b0010, 1);
    for server in 0..4 {
        world.hear(1, server);
    }
    world.read(1);
    Small::from(bounds, world).explore(depth(9), "acknowledgements that are raised");
}

#[test]
fn steps_of_orders_between_those_of_others() {
    let bounds =
        Bounds { faults: 1, kinds: kind::CRASH | kind::WARY, moods: WARY, writes: 1, split: true, ..Bounds::three() };
    explore(bounds, 23, "orders in steps");
}

#[test]
fn orders_that_arrive_late_and_again() {
    let kinds = kind::CRASH | kind::WARY;
    let bounds = Bounds { faults: 2, kinds, moods: WARY, letters: 1, writes: 1, ..Bounds::three() };
    explore(bounds, 11, "orders that arrive late and again");
}

#[test]
fn volumes_that_are_lost() {
    let kinds = kind::CRASH | kind::LOSE;
    let bounds = Bounds { faults: 2, kinds, moods: LATE, writes: 1, ..Bounds::three() };
    explore_safety(bounds, 12, "lost volumes");
}

#[test]
fn a_primary_that_is_asked_to_go() {
    let kinds = kind::SWITCH | kind::CRASH;
    let bounds = Bounds { faults: 2, kinds, moods: ALL, ..Bounds::three() };
    explore_safety(bounds, 11, "a switchover and a crash");
}

#[test]
fn pods_that_are_stopped() {
    let kinds = kind::LEAVE | kind::CRASH;
    let bounds = Bounds { faults: 2, kinds, moods: ALL, writes: 1, ..Bounds::three() };
    explore(bounds, 11, "pods that are stopped");
}

#[test]
fn instances_that_are_scaled_away_and_wanted_again() {
    let kinds = kind::SCALE | kind::CRASH;
    let bounds = Bounds { faults: 3, kinds, moods: LATE, writes: 1, ..Bounds::three() };
    explore(bounds, 11, "three instances, two, three");
}

#[test]
fn instances_that_a_person_fences() {
    let kinds = kind::FENCE | kind::CRASH;
    let bounds = Bounds { faults: 3, kinds, moods: PROMPT, writes: 1, ..Bounds::three() };
    explore(bounds, 10, "fences by hand");
}

#[test]
fn a_cluster_that_goes_on_without_ackers() {
    let kinds = kind::VANISH | kind::LOSE;
    let bounds = Bounds { faults: 3, kinds, moods: LATE, available: true, epochs: 7, ..Bounds::three() };
    explore_safety(bounds, 11, "an available cluster");
}

#[test]
fn a_cluster_that_begins() {
    let kinds = kind::CRASH | kind::VANISH;
    let bounds = Bounds { faults: 2, kinds, moods: LATE, newborn: true, ..Bounds::three() };
    explore(bounds, 11, "a new cluster");
}

#[test]
fn every_state_with_lost_volumes_comes_to_rest() {
    let kinds = kind::CRASH | kind::LOSE;
    let bounds = Bounds { faults: 2, kinds, moods: LATE, writes: 1, ..Bounds::three() };
    Small::new(bounds).lively(1).explore(depth(10), "lost volumes, all let come to rest");
}

#[test]
fn every_state_around_a_switchover_comes_to_rest() {
    let kinds = kind::SWITCH | kind::CRASH;
    let bounds = Bounds { faults: 2, kinds, moods: ALL, writes: 1, ..Bounds::three() };
    Small::new(bounds).lively(1).explore(depth(9), "a switchover and a crash, all let come to rest");
}

#[test]
fn every_state_around_a_primary_that_lives_comes_to_rest() {
    let kinds = kind::WARY | kind::ISOLATE;
    let bounds = Bounds { faults: 2, kinds, moods: WARY, writes: 1, ..Bounds::three() };
    Small::new(bounds).lively(1).explore(depth(10), "a primary that is taken for dead, all let come to rest");
}

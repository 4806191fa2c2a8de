//! What is broken on purpose has to show: a check that cannot fail is worth nothing. Each trace is printed, and without
//! the sabotage nothing breaks within as many steps.

use super::bounds::{Bounds, Mood, Sabotage, kind};
use super::command::Command;
use super::facts::Rule;
use super::model::Small;
use super::scenes::{reigns, written};
use super::server::Server;
use super::sets::one;
use super::world::{Letter, World};

const LATE: &[Mood] = &[Mood::Prompt, Mood::Late];
const PATIENT: &[Mood] = &[Mood::Prompt, Mood::Patient];
const WARY: &[Mood] = &[Mood::Prompt, Mood::Wary];

/// Bounds in which it shows.
fn bounds(sabotage: Sabotage, faults: u16, kinds: u16) -> Bounds {
    Bounds { sabotage, faults, kinds, writes: 1, ..Bounds::three() }
}

#[test]
fn skipping_the_proof_shows() {
    Small::new(bounds(Sabotage::ProofSkipped, 1, kind::CRASH)).shows(12);
}

#[test]
fn striking_without_proof_shows() {
    let bounds = Bounds { moods: LATE, ..bounds(Sabotage::StrikeUnproven, 2, kind::VANISH) };
    Small::new(bounds).shows(14);
}

#[test]
fn recording_a_strike_before_the_account_is_locked_shows() {
    let bounds = Bounds { moods: LATE, ..bounds(Sabotage::StrikeUnlocked, 1, kind::DEAF) };
    Small::new(bounds).shows(12);
}

#[test]
fn dropping_earlier_reigns_at_a_promotion_shows() {
    Small::new(bounds(Sabotage::ReignsDropped, 2, kind::VANISH)).shows(16);
}

/// c-0 has lost its data and was cloned from c-1, before that had received what c-2 alone holds since its promotion.
#[test]
fn counting_a_primarys_word_on_other_data_shows() {
    let bounds = bounds(Sabotage::AnyData, 2, kind::VANISH);
    let mut world = World::new(&bounds);
    world.told = written(&mut world);
    world.servers[2].executed = world.told;
    world.servers[0] = Server { promised: 2, in_force: true, offline: false, ..Server::new(world.datas, world.uuids) };
    (world.datas, world.uuids) = (world.datas + 1, world.uuids + 1);
    reigns(&mut world, 2, 2, 0b010, 1);
    world.facts.unproven = vec![Rule { primary: 0, data: 1, ackers: 0b110, needed: 1 }];
    Small::from(bounds, world).shows(12);
}

/// A controller last heard of c-0 when it waited for two acknowledgements. Now it waits for one.
#[test]
fn believing_a_state_of_long_ago_shows() {
    let bounds = Bounds { instances: 4, slow: 1, slow_steps: 3, epochs: 11, ..bounds(Sabotage::StaleBelieved, 0, 0) };
    let mut world = World::new(&bounds);
    reigns(&mut world, 0, 9, 0b1110, 1);
    Small::from(bounds, world).shows(6);
}

/// c-2 has acknowledged a write, which is about to be committed; c-1 has not received it.
#[test]
fn ignoring_what_is_about_to_be_committed_shows() {
    let bounds = Bounds { moods: LATE, commit: true, ..bounds(Sabotage::OwnedIgnored, 2, kind::VANISH) };
    let mut world = World::new(&bounds);
    let write = written(&mut world);
    world.made[0].acked = one(2);
    world.servers[0].tail = write;
    world.servers[2].executed = write;
    Small::from(bounds, world).shows(12);
}

/// An order of epoch 1 is still on its way.
#[test]
fn forgetting_a_promise_in_a_crash_shows() {
    let bounds = Bounds { moods: WARY, ..bounds(Sabotage::PromiseForgotten, 2, kind::CRASH | kind::WARY) };
    let mut world = World::new(&bounds);
    let command = Command::Follow { epoch: 1, source: 0, acknowledges: true, ahead: false, holds: None };
    world.letters.push(Letter { by: 0, to: 1, command });
    Small::from(bounds, world).shows(14);
}

#[test]
fn following_with_a_tail_shows() {
    Small::new(bounds(Sabotage::RewindSkipped, 1, kind::CRASH)).shows(16);
}

/// c-0 died with a write that c-1 alone received, and c-1 is away; c-2 reigns.
#[test]
fn keeping_the_uuid_of_a_rewound_server_shows() {
    let bounds = Bounds { instances: 5, writes: 2, epochs: 9, ..bounds(Sabotage::UuidKept, 1, kind::SWITCH) };
    let mut world = World::new(&bounds);
    let write = written(&mut world);
    world.servers[0].tail = write;
    world.servers[1].relay = write;
    world.crash(0);
    world.suffer(super::steps::Fault::Vanish { server: 1 }, &bounds);
    reigns(&mut world, 2, 2, 0b11010, 2);
    Small::from(bounds, world).shows(14);
}

#[test]
fn opening_before_all_is_applied_shows() {
    let bounds = Bounds { apply: true, ..bounds(Sabotage::Unapplied, 1, kind::CRASH) };
    Small::new(bounds).shows(12);
}

#[test]
fn serving_an_unproven_tail_shows() {
    Small::new(bounds(Sabotage::TailServed, 3, kind::CRASH | kind::VANISH)).shows(14);
}

/// c-2 has acknowledged what c-1 has not received.
#[test]
fn opening_before_the_rest_has_arrived_shows() {
    let bounds = Bounds { moods: PATIENT, ..bounds(Sabotage::RestNotAwaited, 1, kind::SWITCH) };
    let mut world = World::new(&bounds);
    world.told = written(&mut world);
    world.servers[0].executed = world.told;
    world.servers[2].executed = world.told;
    Small::from(bounds, world).shows(14);
}

/// One controller hears that the primary goes on, and gives the switchover up; another, that it has closed.
#[test]
fn obeying_a_demotion_that_was_declined_shows() {
    let bounds = Bounds { slow: 1, slow_steps: 4, writes: 2, ..bounds(Sabotage::DeclineForgotten, 1, kind::SWITCH) };
    Small::new(bounds).shows(22);
}

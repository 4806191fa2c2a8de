//! The shipped [`decide`], explored by a model checker in a small world of instances and two controllers.
//!
//! The world has what can go wrong around a decision: a controller that decided long ago and acts now, orders that are
//! lost, repeated or late, mysqld processes that die with transactions in their binlog that nobody acknowledged, lost
//! volumes. Instances obey as instance-d does: epoch rule first, promise before act.
//!
//! Sabotaged variants of the world or of the plan have to be caught: a check that cannot fail is worth nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod found;
/// Which orders an instance obeys: the shipped rules, not a copy.
#[path = "../../../../instance-d/src/decide.rs"]
#[allow(dead_code)]
mod instance_decide;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use stateright::{Checker, Model, Property};

use super::*;
use world::{Duty, Facts, Mysqld, N, Pending, Server, WRITES, World, command, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Decide { controller: u8, late: bool },
    Swap { controller: u8 },
    Obey { controller: u8, order: u8 },
    Write { server: u8 },
    Receive { server: u8 },
    Apply { server: u8 },
    Crash { server: u8 },
    LoseVolume { server: u8 },
    Cut { server: u8 },
    Heal,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    Nothing,
    /// The candidate is chosen on whatever has answered.
    ProofSkipped,
    /// The strike is recorded although the others lack something.
    StrikeUnproven,
}

struct Small {
    sabotage: Sabotage,
    controllers: u8,
    crashes: u8,
    cuts: u8,
    lose_volumes: bool,
    instances: u32,
    /// A switchover to the second instance is asked for.
    switchover: bool,
}

impl Model for Small {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let server = |index: u8| Server {
            mysqld: Mysqld::Up,
            promised: 1,
            duty: if index == 0 {
                Duty::Primary { needed: 1, struck: 0 }
            } else {
                Duty::Replica { source: 0, acknowledges: true }
            },
            in_force: true,
            executed: 0,
            relay: 0,
            tail: 0,
            acks: BTreeMap::new(),
        };
        vec![World {
            facts: Facts {
                epoch: 1,
                primary: Some(0),
                ackers: 0b110,
                needed: 1,
                unproven: Vec::new(),
                operation: None,
            },
            servers: (0..N as u8).map(server).collect(),
            controllers: vec![Pending::default(); self.controllers as usize],
            answers: BTreeMap::new(),
            high_water: vec![0; N],
            acknowledged: 0,
            crashes: 0,
            cut: None,
            cuts: 0,
            split: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        for controller in 0..self.controllers {
            let pending = &world.controllers[controller as usize];
            // What was decided may be lost (the process died) and is then decided anew.
            if pending.swap.is_none() {
                actions.push(Step::Decide { controller, late: false });
                actions.push(Step::Decide { controller, late: true });
            }
            if pending.swap.is_some() {
                actions.push(Step::Swap { controller });
            }
            for order in 0..pending.orders.len() as u8 {
                if world.cut != Some(pending.orders[order as usize].0) {
                    actions.push(Step::Obey { controller, order });
                }
            }
        }
        match world.cut {
            Some(_) => actions.push(Step::Heal),
            None if world.cuts < self.cuts => actions.extend((0..N as u8).map(|server| Step::Cut { server })),
            None => {}
        }
        for server in 0..N as u8 {
            let this = &world.servers[server as usize];
            if this.serves() {
                actions.push(Step::Write { server });
            }
            if matches!(this.duty, Duty::Replica { .. }) {
                actions.push(Step::Receive { server });
            }
            if this.mysqld == Mysqld::Up && this.relay != 0 {
                actions.push(Step::Apply { server });
            }
            if this.mysqld == Mysqld::Up && world.crashes < self.crashes {
                actions.push(Step::Crash { server });
                if self.lose_volumes {
                    actions.push(Step::LoseVolume { server });
                }
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Decide { controller, late } => {
                let mut seen = world.observe(controller, late, self.instances);
                seen.wish.primary = self.switchover.then(|| world::name(1));
                let mut plan = decide(&seen);
                self.sabotage_plan(&seen, &mut plan);
                let swap = plan.record.as_ref().map(|record| (world.facts.clone(), Facts::from(record)));
                let mut orders: Vec<_> =
                    plan.orders.iter().filter_map(|(to, order)| Some((number(to), command(order)?))).collect();
                orders.sort_unstable();
                world.controllers[controller as usize] = Pending { swap, orders };
            }
            Step::Swap { controller } => {
                let (expected, next) = world.controllers[controller as usize].swap.take()?;
                // The resourceVersion grows with every write; facts are never the same again, because epochs grow.
                if world.facts == expected {
                    world.facts = next;
                }
            }
            Step::Obey { controller, order } => {
                let (server, command) = world.controllers[controller as usize].orders.remove(order as usize);
                world.obey(controller, server, command);
            }
            Step::Write { server } => {
                let this = &mut world.servers[server as usize];
                let bit = (0..WRITES)
                    .map(|number| server * WRITES + number)
                    .find(|bit| (this.received() | this.tail) & (1 << bit) == 0)?;
                if last.acknowledged & (1 << bit) != 0 {
                    return None;
                }
                this.tail |= 1 << bit;
                world.settle(server);
            }
            Step::Receive { server } => world.receive(server),
            Step::Apply { server } => {
                let this = &mut world.servers[server as usize];
                this.executed |= this.relay;
                this.relay = 0;
            }
            Step::Cut { server } => {
                world.cuts += 1;
                world.cut = Some(server);
            }
            Step::Heal => world.cut = None,
            Step::Crash { server } => {
                world.crashes += 1;
                let this = &mut world.servers[server as usize];
                this.mysqld = Mysqld::Down;
                this.in_force = false;
            }
            Step::LoseVolume { server } => {
                world.crashes += 1;
                let this = &mut world.servers[server as usize];
                *this = Server {
                    mysqld: Mysqld::Empty,
                    promised: 0,
                    duty: Duty::None,
                    in_force: false,
                    executed: 0,
                    relay: 0,
                    tail: 0,
                    acks: BTreeMap::new(),
                };
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "an open primary of the newest epoch holds every acknowledged write",
                |_, world: &World| {
                    let newest = world.newest();
                    world
                        .servers
                        .iter()
                        .filter(|server| server.serves() && server.promised == newest)
                        .all(|server| world.acknowledged & !server.executed == 0)
                },
            ),
            Property::always("at most one primary is open in an epoch", |_, world: &World| {
                let open = world.servers.iter().filter(|server| server.serves());
                let epochs: BTreeSet<u8> = open.clone().map(|server| server.promised).collect();
                epochs.len() == open.count()
            }),
            Property::always(
                "no write is acknowledged by an older primary once a newer one is open",
                |_, world: &World| !world.split,
            ),
            Property::sometimes("a failover completes", |_, world: &World| {
                world.facts.operation.is_none() && world.facts.primary.is_some_and(|primary| primary != 0)
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.facts.epoch <= 4 && world.servers.iter().all(|server| server.promised <= 5)
    }
}

impl Small {
    fn sabotage_plan(&self, seen: &Observed, plan: &mut Plan) {
        match self.sabotage {
            Sabotage::ProofSkipped => {
                let Some(operation) =
                    seen.record.operation.as_ref().filter(|operation| operation.phase == OperationPhase::Fencing)
                else {
                    return;
                };
                let Some((name, _)) = seen.answers.iter().find(|(name, answer)| {
                    Some(*name) != operation.from.as_ref() && matches!(answer.outcome, Outcome::Held(_))
                }) else {
                    return;
                };
                let mut ackers = operation.ackers.clone();
                ackers.remove(name);
                let advanced =
                    Operation { to: Some(name.clone()), phase: OperationPhase::Promoting, ackers, ..operation.clone() };
                *plan = Plan {
                    record: Some(Record { operation: Some(advanced), ..seen.record.clone() }),
                    ..Plan::default()
                };
            }
            Sabotage::StrikeUnproven => {
                let Some(operation) =
                    seen.record.operation.as_ref().filter(|operation| operation.phase == OperationPhase::Striking)
                else {
                    return;
                };
                let record = Record {
                    epoch: operation.epoch,
                    ackers: operation.ackers.clone(),
                    acks_needed: operation.acks_needed,
                    operation: None,
                    ..seen.record.clone()
                };
                *plan = Plan { record: Some(record), ..Plan::default() };
            }
            Sabotage::Nothing => {}
        }
    }
}

fn honest() -> Small {
    Small {
        sabotage: Sabotage::Nothing,
        controllers: 1,
        crashes: 2,
        cuts: 0,
        lose_volumes: false,
        instances: 3,
        switchover: false,
    }
}

/// Panics with the shortest trace when a property does not hold.
fn explore(model: Small, depth: usize, what: &str) {
    let checker = model.checker().threads(2).target_max_depth(depth).spawn_bfs().join();
    println!(
        "{what}: {} states, {} of them unique, depth {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    for property in [
        "an open primary of the newest epoch holds every acknowledged write",
        "at most one primary is open in an epoch",
        "no write is acknowledged by an older primary once a newer one is open",
    ] {
        if let Some(path) = checker.discovery(property) {
            panic!("{what}: {property}\n{}", trace(path));
        }
    }
}

fn trace(path: stateright::Path<World, Step>) -> String {
    let mut out = String::new();
    for (world, step) in path.into_vec() {
        let shown = (&world.facts, &world.servers, world.acknowledged);
        writeln!(out, "{shown:?}\n    -> {step:?}").expect("a String takes everything");
    }
    out
}

#[test]
fn every_state_around_one_controller_and_two_crashes_keeps_the_invariants() {
    explore(honest(), 16, "one controller, two crashes");
}

#[test]
fn every_state_around_two_controllers_one_of_them_late_keeps_the_invariants() {
    explore(Small { controllers: 2, crashes: 1, ..honest() }, 12, "two controllers, one crash");
}

#[test]
fn every_state_with_an_isolated_instance_keeps_the_invariants() {
    explore(Small { crashes: 0, cuts: 1, ..honest() }, 16, "one controller, one cut");
}

#[test]
fn every_state_around_a_switchover_and_a_crash_keeps_the_invariants() {
    explore(Small { crashes: 1, switchover: true, ..honest() }, 16, "a switchover and one crash");
}

#[test]
fn every_state_with_a_lost_volume_keeps_the_invariants() {
    explore(Small { crashes: 2, lose_volumes: true, ..honest() }, 14, "lost volumes");
}

fn sabotage_is_caught(model: Small, depth: usize) {
    let sabotage = model.sabotage;
    let checker = model
        .checker()
        .threads(2)
        .target_max_depth(depth)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries().into_iter().find(|(property, _)| *property != "a failover completes");
    let (property, path) =
        found.unwrap_or_else(|| panic!("{sabotage:?} was not caught in {} states", checker.unique_state_count()));
    println!("{sabotage:?} caught: {property}\n{}", trace(path));
}

#[test]
fn skipping_the_proof_is_caught() {
    sabotage_is_caught(Small { sabotage: Sabotage::ProofSkipped, crashes: 1, ..honest() }, 16);
}

#[test]
fn striking_without_proof_is_caught() {
    sabotage_is_caught(Small { sabotage: Sabotage::StrikeUnproven, crashes: 2, lose_volumes: true, ..honest() }, 20);
}

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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{Phase, ReceiverState, Role};
use stateright::{Checker, Model, Property};

use super::fixture::{fresh, heard, primary, replica, uuid, wish};
use super::*;

const N: usize = 3;
/// Writes that each instance may take as primary.
const WRITES: u8 = 2;

/// Transactions as bits: `creator * WRITES + number`.
type Set = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mysqld {
    Up,
    Down,
    /// Holds what it must not serve: out until a person or another order.
    Failed,
    /// The volume is empty.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Duty {
    None,
    Fenced,
    Replica { source: u8, acknowledges: bool },
    Primary { needed: u8, struck: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Server {
    mysqld: Mysqld,
    promised: u8,
    duty: Duty,
    /// mysqld has been brought into its duty since it started.
    in_force: bool,
    executed: Set,
    /// Received, not applied.
    relay: Set,
    /// In the binlog, waiting for acknowledgements (or left there by a crash).
    tail: Set,
    /// Who has acknowledged which of the tail.
    acks: BTreeMap<u8, u8>,
}

impl Server {
    fn received(&self) -> Set {
        self.executed | self.relay
    }

    fn serves(&self) -> bool {
        self.mysqld == Mysqld::Up && self.in_force && matches!(self.duty, Duty::Primary { .. })
    }
}

/// A plan that was decided on and not carried out yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Pending {
    /// The record it was decided on, and the one to write.
    swap: Option<(Facts, Facts)>,
    orders: Vec<(u8, Command)>,
}

/// The recorded facts in small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Facts {
    epoch: u8,
    primary: Option<u8>,
    ackers: u8,
    needed: u8,
    operation: Option<Intent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Intent {
    kind: Kind,
    epoch: u8,
    from: Option<u8>,
    to: Option<u8>,
    phase: OperationPhase,
    ackers: u8,
    needed: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Command {
    Fence { epoch: u8 },
    Follow { epoch: u8, source: u8, acknowledges: bool },
    Promote { epoch: u8, needed: u8, ackers: u8, proven: Option<Set> },
    Acks { epoch: u8, needed: u8, struck: u8 },
    Demote { epoch: u8, kill: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    facts: Facts,
    servers: Vec<Server>,
    controllers: Vec<Pending>,
    /// Sets that fence and demote orders of the operation's epoch brought back: (controller, server) to epoch and set;
    /// no set: dead.
    answers: BTreeMap<(u8, u8), (u8, Option<(Set, Set)>)>,
    high_water: Vec<Set>,
    acknowledged: Set,
    crashes: u8,
    /// An instance that nobody hears, and that hears nobody.
    cut: Option<u8>,
    cuts: u8,
    /// An acknowledgement reached a client although a newer primary was open.
    split: bool,
}

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
}

fn name(server: u8) -> String {
    format!("c-{server}")
}

fn number(name: &str) -> u8 {
    name.rsplit_once('-').unwrap().1.parse().unwrap()
}

fn gtids(set: Set) -> GtidSet {
    let mut out = GtidSet::default();
    for bit in 0..(N as u8 * WRITES) {
        if set & (1 << bit) != 0 {
            let text = format!("{}:{}", uuid(&name(bit / WRITES)), bit % WRITES + 1);
            out.extend_with(&text.parse().unwrap());
        }
    }
    out
}

fn small(set: &GtidSet) -> Set {
    (0..(N as u8 * WRITES)).filter(|bit| gtids(1 << bit).is_subset(set)).fold(0, |out, bit| out | 1 << bit)
}

fn names(bits: u8) -> BTreeSet<Name> {
    (0..N as u8).filter(|server| bits & (1 << server) != 0).map(name).collect()
}

fn bits(names: &BTreeSet<Name>) -> u8 {
    names.iter().fold(0, |out, name| out | 1 << number(name))
}

impl Facts {
    fn record(&self) -> Record {
        Record {
            epoch: self.epoch.into(),
            primary: self.primary.map(name),
            ackers: names(self.ackers),
            acks_needed: self.needed.into(),
            operation: self.operation.as_ref().map(|intent| Operation {
                id: operation_id(intent.kind, intent.epoch.into()),
                kind: intent.kind,
                epoch: intent.epoch.into(),
                from: intent.from.map(name),
                to: intent.to.map(name),
                phase: intent.phase,
                ackers: names(intent.ackers),
                acks_needed: intent.needed.into(),
                reason: String::new(),
            }),
        }
    }

    fn from(record: &Record) -> Self {
        Self {
            epoch: record.epoch as u8,
            primary: record.primary.as_deref().map(number),
            ackers: bits(&record.ackers),
            needed: record.acks_needed as u8,
            operation: record.operation.as_ref().map(|operation| Intent {
                kind: operation.kind,
                epoch: operation.epoch as u8,
                from: operation.from.as_deref().map(number),
                to: operation.to.as_deref().map(number),
                phase: operation.phase,
                ackers: bits(&operation.ackers),
                needed: operation.acks_needed as u8,
            }),
        }
    }
}

fn command(order: &Order) -> Command {
    match order {
        Order::Fence(order) => Command::Fence { epoch: order.epoch as u8 },
        Order::Follow(order) => Command::Follow {
            epoch: order.epoch as u8,
            source: number(&order.source),
            acknowledges: order.acknowledges,
        },
        Order::Promote(order) => Command::Promote {
            epoch: order.epoch as u8,
            needed: order.acks_needed as u8,
            ackers: order.ackers.iter().fold(0, |out, ordinal| out | 1 << ordinal),
            proven: order.proven.as_ref().map(small),
        },
        Order::Acks(order) => Command::Acks {
            epoch: order.epoch as u8,
            needed: order.acks_needed as u8,
            struck: order.struck.iter().fold(0, |out, ordinal| out | 1 << ordinal),
        },
        Order::Demote(order) => Command::Demote { epoch: order.epoch as u8, kill: order.kill },
    }
}

impl World {
    fn state(&self, server: u8) -> common::instance::InstanceState {
        let this = &self.servers[server as usize];
        let mut state = match this.duty {
            Duty::None | Duty::Fenced => fresh(&name(server)),
            Duty::Replica { source, .. } => replica(&name(server), &name(source)),
            Duty::Primary { needed, .. } => primary(&name(server), needed.into()),
        };
        state.promised = this.promised.into();
        state.in_force = this.in_force;
        state.role = match this.duty {
            Duty::None => Role::None,
            Duty::Fenced => Role::Fenced,
            Duty::Replica { source, acknowledges } => Role::Replica { source: name(source), acknowledges },
            Duty::Primary { needed, struck } => Role::Primary {
                acks_needed: needed.into(),
                struck: (0..N as u32).filter(|ordinal| struck & (1 << ordinal) != 0).collect(),
            },
        };
        state.phase = match this.mysqld {
            Mysqld::Up => Phase::Running,
            Mysqld::Down => Phase::Crashed,
            Mysqld::Failed => Phase::Failed,
            Mysqld::Empty => Phase::Empty,
        };
        if this.mysqld == Mysqld::Up {
            let mysqld = state.mysqld.as_mut().unwrap();
            mysqld.executed = gtids(this.executed);
            mysqld.received = gtids(this.received());
            if !this.serves() {
                mysqld.super_read_only = true;
                mysqld.offline = !this.in_force;
            }
            if let Some(replication) = &mut mysqld.replication {
                let Duty::Replica { source, acknowledges } = this.duty else { unreachable!() };
                let apart = self.cut.is_some_and(|cut| cut == server || cut == source);
                let connected = this.in_force && self.servers[source as usize].mysqld == Mysqld::Up && !apart;
                replication.receiver = match (this.in_force, connected) {
                    (false, _) => ReceiverState::No,
                    (true, false) => ReceiverState::Connecting,
                    (true, true) => ReceiverState::Yes,
                };
                replication.applier_running = this.in_force;
                replication.acknowledges = acknowledges && connected;
            }
        } else {
            state.mysqld = None;
        }
        state
    }

    fn observe(&self, controller: u8, late: bool, instances: u32) -> Observed {
        let record = self.facts.record();
        let mut instances_seen = BTreeMap::new();
        for server in 0..N as u8 {
            let mut instance = heard(self.state(server));
            instance.unhealthy_for = if late { Duration::from_secs(3600) } else { Duration::ZERO };
            if self.cut == Some(server) {
                instance.age = Duration::from_secs(60);
            }
            instance.high_water = if self.facts.ackers & (1 << server) != 0 {
                gtids(self.high_water[server as usize])
            } else {
                GtidSet::default()
            };
            instances_seen.insert(name(server), instance);
        }
        if let Some(primary) = self.facts.primary {
            let primary_state = self.state(primary);
            for server in 0..N as u8 {
                if server != primary && self.cut.is_none() {
                    let errant = errant(&self.state(server), &primary_state);
                    instances_seen.get_mut(&name(server)).unwrap().errant = errant;
                }
            }
        }
        let epoch = self.facts.operation.as_ref().map_or(0, |intent| intent.epoch);
        let answers = (0..N as u8)
            .filter_map(|server| {
                let (at, sets) = self.answers.get(&(controller, server))?;
                let outcome = match sets {
                    None => Outcome::Dead,
                    Some((executed, received)) => {
                        let mut state = fresh(&name(server));
                        let mysqld = state.mysqld.as_mut().unwrap();
                        mysqld.executed = gtids(*executed);
                        mysqld.received = gtids(*received);
                        Outcome::Held(Box::new(state))
                    }
                };
                (*at == epoch).then(|| (name(server), Answer { epoch: u64::from(*at), outcome }))
            })
            .collect();
        Observed {
            record,
            wish: wish(instances),
            instances: instances_seen,
            answers,
            operation_age: if late { Duration::from_secs(3600) } else { Duration::ZERO },
            last_undone: None,
            unborn_age: Duration::ZERO,
            recent_changes: 0,
        }
    }

    /// The epoch of the newest primary that has opened.
    fn newest(&self) -> u8 {
        self.servers.iter().filter(|server| server.serves()).map(|server| server.promised).max().unwrap_or(0)
    }

    /// A commit returns OK once enough have acknowledged it.
    fn settle(&mut self, server: u8) {
        let newest = self.newest();
        let this = &mut self.servers[server as usize];
        let Duty::Primary { needed, .. } = this.duty else { return };
        if this.mysqld != Mysqld::Up || !this.in_force {
            return;
        }
        for bit in 0..(N as u8 * WRITES) {
            let mask = 1 << bit;
            if this.tail & mask == 0 || this.acks.get(&bit).map_or(0, |acks| acks.count_ones()) < u32::from(needed) {
                continue;
            }
            this.tail &= !mask;
            this.executed |= mask;
            self.acknowledged |= mask;
            if this.promised < newest {
                self.split = true;
            }
        }
    }

    fn obey(&mut self, controller: u8, server: u8, command: Command) {
        let source_executed = |world: &Self, source: u8| {
            let source = &world.servers[source as usize];
            source.serves().then_some(source.executed)
        };
        let epoch = match command {
            Command::Fence { epoch }
            | Command::Follow { epoch, .. }
            | Command::Promote { epoch, .. }
            | Command::Acks { epoch, .. }
            | Command::Demote { epoch, .. } => epoch,
        };
        let this = &self.servers[server as usize];
        if matches!(this.mysqld, Mysqld::Failed | Mysqld::Empty) || (epoch < this.promised) {
            return;
        }
        let same = epoch == this.promised;
        match command {
            Command::Fence { .. } => {
                if this.mysqld != Mysqld::Up
                    || (same && matches!(this.duty, Duty::Primary { .. } | Duty::Replica { .. }))
                {
                    return;
                }
                let this = &mut self.servers[server as usize];
                this.promised = epoch;
                this.duty = Duty::Fenced;
                this.in_force = true;
                let answer = Some((this.executed, this.received()));
                self.answers.insert((controller, server), (epoch, answer));
            }
            Command::Demote { kill, .. } => {
                if this.mysqld == Mysqld::Down {
                    let this = &mut self.servers[server as usize];
                    this.promised = epoch;
                    self.answers.insert((controller, server), (epoch, None));
                    return;
                }
                if same && matches!(this.duty, Duty::Primary { .. } | Duty::Replica { .. }) {
                    return;
                }
                let this = &mut self.servers[server as usize];
                this.promised = epoch;
                if this.tail != 0 {
                    // super_read_only does not return while sessions wait.
                    if kill {
                        this.mysqld = Mysqld::Down;
                        this.in_force = false;
                        self.answers.insert((controller, server), (epoch, None));
                    }
                    return;
                }
                this.duty = Duty::Fenced;
                this.in_force = true;
                let answer = Some((this.executed, this.received()));
                self.answers.insert((controller, server), (epoch, answer));
            }
            Command::Follow { source, acknowledges, .. } => {
                if same && matches!(this.duty, Duty::Primary { .. }) {
                    return;
                }
                if same && matches!(this.duty, Duty::Replica { source: known, .. } if known != source) {
                    return;
                }
                if matches!(this.duty, Duty::Primary { .. }) && this.mysqld == Mysqld::Up && this.in_force {
                    // Only a demotion closes a primary.
                    return;
                }
                let tail = this.tail;
                let own = this.received() | tail;
                if tail != 0 {
                    let Some(executed) = source_executed(self, source) else { return };
                    let this = &mut self.servers[server as usize];
                    this.promised = epoch;
                    if own & !executed != 0 {
                        this.mysqld = Mysqld::Failed;
                        return;
                    }
                    this.executed |= tail;
                    this.tail = 0;
                    this.acks.clear();
                }
                let this = &mut self.servers[server as usize];
                this.promised = epoch;
                this.mysqld = Mysqld::Up;
                this.duty = Duty::Replica { source, acknowledges };
                this.in_force = true;
            }
            Command::Promote { needed, ackers, proven, .. } => {
                if same && matches!(this.duty, Duty::Replica { .. }) {
                    return;
                }
                let struck = !(ackers | 1 << server) & ((1 << N) - 1);
                let this = &mut self.servers[server as usize];
                this.promised = epoch;
                if same && this.serves() {
                    return;
                }
                if this.mysqld == Mysqld::Down && this.tail != 0 {
                    // Recovery commits what is in the binlog; nobody may see it before it is proven.
                    this.executed |= this.tail;
                    this.tail = 0;
                    this.acks.clear();
                    this.mysqld = Mysqld::Up;
                    this.duty = Duty::Primary { needed, struck };
                    this.in_force = false;
                    return;
                }
                let unproven =
                    this.mysqld == Mysqld::Down || (matches!(this.duty, Duty::Primary { .. }) && !this.in_force);
                this.mysqld = Mysqld::Up;
                this.duty = Duty::Primary { needed, struck };
                this.executed |= this.relay;
                this.relay = 0;
                let proof = needed == 0 || proven.is_some_and(|proven| this.executed & !proven == 0);
                this.in_force = !unproven || proof;
            }
            Command::Acks { needed, struck, .. } => {
                if !this.serves() {
                    return;
                }
                let this = &mut self.servers[server as usize];
                this.promised = epoch;
                this.duty = Duty::Primary { needed, struck };
                self.settle(server);
            }
        }
    }

    fn receive(&mut self, server: u8) {
        let this = &self.servers[server as usize];
        let Duty::Replica { source, acknowledges } = this.duty else { return };
        let from = &self.servers[source as usize];
        let Duty::Primary { struck, .. } = from.duty else { return };
        if self.cut.is_some_and(|cut| cut == server || cut == source) {
            return;
        }
        if !this.in_force || this.mysqld != Mysqld::Up || from.mysqld != Mysqld::Up || struck & (1 << server) != 0 {
            return;
        }
        let (everything, tail) = (from.executed | from.tail, from.tail);
        let this = &mut self.servers[server as usize];
        this.relay |= everything & !this.executed;
        let received = this.received();
        self.high_water[server as usize] |= received;
        if acknowledges {
            let from = &mut self.servers[source as usize];
            for bit in 0..(N as u8 * WRITES) {
                if tail & (1 << bit) != 0 {
                    *from.acks.entry(bit).or_default() |= 1 << server;
                }
            }
            self.settle(source);
        }
    }
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
            facts: Facts { epoch: 1, primary: Some(0), ackers: 0b110, needed: 1, operation: None },
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
                let seen = world.observe(controller, late, self.instances);
                let mut plan = decide(&seen);
                self.sabotage_plan(&seen, &mut plan);
                let swap = plan.record.as_ref().map(|record| (world.facts.clone(), Facts::from(record)));
                let mut orders: Vec<_> = plan.orders.iter().map(|(to, order)| (number(to), command(order))).collect();
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
    Small { sabotage: Sabotage::Nothing, controllers: 1, crashes: 2, cuts: 0, lose_volumes: false, instances: 3 }
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
    path.into_vec()
        .into_iter()
        .map(|(world, step)| format!("{:?}\n    -> {step:?}\n", (&world.facts, &world.servers, world.acknowledged)))
        .collect()
}

#[test]
fn every_state_around_one_controller_and_two_crashes_keeps_the_invariants() {
    explore(honest(), 13, "one controller, two crashes");
}

#[test]
fn every_state_around_two_controllers_one_of_them_late_keeps_the_invariants() {
    explore(Small { controllers: 2, crashes: 1, ..honest() }, 10, "two controllers, one crash");
}

#[test]
fn every_state_with_an_isolated_instance_keeps_the_invariants() {
    explore(Small { crashes: 0, cuts: 1, ..honest() }, 13, "one controller, one cut");
}

#[test]
fn every_state_with_a_lost_volume_keeps_the_invariants() {
    explore(Small { crashes: 2, lose_volumes: true, ..honest() }, 12, "lost volumes");
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

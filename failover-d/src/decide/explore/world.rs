//! The small world that the decision is explored in: instances that obey as instance-d does, and what controllers see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{Phase, ReceiverState, Role};

use super::super::fixture::{fresh, heard, primary, replica, uuid, wish};
use super::super::*;

pub(super) const N: usize = 3;
/// Writes that each instance may take as primary.
pub(super) const WRITES: u8 = 2;

/// Transactions as bits: `creator * WRITES + number`.
pub(super) type Set = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mysqld {
    Up,
    Down,
    /// Holds what it must not serve: out until a person or another order.
    Failed,
    /// The volume is empty.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Duty {
    None,
    Fenced,
    Replica { source: u8, acknowledges: bool },
    Primary { needed: u8, struck: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) mysqld: Mysqld,
    pub(super) promised: u8,
    pub(super) duty: Duty,
    /// mysqld has been brought into its duty since it started.
    pub(super) in_force: bool,
    pub(super) executed: Set,
    /// Received, not applied.
    pub(super) relay: Set,
    /// In the binlog, waiting for acknowledgements (or left there by a crash).
    pub(super) tail: Set,
    /// Who has acknowledged which of the tail.
    pub(super) acks: BTreeMap<u8, u8>,
}

impl Server {
    pub(super) fn received(&self) -> Set {
        self.executed | self.relay
    }

    pub(super) fn serves(&self) -> bool {
        self.mysqld == Mysqld::Up && self.in_force && matches!(self.duty, Duty::Primary { .. })
    }
}

/// Executed and received.
type Sets = (Set, Set);

/// A plan that was decided on and not carried out yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    /// The record it was decided on, and the one to write.
    pub(super) swap: Option<(Facts, Facts)>,
    pub(super) orders: Vec<(u8, Command)>,
}

/// The recorded facts in small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    pub(super) epoch: u8,
    pub(super) primary: Option<u8>,
    pub(super) ackers: u8,
    pub(super) needed: u8,
    /// Primary, ackers, needed.
    pub(super) unproven: Vec<(u8, u8, u8)>,
    pub(super) operation: Option<Intent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Intent {
    pub(super) kind: Kind,
    pub(super) epoch: u8,
    pub(super) from: Option<u8>,
    pub(super) to: Option<u8>,
    pub(super) phase: OperationPhase,
    pub(super) ackers: u8,
    pub(super) needed: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Command {
    Fence { epoch: u8 },
    Follow { epoch: u8, source: u8, acknowledges: bool },
    Promote { epoch: u8, needed: u8, ackers: u8, proven: Option<Set> },
    Acks { epoch: u8, needed: u8, struck: u8 },
    Demote { epoch: u8, kill: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) facts: Facts,
    pub(super) servers: Vec<Server>,
    pub(super) controllers: Vec<Pending>,
    /// Sets that fence and demote orders of the operation's epoch brought back: (controller, server) to epoch and set;
    /// no set: dead.
    pub(super) answers: BTreeMap<(u8, u8), (u8, Option<Sets>)>,
    pub(super) high_water: Vec<Set>,
    pub(super) acknowledged: Set,
    pub(super) crashes: u8,
    /// An instance that nobody hears, and that hears nobody.
    pub(super) cut: Option<u8>,
    pub(super) cuts: u8,
    /// An acknowledgement reached a client although a newer primary was open.
    pub(super) split: bool,
}

pub(super) fn name(server: u8) -> String {
    format!("c-{server}")
}

/// Name of an instance's data. The world makes no new data, so it never changes.
fn data(server: u8) -> String {
    format!("data-{}", name(server))
}

pub(super) fn number(name: &str) -> u8 {
    name.rsplit_once('-').unwrap().1.parse().unwrap()
}

pub(super) fn gtids(set: Set) -> GtidSet {
    let mut out = GtidSet::default();
    for bit in 0..(N as u8 * WRITES) {
        if set & (1 << bit) != 0 {
            let text = format!("{}:{}", uuid(&name(bit / WRITES)), bit % WRITES + 1);
            out.extend_with(&text.parse().unwrap());
        }
    }
    out
}

pub(super) fn small(set: &GtidSet) -> Set {
    (0..(N as u8 * WRITES)).filter(|bit| gtids(1 << bit).is_subset(set)).fold(0, |out, bit| out | 1 << bit)
}

pub(super) fn names(bits: u8) -> BTreeSet<Name> {
    (0..N as u8).filter(|server| bits & (1 << server) != 0).map(name).collect()
}

pub(super) fn bits(names: &BTreeSet<Name>) -> u8 {
    names.iter().fold(0, |out, name| out | 1 << number(name))
}

impl Facts {
    pub(super) fn record(&self) -> Record {
        Record {
            epoch: self.epoch.into(),
            primary: self.primary.map(name),
            ackers: names(self.ackers),
            acks_needed: self.needed.into(),
            primary_data: self.primary.map(data),
            unproven: self
                .unproven
                .iter()
                .map(|(primary, ackers, needed)| Reign {
                    primary: name(*primary),
                    primary_data: Some(data(*primary)),
                    ackers: names(*ackers),
                    acks_needed: (*needed).into(),
                })
                .collect(),
            losses: Vec::new(),
            operation: self.operation.as_ref().map(|intent| Operation {
                id: operation_id(intent.kind, intent.epoch.into()),
                kind: intent.kind,
                epoch: intent.epoch.into(),
                from: intent.from.map(name),
                to: intent.to.map(name),
                to_data: intent.to.map(data),
                phase: intent.phase,
                ackers: names(intent.ackers),
                acks_needed: intent.needed.into(),
                reason: String::new(),
            }),
        }
    }

    pub(super) fn from(record: &Record) -> Self {
        Self {
            epoch: record.epoch as u8,
            primary: record.primary.as_deref().map(number),
            ackers: bits(&record.ackers),
            needed: record.acks_needed as u8,
            unproven: record
                .unproven
                .iter()
                .map(|reign| (number(&reign.primary), bits(&reign.ackers), reign.acks_needed as u8))
                .collect(),
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

/// The world is always seen as it is: a look changes nothing.
pub(super) fn command(order: &Order) -> Option<Command> {
    Some(match order {
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
        Order::Look => return None,
    })
}

impl World {
    pub(super) fn state(&self, server: u8) -> common::instance::InstanceState {
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

    pub(super) fn observe(&self, controller: u8, late: bool, instances: u32) -> Observed {
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
    pub(super) fn newest(&self) -> u8 {
        self.servers.iter().filter(|server| server.serves()).map(|server| server.promised).max().unwrap_or(0)
    }

    /// A commit returns OK once enough have acknowledged it.
    pub(super) fn settle(&mut self, server: u8) {
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

    pub(super) fn obey(&mut self, controller: u8, server: u8, command: Command) {
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

    pub(super) fn receive(&mut self, server: u8) {
        let this = &self.servers[server as usize];
        let Duty::Replica { source, acknowledges } = this.duty else { return };
        let from = &self.servers[source as usize];
        // A replica is a source too: its own replicas receive what it has executed.
        let (struck, from_tail) = match from.duty {
            Duty::Primary { struck, .. } => (struck, from.tail),
            Duty::Replica { .. } | Duty::Fenced => (0, 0),
            Duty::None => return,
        };
        if self.cut.is_some_and(|cut| cut == server || cut == source) {
            return;
        }
        if !this.in_force || this.mysqld != Mysqld::Up || from.mysqld != Mysqld::Up || struck & (1 << server) != 0 {
            return;
        }
        let (everything, tail) = (from.executed | from_tail, from_tail);
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

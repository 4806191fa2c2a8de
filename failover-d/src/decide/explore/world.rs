//! The world: instances, what is recorded, who decides, and what clients were told.

use super::super::OperationPhase;
use super::bounds::Bounds;
use super::command::Command;
use super::facts::{Facts, Hope};
use super::heard::Controller;
use super::server::{Duty, Place, Server};
use super::sets::{Bits, Epoch, Made, Set, each, has, lowest, one};

/// What must never happen, as far as it shows in a step and not in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    /// A commit was answered by an instance although another had opened in a newer epoch.
    Split,
    /// Two instances opened in one epoch.
    Twice,
    /// A promise or a recorded epoch became smaller.
    Backwards,
    /// A candidate was recorded that lacks what clients were told.
    Unproven,
    /// What was received is gone, and was not executed.
    Dropped,
    /// What clients were told was cut off.
    Cut,
    /// A GTID was handed out again while its first meaning is still somewhere.
    Reused,
}

/// An order on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Letter {
    pub(super) by: u8,
    pub(super) to: u8,
    pub(super) command: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) facts: Facts,
    pub(super) hope: Hope,
    pub(super) servers: Vec<Server>,
    pub(super) controllers: Vec<Controller>,
    pub(super) made: Vec<Made>,
    pub(super) letters: Vec<Letter>,
    /// Instances on the other side of a network that has come apart: the fewer. Who decides hears none of them.
    pub(super) apart: Bits,
    /// What clients were told is committed, or could read on a primary.
    pub(super) told: Set,
    /// The newest epoch in which an instance opened, and who.
    pub(super) newest_epoch: Epoch,
    pub(super) newest: Option<u8>,
    /// Names that were given.
    pub(super) uuids: u16,
    pub(super) datas: u16,
    /// Disturbances, and steps of slow controllers.
    pub(super) faults: u16,
    pub(super) slow_steps: u16,
    pub(super) broken: Option<Broken>,
}

impl World {
    /// A healthy cluster in epoch 1 with c-0 as primary and all others recorded; or one that nobody has begun.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let count = bounds.instances;
        let everybody = (0..count).fold(0, |out, server| out | one(server));
        let ackers = everybody & !one(0);
        let needed = super::super::acks_wanted(count.into(), usize::from(count) - 1) as u8;
        let server = |server: u8| {
            let fresh = Server::new(u16::from(server) + 1, server.into());
            if bounds.newborn {
                return fresh;
            }
            let open = Server { promised: 1, in_force: true, offline: false, ..fresh };
            if server == 0 {
                Server { duty: Duty::Primary { needed, struck: 0 }, opened: true, needed, ..open }
            } else {
                Server {
                    duty: Duty::Replica { source: 0, acknowledges: true },
                    source: Some(0),
                    receiving: true,
                    applying: true,
                    acknowledges: true,
                    ..open
                }
            }
        };
        let facts =
            Facts { epoch: 1, primary: Some(0), data: 1, ackers, needed, unproven: Vec::new(), operation: None };
        let facts = if bounds.newborn { Facts::default() } else { facts };
        let hope = Hope { instances: count, primary: None, fenced: 0 };
        let controllers = (0..bounds.prompt + bounds.slow)
            .map(|index| Controller::new(count, (index >= bounds.prompt).then(|| (facts.clone(), hope.clone()))))
            .collect();
        let mut world = Self {
            hope,
            servers: (0..count).map(server).collect(),
            controllers,
            made: Vec::new(),
            letters: Vec::new(),
            apart: 0,
            told: 0,
            newest_epoch: facts.epoch,
            newest: facts.primary,
            uuids: count.into(),
            datas: u16::from(count) + 1,
            faults: 0,
            slow_steps: 0,
            broken: None,
            facts,
        };
        // A slow one has heard everybody, once.
        for controller in bounds.prompt..bounds.prompt + bounds.slow {
            for server in 0..count {
                world.hear(controller, server);
            }
        }
        world
    }

    pub(super) fn count(&self) -> u8 {
        self.servers.len() as u8
    }

    pub(super) fn everybody(&self) -> Bits {
        (0..self.count()).fold(0, |out, server| out | one(server))
    }

    /// An instance has opened: from now on clients see what it has executed.
    pub(super) fn opened(&mut self, server: u8) {
        let this = &self.servers[server as usize];
        let epoch = this.promised;
        self.told |= this.executed;
        if epoch > self.newest_epoch || self.newest.is_none() {
            self.newest_epoch = epoch;
            self.newest = Some(server);
        } else if epoch == self.newest_epoch && self.newest != Some(server) {
            self.broken = Some(Broken::Twice);
        }
    }

    /// A client writes: the transaction is in the binlog and waits.
    pub(super) fn write(&mut self, server: u8, bounds: &Bounds) {
        let this = &self.servers[server as usize];
        let uuid = this.uuid;
        let numbers = |among: Set| {
            let of = move |(bit, made): (usize, &Made)| {
                (among & (1 << bit) != 0 && made.uuid == uuid).then_some((made.number, bit))
            };
            self.made.iter().enumerate().filter_map(of)
        };
        let taken: Vec<u8> = numbers(this.executed | this.tail).map(|(number, _)| number).collect();
        let number = (1..=u8::MAX).find(|number| !taken.contains(number)).unwrap();
        let somewhere = self.servers.iter().fold(self.told, |out, server| out | server.held());
        if numbers(somewhere).any(|(known, _)| known == number) {
            self.broken = Some(Broken::Reused);
        }
        let bit = 1 << self.made.len();
        self.made.push(Made { uuid, number, acked: 0 });
        self.servers[server as usize].tail |= bit;
        if !bounds.commit {
            self.commit_all(server);
        }
    }

    /// The earliest of those who wait, when enough have acknowledged it.
    pub(super) fn ready_to_commit(&self, server: u8) -> Option<Set> {
        let this = &self.servers[server as usize];
        let first = lowest(this.tail);
        let enough = |bit: Set| self.made[bit.trailing_zeros() as usize].acked.count_ones() >= u32::from(this.needed);
        (this.up() && this.opened && first != 0 && enough(first)).then_some(first)
    }

    pub(super) fn commit(&mut self, server: u8) {
        let Some(bit) = self.ready_to_commit(server) else { return };
        let this = &mut self.servers[server as usize];
        this.tail &= !bit;
        this.executed |= bit;
        self.told |= bit;
        // What was acknowledged in time may be answered late: then the newest primary has it.
        let newest = self.newest.filter(|newest| *newest != server);
        if newest.is_some_and(|newest| self.servers[newest as usize].held() & bit == 0) {
            self.broken = Some(Broken::Split);
        }
    }

    pub(super) fn commit_all(&mut self, server: u8) {
        while self.ready_to_commit(server).is_some() {
            self.commit(server);
        }
    }

    /// Whether two instances are on the same side.
    pub(super) fn reach(&self, one: u8, other: u8) -> bool {
        has(self.apart, one) == has(self.apart, other)
    }

    /// The source that a replica is connected to now.
    pub(super) fn connected(&self, server: u8) -> Option<u8> {
        let this = &self.servers[server as usize];
        let source = this.source.filter(|_| this.up() && this.receiving)?;
        let from = &self.servers[source as usize];
        (from.up() && self.reach(server, source) && !has(from.locked, server)).then_some(source)
    }

    /// What comes next from the source, or is still to be acknowledged to it.
    pub(super) fn next_from(&self, server: u8) -> Option<(u8, Set)> {
        let source = self.connected(server)?;
        let (this, from) = (&self.servers[server as usize], &self.servers[source as usize]);
        let missing = (from.executed | from.tail) & !this.held();
        if missing != 0 {
            return Some((source, lowest(missing)));
        }
        let unanswered =
            |bit: &u8| from.tail & this.received() & (1 << bit) != 0 && !has(self.made[*bit as usize].acked, server);
        let bit = (0..self.made.len() as u8).find(unanswered).filter(|_| this.acknowledges)?;
        Some((source, 1 << bit))
    }

    /// A transaction is flushed to the relay log, and acknowledged.
    pub(super) fn receive(&mut self, server: u8, bounds: &Bounds) {
        let Some((source, bit)) = self.next_from(server) else { return };
        let this = &mut self.servers[server as usize];
        this.relay |= bit & !this.executed;
        let acknowledges = this.acknowledges;
        if !bounds.apply && this.applying {
            this.executed |= this.relay;
            this.relay = 0;
        }
        let from = &self.servers[source as usize];
        if acknowledges && from.tail & bit != 0 {
            let needed = u32::from(from.needed);
            let made = &mut self.made[bit.trailing_zeros() as usize];
            made.acked |= one(server);
            if made.acked.count_ones() >= needed && self.newest != Some(source) {
                self.broken = Some(Broken::Split);
            }
            if !bounds.commit {
                self.commit_all(source);
            }
        }
    }

    pub(super) fn can_apply(&self, server: u8) -> bool {
        let this = &self.servers[server as usize];
        this.up() && this.applying && this.relay != 0
    }

    pub(super) fn apply(&mut self, server: u8) {
        let this = &mut self.servers[server as usize];
        let bit = lowest(this.relay);
        this.executed |= bit;
        this.relay &= !bit;
    }

    /// Whether an instance is neither the primary nor recorded, and nothing is under way: topology-ctl may change it.
    pub(super) fn is_free(&self, server: u8) -> bool {
        self.facts.epoch > 0
            && self.facts.operation.is_none()
            && self.facts.primary != Some(server)
            && !has(self.facts.ackers, server)
    }

    /// Whether topology-ctl keeps a pod for it: a recorded instance has one, however few are wanted.
    pub(super) fn has_a_place(&self, server: u8) -> bool {
        server < self.hope.instances || self.facts.primary == Some(server) || has(self.facts.ackers, server)
    }

    /// Whose data topology-ctl would give an instance that has none, or that holds what was left behind.
    pub(super) fn donor(&self, server: u8) -> Option<u8> {
        let this = &self.servers[server as usize];
        let here = this.place != Place::Gone && !this.leaving && this.doing.is_none();
        if server >= self.hope.instances || !here || !this.is_lost() {
            return None;
        }
        let well = || self.proven_donor(server).filter(|_| self.is_free(server) && this.is_lost_at(self.facts.epoch));
        let closed = || self.closed_source().filter(|_| self.may_copy_a_closed_one(server));
        well().or_else(|| closed().filter(|(_, epoch)| this.is_lost_at(*epoch)).map(|(source, _)| source))
    }

    /// A replica with proven history, else the primary.
    fn proven_donor(&self, recipient: u8) -> Option<u8> {
        let primary = self.facts.primary?;
        let replica = |server: &u8| {
            let this = &self.servers[*server as usize];
            *server != recipient
                && matches!(this.duty, Duty::Replica { source, .. } if source == primary)
                && this.up()
                && !this.failed
                && !this.leaving
                && this.in_force
                && !this.unproven
                && this.promised <= self.facts.epoch
                && this.applying
                && self.connected(*server).is_some()
        };
        let this = &self.servers[primary as usize];
        let whole = this.up() && this.duty.is_primary() && this.in_force && !this.unproven;
        let itself = (primary != recipient && whole && this.promised == self.facts.epoch).then_some(primary);
        (0..self.count()).find(replica).or(itself)
    }

    /// A candidate, or a primary that was started again, that stays closed until it is proven what it holds, and its epoch. It has
    /// executed all of that.
    fn closed_source(&self) -> Option<(u8, Epoch)> {
        let facts = &self.facts;
        let (source, data, epoch) = match &facts.operation {
            None => (facts.primary?, facts.data, facts.epoch),
            Some(intent) => {
                (intent.to.filter(|_| intent.phase == OperationPhase::Promoting)?, intent.data, intent.epoch)
            }
        };
        let this = &self.servers[source as usize];
        let closed = this.up() && this.duty.is_primary() && !this.opened && !this.failed && !this.leaving;
        let whole = this.relay | this.tail == 0 && this.data == data && this.promised == epoch;
        (closed && whole && this.doing.is_none()).then_some((source, epoch))
    }

    /// Whose data no proof counts on; or, when nobody else can prove what the closed one holds, one after the other of those who
    /// are lost.
    fn may_copy_a_closed_one(&self, server: u8) -> bool {
        let Some((source, _)) = self.closed_source().filter(|(source, _)| *source != server) else { return false };
        let counted = self.counted();
        let may_help = |other: &u8| {
            let this = &self.servers[*other as usize];
            let wanted = *other < self.hope.instances && *other != source && *other != server;
            wanted && (this.place == Place::Gone || !this.is_lost() || !has(counted, *other))
        };
        !has(counted, server) || !each(self.everybody()).any(|other| may_help(&other))
    }

    /// Whose data may be the proof of something.
    fn counted(&self) -> Bits {
        let facts = &self.facts;
        let reigns = facts.unproven.iter().fold(0, |out, rule| out | rule.ackers | one(rule.primary));
        let begun = facts.operation.as_ref().map_or(0, |intent| intent.ackers);
        reigns | begun | facts.ackers | facts.primary.map_or(0, one)
    }

    /// Data of another in the place of what is there.
    pub(super) fn copy(&mut self, server: u8, donor: u8) {
        let (executed, locked) = {
            let from = &self.servers[donor as usize];
            (from.executed, from.locked)
        };
        let gone = self.servers[server as usize].held() & self.told;
        let left = self.servers.iter().enumerate().filter(|(index, _)| *index != server as usize);
        if gone & !left.fold(0, |out, (_, other)| out | other.held()) != 0 {
            self.broken = Some(Broken::Dropped);
        }
        let promised = self.servers[server as usize].promised;
        self.servers[server as usize] = Server { promised, executed, locked, ..Server::new(self.datas, self.uuids) };
        self.datas += 1;
        self.uuids += 1;
    }
}

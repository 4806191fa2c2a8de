//! What a controller knows: the record it has read, the states it has heard, the answers it was given.
//!
//! A prompt controller sees what is there, but for an instance that it is deaf to: of that it remembers the last state. A
//! slow one remembers everything, and hears and reads when its turn comes: it was paused, or its connections are slow.

use crate::decide::Kind;
use common::instance::Phase;

use super::bounds::{Bounds, Mood};
use super::facts::{Facts, Hope};
use super::orders::Reply;
use super::server::{Duty, Place};
use super::sets::{Bits, Epoch, Made, Set, each, has, one};
use super::world::World;

/// A state as an instance reports it, in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Snap {
    pub(super) phase: Phase,
    pub(super) promised: Epoch,
    pub(super) duty: Duty,
    pub(super) in_force: bool,
    pub(super) leaving: bool,
    pub(super) unproven: bool,
    pub(super) data: u16,
    pub(super) up: bool,
    pub(super) uuid: u16,
    pub(super) executed: Set,
    pub(super) received: Set,
    /// Released by an acknowledgement, or waiting for one.
    pub(super) owned: Set,
    /// `super_read_only` and `read_only`.
    pub(super) read_only: bool,
    pub(super) offline: bool,
    pub(super) source: Option<u8>,
    pub(super) receiving: bool,
    pub(super) connected: bool,
    pub(super) applying: bool,
    pub(super) acknowledges: bool,
}

/// What was last heard of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// It has no pod.
    Absent,
    State(Snap),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Controller {
    /// What a slow controller has read: the record, and the wish beside it. A prompt one always knows what stands.
    pub(super) object: Option<Box<(Facts, Hope)>>,
    pub(super) heard: Vec<Heard>,
    /// Instances that it does not hear: what it knows is of long ago, and what it says does not arrive.
    pub(super) deaf: Bits,
    /// Answers to fence and demote orders, with their epoch: of the operation that it knows, or of one that it is about to
    /// claim.
    pub(super) answers: Vec<Option<(Epoch, Reply)>>,
    /// It gave a switchover up a moment ago.
    pub(super) undone: bool,
    /// The largest received sets that it saw of recorded ackers.
    pub(super) water: Vec<Set>,
}

/// All that a decision is made of, in small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// GTIDs by bit.
    pub(super) made: Vec<Made>,
    pub(super) facts: Facts,
    pub(super) hope: Hope,
    pub(super) mood: Mood,
    pub(super) heard: Vec<Heard>,
    pub(super) silent: Bits,
    pub(super) answers: Vec<Option<Reply>>,
    pub(super) undone: bool,
    pub(super) water: Vec<Set>,
    /// Whether what is errant has been found out.
    pub(super) learned: bool,
    /// Who was found to hold nothing that is foreign to the recorded primary.
    pub(super) cleared: Bits,
}

impl Controller {
    pub(super) fn new(count: u8, object: Option<(Facts, Hope)>) -> Self {
        let count = usize::from(count);
        Self {
            object: object.map(Box::new),
            heard: vec![Heard::Nothing; count],
            deaf: 0,
            answers: vec![None; count],
            undone: false,
            water: vec![0; count],
        }
    }

    /// Another operation is recorded, or none: of what was answered before, that counts which is of a failover's epoch, or
    /// may come to be.
    pub(super) fn forget_answers(&mut self, facts: &Facts) {
        let stays = |of: Epoch| match &facts.operation {
            Some(intent) => intent.kind == Kind::Failover && of == intent.epoch,
            None => of > facts.epoch,
        };
        for answer in &mut self.answers {
            answer.take_if(|(of, _)| !stays(*of));
        }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.object.is_some()
    }
}

impl World {
    pub(super) fn is_deaf(&self, controller: u8, server: u8) -> bool {
        has(self.controllers[controller as usize].deaf, server)
    }

    pub(super) fn record_of(&self, controller: u8) -> &Facts {
        self.controllers[controller as usize].object.as_ref().map_or(&self.facts, |object| &object.0)
    }

    /// What an instance says of itself now.
    pub(super) fn says(&self, server: u8) -> Heard {
        let this = &self.servers[server as usize];
        let Some(phase) = this.phase() else { return Heard::Absent };
        let source = this.source.filter(|_| this.up());
        Heard::State(Snap {
            phase,
            promised: this.promised,
            duty: this.duty,
            in_force: this.in_force,
            leaving: this.leaving,
            unproven: this.unproven,
            data: this.data,
            up: this.up(),
            uuid: this.uuid,
            executed: this.executed,
            received: this.received(),
            owned: if this.opened { this.tail } else { 0 },
            read_only: !this.opened || this.closing(),
            offline: this.offline,
            source,
            receiving: this.receiving,
            connected: self.connected(server).is_some(),
            applying: this.applying,
            acknowledges: this.acknowledges,
        })
    }

    /// A controller hears an instance.
    pub(super) fn hear(&mut self, controller: u8, server: u8) {
        let said = self.says(server);
        let this = &mut self.controllers[controller as usize];
        this.deaf &= !one(server);
        this.heard[server as usize] = if this.is_slow() { said } else { Heard::Nothing };
    }

    /// An answer brings the state along.
    pub(super) fn hear_answer(&mut self, controller: u8, server: u8) {
        if self.controllers[controller as usize].is_slow() && !self.is_deaf(controller, server) {
            self.hear(controller, server);
        }
    }

    /// A controller hears an instance no more.
    pub(super) fn deafen(&mut self, controller: u8, server: u8) {
        let said = self.says(server);
        let this = &mut self.controllers[controller as usize];
        if !this.is_slow() {
            this.heard[server as usize] = said;
        }
        this.deaf |= one(server);
    }

    /// A slow controller reads the record.
    pub(super) fn read(&mut self, controller: u8) {
        let known = self.record_of(controller).operation_key();
        let object = (self.facts.clone(), self.hope.clone());
        let this = &mut self.controllers[controller as usize];
        if known != object.0.operation_key() {
            this.forget_answers(&object.0);
        }
        this.object = Some(Box::new(object));
    }

    /// Remembers the largest received sets, as each state that arrives does.
    pub(super) fn remember(&mut self, controller: u8) {
        let record = self.record_of(controller);
        let (ackers, count) = (record.ackers, self.count());
        for server in 0..count {
            let known = &self.controllers[controller as usize];
            let said = if known.is_slow() || has(known.deaf, server) {
                known.heard[server as usize]
            } else {
                self.says(server)
            };
            let received = match said {
                Heard::State(snap) if snap.up => snap.received,
                Heard::State(_) | Heard::Absent | Heard::Nothing => 0,
            };
            let water = &mut self.controllers[controller as usize].water[server as usize];
            *water = if has(ackers, server) { *water | received } else { 0 };
        }
    }

    /// What a controller decides on now.
    pub(super) fn view(&self, controller: u8, mood: Mood, bounds: &Bounds) -> View {
        let this = &self.controllers[controller as usize];
        let heard =
            (0..self.count())
                .map(|server| {
                    if this.is_slow() || has(this.deaf, server) {
                        this.heard[server as usize]
                    } else {
                        self.says(server)
                    }
                })
                .collect();
        let current = self.record_of(controller).epoch_of_answers();
        View {
            made: self.made.iter().map(|made| Made { acked: 0, ..*made }).collect(),
            facts: self.record_of(controller).clone(),
            hope: this.object.as_ref().map_or(&self.hope, |object| &object.1).clone(),
            mood,
            heard,
            silent: this.deaf,
            answers: this
                .answers
                .iter()
                .map(|answer| answer.filter(|(of, _)| *of == current).map(|(_, reply)| reply))
                .collect(),
            undone: this.undone,
            water: if bounds.remember { this.water.clone() } else { Vec::new() },
            learned: !this.is_slow(),
            cleared: if this.is_slow() { 0 } else { self.cleared() },
        }
    }

    /// Whoever holds nothing that the recorded primary does not: as if it had always been looked at in time.
    fn cleared(&self) -> Bits {
        let Some(primary) = self.facts.primary.map(|primary| &self.servers[primary as usize]) else { return 0 };
        let sound = |server: &u8| self.servers[*server as usize].received() & !primary.held() == 0;
        each(self.everybody()).filter(sound).fold(0, |out, server| out | one(server))
    }

    /// A pod that is there or not is seen by everybody who looks.
    pub(super) fn is_gone(&self, server: u8) -> bool {
        self.servers[server as usize].place == Place::Gone
    }
}

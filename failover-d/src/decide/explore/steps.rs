//! What can happen, and what it does.

use super::super::OperationPhase;
use super::bounds::{Bounds, kind};
use super::command::Command;
use super::facts::Facts;
use super::sets::Bits;
use super::world::{Broken, Letter, World};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A controller writes the record that it decided on; nobody was faster.
    Record {
        by: u8,
        next: Box<Facts>,
        undone: bool,
        wary: bool,
    },
    /// It gives an order, which arrives.
    Give {
        by: u8,
        to: u8,
        command: Command,
    },
    /// Its order is on its way.
    Post {
        by: u8,
        to: u8,
        command: Command,
    },
    /// An order arrives that was on its way; it may arrive again.
    Arrive {
        letter: u8,
    },
    /// An order comes a step further; `over`: its budget has run out.
    Proceed {
        server: u8,
        over: bool,
    },
    Hear {
        controller: u8,
        server: u8,
    },
    Read {
        controller: u8,
    },
    Write {
        server: u8,
    },
    Receive {
        server: u8,
    },
    Apply {
        server: u8,
    },
    Commit {
        server: u8,
    },
    Fault(Fault),
    /// A pod is there again.
    Back {
        server: u8,
    },
    /// An instance that was asked to stop has stopped.
    Go {
        server: u8,
    },
    Heal,
    /// A primary that hears nobody refuses its clients.
    GoOffline {
        server: u8,
    },
    Clone {
        server: u8,
        donor: u8,
    },
    /// topology-ctl takes away the pod of an instance that is not wanted any more.
    Trim {
        server: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash { server: u8 },
    Vanish { server: u8 },
    Lose { server: u8 },
    Leave { server: u8 },
    Isolate { server: u8 },
    Deafen { controller: u8, server: u8 },
    Switch { to: Option<u8> },
    Scale { instances: u8 },
    Fence { servers: Bits },
}

impl Step {
    /// The same but for epochs: in a shorter walk they are others.
    pub(super) fn without_epochs(&self) -> Self {
        let mut step = self.clone();
        match &mut step {
            Self::Record { next, .. } => {
                next.epoch = 0;
                if let Some(intent) = &mut next.operation {
                    intent.epoch = 0;
                }
            }
            Self::Give { command, .. } | Self::Post { command, .. } => *command = command.at(0),
            _ => {}
        }
        step
    }
}

impl World {
    /// Lets a step happen.
    pub(super) fn take(&mut self, step: &Step, bounds: &Bounds) {
        match *step {
            Step::Record { by, ref next, undone, wary } => {
                self.faults += u16::from(wary);
                self.slow_step(by);
                self.record(by, next, undone, bounds);
            }
            Step::Give { by, to, command } => {
                self.slow_step(by);
                self.give(by, to, command, bounds);
            }
            Step::Post { by, to, command } => {
                self.slow_step(by);
                self.letters.push(Letter { by, to, command });
            }
            Step::Arrive { letter } => {
                let letter = self.letters[letter as usize];
                self.give(letter.by, letter.to, letter.command, bounds);
            }
            Step::Proceed { server, over } => self.proceed(server, over, bounds),
            Step::Hear { controller, server } => {
                self.slow_step(controller);
                self.hear(controller, server);
            }
            Step::Read { controller } => {
                self.slow_step(controller);
                self.read(controller);
            }
            Step::Write { server } => self.write(server, bounds),
            Step::Receive { server } => self.receive(server, bounds),
            Step::Apply { server } => self.apply(server),
            Step::Commit { server } => self.commit(server),
            Step::Fault(fault) => {
                self.faults = self.faults.saturating_add(1);
                self.suffer(fault, bounds);
            }
            Step::Back { server } => self.back(server),
            Step::Go { server } => self.go(server, bounds),
            Step::Heal => self.heal(),
            Step::GoOffline { server } => self.servers[server as usize].offline = true,
            Step::Clone { server, donor } => self.copy(server, donor),
            Step::Trim { server } => {
                self.servers[server as usize].leaving = true;
                self.go(server, bounds);
            }
        }
        if bounds.remember {
            for controller in 0..self.controllers.len() as u8 {
                self.remember(controller);
            }
        }
    }

    fn slow_step(&mut self, controller: u8) {
        if self.controllers[controller as usize].is_slow() {
            self.slow_steps = self.slow_steps.saturating_add(1);
        }
    }

    /// The record changes by compare-and-swap: it still is the one that was decided on.
    fn record(&mut self, by: u8, next: &Facts, undone: bool, bounds: &Bounds) {
        let before = std::mem::replace(&mut self.facts, next.clone());
        let epoch =
            |facts: &Facts| facts.operation.as_ref().map_or(facts.epoch, |intent| intent.epoch.max(facts.epoch));
        if next.epoch < before.epoch || (before.operation_key() != next.operation_key() && epoch(next) < epoch(&before))
        {
            self.broken = Some(Broken::Backwards);
        }
        if before.operation_key() != next.operation_key() {
            for controller in self.controllers.iter_mut().filter(|controller| !controller.is_slow()) {
                controller.forget_answers(next);
            }
        }
        self.controllers[by as usize].undone = undone && bounds.allow(kind::SWITCH | kind::SCALE | kind::LEAVE);
        if self.controllers[by as usize].is_slow() {
            self.read(by);
        }
        let chosen = next.operation.as_ref().filter(|intent| intent.phase == OperationPhase::Promoting);
        if let Some(to) = chosen.and_then(|intent| intent.to)
            && before.candidate().is_none()
        {
            let candidate = &self.servers[to as usize];
            if candidate.data != 0 && self.told & !candidate.held() != 0 {
                self.broken = Some(Broken::Unproven);
            }
        }
    }
}

//! What can happen next, and what it does.

use super::super::OperationPhase;
use super::bounds::{Bounds, Mood, kind};
use super::facts::Facts;
use super::mind::Mind;
use super::orders::Command;
use super::sets::{Bits, has, one};
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
    /// All that can happen now.
    pub(super) fn steps(&self, bounds: &Bounds, mind: &Mind) -> Vec<Step> {
        let mut out = Vec::new();
        if self.broken.is_some() {
            return out;
        }
        for controller in 0..self.controllers.len() as u8 {
            self.steps_of(controller, bounds, mind, &mut out);
        }
        for (index, letter) in self.letters.iter().enumerate() {
            if !self.is_gone(letter.to) {
                out.push(Step::Arrive { letter: index as u8 });
            }
        }
        for server in 0..self.count() {
            self.steps_at(server, bounds, &mut out);
        }
        if self.apart != 0 || self.controllers.iter().any(|controller| !controller.is_slow() && controller.deaf != 0) {
            out.push(Step::Heal);
        }
        if self.faults < bounds.faults {
            self.faults(bounds, &mut out);
        }
        out
    }

    fn steps_of(&self, controller: u8, bounds: &Bounds, mind: &Mind, out: &mut Vec<Step>) {
        let this = &self.controllers[controller as usize];
        if this.is_slow() {
            if self.slow_steps >= bounds.slow_steps {
                return;
            }
            if this.object.as_ref().is_some_and(|object| object.0 != self.facts || object.1 != self.hope) {
                out.push(Step::Read { controller });
            }
            for server in 0..self.count() {
                if this.heard[server as usize] != self.says(server) || has(this.deaf, server) {
                    out.push(Step::Hear { controller, server });
                }
            }
        }
        let stands = *self.record_of(controller) == self.facts;
        let begun = out.len();
        for mood in bounds.moods {
            let wary = *mood == Mood::Wary;
            if wary && (self.faults >= bounds.faults || !bounds.allow(kind::WARY)) {
                continue;
            }
            let choice = mind.choose(self.view(controller, *mood, bounds));
            if let Some(next) = choice.next.as_ref().filter(|_| stands) {
                let next = Box::new(next.clone());
                let known =
                    out[begun..].iter().any(|step| matches!(step, Step::Record { next: known, .. } if *known == next));
                if !known {
                    out.push(Step::Record { by: controller, next, undone: choice.undone, wary });
                }
            }
            for &(to, command) in &choice.orders {
                let step = Step::Give { by: controller, to, command };
                if wary || out[begun..].contains(&step) || self.is_gone(to) || has(this.deaf, to) {
                    continue;
                }
                out.push(step);
                if self.letters.len() < bounds.letters {
                    let posted = self.letters.iter().any(|letter| letter.to == to && letter.command == command);
                    if !posted {
                        out.push(Step::Post { by: controller, to, command });
                    }
                }
            }
        }
    }

    fn steps_at(&self, server: u8, bounds: &Bounds, out: &mut Vec<Step>) {
        let this = &self.servers[server as usize];
        if let Some(doing) = this.doing {
            out.push(Step::Proceed { server, over: false });
            if doing.closes() && this.opened && this.tail != 0 {
                out.push(Step::Proceed { server, over: true });
            }
        }
        if this.serves() && !this.closing() && self.made.len() < usize::from(bounds.writes) {
            out.push(Step::Write { server });
        }
        if self.next_from(server).is_some() {
            out.push(Step::Receive { server });
        }
        if self.can_apply(server) {
            out.push(Step::Apply { server });
        }
        if bounds.commit && self.ready_to_commit(server).is_some() {
            out.push(Step::Commit { server });
        }
        if self.is_gone(server) && self.has_a_place(server) {
            out.push(Step::Back { server });
        }
        if this.leaving {
            out.push(Step::Go { server });
        }
        let alone = has(self.apart, server) && self.controllers.iter().all(|controller| has(controller.deaf, server));
        if alone && this.serves() && this.needed > 0 {
            out.push(Step::GoOffline { server });
        }
        if server < self.hope.instances
            && self.wants_clone(server)
            && let Some(donor) = self.donor(server)
        {
            out.push(Step::Clone { server, donor });
        }
        if server >= self.hope.instances && !self.is_gone(server) && self.is_free(server) {
            out.push(Step::Trim { server });
        }
    }

    fn faults(&self, bounds: &Bounds, out: &mut Vec<Step>) {
        let mut push = |kind: u16, fault: Fault| {
            if bounds.allow(kind) {
                out.push(Step::Fault(fault));
            }
        };
        for server in 0..self.count() {
            let this = &self.servers[server as usize];
            if this.up() {
                push(kind::CRASH, Fault::Crash { server });
            }
            if !self.is_gone(server) {
                push(kind::VANISH, Fault::Vanish { server });
                if this.data != 0 {
                    push(kind::LOSE, Fault::Lose { server });
                }
                if !this.leaving {
                    push(kind::LEAVE, Fault::Leave { server });
                }
                if self.apart == 0 {
                    push(kind::ISOLATE, Fault::Isolate { server });
                }
                for controller in 0..self.controllers.len() as u8 {
                    if !self.is_deaf(controller, server) {
                        push(kind::DEAF, Fault::Deafen { controller, server });
                    }
                }
            }
            if self.hope.primary != Some(server) {
                push(kind::SWITCH, Fault::Switch { to: Some(server) });
            }
            push(kind::FENCE, Fault::Fence { servers: self.hope.fenced ^ one(server) });
        }
        if self.hope.primary.is_some() {
            push(kind::SWITCH, Fault::Switch { to: None });
        }
        let instances = if self.hope.instances == self.count() { self.count() - 1 } else { self.count() };
        push(kind::SCALE, Fault::Scale { instances });
    }

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
                controller.answers.fill(None);
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

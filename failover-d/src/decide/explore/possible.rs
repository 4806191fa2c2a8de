//! What can happen next.

use super::bounds::{Bounds, Mood, kind};
use super::mind::Mind;
use super::sets::{has, one};
use super::steps::{Fault, Step};
use super::world::World;

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

    /// What can happen now in the place of a step of another walk: the same but for epochs.
    pub(super) fn step_like(&self, step: &Step, bounds: &Bounds, mind: &Mind) -> Option<Step> {
        let mut out = Vec::new();
        match step {
            Step::Record { by, .. } | Step::Give { by, .. } | Step::Post { by, .. } => {
                self.steps_of(*by, bounds, mind, &mut out);
            }
            Step::Hear { controller, .. } | Step::Read { controller } => {
                self.steps_of(*controller, bounds, mind, &mut out);
            }
            Step::Proceed { server, .. }
            | Step::Write { server }
            | Step::Receive { server }
            | Step::Apply { server }
            | Step::Commit { server }
            | Step::Back { server }
            | Step::Go { server }
            | Step::GoOffline { server }
            | Step::Clone { server, .. }
            | Step::Trim { server } => self.steps_at(*server, bounds, &mut out),
            Step::Fault(_) => self.faults(bounds, &mut out),
            Step::Arrive { .. } | Step::Heal => out = self.steps(bounds, mind),
        }
        let like = step.without_epochs();
        out.into_iter().find(|step| step.without_epochs() == like)
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
        let alone = self.apart == one(server) && self.controllers.iter().all(|controller| has(controller.deaf, server));
        if alone && this.serves() && this.needed > 0 {
            out.push(Step::GoOffline { server });
        }
        if let Some(donor) = self.donor(server) {
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
                if !has(self.apart, server) && u32::from(bounds.instances) > 2 * (self.apart.count_ones() + 1) {
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
}

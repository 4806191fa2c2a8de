//! How an instance takes an order: asked of the shipped rules, promised, begun.
//!
//! What follows a promise is carried out in steps (carry.rs), at once or between the steps of others.

use common::client::Error;
use common::instance::{InstanceState, Phase, Refusal, RefusalCode};

use super::super::Outcome;
use super::super::fixture::fresh;
use super::bounds::{Bounds, Sabotage};
use super::command::Command;
use super::instance_decide::{Ask, OrderKind, Standing, Verdict, accept};
use super::server::{Duty, Place};
use super::sets::{Set, name};
use super::world::World;

/// An order that is being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Doing {
    pub(super) command: Command,
    pub(super) at: At,
    /// The controller that waits for the answer.
    pub(super) by: u8,
}

/// What comes next of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// mysqld is started, rewound where that is due.
    Start,
    /// An open primary is closed.
    Close,
    /// The receiver is stopped.
    Stop,
    /// Follow: is anything here that the source lacks? Promote: is everything applied? Acks: the locks.
    Check,
    /// What the order is about.
    Last,
}

/// The answer to a fence or demote order, for one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Held { executed: Set, received: Set, data: u16, uuid: u16 },
    Dead,
    Declined,
}

impl Doing {
    pub(super) fn closes(&self) -> bool {
        self.at == At::Close && matches!(self.command.kind(), OrderKind::Demote | OrderKind::Fence | OrderKind::Follow)
    }

    /// Whether an order that overtakes ends it here. Not between the check and what rests on it.
    fn can_be_overtaken(&self) -> bool {
        match self.command.kind() {
            OrderKind::Follow | OrderKind::Promote => self.at != At::Last,
            OrderKind::Fence => self.at == At::Start,
            OrderKind::Acks | OrderKind::Demote => false,
        }
    }
}

impl World {
    /// Gives an order to an instance. Nothing happens when it does not arrive, or is refused.
    pub(super) fn give(&mut self, by: u8, to: u8, command: Command, bounds: &Bounds) {
        let this = &self.servers[to as usize];
        if this.place == Place::Gone || this.data == 0 || self.is_deaf(by, to) {
            return;
        }
        if this.doing.is_some_and(|doing| doing.command == command) {
            return;
        }
        let everybody = self.everybody();
        let duty = command.duty(to, everybody);
        let (standing, ask) = (this.duty.role(), duty.role());
        let verdict = accept(
            &Standing { name: &name(to), epoch: this.promised.into(), role: &standing, order: this.order },
            &Ask { kind: command.kind(), epoch: command.epoch().into(), role: ask },
        );
        if let Verdict::Refuse(code, message) = verdict {
            let refusal = Refusal { code, message, promised: this.promised.into() };
            self.answer(by, to, &command, &Err(Error::Refused(refusal)));
            return;
        }
        if let Some(doing) = this.doing {
            let overtakes = matches!(command.kind(), OrderKind::Fence | OrderKind::Demote);
            if !overtakes || !doing.can_be_overtaken() {
                return;
            }
            self.fail(to);
        }
        if command.kind() == OrderKind::Acks && !self.servers[to as usize].up() {
            return;
        }
        self.promise(to, &command, duty);
        let this = &mut self.servers[to as usize];
        let runs = this.place == Place::Up;
        let starts = match command {
            Command::Follow { .. } | Command::Promote { .. } => true,
            Command::Fence { start, .. } => start || !this.unproven,
            Command::Acks { .. } | Command::Demote { .. } => false,
        };
        if !runs && !starts {
            self.answer_now(by, to, &command);
            return;
        }
        if !runs {
            this.failed = false;
        }
        this.doing = Some(Doing { command, at: if runs { At::Close } else { At::Start }, by });
        if !runs {
            self.answer_now(by, to, &command);
        }
        if !bounds.split {
            self.see_through(to, bounds);
        }
    }

    /// Carries an order out to its end.
    pub(super) fn see_through(&mut self, server: u8, bounds: &Bounds) {
        while self.servers[server as usize].doing.is_some() {
            let before = self.servers[server as usize].doing;
            self.proceed(server, true, bounds);
            let this = &mut self.servers[server as usize];
            if this.doing == before {
                // It waits for what was received to be applied.
                this.executed |= this.relay;
                this.relay = 0;
            }
        }
    }

    /// As `promise` of instance-d writes it.
    fn promise(&mut self, to: u8, command: &Command, asked: Duty) {
        let this = &mut self.servers[to as usize];
        let runs = this.place == Place::Up;
        let kind = command.kind();
        let (was_primary, stays_primary) = (this.duty.is_primary(), asked.is_primary());
        let demoting = kind == OrderKind::Demote && was_primary && runs && this.opened;
        let again = kind == OrderKind::Promote && this.opened && command.epoch() == this.promised;
        let duty = if demoting || again { this.duty } else { asked };
        this.unproven |= (was_primary && !runs) || (this.opened && !stays_primary && kind != OrderKind::Demote);
        let moved = match (duty, this.duty) {
            (
                Duty::Replica { source, acknowledges },
                Duty::Replica { source: old_source, acknowledges: old_acknowledges },
            ) => source != old_source || (old_acknowledges && !acknowledges),
            (Duty::Primary { .. }, Duty::Primary { .. }) => kind == OrderKind::Acks && duty != this.duty,
            (new, old) => std::mem::discriminant(&new) != std::mem::discriminant(&old),
        };
        this.promised = command.epoch();
        this.duty = duty;
        this.order = Some(kind);
        this.in_force &= !moved;
        if this.opened && self.newest == Some(to) && matches!(kind, OrderKind::Acks | OrderKind::Promote) {
            self.newest_epoch = self.newest_epoch.max(command.epoch());
        }
    }

    /// The answer that an order gets with the state as it is now.
    pub(super) fn answer_now(&mut self, by: u8, to: u8, command: &Command) {
        if !matches!(command.kind(), OrderKind::Fence | OrderKind::Demote) {
            self.hear_answer(by, to);
            return;
        }
        let this = &self.servers[to as usize];
        let mut state = fresh(&name(to));
        state.phase = this.phase().unwrap_or(Phase::Crashed);
        if !this.up() {
            state.mysqld = None;
        }
        self.answer(by, to, command, &Ok(state));
        self.hear_answer(by, to);
    }

    /// A demotion is given up, for the whole of its epoch.
    pub(super) fn decline(&mut self, by: u8, to: u8, command: &Command, sabotage: Sabotage) {
        if sabotage != Sabotage::DeclineForgotten {
            self.servers[to as usize].order = None;
        }
        let refusal = Refusal { code: RefusalCode::Declined, message: String::new(), promised: 0 };
        self.answer(by, to, command, &Err(Error::Refused(refusal)));
    }

    /// What it means is the shipped judgement.
    fn answer(&mut self, by: u8, to: u8, command: &Command, said: &Result<InstanceState, Error>) {
        let this = &self.servers[to as usize];
        let (executed, received, data, uuid) = (this.executed, this.received(), this.data, this.uuid);
        let heard = !self.is_deaf(by, to);
        let record = self.record_of(by);
        if !heard || command.epoch() < record.epoch_of_answers() {
            return;
        }
        let Some(answer) = crate::order::outcome(&command.order(), said) else { return };
        let reply = match answer.outcome {
            Outcome::Held(_) => Reply::Held { executed, received, data, uuid },
            Outcome::Dead => Reply::Dead,
            Outcome::Declined(_) => Reply::Declined,
        };
        self.controllers[by as usize].answers[to as usize] = Some((command.epoch(), reply));
    }

    /// An order that ends before its end: what it had begun stays as it is.
    pub(super) fn fail(&mut self, server: u8) {
        let this = &mut self.servers[server as usize];
        let Some(doing) = this.doing.take() else { return };
        match doing.command.kind() {
            OrderKind::Fence | OrderKind::Follow => this.in_force = false,
            OrderKind::Promote => this.in_force &= this.opened,
            OrderKind::Acks | OrderKind::Demote => {}
        }
    }

    /// The promise was only in memory.
    pub(super) fn forget(&mut self, server: u8, sabotage: Sabotage) {
        if sabotage == Sabotage::PromiseForgotten {
            let this = &mut self.servers[server as usize];
            this.promised = 0;
            this.duty = Duty::None;
            this.order = None;
        }
    }
}

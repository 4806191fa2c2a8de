//! Orders step by step, as instance-d carries them out: between two steps everything else may happen.

use super::bounds::{Bounds, Sabotage};
use super::command::Command;
use super::instance_decide::OrderKind;
use super::orders::{At, Doing};
use super::server::{Duty, Place};
use super::sets::{Set, has, lowest};
use super::world::{Broken, World};

impl World {
    /// The next step of the order that is being carried out. `over`: a budget has run out.
    pub(super) fn proceed(&mut self, server: u8, over: bool, bounds: &Bounds) {
        let Some(doing) = self.servers[server as usize].doing else { return };
        match doing.at {
            At::Start => self.start_for(server, &doing, bounds),
            At::Close => self.close_for(server, &doing, over, bounds),
            At::Stop => {
                let this = &mut self.servers[server as usize];
                if let Command::Promote { hold, .. } = doing.command
                    && hold & !this.received() != 0
                    && bounds.sabotage != Sabotage::RestNotAwaited
                {
                    if over || !this.receiving {
                        self.fail(server);
                    }
                    return;
                }
                this.receiving = false;
                this.applying |= this.source.is_some();
                match doing.command.kind() {
                    OrderKind::Fence | OrderKind::Demote => self.done(server, &doing),
                    OrderKind::Follow | OrderKind::Promote | OrderKind::Acks => self.next(server, At::Check),
                }
            }
            At::Check => self.check_for(server, &doing, bounds),
            At::Last => self.last_of(server, &doing, bounds),
        }
    }

    fn next(&mut self, server: u8, at: At) {
        if let Some(doing) = &mut self.servers[server as usize].doing {
            doing.at = at;
        }
    }

    /// The instance is what the order says; what is answered is of now.
    fn done(&mut self, server: u8, doing: &Doing) {
        let this = &mut self.servers[server as usize];
        this.in_force = true;
        this.failed = false;
        this.doing = None;
        self.answer_now(doing.by, server, &doing.command);
    }

    /// mysqld starts. A former primary that is told to follow is rewound first.
    fn start_for(&mut self, server: u8, doing: &Doing, bounds: &Bounds) {
        let this = &self.servers[server as usize];
        if let Command::Follow { source, ahead, .. } = doing.command
            && (this.unproven || this.rewinding)
            && bounds.sabotage != Sabotage::RewindSkipped
        {
            let Some(theirs) = self.source_set(server, source).filter(|_| !ahead) else {
                return self.fail(server);
            };
            let foreign = (this.executed | this.tail) & !theirs;
            let first = lowest(foreign);
            let is_pure = this.tail & !foreign & !(first.wrapping_sub(1)) == 0;
            if foreign & this.executed != 0 || !is_pure {
                let this = &mut self.servers[server as usize];
                this.rewinding = false;
                this.failed = true;
                return self.fail(server);
            }
            if foreign != 0 {
                self.cut(server, foreign, bounds);
            }
        }
        self.start(server);
        self.next(server, At::Close);
    }

    /// Takes exactly the foreign tail off the binlog, and the server UUID with it.
    fn cut(&mut self, server: u8, foreign: Set, bounds: &Bounds) {
        if foreign & self.told != 0 {
            self.broken = Some(Broken::Cut);
        }
        let uuid = self.uuids;
        let this = &mut self.servers[server as usize];
        this.tail &= !foreign;
        this.rewinding = true;
        if bounds.sabotage != Sabotage::UuidKept {
            this.uuid = uuid;
            self.uuids += 1;
        }
    }

    /// Written under the present server UUID of an instance: not executed there, it waits for acknowledgements.
    fn written_by(&self, server: u8) -> Set {
        let uuid = self.servers[server as usize].uuid;
        let made = self.made.iter().enumerate().filter(|(_, made)| made.uuid == uuid);
        made.fold(0, |out, (bit, _)| out | 1 << bit)
    }

    /// What a source has, if it answers: a locked account cannot ask.
    fn source_set(&self, server: u8, source: u8) -> Option<Set> {
        let from = &self.servers[source as usize];
        let reached = from.up() && !has(from.locked, server) && self.reach(server, source);
        reached.then(|| from.received())
    }

    /// `super_read_only=ON` returns when nobody waits any more; when the budget is over mysqld is killed.
    fn close_for(&mut self, server: u8, doing: &Doing, over: bool, bounds: &Bounds) {
        let kind = doing.command.kind();
        match (kind, self.servers[server as usize].opened) {
            (OrderKind::Acks, true) => return self.next(server, At::Check),
            // Promised, and refused all the same.
            (OrderKind::Acks, false) => return self.fail(server),
            (OrderKind::Promote, true) => return self.next(server, At::Last),
            (OrderKind::Promote, false) => return self.next(server, At::Stop),
            (OrderKind::Fence | OrderKind::Demote | OrderKind::Follow, _) => {}
        }
        let this = &mut self.servers[server as usize];
        if this.opened && this.tail != 0 && !over {
            return;
        }
        if this.opened && this.tail != 0 {
            if matches!(doing.command, Command::Demote { kill: false, .. }) {
                this.doing = None;
                return self.decline(doing.by, server, &doing.command, bounds.sabotage);
            }
            if this.duty.is_primary() {
                this.duty = Duty::Fenced;
            }
            this.unproven = true;
            self.crash(server);
            if kind == OrderKind::Follow {
                self.servers[server as usize].doing = Some(Doing { at: At::Start, ..*doing });
            } else {
                self.answer_now(doing.by, server, &doing.command);
            }
            return;
        }
        if this.opened {
            this.opened = false;
            this.offline = true;
            this.unproven = false;
        }
        if kind == OrderKind::Demote && this.duty.is_primary() {
            this.duty = Duty::Fenced;
        }
        if let Command::Follow { source, acknowledges, .. } = doing.command
            && this.receiving
            && this.source == Some(source)
            && this.acknowledges == acknowledges
        {
            this.applying = true;
            this.offline = false;
            return self.done(server, doing);
        }
        self.next(server, At::Stop);
    }

    fn check_for(&mut self, server: u8, doing: &Doing, bounds: &Bounds) {
        match doing.command {
            Command::Follow { source, ahead, holds, .. } => {
                let own = self.servers[server as usize].received();
                let known = holds.filter(|holds| own & !holds == 0);
                let Some(theirs) = known.or_else(|| self.source_set(server, source)) else { return self.fail(server) };
                let waiting = self.written_by(source);
                let this = &mut self.servers[server as usize];
                let foreign = this.received() & !theirs & !waiting;
                if foreign != 0 && bounds.sabotage != Sabotage::RewindSkipped {
                    if !ahead {
                        this.rewinding = false;
                        this.failed = true;
                    }
                    return self.fail(server);
                }
                this.unproven = false;
                this.rewinding = false;
                self.next(server, At::Last);
            }
            Command::Promote { unproven, proven, needed, .. } => {
                let this = &mut self.servers[server as usize];
                if bounds.sabotage == Sabotage::Unapplied {
                    this.relay = 0;
                }
                if this.relay != 0 {
                    return;
                }
                this.applying = false;
                this.acknowledges = false;
                let is_proven = needed == 0
                    || !(unproven || this.unproven)
                    || proven.is_some_and(|proven| this.executed & !proven == 0)
                    || bounds.sabotage == Sabotage::TailServed;
                if is_proven {
                    return self.next(server, At::Last);
                }
                let Duty::Primary { needed, struck } = this.duty else { return };
                this.offline = true;
                this.needed = needed;
                this.locked = struck;
                this.in_force = false;
                this.doing = None;
                self.answer_now(doing.by, server, &doing.command);
            }
            Command::Acks { .. } => {
                let this = &mut self.servers[server as usize];
                let Duty::Primary { struck, .. } = this.duty else { return };
                this.locked = struck;
                self.next(server, At::Last);
            }
            Command::Fence { .. } | Command::Demote { .. } => {}
        }
    }

    fn last_of(&mut self, server: u8, doing: &Doing, bounds: &Bounds) {
        let this = &mut self.servers[server as usize];
        match doing.command {
            Command::Follow { source, acknowledges, .. } => {
                this.needed = 0;
                this.acknowledges = acknowledges;
                this.source = Some(source);
                this.receiving = true;
                this.applying = true;
                this.offline = false;
            }
            Command::Promote { .. } | Command::Acks { .. } => {
                let Duty::Primary { needed, struck } = this.duty else { return };
                let opens = !this.opened;
                this.needed = needed;
                if doing.command.kind() == OrderKind::Promote {
                    this.locked = struck;
                    this.offline = false;
                    this.opened = true;
                }
                if opens {
                    this.unproven = false;
                    this.source = None;
                    self.opened(server);
                }
                if !bounds.commit {
                    self.commit_all(server);
                }
            }
            Command::Fence { .. } | Command::Demote { .. } => {}
        }
        self.done(server, doing);
    }

    pub(super) fn start(&mut self, server: u8) {
        self.forget_acks(server);
        self.servers[server as usize].start();
    }

    /// mysqld dies, and with it whatever was being done.
    pub(super) fn crash(&mut self, server: u8) {
        self.forget_acks(server);
        let this = &mut self.servers[server as usize];
        this.stop();
        this.clean = false;
        this.place = Place::Down;
    }

    /// Who waited is gone.
    fn forget_acks(&mut self, server: u8) {
        let tail = self.servers[server as usize].tail;
        for (bit, made) in self.made.iter_mut().enumerate() {
            if tail & (1 << bit) != 0 {
                made.acked = 0;
            }
        }
    }
}

//! One instance: what is on its volume, what instance-d knows, what mysqld is doing.

use common::instance::{Phase, Role};

use super::instance_decide::OrderKind;
use super::orders::Doing;
use super::sets::{Bits, Epoch, Set, each, name};

/// [`Role`] in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Duty {
    None,
    Fenced,
    Replica { source: u8, acknowledges: bool },
    Primary { needed: u8, struck: Bits },
}

impl Duty {
    pub(super) fn role(self) -> Role {
        match self {
            Self::None => Role::None,
            Self::Fenced => Role::Fenced,
            Self::Replica { source, acknowledges } => Role::Replica { source: name(source), acknowledges },
            Self::Primary { needed, struck } => {
                Role::Primary { acks_needed: needed.into(), struck: each(struck).map(u32::from).collect() }
            }
        }
    }

    pub(super) fn is_primary(self) -> bool {
        matches!(self, Self::Primary { .. })
    }
}

/// Where its processes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// There is no pod.
    Gone,
    /// instance-d runs, mysqld does not.
    Down,
    /// Both run.
    Up,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    // On the volume: outlives everything but the volume.
    /// Names the data; 0: there is none.
    pub(super) data: u16,
    /// `auto.cnf`.
    pub(super) uuid: u16,
    pub(super) promised: Epoch,
    pub(super) duty: Duty,
    pub(super) order: Option<OrderKind>,
    /// `tailUnproven`.
    pub(super) unproven: bool,
    /// `rewind.json`: a tail was cut off, and it was not yet checked what is left.
    pub(super) rewinding: bool,
    pub(super) clean: bool,
    pub(super) executed: Set,
    /// In the relay log, not executed.
    pub(super) relay: Set,
    /// In the binlog, prepared in the engine: waits for acknowledgements, or was left there by a crash.
    pub(super) tail: Set,
    /// Replication accounts that are locked, by the ordinal of their replica.
    pub(super) locked: Bits,
    /// The replication channel.
    pub(super) source: Option<u8>,

    // instance-d.
    pub(super) place: Place,
    pub(super) failed: bool,
    pub(super) leaving: bool,
    pub(super) in_force: bool,
    pub(super) opened: bool,
    pub(super) doing: Option<Doing>,

    // mysqld, until it ends.
    pub(super) offline: bool,
    pub(super) receiving: bool,
    pub(super) applying: bool,
    /// Sends semi-sync acknowledgements.
    pub(super) acknowledges: bool,
    /// Semi-sync acknowledgements that its commits wait for.
    pub(super) needed: u8,
}

impl Server {
    /// Provisioned a moment ago: mysqld runs, closed.
    pub(super) fn new(data: u16, uuid: u16) -> Self {
        Self {
            data,
            uuid,
            promised: 0,
            duty: Duty::None,
            order: None,
            unproven: false,
            rewinding: false,
            clean: false,
            executed: 0,
            relay: 0,
            tail: 0,
            locked: 0,
            source: None,
            place: Place::Up,
            failed: false,
            leaving: false,
            in_force: false,
            opened: false,
            doing: None,
            offline: true,
            receiving: false,
            applying: false,
            acknowledges: false,
            needed: 0,
        }
    }

    /// A new pod on an empty volume.
    pub(super) fn empty() -> Self {
        Self { place: Place::Down, ..Self::new(0, 0) }
    }

    /// Executed, and what the relay log holds.
    pub(super) fn received(&self) -> Set {
        self.executed | self.relay
    }

    /// All that is in its files.
    pub(super) fn held(&self) -> Set {
        self.executed | self.relay | self.tail
    }

    pub(super) fn up(&self) -> bool {
        self.place == Place::Up && self.data != 0
    }

    /// Without data, or with data that is not served any more.
    pub(super) fn is_lost(&self) -> bool {
        self.place != Place::Gone && (self.data == 0 || self.failed)
    }

    /// The same, to who has recorded no more than this epoch.
    pub(super) fn is_lost_at(&self, epoch: Epoch) -> bool {
        self.is_lost() && (self.data == 0 || self.promised <= epoch)
    }

    /// Takes writes.
    pub(super) fn serves(&self) -> bool {
        self.up() && self.opened && !self.offline
    }

    /// `super_read_only=ON` was asked for and waits behind sessions that wait: new writes wait, too.
    pub(super) fn closing(&self) -> bool {
        self.opened && self.doing.is_some_and(|doing| doing.closes())
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        let starting = self.doing.is_some();
        Some(match self.place {
            Place::Gone => return None,
            _ if self.data == 0 => Phase::Empty,
            _ if self.failed => Phase::Failed,
            Place::Up => Phase::Running,
            Place::Down if starting => Phase::Starting,
            Place::Down => Phase::Crashed,
        })
    }

    /// mysqld ends, however it does: what was only in its memory is gone.
    pub(super) fn stop(&mut self) {
        self.place = Place::Down;
        self.failed = false;
        self.in_force = false;
        self.opened = false;
        self.doing = None;
        self.offline = true;
        self.receiving = false;
        self.applying = false;
        self.acknowledges = false;
        self.needed = 0;
    }

    /// mysqld starts, closed. Crash recovery commits what is in the binlog.
    pub(super) fn start(&mut self) {
        let doing = self.doing;
        self.stop();
        self.doing = doing;
        self.place = Place::Up;
        self.clean = false;
        self.executed |= self.tail;
        self.tail = 0;
    }
}

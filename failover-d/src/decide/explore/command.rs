//! Orders in small.

use common::instance::{AcksOrder, DemoteOrder, FenceOrder, FollowOrder, PromoteOrder};

use super::super::Order;
use super::instance_decide::OrderKind;
use super::server::Duty;
use super::sets::{Bits, Epoch, Made, Set, each, name, number, one, small};

/// [`Order`] in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Fence { epoch: Epoch, start: bool },
    Follow { epoch: Epoch, source: u8, acknowledges: bool, ahead: bool, holds: Option<Set> },
    Promote { epoch: Epoch, needed: u8, ackers: Bits, unproven: bool, proven: Option<Set>, hold: Set },
    Acks { epoch: Epoch, needed: u8, struck: Bits },
    Demote { epoch: Epoch, kill: bool },
}

impl Command {
    pub(super) fn epoch(&self) -> Epoch {
        match *self {
            Self::Fence { epoch, .. }
            | Self::Follow { epoch, .. }
            | Self::Promote { epoch, .. }
            | Self::Acks { epoch, .. }
            | Self::Demote { epoch, .. } => epoch,
        }
    }

    /// The same in another epoch.
    pub(super) fn at(mut self, at: Epoch) -> Self {
        match &mut self {
            Self::Fence { epoch, .. }
            | Self::Follow { epoch, .. }
            | Self::Promote { epoch, .. }
            | Self::Acks { epoch, .. }
            | Self::Demote { epoch, .. } => *epoch = at,
        }
        self
    }

    pub(super) fn kind(&self) -> OrderKind {
        match self {
            Self::Fence { .. } => OrderKind::Fence,
            Self::Follow { .. } => OrderKind::Follow,
            Self::Promote { .. } => OrderKind::Promote,
            Self::Acks { .. } => OrderKind::Acks,
            Self::Demote { .. } => OrderKind::Demote,
        }
    }

    /// What it makes of an instance.
    pub(super) fn duty(&self, own: u8, everybody: Bits) -> Duty {
        match *self {
            Self::Fence { .. } | Self::Demote { .. } => Duty::Fenced,
            Self::Follow { source, acknowledges, .. } => Duty::Replica { source, acknowledges },
            Self::Promote { needed, ackers, .. } => Duty::Primary { needed, struck: everybody & !ackers & !one(own) },
            Self::Acks { needed, struck, .. } => Duty::Primary { needed, struck },
        }
    }

    /// A look changes nothing: whoever is not slow sees what is there.
    pub(super) fn from(made: &[Made], order: &Order) -> Option<Self> {
        Some(match order {
            Order::Fence(order) => Self::Fence { epoch: order.epoch as Epoch, start: order.start },
            Order::Follow(order) => Self::Follow {
                epoch: order.epoch as Epoch,
                source: number(&order.source),
                acknowledges: order.acknowledges,
                ahead: order.ahead,
                holds: order.source_holds.as_ref().map(|set| small(made, set)),
            },
            Order::Promote(order) => Self::Promote {
                epoch: order.epoch as Epoch,
                needed: order.acks_needed as u8,
                ackers: order.ackers.iter().fold(0, |out, ordinal| out | 1 << ordinal),
                unproven: order.tail_unproven,
                proven: order.proven.as_ref().map(|set| small(made, set)),
                hold: order.must_hold.as_ref().map_or(0, |set| small(made, set)),
            },
            Order::Acks(order) => Self::Acks {
                epoch: order.epoch as Epoch,
                needed: order.acks_needed as u8,
                struck: order.struck.iter().fold(0, |out, ordinal| out | 1 << ordinal),
            },
            Order::Demote(order) => Self::Demote { epoch: order.epoch as Epoch, kill: order.kill },
            Order::Look => return None,
        })
    }

    /// The order that an answer is read with.
    pub(super) fn order(&self) -> Order {
        match *self {
            Self::Fence { epoch, start } => Order::Fence(FenceOrder { epoch: epoch.into(), start }),
            Self::Demote { epoch, kill } => Order::Demote(DemoteOrder { epoch: epoch.into(), budget_ms: 0, kill }),
            Self::Follow { epoch, source, acknowledges, ahead, .. } => Order::Follow(FollowOrder {
                epoch: epoch.into(),
                source: name(source),
                source_host: String::new(),
                source_address: None,
                acknowledges,
                ahead,
                source_holds: None,
                expendable: false,
            }),
            Self::Promote { epoch, needed, ackers, .. } => Order::Promote(PromoteOrder {
                epoch: epoch.into(),
                acks_needed: needed.into(),
                ackers: each(ackers).map(u32::from).collect(),
                apply_timeout_ms: 0,
                tail_unproven: false,
                proven: None,
                must_hold: None,
            }),
            Self::Acks { epoch, needed, struck } => Order::Acks(AcksOrder {
                epoch: epoch.into(),
                acks_needed: needed.into(),
                struck: each(struck).map(u32::from).collect(),
            }),
        }
    }
}

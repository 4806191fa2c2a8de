//! What a decision is: plain data without IO.

use std::collections::BTreeSet;

use common::instance::{AcksOrder, DemoteOrder, Epoch, FenceOrder, FollowOrder, PromoteOrder};

use super::model::{Name, Record};

/// An order to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// See [`FenceOrder`].
    Fence(FenceOrder),
    /// See [`FollowOrder`].
    Follow(FollowOrder),
    /// See [`PromoteOrder`].
    Promote(PromoteOrder),
    /// See [`AcksOrder`].
    Acks(AcksOrder),
    /// See [`DemoteOrder`].
    Demote(DemoteOrder),
    /// Say what mysqld says now: no change, for a decision that waits for it.
    Look,
}

/// What to do now. Orders are idempotent and may be given in parallel; those beside a change of the record are right whether
/// it comes to stand or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// New record, to be written only against the resourceVersion that was observed.
    pub record: Option<Record>,
    /// Why the record changes, for people.
    pub why: String,
    /// Orders by instance.
    pub orders: Vec<(Name, Order)>,
    /// Where the Services should lead; absent: leave them.
    pub routes: Option<Routes>,
    /// Why nothing better can be done, if that is so.
    pub blocked: Option<Blocked>,
    /// The plan gives a switchover up: do not try again at once.
    pub undone: bool,
    /// What the orders bring in a moment may make another record of this one: until then it is better not written.
    pub can_wait: bool,
}

/// Where the Services should lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Epoch that the routes belong to; a lower one never overwrites a higher.
    pub epoch: Epoch,
    /// The primary; absent: leave the Service as it is.
    pub primary: Option<Name>,
    /// Instances that take reads.
    pub replicas: BTreeSet<Name>,
}

/// Why a step that is wanted cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// CamelCase, for conditions.
    pub reason: &'static str,
    /// For people, with the next step.
    pub message: String,
}

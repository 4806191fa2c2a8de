//! Which instance gets data, and from where.
//!
//! Before the first promotion all empty instances initialise side by side: same accounts, no GTID; or, where the cluster's data
//! is to come from an archive, as [`restore`] says. Afterwards an empty
//! instance clones a healthy replica, or the primary when there is none. Two rules guard acknowledged writes: an
//! instance without proven history is never a donor, and a recorded acker that comes back empty waits until failover-d
//! has struck it (it may have been the proof of an acknowledged write, invariant 4).
//!
//! Whose data may be thrown away for a clone is decided in [`super::rebuild`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::instance::{Phase, ReceiverState, Role};

use super::closed::{self, Closed};
use super::rebuild::{Condemned, condemned};
use super::{Member, Record, restore};

/// First pause after a failed attempt; doubles with each failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// An order that was accepted shows in the state by then.
const ORDER_SHOWS_AFTER: Duration = Duration::from_secs(1);
/// A replica that lies further behind is no donor: the clone would start its life behind too.
const DONOR_LAG_MAX_SECONDS: f64 = 30.0;

/// An order to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make a new data directory.
    Initialise {
        /// Who.
        instance: String,
    },
    /// Make a new data directory of an archive.
    Restore {
        /// Who.
        instance: String,
    },
    /// Copy the data of `donor`.
    Clone {
        /// Who.
        instance: String,
        /// Whose data.
        donor: String,
        /// The data that is thrown away, when there is some.
        condemns: Option<Condemned>,
    },
}

/// Why an instance without data gets no order now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wait {
    /// Another instance holds transactions although nobody was ever promoted here: initialising would make two histories.
    DataFromBefore,
    /// Another instance is filled from the archive; this one is filled from that.
    Restoring,
    /// The bootstrap has been claimed and has not finished.
    Bootstrapping,
    /// A failover or switchover is under way.
    Operation,
    /// It is a recorded acker: failover-d strikes it first.
    StillAcker,
    /// It is the recorded primary: failover-d promotes another first.
    StillPrimary,
    /// No instance is fit to be a donor.
    NoDonor,
    /// Every donor already serves a clone.
    DonorsBusy,
    /// The first replica of a lone primary joins; a second clone would slow its first acknowledgements.
    FirstJoining,
    /// The last attempt failed; the next one comes later.
    BackingOff,
}

impl Wait {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::DataFromBefore => "another instance holds data from before this cluster was created",
            Self::Restoring => "another instance is filled from the archive first",
            Self::Bootstrapping => "the cluster is being bootstrapped",
            Self::Operation => "a change of primary is under way",
            Self::FirstJoining => "another instance is just becoming the first replica",
            Self::StillAcker => "it is a recorded acker, failover-d strikes it first",
            Self::StillPrimary => "it is the recorded primary, failover-d promotes another first",
            Self::NoDonor => "no healthy instance with proven history can be the donor",
            Self::DonorsBusy => "every donor already serves a clone",
            Self::BackingOff => "the last attempt failed, the next one follows",
        }
    }
}

/// What this daemon remembers about the provisioning of one instance. Losing it costs a pause, nothing else.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Donor of the running order; `None` while it initialises or is restored.
    pub donor: Option<String>,
    /// Whether the order is being carried out, as far as is known.
    pub running: bool,
    /// Failures in a row.
    pub failures: u32,
    /// No new order before; while it runs, when it was accepted.
    pub not_before: Instant,
}

impl Attempt {
    /// An order was accepted.
    pub fn started(previous: Option<&Self>, donor: Option<String>, now: Instant) -> Self {
        Self { donor, running: true, failures: previous.map_or(0, |attempt| attempt.failures), not_before: now }
    }

    /// The order was refused, or the instance is without data again.
    pub fn failed(&mut self, now: Instant) {
        self.running = false;
        self.not_before = now + BACKOFF_FIRST.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
    }
}

/// What became of earlier orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has data now; `donor` is `None` after an initialisation.
    Done {
        /// Who.
        instance: String,
        /// Whose data.
        donor: Option<String>,
    },
    /// It is without data again.
    Failed {
        /// Who.
        instance: String,
        /// What it says about it.
        problem: String,
    },
}

/// Compares the running attempts with what the instances say now, and brings the memory up to date.
pub fn review(attempts: &mut BTreeMap<String, Attempt>, members: &[Member], now: Instant) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    attempts.retain(|name, attempt| {
        let Some(member) = members.iter().find(|member| member.name == *name) else { return false };
        if !attempt.running {
            return true;
        }
        if member.is_empty() {
            if now < attempt.not_before + ORDER_SHOWS_AFTER {
                return true;
            }
            attempt.failed(now);
            let problem = member.state.as_ref().and_then(|state| state.problem.clone());
            outcomes.push(Outcome::Failed { instance: name.clone(), problem: problem.unwrap_or_default() });
        } else if member.is_phase(Phase::Running) {
            outcomes.push(Outcome::Done { instance: name.clone(), donor: attempt.donor.clone() });
            return false;
        }
        true
    });
    outcomes
}

/// Orders to give now, and why the other instances without data get none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// Orders.
    pub orders: Vec<Order>,
    /// Instances that wait.
    pub waiting: Vec<(String, Wait)>,
}

/// Decides on the instances that need data. `closed`: who leads and stays closed. `restores`: a new cluster gets its data from an archive. `asked`: the one that a
/// person wants rebuilt.
pub fn provision(
    record: &Record,
    members: &[Member],
    attempts: &BTreeMap<String, Attempt>,
    closed: Option<&Closed>,
    restores: bool,
    asked: Option<&str>,
    now: Instant,
) -> Provision {
    let mut plan = Provision::default();
    if record.is_new() && restores {
        return restore::provision(members, attempts, now);
    }
    if record.is_new() {
        let from_before = members.iter().any(holds_transactions);
        for member in members.iter().filter(|member| member.is_empty() && !leaving(member)) {
            if from_before {
                plan.waiting.push((member.name.clone(), Wait::DataFromBefore));
            } else if backing_off(attempts, &member.name, now) {
                plan.waiting.push((member.name.clone(), Wait::BackingOff));
            } else {
                plan.orders.push(Order::Initialise { instance: member.name.clone() });
            }
        }
        return plan;
    }

    let mut busy: BTreeSet<&str> =
        attempts.values().filter(|attempt| attempt.running).filter_map(|attempt| attempt.donor.as_deref()).collect();
    for member in members.iter().filter(|member| !leaving(member)) {
        let condemns = condemned(record, member, members, asked);
        if !member.is_empty() && condemns.is_none() {
            continue;
        }
        let wait = if record.epoch == 0 {
            Some(Wait::Bootstrapping)
        } else if record.operation {
            Some(Wait::Operation)
        } else if record.primary.as_deref() == Some(&member.name) {
            Some(Wait::StillPrimary)
        } else if record.ackers.contains(&member.name) {
            Some(Wait::StillAcker)
        } else if backing_off(attempts, &member.name, now) {
            Some(Wait::BackingOff)
        } else {
            None
        };
        let chosen = match wait {
            Some(wait) => Err(wait),
            None if first_is_joining(record, members, &member.name, &busy) => Err(Wait::FirstJoining),
            None => donor(record, members, &member.name, &busy),
        };
        let chosen = chosen.or_else(|wait| {
            let source = match wait {
                Wait::Operation | Wait::StillAcker | Wait::NoDonor => {
                    closed::donor(closed, record, members, member, now)
                }
                Wait::DataFromBefore
                | Wait::Restoring
                | Wait::Bootstrapping
                | Wait::StillPrimary
                | Wait::DonorsBusy
                | Wait::FirstJoining
                | Wait::BackingOff => None,
            };
            match source {
                None => Err(wait),
                Some(_) if backing_off(attempts, &member.name, now) => Err(Wait::BackingOff),
                Some(source) if busy.contains(source.name.as_str()) => Err(Wait::DonorsBusy),
                Some(source) => Ok(source),
            }
        });
        match chosen {
            Ok(donor) => {
                busy.insert(&donor.name);
                plan.orders.push(Order::Clone { instance: member.name.clone(), donor: donor.name.clone(), condemns });
            }
            Err(wait) => plan.waiting.push((member.name.clone(), wait)),
        }
    }
    plan
}

/// A primary that nobody acknowledges yet gets its replicas one after the other: the commits that wait for the very first
/// acknowledgement would otherwise wait for a disk that a second clone keeps busy.
fn first_is_joining(record: &Record, members: &[Member], recipient: &str, busy: &BTreeSet<&str>) -> bool {
    let joins = |member: &Member| {
        member.state.as_ref().is_some_and(|state| match state.phase {
            Phase::Cloning | Phase::Starting => true,
            Phase::Running => {
                state.mysqld.as_ref().and_then(|mysqld| mysqld.replication.as_ref()).is_none_or(|replication| {
                    replication.applier_error.is_empty() && replication.receiver_error.is_empty()
                })
            }
            Phase::Empty
            | Phase::Initialising
            | Phase::Crashed
            | Phase::Rewinding
            | Phase::Stopping
            | Phase::Failed => false,
        })
    };
    let others =
        members.iter().filter(|member| member.name != recipient && record.primary.as_ref() != Some(&member.name));
    record.acks_needed == 0 && (!busy.is_empty() || others.into_iter().any(joins))
}

pub(super) fn leaving(member: &Member) -> bool {
    member.state.as_ref().is_some_and(|state| state.leaving) || member.pod.as_ref().is_some_and(|pod| pod.deleting)
}

pub(super) fn backing_off(attempts: &BTreeMap<String, Attempt>, name: &str, now: Instant) -> bool {
    attempts.get(name).is_some_and(|attempt| attempt.running || now < attempt.not_before)
}

pub(super) fn holds_transactions(member: &Member) -> bool {
    member.state.as_ref().is_some_and(|state| {
        state.promised > 0 || state.mysqld.as_ref().is_some_and(|mysqld| !mysqld.executed.is_empty())
    })
}

/// The one to copy from: the replica that lies least behind, else the primary. A donor serves one clone at a time
/// (`ER_CLONE_TOO_MANY_CONCURRENT_CLONES`).
fn donor<'a>(
    record: &Record,
    members: &'a [Member],
    recipient: &str,
    busy: &BTreeSet<&str>,
) -> Result<&'a Member, Wait> {
    let mut replicas: Vec<(&Member, f64)> = members
        .iter()
        .filter(|member| member.name != recipient)
        .filter_map(|member| replica_lag(record, member).map(|lag| (member, lag)))
        .collect();
    replicas.sort_by(|left, right| left.1.total_cmp(&right.1).then(left.0.ordinal.cmp(&right.0.ordinal)));
    if let Some((free, _)) = replicas.iter().find(|(member, _)| !busy.contains(member.name.as_str())) {
        return Ok(free);
    }
    if !replicas.is_empty() {
        return Err(Wait::DonorsBusy);
    }
    match members.iter().find(|member| member.name != recipient && is_primary(record, member)) {
        Some(primary) if busy.contains(primary.name.as_str()) => Err(Wait::DonorsBusy),
        Some(primary) => Ok(primary),
        None => Err(Wait::NoDonor),
    }
}

/// Lag of a replica with proven history: it follows the recorded primary in the recorded epoch without an error.
pub(super) fn replica_lag(record: &Record, member: &Member) -> Option<f64> {
    let state = member.state.as_ref()?;
    let mysqld = state.mysqld.as_ref()?;
    let replication = mysqld.replication.as_ref()?;
    let follows = match &state.role {
        Role::Replica { source, .. } => record.primary.as_ref() == Some(source),
        Role::None | Role::Fenced | Role::Primary { .. } => false,
    };
    let healthy = follows
        && state.phase == Phase::Running
        && !leaving(member)
        && state.in_force
        && !state.tail_unproven
        && state.promised <= record.epoch
        && replication.receiver == ReceiverState::Yes
        && replication.applier_running
        && replication.receiver_error.is_empty()
        && replication.applier_error.is_empty()
        && replication.lag_seconds <= DONOR_LAG_MAX_SECONDS;
    healthy.then_some(replication.lag_seconds)
}

pub(super) fn is_primary(record: &Record, member: &Member) -> bool {
    record.primary.as_deref() == Some(&member.name)
        && member.state.as_ref().is_some_and(|state| {
            state.phase == Phase::Running
                && matches!(state.role, Role::Primary { .. })
                && state.in_force
                && !state.tail_unproven
                && state.promised == record.epoch
                && state.mysqld.is_some()
        })
}

#[cfg(test)]
mod tests;

//! What a decision is made of: plain data without IO.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::{Epoch, InstanceState, Phase, ReceiverState, Role};

/// Pod name of an instance.
pub type Name = String;

/// All that is known of one cluster at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Facts recorded in the status, as of one resourceVersion.
    pub record: Record,
    /// What the user wants.
    pub wish: Wish,
    /// Instances by pod name.
    pub instances: BTreeMap<Name, Instance>,
    /// Answers to fence and demote orders of the operation's epoch, given to this process.
    pub answers: BTreeMap<Name, Answer>,
    /// Time since this process first saw the recorded operation.
    pub operation_age: Duration,
    /// Time since this process gave up a switchover, so that it is not tried again at once.
    pub last_undone: Option<Duration>,
    /// Time since the cluster was first seen without a primary.
    pub unborn_age: Duration,
    /// Failovers completed within the anti-flap window.
    pub recent_changes: usize,
}

impl Observed {
    /// The name of an instance's data, as last heard.
    pub fn data_of(&self, name: &str) -> Option<String> {
        self.instances.get(name)?.state.as_ref()?.data_id.clone()
    }

    /// What an instance answered to the fence or demote order of an epoch.
    pub fn answer_of(&self, name: &str, epoch: Epoch) -> Option<&Outcome> {
        self.answers.get(name).filter(|answer| answer.epoch == epoch).map(|answer| &answer.outcome)
    }

    /// What mysqld of an instance said when it obeyed that order.
    pub fn held_by(&self, name: &str, epoch: Epoch) -> Option<&InstanceState> {
        match self.answer_of(name, epoch)? {
            Outcome::Held(state) => Some(state),
            Outcome::Dead | Outcome::Declined(_) => None,
        }
    }

    /// The phase of an instance that was heard of within the limit.
    pub fn phase_of(&self, name: &str) -> Option<Phase> {
        self.instances.get(name)?.phase(&self.wish)
    }

    /// The ordinal of an instance, whether it is there or not: the number behind the last dash of its name.
    pub fn ordinal_of(&self, name: &str) -> Option<u32> {
        match self.instances.get(name) {
            Some(instance) => Some(instance.ordinal),
            None => name.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok()),
        }
    }
}

/// The compare-and-swap part of the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Epoch in force.
    pub epoch: Epoch,
    /// Who is primary.
    pub primary: Option<Name>,
    /// Replicas whose acknowledgements count (`A`).
    pub ackers: BTreeSet<Name>,
    /// How many a commit needs (`W`). Never more than what the primary really waits for.
    pub acks_needed: u32,
    /// Names the data of the primary: its own word counts only while it still holds that data.
    pub primary_data: Option<String>,
    /// Earlier reigns whose acknowledged writes are not yet known to be on enough of the present ackers.
    pub unproven: Vec<Reign>,
    /// Losses that a person accepted, oldest first. Never removed.
    pub losses: Vec<Loss>,
    /// The one operation under way.
    pub operation: Option<Operation>,
}

/// A loss that a person accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The recorded epoch whose acknowledged writes were given up.
    pub epoch: Epoch,
    /// The instance whose data was kept.
    pub kept: Name,
    /// What had been seen somewhere and is not in the data that was kept. There may be more that nobody saw.
    pub known_lost: GtidSet,
}

impl Record {
    /// The reign of the recorded primary, if there is one.
    pub fn reign(&self) -> Option<Reign> {
        self.primary.as_ref().map(|primary| Reign {
            primary: primary.clone(),
            primary_data: self.primary_data.clone(),
            ackers: self.ackers.clone(),
            acks_needed: self.acks_needed,
        })
    }

    /// All reigns whose acknowledged writes a new primary has to hold: the recorded primary's, and the unproven ones.
    pub fn reigns(&self) -> Vec<Reign> {
        let mut all = self.unproven.clone();
        all.extend(self.reign());
        all.dedup();
        all
    }
}

/// Where the acknowledged writes of one primary are: all on itself, and each on `acks_needed` of its ackers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// The primary.
    pub primary: Name,
    /// The data that it held; unknown: its word does not count.
    pub primary_data: Option<String>,
    /// Its ackers (`A`).
    pub ackers: BTreeSet<Name>,
    /// How many of them hold each commit (`W`).
    pub acks_needed: u32,
}

/// An operation: intent that is persisted before it is acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Random; names the operation in logs, events and metrics.
    pub id: String,
    /// What for.
    pub kind: Kind,
    /// Epoch that its orders carry.
    pub epoch: Epoch,
    /// Primary before.
    pub from: Option<Name>,
    /// Primary after; for [`Kind::Reconfigure`] the acker that is struck.
    pub to: Option<Name>,
    /// Names the data of the primary after, as it was when that was chosen.
    pub to_data: Option<String>,
    /// How far it has come.
    pub phase: OperationPhase,
    /// Ackers in force when it is done.
    pub ackers: BTreeSet<Name>,
    /// Acknowledgements needed when it is done.
    pub acks_needed: u32,
    /// Why, for people.
    pub reason: String,
}

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first primary.
    Bootstrap,
    /// The primary is gone.
    Failover,
    /// The primary is asked to go.
    Switchover,
    /// A recorded acker stops counting.
    Reconfigure,
    /// A person closes the primary, and nobody takes its place.
    Fence,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationPhase {
    /// Failover: collecting promises and received sets.
    Fencing,
    /// Fence: the primary stops taking writes.
    Demoting,
    /// Switchover: the old primary stops taking writes, and the candidate may be promoted on its word that it has.
    HandingOver,
    /// The candidate is recorded and may be promoted.
    Promoting,
    /// Reconfigure: the acker is locked out.
    Striking,
}

impl OperationPhase {
    /// Whether the candidate may have been promoted, by whoever.
    pub fn may_have_promoted(self) -> bool {
        matches!(self, Self::HandingOver | Self::Promoting)
    }
}

/// What the user wants, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Instances of the cluster.
    pub instances: u32,
    /// Preferred primary.
    pub primary: Option<Name>,
    /// Whether writes may go on without any acker.
    pub available: bool,
    /// Replicas that lag more leave the replicas Service.
    pub max_lag: Duration,
    /// Whether an unplanned change of primary is allowed.
    pub failover: bool,
    /// An instance whose canary is older is hung.
    pub hang_after: Duration,
    /// An instance that is silent for longer is gone.
    pub silent_after: Duration,
    /// Changes of primary allowed within the anti-flap window.
    pub max_changes: usize,
    /// Hands off.
    pub hands_off: Option<&'static str>,
    /// Instances that a person fenced: they neither serve nor take part.
    pub fenced: BTreeSet<Name>,
    /// The recorded epoch whose acknowledged writes a person gives up.
    pub accept_loss: Option<Epoch>,
    /// The cluster is put to sleep: the primary is closed, all else is left.
    pub hibernated: bool,
}

/// One instance as it was last seen.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its stable host name.
    pub host: String,
    /// The address of its pod.
    pub address: Option<std::net::IpAddr>,
    /// Whether a pod with an address exists.
    pub reachable: bool,
    /// Whether a fresh connection was refused, or the pod is gone: its processes are dead.
    pub refused: bool,
    /// Last state, and how long ago it was received.
    pub state: Option<InstanceState>,
    /// Time since the last state was received; without one, since it was first looked for.
    pub age: Duration,
    /// Time since it was last seen healthy as a replica; how long it has been missing.
    pub unhealthy_for: Duration,
    /// For how long it has said that it has promised more than what is recorded, while no operation was.
    pub ahead_for: Duration,
    /// It says that it is being stopped, and that is no pod that is gone in a moment.
    pub stops: bool,
    /// In the recorded epoch it was seen to hold nothing that is foreign to the recorded primary.
    pub cleared: bool,
    /// For how long it has not received something that the recorded primary had executed by then.
    pub behind_for: Duration,
    /// GTIDs that only it has, and that have stayed so over two looks at the primary.
    pub errant: GtidSet,
    /// Largest received set seen of this data: one that shrinks disqualifies (invariant 4).
    pub high_water: GtidSet,
}

impl Instance {
    /// Heard within the limit.
    pub fn fresh(&self, wish: &Wish) -> bool {
        self.state.is_some() && !self.refused && self.age < wish.silent_after
    }

    /// The phase, when it was heard of within the limit.
    pub fn phase(&self, wish: &Wish) -> Option<Phase> {
        if self.fresh(wish) { self.state.as_ref().map(|state| state.phase) } else { None }
    }

    /// Was heard a moment ago, has promised this epoch, and is in its role. What an instance said before it promised the
    /// recorded epoch is of another time: nothing is raised, dropped or unlocked on it.
    pub fn speaks_of(&self, epoch: Epoch, wish: &Wish) -> bool {
        self.fresh(wish) && self.state.as_ref().is_some_and(|state| state.promised >= epoch && state.in_force)
    }

    /// Takes writes, by its own account.
    pub fn serves_as_primary(&self) -> bool {
        self.state.as_ref().is_some_and(is_open)
    }

    /// Takes writes as the primary of this epoch, by its own account.
    pub fn serves_in(&self, epoch: Epoch) -> bool {
        self.state.as_ref().is_some_and(|state| state.promised == epoch && is_open(state))
    }

    /// Runs closed as the primary of this epoch: it may hold what nobody acknowledged, and opens when its ackers prove that
    /// they hold it, too.
    pub fn waits_for_proof(&self, epoch: Epoch, wish: &Wish) -> bool {
        let is_applied = |state: &InstanceState| {
            state.mysqld.as_ref().is_some_and(|mysqld| !state.in_force && mysqld.received.is_subset(&mysqld.executed))
        };
        self.phase(wish) == Some(Phase::Running)
            && !self.serves_as_primary()
            && self.state.as_ref().is_some_and(|state| {
                let is_primary = state.promised == epoch && matches!(state.role, Role::Primary { .. });
                is_primary && (state.tail_unproven || is_applied(state))
            })
    }

    /// Follows `source` and misses nothing that it would need to be promoted or to acknowledge.
    pub fn follows(&self, source: &str, wish: &Wish) -> bool {
        if !self.fresh(wish) || !self.errant.is_empty() {
            return false;
        }
        let Some(state) = &self.state else { return false };
        let Some(mysqld) = &state.mysqld else { return false };
        let following = matches!(&state.role, Role::Replica { source: of, .. } if of == source);
        let Some(replication) = &mysqld.replication else { return false };
        // Its role is on disk before it is carried out.
        state.phase == Phase::Running
            && state.in_force
            && following
            && replication.receiver == ReceiverState::Yes
            && replication.applier_running
            && replication.applier_error.is_empty()
    }

    /// Obeyed an order of this epoch to follow `source`, whether it has come to it or not.
    pub fn is_told_to_follow(&self, source: &str, epoch: Epoch) -> bool {
        self.state.as_ref().is_some_and(|state| {
            state.promised == epoch && matches!(&state.role, Role::Replica { source: of, .. } if of == source)
        })
    }

    /// How far this replica lies behind, in receiving and in applying. `None`: it does not replicate.
    pub fn lag(&self) -> Option<f64> {
        let replication = self.state.as_ref()?.mysqld.as_ref()?.replication.as_ref()?;
        Some(replication.lag_seconds.max(self.behind_for.as_secs_f64()))
    }

    /// Follows `source`, is open, and lags no more than the limit: reads may go there.
    pub fn serves_reads(&self, source: &str, wish: &Wish) -> bool {
        self.follows(source, wish)
            && self.lag().is_some_and(|lag| lag <= wish.max_lag.as_secs_f64())
            && self
                .state
                .as_ref()
                .is_some_and(|state| !state.leaving && state.mysqld.as_ref().is_some_and(|mysqld| !mysqld.offline))
    }

    /// Semi-sync acknowledgements are in force.
    pub fn acknowledges(&self) -> bool {
        self.state
            .as_ref()
            .and_then(|state| state.mysqld.as_ref())
            .and_then(|mysqld| mysqld.replication.as_ref())
            .is_some_and(|replication| replication.acknowledges)
    }

    /// What it has received, as last heard.
    pub fn received(&self) -> Option<&GtidSet> {
        self.state.as_ref().and_then(|state| state.mysqld.as_ref()).map(|mysqld| &mysqld.received)
    }

    /// What it has executed, as last heard.
    pub fn executed(&self) -> Option<&GtidSet> {
        self.state.as_ref().and_then(|state| state.mysqld.as_ref()).map(|mysqld| &mysqld.executed)
    }

    /// What it has executed and what it is about to: a commit that was released by an acknowledgement is there before it
    /// is executed.
    pub fn committing(&self) -> Option<GtidSet> {
        let mysqld = self.state.as_ref()?.mysqld.as_ref()?;
        Some(mysqld.executed.union(&mysqld.owned))
    }

    /// The applier has stopped before all that was received was applied.
    pub fn cannot_apply(&self) -> bool {
        self.state.as_ref().is_some_and(cannot_apply)
    }

    /// On its way out.
    pub fn leaving(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.leaving)
    }
}

/// Takes writes, by its own account.
pub fn is_open(state: &InstanceState) -> bool {
    state.phase == Phase::Running
        && matches!(state.role, Role::Primary { .. })
        && state.mysqld.as_ref().is_some_and(|mysqld| !mysqld.super_read_only && !mysqld.read_only && !mysqld.offline)
}

/// The applier has stopped with an error before all that was received was applied.
pub fn cannot_apply(state: &InstanceState) -> bool {
    state.mysqld.as_ref().is_some_and(|mysqld| {
        let broken = mysqld.replication.as_ref().is_some_and(|channel| !channel.applier_error.is_empty());
        broken && !mysqld.received.is_subset(&mysqld.executed)
    })
}

/// The answer to a fence or demote order.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Epoch of the order.
    pub epoch: Epoch,
    /// What came back.
    pub outcome: Outcome,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The receiver has stopped for sure (fence) or writes have (demote); the sets of the state will not change.
    Held(Box<InstanceState>),
    /// mysqld was killed, or has no data to speak for: fenced, without a say.
    Dead,
    /// The primary did not close in time, takes writes, and will not be demoted in this epoch, whoever asks.
    Declined(String),
}

//! Proof: which received sets are enough, and who may be promoted on them.

use std::collections::BTreeSet;

use common::gtid::GtidSet;
use common::instance::{InstanceState, Phase};

use super::model::cannot_apply;
use super::{Instance, Kind, Name, Observed, Operation, Reign};

/// GTIDs of `replica` that the primary cannot be about to commit: received there, not executed here, and not from the
/// primary's own server UUID (a replica receives before the primary commits in its engine, AFTER_SYNC).
///
/// The caller reads the replica's set before the primary's, looks twice before it condemns (TRAPS: false errants), and
/// asks only a primary that is open: after a closed one others may hold writes of its successor, before that is recorded.
pub fn errant(replica: &InstanceState, primary: &InstanceState) -> GtidSet {
    let (Some(replica), Some(primary)) = (&replica.mysqld, &primary.mysqld) else { return GtidSet::default() };
    replica.received.foreign_to(&primary.executed, &primary.server_uuid)
}

/// Instances of `among` whose received set contains `set`.
pub fn holders<'a>(seen: &'a Observed, among: &'a BTreeSet<Name>, set: &'a GtidSet) -> impl Iterator<Item = &'a Name> {
    among.iter().filter(move |name| {
        seen.instances
            .get(*name)
            .filter(|instance| instance.fresh(&seen.wish))
            .and_then(Instance::received)
            .is_some_and(|received| set.is_subset(received))
    })
}

/// What an instance that may hold unacknowledged transactions is allowed to open with: all that it has received, once as
/// many of the ackers hold it, or have lost their data, as have to acknowledge: the others prove nothing without one of these.
pub fn proven_tail(seen: &Observed, instance: &Instance, ackers: &BTreeSet<Name>, acks_needed: u32) -> Option<GtidSet> {
    let held = instance.received()?;
    let without_data =
        |name: &&Name| matches!(seen.phase_of(name), Some(Phase::Empty | Phase::Initialising | Phase::Cloning));
    let lost = ackers.iter().filter(without_data).count();
    (holders(seen, ackers, held).count() + lost >= acks_needed as usize).then(|| held.clone())
}

/// Whether a candidate may hold what its primary was still waiting to commit, and what the next election could miss: if it
/// opened with that, it would be read, and might be gone afterwards. Every proof of the reign before counts on its primary,
/// which holds all of it unless something is foreign there, or on one of those who hold it, when they are as many as had to
/// acknowledge. Where several reigns are unproven the word of a primary may be of before it was written.
pub fn may_be_missed(seen: &Observed, operation: &Operation, candidate: &Instance) -> bool {
    let record = &seen.record;
    let of_one_reign = record.unproven.is_empty() && operation.from == record.primary;
    let is_held = || proven_tail(seen, candidate, &record.ackers, record.acks_needed).is_some();
    operation.kind == Kind::Failover && record.primary.is_some() && !(of_one_reign && candidate.cleared && is_held())
}

/// What a failover can stand on.
pub enum Proof<'a> {
    /// The candidate holds every transaction that was ever acknowledged.
    Candidate(&'a Name),
    /// Too few have answered for the writes that were acknowledged under one primary.
    Missing {
        /// That reign.
        reign: Reign,
        /// Its ackers that have answered with a usable set.
        fenced: BTreeSet<Name>,
    },
    /// Those whose word is needed hold different transactions and none holds all.
    Split,
    /// Only this one holds all, and it cannot be promoted.
    Unfit(&'a Name, Unfit),
}

/// Why who holds everything cannot be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its applier is broken.
    Broken,
    /// It has answered, and is gone by now.
    Gone,
}

impl Unfit {
    /// For the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Broken => "CandidateBroken",
            Self::Gone => "CandidateGone",
        }
    }

    /// What it is, and what helps.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Broken => "its applier is broken: repair it, or bring another instance back",
            Self::Gone => "it has gone away since it said so: it is waited for, or for another instance",
        }
    }
}

/// Every acknowledged write is on the primary that acknowledged it, and on `acks_needed` of its ackers. So a candidate
/// holds all that was acknowledged in a reign when it contains the sets of so many fenced ackers that
/// `these + acksNeeded > ackers` (invariant 4: by the pigeonhole one of these holds each write), or the set of the
/// reign's primary, if that has been closed and still holds the same data. Others may hold what nobody acknowledged;
/// they do not stand in the way.
pub fn prove(seen: &Observed, epoch: u64) -> Proof<'_> {
    let held = |name: &Name| -> Option<&InstanceState> {
        let state = seen.held_by(name, epoch)?;
        let received = &state.mysqld.as_ref()?.received;
        let instance = seen.instances.get(name)?;
        // A disk that lied, or a volume that was swapped: what was once seen there is gone.
        instance.high_water.is_subset(received).then_some(state)
    };
    // Its word counts, and it can be promoted no more.
    let swapped = |name: &Name, instance: &Instance| {
        instance.fresh(&seen.wish) && held(name).is_some_and(|state| state.data_id != seen.data_of(name))
    };
    let received = |name: &Name| held(name).and_then(|state| state.mysqld.as_ref()).map(|mysqld| &mysqld.received);
    let reigns = seen.record.reigns();
    let is_proven = |reign: &Reign, counts: &dyn Fn(&Name) -> bool| {
        let fenced = reign.ackers.iter().filter(|name| counts(name)).count();
        let itself = || {
            let state = held(&reign.primary).filter(|_| counts(&reign.primary));
            state.is_some_and(|state| reign.primary_data.is_some() && state.data_id == reign.primary_data)
        };
        fenced + reign.acks_needed as usize > reign.ackers.len() || itself()
    };
    if let Some(reign) = reigns.iter().find(|reign| !is_proven(reign, &|name| held(name).is_some())) {
        let fenced = reign.ackers.iter().filter(|name| held(name).is_some()).cloned().collect();
        return Proof::Missing { reign: reign.clone(), fenced };
    }
    let contained = |candidate: &Name, other: &Name| {
        received(candidate).is_some_and(|own| received(other).is_some_and(|set| set.is_subset(own)))
    };
    let holds_all = |candidate: &Name| {
        received(candidate).is_some() && reigns.iter().all(|reign| is_proven(reign, &|name| contained(candidate, name)))
    };
    let unapplied = |name: &Name| {
        held(name)
            .and_then(|state| state.mysqld.as_ref())
            .map_or(u64::MAX, |mysqld| mysqld.received.subtract(&mysqld.executed).count())
    };
    let unfit = |name: &Name, instance: &Instance| {
        let gone = !instance.reachable
            || instance.refused
            || instance.phase(&seen.wish).is_some_and(|it| it != Phase::Running);
        let broken = held(name).is_some_and(cannot_apply);
        if gone { Some(Unfit::Gone) } else { broken.then_some(Unfit::Broken) }
    };
    let from = seen.record.operation.as_ref().and_then(|operation| operation.from.as_ref());
    let candidate = seen
        .instances
        .iter()
        .filter(|(name, instance)| {
            let able = instance.errant.is_empty() && !seen.wish.fenced.contains(*name) && !swapped(name, instance);
            able && holds_all(name)
        })
        .min_by_key(|(name, instance)| {
            // Who is going, and who was just found wanting, only when nobody else holds everything.
            let reluctant = instance.leaving() || from == Some(*name);
            // Whoever is not contained has to be rewound or cloned.
            let left_out =
                seen.instances.keys().filter(|other| held(other).is_some() && !contained(name, other)).count();
            (
                unfit(name, instance),
                reluctant,
                left_out,
                unapplied(name),
                seen.wish.primary.as_ref() != Some(*name),
                instance.ordinal,
            )
        });
    match candidate {
        Some((name, instance)) => unfit(name, instance).map_or(Proof::Candidate(name), |why| Proof::Unfit(name, why)),
        None => Proof::Split,
    }
}

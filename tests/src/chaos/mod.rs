//! A random walk over all faults, drawn from a seed: the same seed is the same walk.
//!
//! Everything is drawn before anything is done: which fault, whom it hits by role, when, for how long. Only who has that
//! role is looked up when it happens.

mod walker;

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use self::walker::Walker;

/// Whom a fault hits, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The primary.
    Primary,
    /// A replica, counted among those that are there.
    Replica(usize),
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL to mysqld.
    KillMysqld(Who),
    /// SIGKILL to the whole container.
    KillContainer(Who),
    /// SIGSTOP to mysqld.
    FreezeMysqld(Who),
    /// SIGSTOP to the whole container.
    FreezeContainer(Who),
    /// Cut off from all but clients.
    Isolate(Who),
    /// Packets from the primary to one replica are dropped, those back are not.
    OneWay(usize),
    /// The primary and all replicas hear nothing from each other.
    CutReplication,
    /// So many of a hundred packets between it and the other instances are lost.
    Lossy(Who, u8),
    /// failover-d and it hear nothing from each other.
    CutFailoverD(Who),
    /// Its node's cable is unplugged.
    Unplug(Who),
    /// Its node is powered off.
    PowerOff(Who),
    /// Its pod is deleted, as by a person.
    DeletePod(Who),
    /// Its pod is deleted without grace.
    DeletePodAtOnce(Who),
    /// A replica shall be primary.
    Switchover(usize),
    /// The API server is stopped.
    ApiServer,
    /// NATS is away.
    Nats,
    /// SIGKILL to one failover-d.
    KillFailoverD(usize),
    /// SIGSTOP to one failover-d.
    FreezeFailoverD(usize),
    /// SIGKILL to one topology-ctl.
    KillTopologyCtl(usize),
    /// The bucket is away.
    Bucket,
    /// SIGKILL to one binlog-shipper.
    KillShipper(usize),
    /// SIGSTOP to one binlog-shipper.
    FreezeShipper(usize),
    /// SIGKILL to one backup-d.
    KillBackupD(usize),
}

/// One step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins.
    pub at: Duration,
    /// What is done.
    pub action: Action,
    /// How long it lasts, if it lasts: then it is undone.
    pub lasts: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, action, lasts } = self;
        write!(f, "at {:7.2} s for {:5.2} s: {action:?}", at.as_secs_f64(), lasts.as_secs_f64())
    }
}

/// Rest between the beginnings of two steps, in milliseconds.
const REST: std::ops::RangeInclusive<u64> = 1_500..=14_000;
/// How long a fault lasts, in milliseconds: longer than the rest at times, so that faults overlap.
const LASTS: std::ops::RangeInclusive<u64> = 300..=20_000;

/// From the end of an outage of the API server to the next. Kubernetes' own clients back off for up to a minute after
/// each, and for longer when they come in a row: kubelets and scheduler would be away all the time, and no pod there to
/// be hit.
const BETWEEN_OUTAGES: Duration = Duration::from_secs(180);

fn draw(rng: &mut StdRng) -> Action {
    let (kind, is_primary, k, percent) =
        (rng.random_range(0..26_u32), rng.random_bool(0.6), rng.random_range(0..2_usize), rng.random_range(5..40_u8));
    let who = if is_primary { Who::Primary } else { Who::Replica(k) };
    match kind {
        0..=2 => Action::KillMysqld(who),
        3..=4 => Action::KillContainer(who),
        5 => Action::FreezeMysqld(who),
        6 => Action::FreezeContainer(who),
        7 => Action::Isolate(who),
        8 => Action::OneWay(k),
        9 => Action::CutReplication,
        10 => Action::Lossy(who, percent),
        11 => Action::CutFailoverD(who),
        12 => Action::Unplug(who),
        13 => Action::PowerOff(who),
        14 => Action::DeletePod(who),
        15 => Action::DeletePodAtOnce(who),
        16 => Action::Switchover(k),
        17 => Action::ApiServer,
        18 => Action::Nats,
        19 => Action::KillFailoverD(k),
        20 => Action::FreezeFailoverD(k),
        21 => Action::KillTopologyCtl(k),
        22 => Action::Bucket,
        23 => Action::KillShipper(k),
        24 => Action::FreezeShipper(k),
        _ => Action::KillBackupD(k),
    }
}

/// The walk of a seed, so long.
pub fn walk(seed: u64, length: Duration) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    let mut no_outage_before = Duration::ZERO;
    loop {
        at += Duration::from_millis(rng.random_range(REST));
        let mut action = draw(&mut rng);
        while action == Action::ApiServer && at < no_outage_before {
            action = draw(&mut rng);
        }
        let lasts = Duration::from_millis(rng.random_range(LASTS));
        if at >= length {
            return steps;
        }
        if action == Action::ApiServer {
            no_outage_before = at + lasts + BETWEEN_OUTAGES;
        }
        steps.push(Step { at, action, lasts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_walk() {
        let length = Duration::from_secs(1200);
        assert_eq!(walk(7, length), walk(7, length));
        assert_ne!(walk(7, length), walk(8, length));
        // A longer one begins alike.
        let longer = walk(7, length * 2);
        assert_eq!(longer.get(..walk(7, length).len()), Some(walk(7, length).as_slice()));
    }

    #[test]
    fn twenty_minutes_meet_every_kind_of_fault_in_some_seed() {
        let names = |seed| {
            let steps = walk(seed, Duration::from_secs(1200));
            let name = |step: &Step| format!("{:?}", step.action).split('(').next().unwrap_or_default().to_owned();
            steps.iter().map(name).collect::<std::collections::BTreeSet<_>>()
        };
        let all: std::collections::BTreeSet<_> = (1..=3).flat_map(names).collect();
        assert_eq!(all.len(), 23, "{all:?}");
        assert!(walk(1, Duration::from_secs(1200)).len() > 100);
    }
}

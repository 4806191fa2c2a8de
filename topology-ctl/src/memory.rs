//! What this process remembers about a cluster between two looks. All of it can be lost: that costs a repeated look, a
//! repeated question or a pause, never safety.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::decide::Record;
use crate::decide::closed::Closed;
use crate::decide::provision::Attempt;

/// An operation has this long to itself.
const OPERATION: Duration = Duration::from_secs(2);
/// And clients have this long to come back.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// What a settled look rests on: while it stays the same and no pod stirs, there is nothing to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Generation of the spec.
    pub generation: i64,
    /// failover-d's facts.
    pub record: Record,
    /// The instance that a person wants rebuilt.
    pub rebuild: Option<String>,
}

/// When something stirs in a cluster that was well, failover-d has the first turn: it may be that the primary is gone, and
/// what a look costs the API server would be missing there.
const FIRST_TURN: Duration = Duration::from_millis(500);

/// Memory of one cluster.
#[derive(Default)]
pub struct Memory {
    /// UID of the MySQLCluster that it is about.
    pub uid: String,
    /// Provisioning attempts by instance.
    pub attempts: BTreeMap<String, Attempt>,
    /// Who leads and stays closed.
    pub closed: Option<Closed>,
    /// How to connect to the instances.
    pub tls: Option<Arc<ClientConfig>>,
    /// Digest of the material in `tls`.
    pub tls_digest: String,
    /// Digest of the objects that were applied last, and when.
    pub applied: Option<(String, Instant)>,
    /// Settings that an instance is known to have in force: incarnation and digest.
    pub confirmed: BTreeMap<String, (String, String)>,
    /// The last look found all well.
    pub settled: Option<(Fingerprint, Instant)>,
    /// Something stirs: failover-d has the first turn until then.
    pub first_turn_until: Option<Instant>,
    /// Digest of the last picture, and since when it is the same.
    pub picture: Option<(u64, Instant)>,
    /// Epoch of the record, whether an operation goes on, and since when that stands.
    pub change: Option<(u64, bool, Instant)>,
    /// Whether the creation was announced.
    pub announced: bool,
}

impl Memory {
    /// How long to keep still because the primary is being changed, or was a moment ago: nothing here is as urgent, and
    /// each look costs the API server, and maybe the same machine, what clients are waiting for.
    pub fn quiet(&mut self, record: &Record, now: Instant) -> Option<Duration> {
        let since = match self.change {
            Some((epoch, operation, since)) if (epoch, operation) == (record.epoch, record.operation) => since,
            Some((0, ..)) | None => now.checked_sub(OPERATION).unwrap_or(now),
            Some(_) => now,
        };
        self.change = Some((record.epoch, record.operation, since));
        let quiet = if record.operation { OPERATION } else { AFTERWARDS };
        quiet.checked_sub(now.duration_since(since)).filter(|rest| !rest.is_zero())
    }

    /// The last look does not stand any more. When something stirs about a cluster that was settled, failover-d has the
    /// first turn: how long to keep still for it.
    pub fn unsettle(&mut self, stirs: bool, now: Instant) -> Option<Duration> {
        if self.settled.take().is_some() && stirs {
            self.first_turn_until = Some(now + FIRST_TURN);
        }
        self.first_turn_until?.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }
}

/// A cluster's memory, and what its watches found since the last look.
#[derive(Default)]
pub struct Slot {
    /// A pod or the StatefulSet changed.
    pub stirred: AtomicBool,
    /// An object that only we write changed: apply all again.
    pub touched: AtomicBool,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// The memory; a cluster is looked at by one task at a time.
    pub memory: tokio::sync::Mutex<Memory>,
}

/// Namespace and name.
pub type Key = (String, String);

/// Memories of all clusters.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<Key, Arc<Slot>>>);

impl Memories {
    /// The slot of a cluster, made at need.
    pub fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Forgets a cluster; whether it was known.
    pub fn forget(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).is_some()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Marks a cluster, when it is known.
    pub fn mark(&self, key: &Key, touched: bool) {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            slot.stirred.store(true, Ordering::Relaxed);
            if touched {
                slot.touched.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Spreads a pause: 75% to 125% of it.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{AFTERWARDS, FIRST_TURN, Fingerprint, Memory, OPERATION};
    use crate::decide::Record;

    #[test]
    fn a_change_of_primary_is_left_alone_for_a_bounded_time() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let at = |epoch, operation| Record { epoch, operation, ..Record::default() };
        let later = |past: Duration| now + past;
        assert_eq!(memory.quiet(&at(0, false), now), None, "nothing is known of it");
        assert_eq!(memory.quiet(&at(0, true), now), None, "it is being born");
        assert_eq!(memory.quiet(&at(1, false), now), None, "it was born");
        assert_eq!(memory.quiet(&at(1, true), now), Some(OPERATION));
        assert_eq!(memory.quiet(&at(1, true), later(OPERATION)), None, "it takes long");
        assert_eq!(memory.quiet(&at(2, false), later(OPERATION)), Some(AFTERWARDS));
        assert_eq!(memory.quiet(&at(2, false), later(OPERATION + AFTERWARDS)), None);
        assert_eq!(Memory::default().quiet(&at(7, true), now), None, "this process has just begun");
    }

    #[test]
    fn what_stirs_in_a_settled_cluster_is_left_to_failover_d_first() {
        let now = Instant::now();
        let settled = || {
            let fingerprint = Fingerprint { generation: 1, record: Record::default(), rebuild: None };
            Memory { settled: Some((fingerprint, now)), ..Memory::default() }
        };
        assert_eq!(settled().unsettle(false, now), None, "it is only time to look again");
        assert_eq!(Memory::default().unsettle(true, now), None, "it was not settled");
        let mut memory = settled();
        assert_eq!(memory.unsettle(true, now), Some(FIRST_TURN));
        let half = FIRST_TURN / 2;
        assert_eq!(memory.unsettle(true, now + half), Some(half), "and no longer for all that goes on stirring");
        assert_eq!(memory.unsettle(true, now + FIRST_TURN), None);
    }
}

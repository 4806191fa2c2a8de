//! The set itself: interval sets by UUID and tag, in the order in which MySQL prints them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::{Gtid, Interval, IntervalSet, Tsid};

/// Set of GTIDs in canonical form. Serialised as its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GtidSet {
    /// No interval set in here is empty: that is what makes the form canonical.
    sets: BTreeMap<Tsid, IntervalSet>,
}

impl GtidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are no GTIDs.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// How many GTIDs there are (saturating).
    pub fn count(&self) -> u64 {
        self.sets.values().map(IntervalSet::count).fold(0, u64::saturating_add)
    }

    /// Whether a transaction is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.sets.get(gtid.tsid()).is_some_and(|set| set.contains(gtid.number()))
    }

    /// Whether all of this set is in `other` (the server's `GTID_SUBSET(self, other)`). Equal sets are.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.sets.iter().all(|(tsid, set)| other.sets.get(tsid).is_some_and(|theirs| set.is_subset(theirs)))
    }

    /// Whether all of `other` is in this set. Equal sets are.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.is_subset(self)
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.extend_with(other);
        out
    }

    /// Adds all of `other`.
    pub fn extend_with(&mut self, other: &Self) {
        for (tsid, set) in &other.sets {
            match self.sets.entry(tsid.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(set.clone());
                }
                Entry::Occupied(mut entry) => {
                    let both = entry.get().union(set);
                    entry.insert(both);
                }
            }
        }
    }

    /// What is here and not in `other` (the server's `GTID_SUBTRACT(self, other)`).
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.sets
            .iter()
            .map(|(tsid, set)| match other.sets.get(tsid) {
                Some(theirs) => (tsid.clone(), set.subtract(theirs)),
                None => (tsid.clone(), set.clone()),
            })
            .collect()
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        self.sets.iter().filter_map(|(tsid, set)| Some((tsid.clone(), set.intersect(other.sets.get(tsid)?)))).collect()
    }

    /// All but what a server with this UUID committed, under any tag. A text that is no UUID takes nothing away.
    #[must_use]
    pub fn without_uuid(&self, uuid: &str) -> Self {
        let Ok(uuid) = Uuid::parse_str(uuid) else { return self.clone() };
        self.sets.iter().filter(|(tsid, _)| tsid.uuid != uuid).map(|(tsid, set)| (tsid.clone(), set.clone())).collect()
    }

    /// What is here and neither in what a source holds nor written by that source itself: that is in its binlog, and is not
    /// executed there for as long as it waits for acknowledgements (AFTER_SYNC), which may come from nobody but a replica that
    /// holds it. (What is cut off a binlog takes the server UUID along, so of its present one a source has lost nothing.)
    ///
    /// Read the replica's set before the source's, and look twice before anything is condemned for it.
    #[must_use]
    pub fn foreign_to(&self, held: &Self, server_uuid: &str) -> Self {
        self.subtract(held).without_uuid(server_uuid)
    }

    /// Adds one transaction.
    pub fn insert(&mut self, gtid: &Gtid) {
        if let Some(interval) = Interval::new(gtid.number(), gtid.number()) {
            self.insert_interval(gtid.tsid(), interval);
        }
    }

    /// Adds consecutive transactions.
    pub fn insert_interval(&mut self, tsid: &Tsid, interval: Interval) {
        self.sets.entry(tsid.clone()).or_default().insert(interval);
    }

    /// Numbers by UUID and tag, in the order of the text. None of the sets is empty.
    pub fn by_tsid(&self) -> impl Iterator<Item = (&Tsid, &IntervalSet)> {
        self.sets.iter()
    }

    /// Every transaction. May be very long: a set of a few bytes can hold 2^63 of them.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> + '_ {
        self.sets.iter().flat_map(|(tsid, set)| {
            set.iter()
                .flat_map(|interval| interval.first()..=interval.last())
                .filter_map(|number| Gtid::new(tsid.clone(), number))
        })
    }
}

/// Sets of the same UUID and tag are united, empty ones left out.
impl FromIterator<(Tsid, IntervalSet)> for GtidSet {
    fn from_iter<I: IntoIterator<Item = (Tsid, IntervalSet)>>(sets: I) -> Self {
        let mut out = Self::default();
        for (tsid, set) in sets.into_iter().filter(|(_, set)| !set.is_empty()) {
            match out.sets.entry(tsid) {
                Entry::Vacant(entry) => {
                    entry.insert(set);
                }
                Entry::Occupied(mut entry) => {
                    let both = entry.get().union(&set);
                    entry.insert(both);
                }
            }
        }
        out
    }
}

impl FromIterator<Gtid> for GtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut out = Self::default();
        for gtid in gtids {
            out.insert(&gtid);
        }
        out
    }
}

impl From<&Gtid> for GtidSet {
    fn from(gtid: &Gtid) -> Self {
        let mut out = Self::default();
        out.insert(gtid);
        out
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last: Option<Uuid> = None;
        for (tsid, set) in &self.sets {
            // Tags of one UUID follow each other: the UUID is printed once.
            if last != Some(tsid.uuid) {
                let comma = if last.is_some() { "," } else { "" };
                write!(f, "{comma}{}", tsid.uuid)?;
                last = Some(tsid.uuid);
            }
            if !tsid.tag.is_none() {
                write!(f, ":{}", tsid.tag.as_str())?;
            }
            for interval in set {
                write!(f, ":{interval}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for GtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

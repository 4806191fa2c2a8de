//! How many pods there shall be now.
//!
//! Growing is immediate. Shrinking waits, from the top down, until failover-d has moved the primary off the instance
//! and struck it from the recorded ackers: no removed instance is the primary, and none may be the last proof of an
//! acknowledged write (invariant 4).

use super::Record;

/// Why the StatefulSet keeps more pods than the spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// This instance is the recorded primary.
    Primary(String),
    /// This instance is a recorded acker.
    Acker(String),
    /// A change of primary is under way.
    Operation,
}

impl Held {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Primary(name) => format!("{name} is the primary: failover-d switches over first"),
            Self::Acker(name) => format!("{name} is a recorded acker: failover-d strikes it first"),
            Self::Operation => "a change of primary is under way".to_owned(),
        }
    }
}

/// Pods that there shall be now, and why not as few as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// `spec.replicas` of the StatefulSet.
    pub count: u32,
    /// Why it is more than wanted.
    pub held: Option<Held>,
}

/// Decides the number of pods. `current` is that of the StatefulSet, `None` when there is none yet.
pub fn replicas(cluster: &str, wanted: u32, hibernated: bool, current: Option<u32>, record: &Record) -> Replicas {
    // Hibernation keeps every volume and every recorded fact: nothing has to move before it.
    if hibernated {
        return Replicas { count: 0, held: None };
    }
    let Some(mut count) = current.filter(|current| *current > wanted && !record.is_new()) else {
        return Replicas { count: wanted, held: None };
    };
    while count > wanted {
        let name = common::names::instance(cluster, count - 1);
        let held = if record.primary.as_ref() == Some(&name) {
            Some(Held::Primary(name))
        } else if record.ackers.contains(&name) {
            Some(Held::Acker(name))
        } else if record.operation {
            Some(Held::Operation)
        } else {
            None
        };
        if held.is_some() {
            return Replicas { count, held };
        }
        count -= 1;
    }
    Replicas { count, held: None }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{name, record};
    use super::*;

    type Case = (&'static str, Record, u32, bool, Option<u32>, u32, Option<Held>);

    #[test]
    fn growing_is_immediate_and_shrinking_is_never_past_the_primary_or_an_acker() {
        let struck = |ordinals: &[u32]| {
            let mut record = record(5);
            for ordinal in ordinals {
                record.ackers.remove(&name(*ordinal));
            }
            record
        };
        let moved = |primary: u32| Record { primary: Some(name(primary)), ..struck(&[3, 4]) };
        let busy = Record { operation: true, ..struck(&[3, 4]) };
        let cases: [Case; 10] = [
            ("no StatefulSet yet", Record::default(), 3, false, None, 3, None),
            ("grow", record(3), 5, false, Some(3), 5, None),
            ("same", record(3), 3, false, Some(3), 3, None),
            ("acker on top", record(5), 3, false, Some(5), 5, Some(Held::Acker(name(4)))),
            ("one struck", struck(&[4]), 3, false, Some(5), 4, Some(Held::Acker(name(3)))),
            ("both struck", struck(&[3, 4]), 3, false, Some(5), 3, None),
            ("primary on top", moved(4), 3, false, Some(5), 5, Some(Held::Primary(name(4)))),
            ("operation", busy, 3, false, Some(5), 5, Some(Held::Operation)),
            ("never bootstrapped", Record::default(), 1, false, Some(3), 1, None),
            ("hibernated", record(3), 3, true, Some(3), 0, None),
        ];
        for (what, record, wanted, hibernated, current, count, held) in cases {
            assert_eq!(replicas("shop", wanted, hibernated, current, &record), Replicas { count, held }, "{what}");
        }
    }

    #[test]
    fn waking_brings_all_back() {
        assert_eq!(replicas("shop", 3, false, Some(0), &record(3)).count, 3);
    }
}

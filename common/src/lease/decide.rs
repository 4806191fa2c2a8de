//! Whether a candidate may take the Lease: pure, with the time as a parameter.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1 as k8s;

use super::Config;

/// What matters of a Lease object. Equal records mean that nobody has touched it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) resource_version: Option<String>,
    /// Nobody when empty.
    pub(super) holder: String,
    pub(super) duration: Option<Duration>,
    pub(super) transitions: i32,
}

impl Record {
    pub(super) fn of(lease: &k8s::Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            // Any write changes it, a renewal that leaves all else as it was included.
            resource_version: lease.metadata.resource_version.clone(),
            holder: spec.holder_identity.unwrap_or_default(),
            duration: seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            transitions: spec.lease_transitions.unwrap_or(0),
        }
    }
}

/// What to do about the Lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none: make it.
    Create,
    /// Write our name into exactly the object that was seen.
    Take {
        /// `leaseTransitions` to write.
        transitions: i32,
    },
    /// Somebody holds it.
    Wait,
}

/// What a candidate remembers: the record it saw last, and since when it has not changed.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    seen: Option<(Record, Instant)>,
}

impl Candidate {
    /// Takes a look into account. `now` is no earlier than the look itself.
    pub(super) fn decide(&mut self, found: Option<Record>, config: &Config, now: Instant) -> Step {
        let Some(record) = found else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        let transitions = record.transitions.saturating_add(1);
        // A process that restarted within its pod: nobody else can be the holder, and nothing changes hands.
        if record.holder == config.identity {
            return Step::Take { transitions: record.transitions };
        }
        if record.holder.is_empty() {
            return Step::Take { transitions };
        }
        // The holder goes by its own duration; without one, ours is the best guess.
        if now.saturating_duration_since(since) > record.duration.unwrap_or(config.duration) {
            return Step::Take { transitions };
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: u32, seconds: u64) -> Record {
        Record {
            resource_version: Some(version.to_string()),
            holder: holder.to_owned(),
            duration: (seconds > 0).then(|| Duration::from_secs(seconds)),
            transitions: 3,
        }
    }

    /// Looks at these seconds, with these records, and the step that the last one gives.
    fn last(looks: &[(u64, Option<Record>)]) -> Option<Step> {
        let (start, config) = (Instant::now(), Config::new("ns", "lease", "me"));
        let mut candidate = Candidate::default();
        let steps = looks.iter().map(|(at, found)| {
            let now = start + Duration::from_secs(*at);
            candidate.decide(found.clone(), &config, now)
        });
        steps.last()
    }

    #[test]
    fn missing_lease_is_created() {
        assert_eq!(last(&[(0, None)]), Some(Step::Create));
    }

    #[test]
    fn released_lease_is_taken_at_once() {
        assert_eq!(last(&[(0, Some(record("", 1, 15)))]), Some(Step::Take { transitions: 4 }));
    }

    #[test]
    fn own_lease_is_taken_at_once_without_a_transition() {
        assert_eq!(last(&[(0, Some(record("me", 1, 15)))]), Some(Step::Take { transitions: 3 }));
    }

    #[test]
    fn renewed_lease_is_never_taken() {
        let looks: Vec<_> = (0..60_u32).map(|n| (u64::from(n) * 10, Some(record("other", n, 15)))).collect();
        assert_eq!(last(&looks), Some(Step::Wait));
    }

    #[test]
    fn unchanged_lease_is_taken_after_its_duration_as_seen_here() {
        let other = Some(record("other", 1, 15));
        assert_eq!(last(&[(0, other.clone()), (15, other.clone())]), Some(Step::Wait));
        assert_eq!(last(&[(0, other.clone()), (16, other.clone())]), Some(Step::Take { transitions: 4 }));
        assert_eq!(last(&[(1000, other.clone())]), Some(Step::Wait), "the first look proves nothing");
    }

    #[test]
    fn the_holders_own_duration_counts() {
        let patient = Some(record("other", 1, 60));
        assert_eq!(last(&[(0, patient.clone()), (59, patient.clone())]), Some(Step::Wait));
        let silent = Some(record("other", 1, 0));
        assert_eq!(last(&[(0, silent.clone()), (14, silent.clone())]), Some(Step::Wait));
        assert_eq!(last(&[(0, silent.clone()), (16, silent)]), Some(Step::Take { transitions: 4 }));
    }

    #[test]
    fn a_change_starts_the_wait_anew() {
        let looks = [(0, Some(record("other", 1, 15))), (14, Some(record("other", 2, 15)))];
        let later = (20, Some(record("other", 2, 15)));
        assert_eq!(last(&[&looks[..], &[later]].concat()), Some(Step::Wait));
        let gone_and_back = [(0, Some(record("other", 1, 15))), (10, None), (20, Some(record("other", 1, 15)))];
        assert_eq!(last(&gone_and_back), Some(Step::Wait));
    }
}

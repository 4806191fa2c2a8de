//! When each step of an operation was seen to be done, for people, events and metrics. Nothing is decided from it.
//!
//! Both replicas of failover-d work on an operation, so each notes what it sees, whoever did it. Times count from when
//! the operation was decided on, or first seen.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::decide::{Observed, Operation, OperationPhase};

/// Steps by name, in the order in which they were seen.
#[derive(Debug)]
pub struct Timeline {
    operation: String,
    epoch: u64,
    began: Instant,
    steps: Vec<(&'static str, Duration)>,
}

impl Timeline {
    /// Begins when the operation is decided on or first seen.
    pub fn new(operation: &Operation, now: Instant) -> Self {
        Self { operation: operation.id.clone(), epoch: operation.epoch, began: now, steps: Vec::new() }
    }

    /// Whether it belongs to this operation.
    pub fn is_of(&self, operation: &Operation) -> bool {
        self.operation == operation.id
    }

    /// Notes that a step is done. `true`: that was new.
    pub fn note(&mut self, step: &'static str, now: Instant) -> bool {
        let new = self.steps.iter().all(|(known, _)| *known != step);
        if new {
            self.steps.push((step, now.duration_since(self.began)));
        }
        new
    }

    /// Notes the steps that the observation shows.
    pub fn look(&mut self, seen: &Observed, operation: &Operation, now: Instant) {
        self.note("claimed", now);
        if operation.phase == OperationPhase::Promoting {
            self.note("elected", now);
        } else if seen.answers.keys().any(|name| seen.held_by(name, self.epoch).is_some()) {
            self.note("answered", now);
        }
        let candidate = operation.to.as_ref().filter(|_| operation.phase.may_have_promoted());
        if candidate.and_then(|to| seen.instances.get(to)).is_some_and(|candidate| candidate.serves_in(self.epoch)) {
            self.note("promoted", now);
        }
    }

    /// Notes that the Services were brought to a route of this epoch.
    pub fn routed(&mut self, epoch: u64, now: Instant) {
        if epoch == self.epoch {
            self.note("routed", now);
        }
    }

    /// Seconds by step, for events.
    pub fn json(&self) -> Value {
        let steps: Map<String, Value> =
            self.steps.iter().map(|(step, after)| ((*step).to_owned(), json!(after.as_secs_f64()))).collect();
        Value::Object(steps)
    }

    /// `claimed 11 ms, answered 30 ms, ...`, for logs.
    pub fn text(&self) -> String {
        let steps: Vec<String> =
            self.steps.iter().map(|(step, after)| format!("{step} {} ms", after.as_millis())).collect();
        steps.join(", ")
    }

    /// Each step with the time since the operation began, for metrics.
    pub fn steps(&self) -> &[(&'static str, Duration)] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::Timeline;
    use crate::decide::{self, fixture};
    use std::time::{Duration, Instant};

    #[test]
    fn steps_are_noted_once_and_in_order() {
        let mut seen = fixture::healthy(3);
        seen.instances.get_mut("c-0").unwrap().refused = true;
        let plan = decide::decide(&seen);
        seen.record = plan.record.unwrap();
        let operation = seen.record.operation.clone().unwrap();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(&operation, start);
        assert!(timeline.is_of(&operation));
        timeline.look(&seen, &operation, at(5));
        timeline.look(&seen, &operation, at(9));
        timeline.routed(operation.epoch - 1, at(10));
        timeline.routed(operation.epoch, at(20));
        assert_eq!(timeline.text(), "claimed 5 ms, routed 20 ms");
        assert_eq!(timeline.json()["routed"], 0.02);
    }
}

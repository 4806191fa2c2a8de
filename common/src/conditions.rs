//! Conditions: what a look found, compared with what the status says.
//!
//! Server-side apply takes a condition away when its owner leaves it out, so every report carries all of ours; those
//! that a look could not judge are carried over.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use crate::crd::MySQLClusterStatus;

/// Longest message; Kubernetes takes 32 KiB, people read less.
const MESSAGE_MAX: usize = 2000;

/// One thing that a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Type of the condition.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Finding {
    /// It holds.
    pub fn good(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: true, reason, message: message.into() }
    }

    /// It does not hold.
    pub fn bad(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason, message: message.into() }
    }

    /// The condition that says so. While the status stays as it was `before`, so does the time of its last transition.
    pub fn condition(&self, before: Option<&Condition>, generation: Option<i64>, now: &Time) -> Condition {
        let mut message = self.message.clone();
        if message.len() > MESSAGE_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX));
            message.push_str(" ...");
        }
        let status = if self.holds { "True" } else { "False" };
        let since = before.filter(|before| before.status == status).map(|before| &before.last_transition_time);
        Condition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or(now).clone(),
        }
    }
}

/// What to write, and what is news.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Our conditions, complete.
    pub conditions: Vec<Condition>,
    /// Findings that changed a condition's status or reason.
    pub news: Vec<Finding>,
    /// Whether anything differs from the status.
    pub changed: bool,
}

impl Report {
    /// The status to apply.
    pub fn status(&self) -> Value {
        json!({"conditions": self.conditions})
    }
}

/// Compares findings with the status. `ours` are the conditions of this daemon.
pub fn report(
    ours: &[&'static str],
    status: Option<&MySQLClusterStatus>,
    findings: &[Finding],
    generation: Option<i64>,
    now: &Time,
) -> Report {
    let mut report = Report { conditions: Vec::new(), news: Vec::new(), changed: false };
    for type_ in ours {
        let before = status.and_then(|status| status.condition(type_));
        let Some(finding) = findings.iter().find(|finding| finding.type_ == *type_) else {
            report.conditions.extend(before.cloned());
            continue;
        };
        let condition = finding.condition(before, generation, now);
        let is_news =
            before.is_none_or(|before| before.status != condition.status || before.reason != condition.reason);
        if is_news {
            report.news.push(finding.clone());
        }
        report.changed |= before != Some(&condition);
        report.conditions.push(condition);
    }
    report
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const SPEC_ACCEPTED: &str = "SpecAccepted";
    const PROVISIONED: &str = "Provisioned";
    const OURS: [&str; 2] = [SPEC_ACCEPTED, PROVISIONED];

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn transitions_are_news_and_repetitions_are_not() {
        let good = [Finding::good(SPEC_ACCEPTED, "Accepted", "")];
        let first = report(&OURS, None, &good, Some(1), &at(1));
        assert!(first.changed && first.news.len() == 1);
        let status = MySQLClusterStatus { conditions: first.conditions.clone(), ..MySQLClusterStatus::default() };
        let same = report(&OURS, Some(&status), &good, Some(1), &at(2));
        assert!(!same.changed && same.news.is_empty());
        assert_eq!(same.conditions[0].last_transition_time, at(1));
        let bad = [Finding::bad(SPEC_ACCEPTED, "StorageShrink", "no")];
        let worse = report(&OURS, Some(&status), &bad, Some(2), &at(3));
        assert!(worse.changed && worse.news.len() == 1);
        assert_eq!(worse.conditions[0].last_transition_time, at(3));
    }

    #[test]
    fn what_was_not_judged_is_carried_over_and_what_is_not_ours_is_left_out() {
        let before = report(&OURS, None, &[Finding::good(PROVISIONED, "Done", "")], Some(1), &at(1));
        let mut conditions = before.conditions.clone();
        conditions.push(Condition { type_: "Ready".into(), ..before.conditions[0].clone() });
        let status = MySQLClusterStatus { conditions, ..MySQLClusterStatus::default() };
        let now = report(&OURS, Some(&status), &[], Some(1), &at(2));
        assert!(!now.changed);
        assert_eq!(now.conditions, before.conditions);
    }
}

//! When a schedule makes its next dump, and which of its dumps may go. Pure.

use std::time::Duration;

use common::crd::BackupRetention;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Occurrences that are counted one by one; a schedule that slept for longer is told as having missed so many.
const COUNTED: usize = 1000;

/// What a schedule says, understood.
#[derive(Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    deadline: SignedDuration,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time of the dump that is to be made now.
    pub at: Option<Timestamp>,
    /// Times that have passed for good.
    pub missed: i64,
    /// The newest time that has come, whether something is made of it or not.
    pub passed: Option<Timestamp>,
    /// When to look again.
    pub next: Option<Timestamp>,
}

impl Schedule {
    /// Reads five fields of cron and a time zone's name.
    ///
    /// # Errors
    /// For people: which field, and why not.
    pub fn new(pattern: &str, zone: &str, deadline: Duration) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron =
            parser.parse(pattern).map_err(|error| format!("spec.schedule {pattern:?} is not understood: {error}"))?;
        let zone =
            TimeZone::get(zone).map_err(|_| format!("spec.timeZone {zone:?} is no time zone of the IANA database"))?;
        Ok(Self { cron, zone, deadline: SignedDuration::try_from(deadline).unwrap_or(SignedDuration::MAX) })
    }

    /// The first time after a moment; none for a date that never comes.
    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = moment.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|next| next.timestamp())
    }

    /// Whether a dump that should have been made since the last one that was, is not: two of its times and the deadline have
    /// passed. One that is being made, or was missed, is no reason for alarm yet.
    pub fn is_overdue(&self, last: Timestamp, now: Timestamp) -> bool {
        let second = self.after(last).and_then(|first| self.after(first));
        second.is_some_and(|second| now.duration_since(second) > self.deadline)
    }

    /// What is due now: the newest time since the last dump that was asked for (or since the schedule was made), if that is
    /// not longer ago than the deadline. Times before it are missed: two dumps at once would tell no more than one.
    pub fn due(&self, last: Timestamp, now: Timestamp) -> Due {
        let mut due = Due { at: None, missed: 0, passed: None, next: None };
        // Not before: what is older than the deadline is missed whatever it is.
        let mut from = last;
        for _ in 0..COUNTED {
            match self.after(from) {
                Some(next) if next <= now => {
                    if due.at.replace(next).is_some() {
                        due.missed += 1;
                    }
                    from = next;
                }
                next => {
                    due.next = next;
                    break;
                }
            }
        }
        if due.next.is_none() && due.at.is_some() {
            // So many that they are not counted: the newest is found from the end.
            let newest = self.cron.find_previous_occurrence(&now.to_zoned(self.zone.clone()), true).ok();
            due.at = newest.map(|newest| newest.timestamp());
            due.next = self.after(now);
        }
        due.passed = due.at;
        if due.at.is_some_and(|at| now.duration_since(at) > self.deadline) {
            due.at = None;
            due.missed += 1;
        }
        due
    }
}

/// A dump of a schedule that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// It was made.
    pub made: bool,
}

/// The names of those that may go: neither among the newest `keepLast` nor younger than `keepFor`. The newest that was made always
/// stays; those that failed count among themselves, so that they push out none that was made.
pub fn may_go(ended: &[Ended], retention: &BackupRetention, now: Timestamp) -> Vec<String> {
    let keep_for = SignedDuration::try_from(Duration::from(retention.keep_for)).unwrap_or(SignedDuration::MAX);
    let keep_last = usize::try_from(retention.keep_last).unwrap_or(usize::MAX).max(1);
    let mut gone = Vec::new();
    for made in [true, false] {
        let mut some: Vec<&Ended> = ended.iter().filter(|dump| dump.made == made).collect();
        some.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| other.name.cmp(&one.name)));
        let old = some.into_iter().skip(keep_last).filter(|dump| now.duration_since(dump.at) > keep_for);
        gone.extend(old.map(|dump| dump.name.clone()));
    }
    gone
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(pattern: &str, zone: &str) -> Schedule {
        Schedule::new(pattern, zone, HOUR).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Times of a schedule, one after the other.
    fn times(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = schedule(pattern, zone);
        let next = |moment: &Timestamp| schedule.after(*moment);
        std::iter::successors(next(&at(from)), next).take(count).map(|time| time.to_string()).collect()
    }

    #[test]
    fn a_dump_is_due_once() {
        let nightly = schedule("15 2 * * *", "Asia/Seoul");
        let made = at("2026-11-28T00:00:00Z");
        let before = nightly.due(made, at("2026-11-28T17:14:59Z"));
        assert_eq!(before, Due { at: None, missed: 0, passed: None, next: Some(at("2026-11-28T17:15:00Z")) });
        let due = nightly.due(made, at("2026-11-28T17:15:00Z"));
        assert_eq!((due.at, due.next), (Some(at("2026-11-28T17:15:00Z")), Some(at("2026-11-29T17:15:00Z"))));
        let again = nightly.due(due.at.unwrap(), at("2026-11-28T17:15:01Z"));
        assert_eq!((again.at, again.missed), (None, 0));
    }

    #[test]
    fn what_could_not_start_in_time_is_left_out() {
        let hourly = schedule("0 * * * *", "Etc/UTC");
        let last = at("2026-11-28T00:00:00Z");
        let due = hourly.due(last, at("2026-11-28T05:30:00Z"));
        assert_eq!((due.at, due.missed), (Some(at("2026-11-28T05:00:00Z")), 4), "the newest of five");
        let daily = schedule("0 0 * * *", "Etc/UTC");
        let due = daily.due(last, at("2026-11-30T01:00:01Z"));
        assert_eq!((due.at, due.missed, due.next), (None, 2, Some(at("2026-12-01T00:00:00Z"))));
        assert_eq!(due.passed, Some(at("2026-11-30T00:00:00Z")));
        // Years of minutes are not walked through.
        let minutes = schedule("* * * * *", "Etc/UTC");
        let due = minutes.due(at("2020-01-01T00:00:00Z"), at("2026-11-28T05:30:30Z"));
        assert_eq!((due.at, due.next), (Some(at("2026-11-28T05:30:00Z")), Some(at("2026-11-28T05:31:00Z"))));
        assert_eq!(due.missed, 999);
    }

    #[test]
    fn clocks_that_are_changed_neither_skip_nor_repeat_a_night() {
        // Spring: 02:30 does not exist on the 29th of March 2026 in Berlin.
        let spring = times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(spring, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        // Autumn: 02:30 is there twice on the 25th of October.
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_its_field() {
        let refused = |pattern: &str, zone: &str| Schedule::new(pattern, zone, HOUR).unwrap_err();
        assert!(refused("0 0 2 * * *", "Etc/UTC").contains("spec.schedule"), "six fields");
        assert!(refused("61 * * * *", "Etc/UTC").contains("spec.schedule"));
        assert!(refused("0 2 * * *", "Mars/Olympus").contains("spec.timeZone"));
        let never = schedule("0 0 31 2 *", "Etc/UTC").due(at("2026-01-01T00:00:00Z"), at("2026-06-01T00:00:00Z"));
        assert_eq!(never, Due { at: None, missed: 0, passed: None, next: None });
    }

    fn ended(name: &str, hours_ago: i64, made: bool) -> Ended {
        let at = at("2026-11-28T00:00:00Z") - SignedDuration::from_hours(hours_ago);
        Ended { name: name.to_owned(), at, made }
    }

    fn rule(last: u32, hours: u64) -> BackupRetention {
        serde_json::from_value(serde_json::json!({"keepLast": last, "keepFor": format!("{hours}h")})).unwrap()
    }

    #[test]
    fn a_dump_goes_when_both_rules_allow_it() {
        let now = at("2026-11-28T00:00:00Z");
        let some = [ended("a", 100, true), ended("b", 50, true), ended("c", 30, true), ended("f", 1, false)];
        assert_eq!(may_go(&some, &rule(1, 40), now), ["b", "a"]);
        assert_eq!(may_go(&some, &rule(1, 80), now), ["a"]);
        assert_eq!(may_go(&some, &rule(3, 1), now), Vec::<String>::new());
        assert_eq!(may_go(&some[..1], &rule(1, 1), now), Vec::<String>::new(), "the last one stays");
    }

    proptest! {
        #[test]
        fn the_newest_that_was_made_stays(
            some in proptest::collection::vec((0..500_i64, any::<bool>()), 1..30), last in 1..5_u32, hours in 1..400_u64
        ) {
            let some: Vec<Ended> =
                some.iter().enumerate().map(|(n, (ago, made))| ended(&format!("d{n:02}"), *ago, *made)).collect();
            let now = at("2026-11-28T00:00:00Z");
            let gone = may_go(&some, &rule(last, hours), now);
            let kept: Vec<&Ended> = some.iter().filter(|dump| !gone.contains(&dump.name)).collect();
            let made = |some: &[&Ended]| some.iter().filter(|dump| dump.made).map(|dump| dump.at).max();
            prop_assert_eq!(made(&kept), made(&some.iter().collect::<Vec<_>>()));
            let all = some.iter().filter(|dump| dump.made).count();
            prop_assert!(kept.iter().filter(|dump| dump.made).count() >= all.min(last as usize));
            for dump in &some {
                let young = now.duration_since(dump.at) <= SignedDuration::from_hours(i64::try_from(hours).unwrap());
                prop_assert!(!young || !gone.contains(&dump.name));
            }
        }
    }
}

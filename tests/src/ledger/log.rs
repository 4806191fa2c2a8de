//! What the writers were told. Pure.

use std::time::Duration;

use common::mysql::Error;

/// What a client knows about its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Refused for sure, with MySQL's error number: the row may not be there.
    Refused(u16),
    /// No answer, or one that leaves it open: the row may be there or not.
    Unknown(String),
}

/// MySQL errors of an INSERT after which the row is not there for sure: lock wait, deadlock, duplicate key, read-only
/// (as an option, as a transaction, as a mode), no such table or schema, privileges.
const DEFINITE: [u16; 12] = [1044, 1049, 1062, 1142, 1146, 1205, 1213, 1227, 1290, 1792, 1836, 3032];

impl Outcome {
    /// The outcome of an insert that ended so.
    pub fn of(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(error) => match error.code() {
                Some(code) if DEFINITE.contains(&code) => Self::Refused(code),
                _ => Self::Unknown(error.to_string()),
            },
        }
    }
}

/// One row that was tried, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the writer.
    pub writer: u32,
    /// Number of the row, per writer.
    pub seq: u64,
    /// Unique for the row.
    pub uuid: String,
    /// `server_id` of the server that was connected; 0: not known.
    pub server: u32,
    /// When it was sent, since the start.
    pub sent: Duration,
    /// When the answer came, since the start.
    pub answered: Duration,
    /// What the answer was.
    pub outcome: Outcome,
}

/// All rows that were tried.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// In the order of the answers.
    pub entries: Vec<Entry>,
    /// When the writers were stopped, since the start.
    pub ended: Duration,
    /// When they started, by the clock on the wall, to find the place in other logs.
    pub started_at: Option<jiff::Timestamp>,
}

impl Log {
    /// Takes the entries of all writers.
    pub fn new(mut entries: Vec<Entry>, ended: Duration) -> Self {
        entries.sort_by_key(|entry| entry.answered);
        Self { entries, ended, started_at: None }
    }

    /// Takes in the entries of another log with the same zero of its clock.
    pub fn merge(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.entries.sort_by_key(|entry| entry.answered);
        self.ended = self.ended.max(other.ended);
        self.started_at = self.started_at.or(other.started_at);
    }

    /// The first row that was acknowledged by another server than `old` after a moment: since then writes go on elsewhere.
    pub fn first_elsewhere(&self, after: Duration, old: u32) -> Option<Duration> {
        let elsewhere = |entry: &&Entry| entry.answered >= after && entry.server != old && entry.server != 0;
        self.acknowledged().find(elsewhere).map(|entry| entry.answered)
    }

    /// The longest time without an acknowledgement to anybody between two moments, both of them included.
    pub fn longest_gap_between(&self, from: Duration, to: Duration) -> Duration {
        let inside = self.acknowledged().map(|entry| entry.answered).filter(|at| (from..=to).contains(at));
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in inside.chain([to]) {
            longest = longest.max(at.saturating_sub(last));
            last = at;
        }
        longest
    }

    /// A time of this log by the clock on the wall.
    fn wall(&self, at: Duration) -> String {
        let wall = self.started_at.and_then(|started| started.checked_add(at).ok());
        wall.map_or_else(|| "no clock".to_owned(), |wall| wall.to_string())
    }

    /// Rows that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.outcome == Outcome::Ok)
    }

    /// Rows that were not acknowledged.
    pub fn failed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.outcome != Outcome::Ok)
    }

    /// Longest time without an acknowledgement to anybody, the time up to the first and after the last included.
    pub fn longest_gap(&self) -> Duration {
        self.gap().1
    }

    /// The longest gap: its end and its length.
    fn gap(&self) -> (Duration, Duration) {
        let mut last = Duration::ZERO;
        let mut longest = (Duration::ZERO, Duration::ZERO);
        for at in self.acknowledged().map(|entry| entry.answered).chain([self.ended]) {
            let gap = at.saturating_sub(last);
            if gap > longest.1 {
                longest = (at, gap);
            }
            last = last.max(at);
        }
        longest
    }

    /// Longest time that an acknowledged row took.
    pub fn slowest(&self) -> Duration {
        self.acknowledged().map(|entry| entry.answered.saturating_sub(entry.sent)).max().unwrap_or_default()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let (until, gap) = self.gap();
        let refused = self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Refused(_))).count();
        let unknown = self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Unknown(_))).count();
        format!(
            "ledger: {} acknowledged, {refused} refused, {unknown} unknown, in {:.1?}; longest gap {:.0} ms until {:.2?} \
             ({}), slowest {:.0} ms",
            self.acknowledged().count(),
            self.ended,
            gap.as_secs_f64() * 1000.0,
            until,
            self.wall(until),
            self.slowest().as_secs_f64() * 1000.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(answered: u64, outcome: Outcome) -> Entry {
        let answered = Duration::from_millis(answered);
        Entry { writer: 0, seq: 0, uuid: String::new(), server: 1, sent: Duration::ZERO, answered, outcome }
    }

    #[test]
    fn gaps_between_two_moments_include_both() {
        let at = Duration::from_millis;
        let log = Log::new([10, 30, 90].map(|answered| entry(answered, Outcome::Ok)).to_vec(), at(200));
        assert_eq!(log.longest_gap_between(at(20), at(95)), at(60));
        assert_eq!(log.longest_gap_between(at(20), at(180)), at(90));
        assert_eq!(log.longest_gap_between(at(40), at(80)), at(40));
    }

    #[test]
    fn the_first_acknowledgement_elsewhere_is_after_the_fault_and_by_another_server() {
        let at = Duration::from_millis;
        let by = |server, answered| Entry { server, ..entry(answered, Outcome::Ok) };
        let mut log = Log::new(vec![by(2, 5), by(1, 20), by(0, 25), by(3, 40)], at(50));
        assert_eq!(log.first_elsewhere(at(10), 1), Some(at(40)));
        assert_eq!(log.first_elsewhere(at(41), 1), None);
        log.merge(Log::new(vec![by(2, 60)], at(70)));
        assert_eq!((log.first_elsewhere(at(41), 1), log.ended), (Some(at(60)), at(70)));
    }

    #[test]
    fn gaps_are_between_acknowledgements_of_anybody() {
        let unknown = || Outcome::Unknown(String::new());
        let log = |entries: &[(u64, Outcome)], ended| {
            let entries = entries.iter().map(|(at, outcome)| entry(*at, outcome.clone())).collect();
            Log::new(entries, Duration::from_millis(ended)).longest_gap().as_millis()
        };
        assert_eq!(log(&[], 70), 70);
        assert_eq!(log(&[(20, Outcome::Ok), (10, Outcome::Ok), (60, Outcome::Ok)], 70), 40);
        assert_eq!(log(&[(20, Outcome::Ok), (40, unknown()), (60, Outcome::Ok)], 70), 40);
        assert_eq!(log(&[(20, Outcome::Ok), (30, Outcome::Ok)], 90), 60);
        // An answer may come after the end: the writers finish what they have begun.
        assert_eq!(log(&[(20, Outcome::Ok), (80, Outcome::Ok)], 70), 60);
    }
}

//! Who acknowledges: counted while the writers write, and told apart into turns afterwards. Pure but for a lock.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Entry, Outcome};

/// A time in which one server acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its `server_id`.
    pub server: u32,
    /// Its first acknowledgement.
    pub from: Duration,
}

/// Servers in the order in which they acknowledged, from what clients were told.
///
/// A turn begins with an acknowledgement of another server to a row that was *sent* after the turn before it had begun;
/// answers that were under way when the server changed are no turn. So there is one turn more than changes of primary,
/// and any further one means that two servers acknowledged side by side (invariants 2 and 3).
pub fn turns<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Turn> {
    let known = |entry: &&Entry| entry.outcome == Outcome::Ok && entry.server != 0;
    let mut entries: Vec<&Entry> = entries.into_iter().filter(known).collect();
    entries.sort_by_key(|entry| entry.answered);
    let mut turns: Vec<Turn> = Vec::new();
    for entry in entries {
        let begins = turns.last().is_none_or(|turn| entry.server != turn.server && entry.sent >= turn.from);
        if begins {
            turns.push(Turn { server: entry.server, from: entry.answered });
        }
    }
    turns
}

#[derive(Debug, Default)]
struct Counted {
    total: u64,
    changes: Vec<Turn>,
}

/// What was acknowledged so far, and by whom.
#[derive(Default)]
pub struct Tally(Mutex<Counted>);

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, server) = self.look(|counted| (counted.total, counted.changes.last().copied()));
        write!(f, "{total} rows, the last server is {server:?}")
    }
}

impl Tally {
    fn look<T>(&self, look: impl FnOnce(&mut Counted) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A row was acknowledged.
    pub(super) fn acknowledge(&self, server: u32, answered: Duration) {
        self.look(|counted| {
            counted.total += 1;
            if counted.changes.last().is_none_or(|last| last.server != server) {
                counted.changes.push(Turn { server, from: answered });
            }
        });
    }

    /// Rows acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.look(|counted| counted.total)
    }

    /// The server that acknowledged last; 0: none yet.
    pub fn server(&self) -> u32 {
        self.look(|counted| counted.changes.last().map_or(0, |turn| turn.server))
    }

    /// The server that had acknowledged last at a moment; 0: none had.
    pub fn server_at(&self, at: Duration) -> u32 {
        let before = |turn: &&Turn| turn.from <= at;
        self.look(|counted| counted.changes.iter().rfind(before).map_or(0, |turn| turn.server))
    }

    /// The first acknowledgement by another server than `old` since then.
    pub fn first_elsewhere(&self, since: Duration, old: u32) -> Option<Duration> {
        let found = |turn: &&Turn| turn.server != old && turn.from >= since;
        self.look(|counted| counted.changes.iter().find(found).map(|turn| turn.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(server: u32, sent: u64, answered: u64) -> Entry {
        let at = Duration::from_millis;
        let outcome = Outcome::Ok;
        Entry { writer: 0, seq: 0, uuid: String::new(), server, sent: at(sent), answered: at(answered), outcome }
    }

    fn servers(entries: &[Entry]) -> Vec<u32> {
        turns(entries).into_iter().map(|turn| turn.server).collect()
    }

    #[test]
    fn answers_under_way_at_the_change_are_no_turn() {
        assert_eq!(servers(&[]), Vec::<u32>::new());
        assert_eq!(servers(&[ok(1, 0, 5), ok(1, 6, 9), ok(2, 10, 20)]), [1, 2]);
        // Sent to the old server before the new one had acknowledged, answered after.
        assert_eq!(servers(&[ok(1, 0, 5), ok(2, 10, 20), ok(1, 15, 25), ok(2, 26, 30)]), [1, 2]);
    }

    #[test]
    fn two_servers_side_by_side_are_many_turns() {
        let entries = [ok(1, 0, 5), ok(2, 10, 20), ok(1, 21, 25), ok(2, 26, 30)];
        assert_eq!(servers(&entries), [1, 2, 1, 2]);
    }

    #[test]
    fn only_acknowledgements_of_known_servers_count() {
        let mut unknown = ok(2, 10, 20);
        unknown.outcome = Outcome::Unknown(String::new());
        assert_eq!(servers(&[ok(1, 0, 5), unknown, ok(0, 21, 22), ok(1, 30, 31)]), [1]);
    }

    #[test]
    fn tally_knows_when_another_server_took_over() {
        let tally = Tally::default();
        let at = Duration::from_millis;
        for (server, answered) in [(1, 10), (1, 20), (2, 40), (2, 50), (1, 90)] {
            tally.acknowledge(server, at(answered));
        }
        assert_eq!((tally.acknowledged(), tally.server()), (5, 1));
        assert_eq!([5, 10, 39, 40, 100].map(|moment| tally.server_at(at(moment))), [0, 1, 1, 2, 1]);
        assert_eq!(tally.first_elsewhere(at(0), 1), Some(at(40)));
        assert_eq!(tally.first_elsewhere(at(60), 2), Some(at(90)));
        assert_eq!(tally.first_elsewhere(at(60), 1), None);
    }
}

//! Where transactions begin and end in a stream of events: the only places where a segment may be cut.
//!
//! Pure. A GTID event says how long its transaction is, so nothing else has to be understood; that it ends exactly at the end
//! of an event is checked. Whatever does not fit is an error, and the stream begins anew from what is in the archive.
//!
//! ```text
//! (artificial rotate) -> format -> previous GTIDs -> [GTID, events...]* -> rotate or stop
//!                                                  ^ holes: transactions that the archive has are left out
//! ```

use common::binlog::{Begin, Content, Told, content, kind};
use common::gtid::GtidSet;

/// Where events start in a file.
pub const START: u64 = 4;
/// Longest body that is looked into: a list of GTIDs.
const LOOKED_INTO: u64 = 64 << 20;

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

fn misfit<T>(what: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit(what.into()))
}

/// What an event meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// It belongs to what began before.
    Part,
    /// The front of the file is complete: these transactions are in the files before.
    Front(GtidSet),
    /// A transaction is complete.
    Whole(Begin),
    /// The file is complete.
    Closed,
}

/// Where in the file the stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutter {
    position: u64,
    /// The transaction that has begun, and where it ends.
    open: Option<(Begin, u64)>,
    closed: bool,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { position: START, open: None, closed: false }
    }
}

impl Cutter {
    /// Where an event begins. Headers hold the low half of where it ends.
    ///
    /// # Errors
    /// An event that would begin before the last one ended, or leave a hole in a transaction.
    pub fn begins(&self, size: u64, end_low: u64) -> Result<u64, Misfit> {
        const HALF: u64 = 1 << 32;
        let earliest = self.position + size;
        let mut end = (earliest & !(HALF - 1)) | end_low;
        if end < earliest {
            end += HALF;
        }
        let start = end - size;
        match &self.open {
            _ if self.closed => misfit(format!("an event at {start}, after the last one of the file")),
            Some((begin, _)) if start != self.position => {
                misfit(format!("a hole from {} to {start} in transaction {}", self.position, begin.gtid))
            }
            // Backwards looks like a hole of nearly 4 GiB: the front of a file has none, and a skipped transaction is
            // announced by heartbeats.
            Some(_) | None => Ok(start),
        }
    }

    /// Whether the body of an event of this type and length has to be looked into.
    pub fn looks_into(kind: u8, length: u64) -> bool {
        matches!(kind, kind::PREVIOUS | kind::GTID | kind::GTID_TAGGED) && length <= LOOKED_INTO
    }

    /// An event that begins at `start`; `body` is empty unless it [has to be looked into](Self::looks_into).
    ///
    /// # Errors
    /// What does not fit.
    pub fn take(&mut self, start: u64, size: u64, kind: u8, body: &[u8]) -> Result<Meaning, Misfit> {
        let end = start + size;
        let meaning = match (kind, self.open.take()) {
            (kind::GTID | kind::GTID_TAGGED, None) => self.begin(start, kind, body)?,
            (_, Some((begin, ends))) if end == ends => Meaning::Whole(begin),
            (_, Some((begin, ends))) if end < ends => {
                self.open = Some((begin, ends));
                Meaning::Part
            }
            (_, Some((begin, ends))) => {
                return misfit(format!("transaction {} ends at {ends}, within an event", begin.gtid));
            }
            (kind::PREVIOUS, None) => match read(kind, body) {
                Some(Content::Previous(set)) => Meaning::Front(set),
                _ => return misfit("a list of GTIDs that cannot be understood"),
            },
            (kind::FORMAT, None) => Meaning::Part,
            (kind::ROTATE | kind::STOP, None) => {
                self.closed = true;
                Meaning::Closed
            }
            (kind::ANONYMOUS, None) => return misfit(format!("a transaction without a GTID at {start}")),
            (kind, None) => return misfit(format!("an event of type {kind} outside of a transaction at {start}")),
        };
        self.position = end;
        Ok(meaning)
    }

    fn begin(&mut self, start: u64, kind: u8, body: &[u8]) -> Result<Meaning, Misfit> {
        let Some(Content::Gtid(begin)) = read(kind, body) else {
            return misfit(format!("a GTID that cannot be understood at {start}"));
        };
        if begin.length == 0 {
            return misfit(format!("transaction {} does not say how long it is: MySQL before 8.0.2", begin.gtid));
        }
        let ends = start.saturating_add(begin.length);
        self.open = Some((begin, ends));
        Ok(Meaning::Part)
    }
}

fn read(kind: u8, mut body: &[u8]) -> Option<Content> {
    let length = body.len() as u64;
    match content(kind, &mut body, length) {
        Ok(Told::Content(content)) => Some(content),
        Ok(Told::Format(_) | Told::Strange(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    /// Body of a GTID event: number 5, committed at 9, a transaction of this length.
    fn gtid(length: u8) -> Vec<u8> {
        let mut body = vec![1];
        body.extend([7; 16]);
        body.extend(5_u64.to_le_bytes());
        body.extend([2; 17]);
        body.extend([9, 0, 0, 0, 0, 0, 0, length]);
        body
    }

    fn begun() -> Begin {
        Begin { gtid: format!("{UUID}:5").parse().unwrap(), committed_at: 9, length: 200 }
    }

    #[test]
    fn a_transaction_is_whole_where_it_says_to_end() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.take(4, 100, kind::FORMAT, &[]), Ok(Meaning::Part));
        assert_eq!(cutter.take(104, 30, kind::PREVIOUS, &[0; 8]), Ok(Meaning::Front(GtidSet::default())));
        assert_eq!(cutter.take(134, 80, kind::GTID, &gtid(200)), Ok(Meaning::Part));
        assert_eq!(cutter.take(214, 60, kind::QUERY, &[]), Ok(Meaning::Part));
        assert_eq!(cutter.begins(60, 334), Ok(274));
        assert_eq!(cutter.take(274, 60, kind::XID, &[]), Ok(Meaning::Whole(begun())));
        assert_eq!(cutter.take(334, 40, kind::ROTATE, &[]), Ok(Meaning::Closed));
        assert!(cutter.begins(40, 414).is_err(), "nothing comes after the end");
    }

    #[test]
    fn holes_are_taken_between_transactions_only() {
        let mut cutter = Cutter::default();
        cutter.take(4, 100, kind::FORMAT, &[]).unwrap();
        assert_eq!(cutter.begins(80, 1080), Ok(1000));
        cutter.take(1000, 80, kind::GTID, &gtid(200)).unwrap();
        let hole = cutter.begins(60, 1200).unwrap_err();
        assert!(hole.to_string().contains("a hole from 1080 to 1140"), "{hole}");
    }

    #[test]
    fn offsets_go_beyond_four_gibibytes() {
        let half = 1_u64 << 32;
        for (position, end) in [(half - 50, half + 50), (half + 10, half + 110), (2 * half - 1, 2 * half + 99)] {
            let cutter = Cutter { position, ..Cutter::default() };
            assert_eq!(cutter.begins(100, end & (half - 1)), Ok(end - 100));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fresh = Cutter::default;
        for (kind, body) in [
            (kind::ANONYMOUS, vec![]),
            (kind::XID, vec![]),
            (kind::GTID, vec![1, 2]),
            (kind::GTID, gtid(0)),
            (kind::PREVIOUS, vec![9; 8]),
            (26, vec![]),
        ] {
            assert!(fresh().take(4, 80, kind, &body).is_err(), "{kind}");
        }
        let mut cutter = fresh();
        cutter.take(4, 80, kind::GTID, &gtid(200)).unwrap();
        assert!(cutter.take(84, 121, kind::XID, &[]).is_err(), "an event reaches beyond the transaction");
    }
}

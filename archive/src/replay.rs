//! Makes relay logs of segments, for MySQL's own parallel applier to replay.
//!
//! ```text
//! relay log = front of the binlog file (magic, format description, earlier transactions), transactions that are taken
//! ```
//!
//! Only whole transactions are copied, byte by byte, as their GTID events say how long they are; checksums stay the servers' own
//! and are verified once more by the applier. What is not taken is left out, and what a transaction is not allowed to
//! be (without a GTID, cut off) is an error: nothing is replayed of an archive that cannot be trusted.

use std::io::Write;

use common::binlog::{Begin, Content, HEADER, Header, MAGIC, Told, content, kind};
use common::gtid::GtidSet;

/// Length of a checksum.
const CRC: usize = 4;

/// Why a segment cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bytes are no events.
    #[error("at byte {at} of the segment: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// Its transactions are not those that it says to have.
    #[error("the segment says that it holds {said} and holds {found}")]
    Another {
        /// What it says.
        said: GtidSet,
        /// What it holds.
        found: GtidSet,
    },
    /// The relay log cannot be written.
    #[error("write a relay log: {0}")]
    Write(#[from] std::io::Error),
}

/// What became of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Transactions that were copied.
    pub gtid: GtidSet,
    /// A transaction that would have been taken was committed later than asked for: nothing may follow.
    pub is_over: bool,
}

/// The front of a file: everything before the first transaction of its first segment, whose bytes these are.
///
/// # Errors
/// Bytes that are not the beginning of a binlog.
pub fn front(first: &[u8]) -> Result<&[u8], Error> {
    if !first.starts_with(&MAGIC) {
        return Err(Error::Malformed { at: 0, what: "it does not begin as a binlog does".to_owned() });
    }
    for event in Walk::new(first) {
        let event = event?;
        if event.begin.is_some() {
            return first.get(..event.at).ok_or_else(|| event.malformed("it is out of bounds"));
        }
    }
    Ok(first)
}

/// Copies the transactions of a segment that are in `take`, in their order, up to the first of them that was committed later than
/// `until` (microseconds since 1970). `said` is what the segment says that it holds.
///
/// # Errors
/// Bytes that are not whole transactions, or other ones than `said`; those of writing.
pub fn copy(
    bytes: &[u8],
    said: &GtidSet,
    take: &GtidSet,
    until: Option<u64>,
    out: &mut impl Write,
) -> Result<Taken, Error> {
    let (mut taken, mut found) = (Taken::default(), GtidSet::default());
    let mut ends = 0;
    for event in Walk::new(bytes) {
        let event = event?;
        if event.at < ends {
            if event.end > ends || event.begin.is_some() {
                return Err(event.malformed("a transaction ends within it"));
            }
            continue;
        }
        match &event.begin {
            Some(begin) => {
                ends = usize::try_from(begin.length).ok().and_then(|length| event.at.checked_add(length)).unwrap_or(0);
                let whole = bytes.get(event.at..ends).filter(|whole| !whole.is_empty());
                let whole = whole.ok_or_else(|| event.malformed("its transaction is cut off"))?;
                found.insert(&begin.gtid);
                if !take.contains(&begin.gtid) || taken.is_over {
                    continue;
                }
                if until.is_some_and(|until| begin.committed_at > until) {
                    taken.is_over = true;
                    continue;
                }
                out.write_all(whole)?;
                taken.gtid.insert(&begin.gtid);
            }
            None if matches!(event.kind, kind::FORMAT | kind::PREVIOUS | kind::ROTATE | kind::STOP) => {}
            None => return Err(event.malformed("an event outside of a transaction")),
        }
    }
    if found == *said { Ok(taken) } else { Err(Error::Another { said: said.clone(), found }) }
}

/// An event among the bytes of a segment.
struct Place {
    at: usize,
    end: usize,
    kind: u8,
    begin: Option<Begin>,
}

impl Place {
    fn malformed(&self, what: &str) -> Error {
        Error::Malformed { at: self.at, what: format!("{what} (an event of type {})", self.kind) }
    }
}

/// One event after the other.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: if bytes.starts_with(&MAGIC) { MAGIC.len() } else { 0 } }
    }

    fn event(&mut self) -> Result<Place, Error> {
        let at = self.at;
        let wrong = |what: &str| Error::Malformed { at, what: what.to_owned() };
        let rest = self.bytes.get(at..).unwrap_or_default();
        let header = rest.get(..HEADER).and_then(Header::parse).ok_or_else(|| wrong("there is no header"))?;
        let size = usize::try_from(header.size).ok().filter(|size| *size >= HEADER + CRC);
        let event = size.and_then(|size| rest.get(..size)).ok_or_else(|| wrong("an event is cut off"))?;
        let begin = if matches!(header.kind, kind::GTID | kind::GTID_TAGGED | kind::ANONYMOUS) {
            let mut body = event.get(HEADER..event.len() - CRC).unwrap_or_default();
            let length = body.len() as u64;
            match content(header.kind, &mut body, length) {
                Ok(Told::Content(Content::Gtid(begin))) if begin.length > 0 => Some(begin),
                Ok(_) | Err(_) => return Err(wrong("a transaction without a GTID, or without a length")),
            }
        } else {
            None
        };
        self.at += event.len();
        Ok(Place { at, end: self.at, kind: header.kind, begin })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Place, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let event = self.event();
        if event.is_err() {
            self.at = self.bytes.len();
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn set(numbers: &str) -> GtidSet {
        format!("{UUID}:{numbers}").parse().unwrap()
    }

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut event = vec![0, 0, 0, 0, kind, 1, 0, 0, 0];
        event.extend(u32::try_from(HEADER + body.len() + 4).unwrap().to_le_bytes());
        event.extend([0; 6]);
        event.extend(body);
        event.extend([9; 4]);
        event
    }

    /// A transaction of two events, committed at ten times its number.
    fn transaction(number: u8) -> Vec<u8> {
        let change = event(kind::XID, &[number; 8]);
        let mut body = vec![1];
        body.extend([7; 16]);
        body.extend(u64::from(number).to_le_bytes());
        body.extend([2; 17]);
        body.extend([number * 10, 0, 0, 0, 0, 0, 0]);
        let length = HEADER + body.len() + 1 + 4 + change.len();
        body.push(u8::try_from(length).unwrap());
        [event(kind::GTID, &body), change].concat()
    }

    fn beginning() -> Vec<u8> {
        [&MAGIC[..], &event(kind::FORMAT, &[1; 90]), &event(kind::PREVIOUS, &[0; 8])].concat()
    }

    #[test]
    fn what_is_taken_is_copied_as_it_is() {
        let first =
            [beginning(), transaction(1), transaction(2), transaction(3), event(kind::ROTATE, &[1; 8])].concat();
        assert_eq!(front(&first).unwrap(), beginning());
        let copied = |take: &str, until| {
            let mut out = Vec::new();
            let taken = copy(&first, &set("1-3"), &set(take), until, &mut out).unwrap();
            (out, taken.gtid.to_string().replace(&format!("{UUID}:"), ""), taken.is_over)
        };
        assert_eq!(copied("1-3", None), ([1, 2, 3].map(transaction).concat(), "1-3".to_owned(), false));
        assert_eq!(copied("1-2:9", Some(30)), ([1, 2].map(transaction).concat(), "1-2".to_owned(), false));
        assert_eq!(copied("1-3", Some(20)), ([1, 2].map(transaction).concat(), "1-2".to_owned(), true));
        assert_eq!(copied("1-3", Some(29)).1, "1-2");
        // One that is not taken ends nothing.
        assert_eq!(copied("1:3", Some(15)), (transaction(1), "1".to_owned(), true));
        assert_eq!(front(&beginning()).unwrap(), beginning());
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let out = &mut Vec::new();
        let mut refused = |bytes: &[u8]| copy(bytes, &set("1-2"), &set("1-2"), None, out).unwrap_err().to_string();
        let two = [transaction(1), transaction(2)].concat();
        assert!(refused(&two[..two.len() - 5]).contains("cut off"));
        assert!(refused(&transaction(1)).contains("says that it holds"));
        assert!(refused(&[two.clone(), event(kind::XID, &[1; 8])].concat()).contains("outside of a transaction"));
        assert!(refused(&event(kind::ANONYMOUS, &[0; 60])).contains("without a GTID"));
        assert!(front(&two).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..200) {
            let _ = copy(&bytes, &set("1"), &set("1"), None, &mut Vec::new());
            let _ = front(&[&MAGIC[..], &bytes].concat());
            let two = [transaction(1), bytes, transaction(2)].concat();
            let _ = copy(&two[..cut.min(two.len())], &set("1-2"), &set("1"), None, &mut Vec::new());
        }
    }
}

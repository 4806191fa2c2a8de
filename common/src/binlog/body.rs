//! Bodies of binlog events, as far as rewinds and the archive have to understand them.
//!
//! Formats: MySQL's `libs/mysql/binlog/event` and `libs/mysql/serialization` (tagged GTIDs). mysql_common knows these
//! events too, but its reader panics on a torn event and verifies no checksum; a crash leaves just such files.
//! Everything here takes any bytes and answers `None` for those that are none of its format.

use uuid::Uuid;

use crate::gtid::{Gtid, GtidSet, Interval, Tag, Tsid};

/// Bytes from the front.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    /// A little-endian number of `count` bytes, at most eight.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..count)?.copy_from_slice(self.take(count)?);
        Some(u64::from_le_bytes(bytes))
    }

    /// The integer of the client protocol.
    fn length_encoded(&mut self) -> Option<u64> {
        match self.number(1)? {
            252 => self.number(2),
            253 => self.number(3),
            254 => self.number(8),
            first => Some(first),
        }
    }

    /// An unsigned integer of the serialisation library: the low one-bits of the first byte say how many bytes follow it,
    /// eight of them that all eight bytes of the value follow.
    fn variable(&mut self) -> Option<u64> {
        let follow = usize::try_from(self.0.first()?.trailing_ones()).ok()?;
        if follow == 8 {
            self.take(1)?;
            return self.number(8);
        }
        self.number(follow + 1).map(|value| value >> (follow + 1))
    }

    /// A signed integer of the serialisation library: the sign is the lowest bit.
    fn variable_signed(&mut self) -> Option<i64> {
        let value = self.variable()?;
        let magnitude = i64::try_from(value >> 1).ok()?;
        Some(if value & 1 == 0 { magnitude } else { -magnitude - 1 })
    }

    fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(16)?).ok()
    }

    fn tag(&mut self) -> Option<Tag> {
        let length = usize::try_from(self.variable()?).ok()?;
        Tag::new(std::str::from_utf8(self.take(length)?).ok()?).ok()
    }
}

/// How a transaction begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its identity.
    pub gtid: Gtid,
    /// When it was committed on the server that executed it first: `original_commit_timestamp`, microseconds since 1970.
    /// 0: unknown (MySQL before 8.0).
    pub committed_at: u64,
    /// Bytes of the whole transaction, this event included. 0: unknown (MySQL before 8.0.2).
    pub length: u64,
}

/// A commit time has 7 bytes; the highest bit says that another follows.
const TIME_LENGTH: usize = 7;
const ANOTHER_TIME: u64 = 1 << 55;

/// `GTID_LOG_EVENT`: flags, UUID, number, type and both numbers of the logical clock; the commit time here, and the one on
/// the first server where that is another; the length of the transaction.
pub fn gtid(body: &[u8]) -> Option<Begin> {
    let mut bytes = Bytes(body);
    bytes.take(1)?;
    let uuid = bytes.uuid()?;
    let number = i64::try_from(bytes.number(8)?).ok()?;
    let gtid = Gtid::new(Tsid::untagged(uuid), number)?;
    let mut rest = || {
        bytes.take(1 + 8 + 8)?;
        let committed_at = match bytes.number(TIME_LENGTH)? {
            here if here & ANOTHER_TIME == 0 => here,
            _ => bytes.number(TIME_LENGTH)?,
        };
        Some((committed_at, bytes.length_encoded().unwrap_or(0)))
    };
    let (committed_at, length) = rest().unwrap_or_default();
    Some(Begin { gtid, committed_at, length })
}

/// `GTID_TAGGED_LOG_EVENT`: a message of the serialisation library. Version, size, the last field that may not be
/// ignored, then fields with ascending numbers: 0 flags, 1 UUID (each byte an integer), 2 number, 3 tag, 4 and 5 the numbers
/// of the logical clock, 6 the commit time here, 7 the one on the first server where that is another, 8 the length of the
/// transaction, ...
pub fn tagged_gtid(body: &[u8]) -> Option<Begin> {
    let mut bytes = Bytes(body);
    bytes.variable()?;
    bytes.variable()?;
    bytes.variable()?;
    let (mut uuid, mut number, mut tag) = (None, None, None);
    while tag.is_none() {
        match bytes.variable()? {
            0 => {
                bytes.variable()?;
            }
            1 => {
                let mut raw = [0; 16];
                for byte in &mut raw {
                    *byte = u8::try_from(bytes.variable()?).ok()?;
                }
                uuid = Some(Uuid::from_bytes(raw));
            }
            2 => number = Some(bytes.variable_signed()?),
            3 => tag = Some(bytes.tag()?),
            _ => return None,
        }
    }
    let gtid = Gtid::new(Tsid { uuid: uuid?, tag: tag? }, number?)?;
    let (mut here, mut first, mut length) = (0, None, 0);
    // What is not there, or not known, is left out: later versions add fields.
    while let Some(field) = bytes.variable() {
        let value = if matches!(field, 4 | 5) { bytes.variable_signed().map(|_| 0) } else { bytes.variable() };
        match (field, value) {
            (4 | 5, Some(_)) => {}
            (6, Some(value)) => here = value,
            (7, Some(value)) => first = Some(value),
            (8, Some(value)) => length = value,
            _ => break,
        }
    }
    Some(Begin { gtid, committed_at: first.unwrap_or(here), length })
}

/// `PREVIOUS_GTIDS_LOG_EVENT`: everything that the files before hold. The highest byte of the first number tells whether
/// the sets have tags.
pub fn previous_gtids(body: &[u8]) -> Option<GtidSet> {
    let mut bytes = Bytes(body);
    let header = bytes.number(8)?;
    let (tagged, count) = match header >> 56 {
        0 => (false, header),
        1 => (true, (header << 8) >> 16),
        _ => return None,
    };
    let mut set = GtidSet::default();
    for _ in 0..count {
        let uuid = bytes.uuid()?;
        let tag = if tagged { bytes.tag()? } else { Tag::NONE };
        let tsid = Tsid { uuid, tag };
        for _ in 0..bytes.number(8)? {
            let first = i64::try_from(bytes.number(8)?).ok()?;
            // The end is one past the last.
            let end = i64::try_from(bytes.number(8)?).ok()?;
            set.insert_interval(&tsid, Interval::new(first, end.checked_sub(1)?)?);
        }
    }
    Some(set)
}

/// What a `QUERY_EVENT` means to the transaction that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// `BEGIN` or `XA START`: a transaction of several events begins.
    Begin,
    /// `COMMIT`: the end of what no storage engine can roll back.
    Commit,
    /// `ROLLBACK`: the same, after an error.
    Rollback,
    /// DDL with the number of an engine transaction: crash recovery commits it or rolls it back.
    AtomicDdl,
    /// `XA COMMIT` or `XA ROLLBACK` of a prepared transaction.
    XaEnd,
    /// Anything else.
    Other,
}

/// Number of the DDL's engine transaction, `Q_DDL_LOGGED_WITH_XID`.
const DDL_XID: u8 = 17;
/// `INVALID_XID`.
const NO_XID: u64 = u64::MAX;

/// `QUERY_EVENT`: thread, time, length of the database's name, error, length of the status variables; then these, the
/// name and a NUL, the statement. `body` may end within the statement.
pub fn query(body: &[u8]) -> Option<Query> {
    let mut bytes = Bytes(body);
    bytes.take(8)?;
    let database = usize::try_from(bytes.number(1)?).ok()?;
    bytes.take(2)?;
    let length = usize::try_from(bytes.number(2)?).ok()?;
    let variables = bytes.take(length)?;
    bytes.take(database)?;
    bytes.take(1)?;
    let statement = bytes.0;
    Some(match statement {
        b"BEGIN" => Query::Begin,
        b"COMMIT" => Query::Commit,
        b"ROLLBACK" => Query::Rollback,
        _ if statement.starts_with(b"XA START") => Query::Begin,
        _ if ddl_xid(variables).is_some_and(|xid| xid != NO_XID) => Query::AtomicDdl,
        _ if statement.starts_with(b"XA COMMIT") || statement.starts_with(b"XA ROLLBACK") => Query::XaEnd,
        _ => Query::Other,
    })
}

/// Walks the status variables: a code, then as many bytes as the code says.
fn ddl_xid(variables: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(variables);
    loop {
        let code = u8::try_from(bytes.number(1)?).ok()?;
        let length = match code {
            DDL_XID => return bytes.number(8),
            // Flags, auto-increment, data written.
            0 | 3 | 10 => 4,
            // SQL mode, tables to update, two commit times.
            1 | 9 | 14 | 15 => 8,
            // Character sets.
            4 => 6,
            // Names of months, character set of the database, collation.
            7 | 8 | 18 => 2,
            // Microseconds.
            13 => 3,
            16 | 19 | 20 => 1,
            // Catalogue, time zone.
            5 | 6 => usize::try_from(bytes.number(1)?).ok()?,
            // Catalogue of old: with a NUL.
            2 => usize::try_from(bytes.number(1)?).ok()? + 1,
            // User and host.
            11 => {
                let user = usize::try_from(bytes.number(1)?).ok()?;
                bytes.take(user)?;
                usize::try_from(bytes.number(1)?).ok()?
            }
            // Databases that are changed, each with a NUL; 254: too many to name.
            12 => {
                let count = bytes.number(1)?;
                for _ in 0..(if count == 254 { 0 } else { count }) {
                    let end = bytes.0.iter().position(|byte| *byte == 0)?;
                    bytes.take(end + 1)?;
                }
                0
            }
            _ => return None,
        };
        bytes.take(length)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_of_the_serialisation_library() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x04], 2),
            (&[0xfe], 127),
            (&[0x01, 0x02], 128),
            (&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80], (1 << 63) | 1),
        ] {
            assert_eq!(Bytes(bytes).variable(), Some(value), "{bytes:x?}");
        }
        assert_eq!(Bytes(&[0x02 << 1]).variable_signed(), Some(1));
        assert_eq!(Bytes(&[0x01 << 1]).variable_signed(), Some(-1));
        assert_eq!(Bytes(&[0x01]).variable(), None, "one byte too few");
    }

    #[test]
    fn tagged_gtids() {
        // Version 2, size, last field; 0: flags; 1: sixteen bytes; 2: 3 with a sign bit; 3: "ab".
        let mut body = vec![0x02 << 1, 60, 0, 0, 0, 0x01 << 1];
        body.extend((1..=16_u8).map(|byte| byte << 1));
        body.extend([0x02 << 1, 3 << 2, 0x03 << 1, 2 << 1, b'a', b'b', 0x04 << 1]);
        let gtid = tagged_gtid(&body).unwrap();
        assert_eq!((gtid.committed_at, gtid.length), (0, 0), "an event of a version that ended with the tag");
        assert_eq!(gtid.gtid.to_string(), "01020304-0506-0708-090a-0b0c0d0e0f10:ab:3");
    }

    #[test]
    fn commit_times_and_lengths() {
        let body = |times: &[u64], length: &[u8]| {
            let mut body = vec![1];
            body.extend([7; 16]);
            body.extend(5_u64.to_le_bytes());
            body.extend([2; 17]);
            for (place, time) in times.iter().enumerate() {
                let another = if place + 1 < times.len() { ANOTHER_TIME } else { 0 };
                body.extend(&(time | another).to_le_bytes()[..7]);
            }
            body.extend(length);
            gtid(&body).unwrap()
        };
        let read = |begin: Begin| (begin.committed_at, begin.length);
        assert_eq!(read(body(&[9], &[200])), (9, 200));
        assert_eq!(read(body(&[9, 8], &[252, 1, 1])), (8, 257));
        assert_eq!(read(body(&[9], &[254, 0, 0, 0, 0, 1, 0, 0, 0])), (9, 1 << 32));
        assert_eq!(read(body(&[], &[])), (0, 0), "an event of MySQL 5.7");
    }

    #[test]
    fn previous_gtids_with_and_without_tags() {
        let uuid = [7; 16];
        let mut body = 1_u64.to_le_bytes().to_vec();
        body.extend(uuid);
        body.extend(2_u64.to_le_bytes());
        for number in [1_u64, 4, 7, 8] {
            body.extend(number.to_le_bytes());
        }
        assert_eq!(previous_gtids(&body).unwrap().to_string(), "07070707-0707-0707-0707-070707070707:1-3:7");
        let mut tagged = ((1_u64 << 56) | (1 << 8) | 1).to_le_bytes().to_vec();
        tagged.extend(uuid);
        tagged.extend([2 << 1, b'x', b'y']);
        tagged.extend(1_u64.to_le_bytes());
        for number in [5_u64, 6] {
            tagged.extend(number.to_le_bytes());
        }
        assert_eq!(previous_gtids(&tagged).unwrap().to_string(), "07070707-0707-0707-0707-070707070707:xy:5");
        assert_eq!(previous_gtids(&[0; 8]).unwrap(), GtidSet::default());
    }

    fn statement(variables: &[u8], text: &str) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.push(1);
        body.extend([0, 0]);
        body.extend(u16::try_from(variables.len()).unwrap().to_le_bytes());
        body.extend(variables);
        body.extend(b"t\0");
        body.extend(text.as_bytes());
        body
    }

    #[test]
    fn statements_by_what_recovery_can_do_with_them() {
        let mut atomic = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 12, 1, b't', 0, 17];
        atomic.extend(9_u64.to_le_bytes());
        let mut none = vec![17];
        none.extend(u64::MAX.to_le_bytes());
        for (variables, text, expected) in [
            (&[][..], "BEGIN", Query::Begin),
            (&[], "XA START X'61',X'',1", Query::Begin),
            (&[], "COMMIT", Query::Commit),
            (&[], "ROLLBACK", Query::Rollback),
            (&[], "XA COMMIT X'61',X'',1", Query::XaEnd),
            (&[], "XA ROLLBACK X'61',X'',1", Query::XaEnd),
            (&atomic, "CREATE TABLE t (a INT)", Query::AtomicDdl),
            (&none, "CREATE TABLE t (a INT)", Query::Other),
            (&[99, 1, 2, 3], "TRUNCATE t", Query::Other),
            (&[], "TRUNCATE t", Query::Other),
        ] {
            assert_eq!(query(&statement(variables, text)), Some(expected), "{text} {variables:?}");
        }
        assert_eq!(query(&[0; 5]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (gtid(&bytes), tagged_gtid(&bytes), previous_gtids(&bytes), query(&bytes), ddl_xid(&bytes));
        }
    }
}

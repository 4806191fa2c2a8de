//! What an event says, as far as rewinds and the archive need it.

use std::io::{self, Read};

use super::body::{self as parse, Begin, Bytes, Query};
use crate::gtid::GtidSet;

/// Length of an event's header.
pub const HEADER: usize = 19;
/// Enough of a statement's event to classify it: its status variables are at most 64 KiB.
const STATEMENT_MAX: u64 = 80 * 1024;
/// Longest list of GTIDs that is taken.
const PREVIOUS_MAX: u64 = 64 << 20;
/// Longest other body that is looked into.
const SMALL_MAX: u64 = 4096;

/// A part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A statement.
    Query(Query),
    /// Rows and what belongs to them.
    Change,
    /// End of a transaction of storage engines.
    Xid,
    /// End of its first phase.
    XaPrepare,
    /// An event of a type that nothing is known about.
    Unknown(u8),
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Format description.
    Format,
    /// What the files before hold.
    Previous(GtidSet),
    /// A transaction begins.
    Gtid(Begin),
    /// One without a GTID begins.
    Anonymous,
    /// It goes on. A compressed transaction comes as one event with all its pieces; like neighbours are one piece.
    Pieces(Vec<Piece>),
    /// The next file's name: this one was closed.
    Rotate,
    /// The server stopped.
    Stop,
}

/// The part of every event that says where the next one is.
#[derive(Debug)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Length of the whole event.
    pub size: u64,
    /// Low half of where it says to end.
    pub end_low: u64,
    /// Nothing but zeros.
    pub is_zero: bool,
}

impl Header {
    /// Of 19 bytes.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let is_zero = raw.iter().all(|byte| *byte == 0);
        let mut bytes = Bytes(raw);
        bytes.take(4)?;
        let kind = u8::try_from(bytes.number(1)?).ok()?;
        bytes.take(4)?;
        Some(Self { kind, size: bytes.number(4)?, end_low: bytes.number(4)?, is_zero })
    }
}

/// What reading one event found.
#[derive(Debug)]
pub enum Told {
    /// Format description, and whether the file has checksums.
    Format(bool),
    /// Anything else.
    Content(Content),
    /// An event whose content is not of its format.
    Strange(&'static str),
}

/// `mysql::binlog::event::Log_event_type`.
pub mod kind {
    #![allow(missing_docs)]

    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INT_VAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const DELETE_FILE: u8 = 11;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD: u8 = 17;
    pub const EXECUTE_LOAD: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    /// Row events of version 1.
    pub const ROWS_V1: std::ops::RangeInclusive<u8> = 23..=25;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const ROWS: std::ops::RangeInclusive<u8> = 30..=32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS: u8 = 34;
    pub const PREVIOUS: u8 = 35;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
}

/// Pieces that begin, change or end transactions, outside of a compressed payload and inside.
fn piece(kind: u8, body: &mut impl Read, length: u64) -> io::Result<Piece> {
    Ok(match kind {
        kind::QUERY => {
            let head = head(body, length.min(STATEMENT_MAX))?;
            parse::query(&head).map_or(Piece::Unknown(kind), Piece::Query)
        }
        kind::XID => Piece::Xid,
        kind::XA_PREPARE => Piece::XaPrepare,
        kind::INT_VAR
        | kind::APPEND_BLOCK
        | kind::DELETE_FILE
        | kind::RAND
        | kind::USER_VAR
        | kind::BEGIN_LOAD
        | kind::EXECUTE_LOAD
        | kind::TABLE_MAP
        | kind::IGNORABLE
        | kind::ROWS_QUERY
        | kind::PARTIAL_UPDATE_ROWS => Piece::Change,
        _ if kind::ROWS.contains(&kind) || kind::ROWS_V1.contains(&kind) => Piece::Change,
        _ => Piece::Unknown(kind),
    })
}

fn head(body: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    body.take(length).read_to_end(&mut head)?;
    Ok(head)
}

/// Reads a body of this length as far as it is of interest.
///
/// # Errors
/// Those of reading.
pub fn content(kind: u8, body: &mut impl Read, length: u64) -> io::Result<Told> {
    let known = |content: Option<Content>, what| content.map_or(Told::Strange(what), Told::Content);
    Ok(match kind {
        kind::FORMAT => {
            // Version, server, time, length of headers, lengths of all kinds; the last byte is the checksum algorithm.
            match head(body, SMALL_MAX)?.last() {
                Some(0) => Told::Format(false),
                Some(1) => Told::Format(true),
                Some(_) | None => Told::Strange("an unknown checksum algorithm"),
            }
        }
        kind::PREVIOUS if length <= PREVIOUS_MAX => {
            known(parse::previous_gtids(&head(body, length)?).map(Content::Previous), "a list of GTIDs that is none")
        }
        kind::PREVIOUS => Told::Strange("a list of GTIDs that is too long"),
        kind::GTID => known(parse::gtid(&head(body, SMALL_MAX)?).map(Content::Gtid), "a GTID that is none"),
        kind::GTID_TAGGED => {
            known(parse::tagged_gtid(&head(body, SMALL_MAX)?).map(Content::Gtid), "a tagged GTID that is none")
        }
        kind::ANONYMOUS => Told::Content(Content::Anonymous),
        kind::ROTATE => Told::Content(Content::Rotate),
        kind::STOP => Told::Content(Content::Stop),
        kind::PAYLOAD => match payload(body) {
            Ok(Some(pieces)) => Told::Content(Content::Pieces(pieces)),
            // A read error of the file itself comes again when the body is finished.
            Ok(None) | Err(_) => Told::Strange("a compressed transaction that cannot be opened"),
        },
        _ => Told::Content(Content::Pieces(vec![piece(kind, body, length)?])),
    })
}

/// `TRANSACTION_PAYLOAD_EVENT`: fields of type, length and value up to type 0; then the events of a whole transaction,
/// without checksums, compressed or not.
fn payload(body: &mut impl Read) -> io::Result<Option<Vec<Piece>>> {
    const COMPRESSION: u64 = 2;
    const ZSTD: u64 = 0;
    const NONE: u64 = 255;
    let mut compression = NONE;
    loop {
        let field = length_encoded(body)?;
        if field == 0 {
            break;
        }
        let length = length_encoded(body)?;
        if length > SMALL_MAX {
            return Ok(None);
        }
        let value = head(body, length)?;
        if field == COMPRESSION {
            compression = length_encoded(&mut value.as_slice())?;
        }
    }
    match compression {
        ZSTD => inner(zstd::stream::read::Decoder::new(body)?),
        NONE => inner(body),
        _ => Ok(None),
    }
}

/// The integer of the client protocol.
fn length_encoded(reader: &mut impl Read) -> io::Result<u64> {
    let mut first = [0];
    reader.read_exact(&mut first)?;
    let [first] = first;
    let count = match first {
        252 => 2,
        253 => 3,
        254 => 8,
        _ => return Ok(u64::from(first)),
    };
    let bytes = head(reader, count)?;
    Bytes(&bytes).number(bytes.len()).filter(|_| bytes.len() as u64 == count).ok_or(io::ErrorKind::UnexpectedEof.into())
}

fn inner(mut reader: impl Read) -> io::Result<Option<Vec<Piece>>> {
    let mut pieces: Vec<Piece> = Vec::new();
    loop {
        let raw = head(&mut reader, HEADER as u64)?;
        if raw.is_empty() {
            return Ok(Some(pieces));
        }
        let Some(header) = Header::parse(&raw).filter(|header| header.size >= HEADER as u64) else { return Ok(None) };
        let length = header.size - HEADER as u64;
        let mut body = (&mut reader).take(length);
        let next = piece(header.kind, &mut body, length)?;
        io::copy(&mut body, &mut io::sink())?;
        if body.limit() > 0 {
            return Ok(None);
        }
        if pieces.last() != Some(&next) || next != Piece::Change {
            pieces.push(next);
        }
    }
}

//! MySQL's text form of GTIDs and sets of them.
//!
//! ```text
//! set      = piece { "," piece }            pieces may be empty
//! piece    = uuid { ":" ( interval | tag ) }
//! interval = number [ "-" number ]          empty when it ends before it starts, as on the server
//! ```
//! A tag holds for the intervals after it, up to the next tag or the end of the piece. Spaces may stand anywhere but
//! inside a word. What the server refuses is refused (compared with it in `tests/gtid_server.rs`).

use std::collections::BTreeMap;
use std::str::FromStr;

use uuid::Uuid;

use super::{Gtid, GtidSet, Interval, IntervalSet, NUMBER_MAX, TAG_LENGTH_MAX, Tag, Tsid};

/// Why text is no GTID or GTID set. Names the offending part, cut to a bearable length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Where a UUID should be.
    #[error("malformed GTID: {0:?} is not a UUID")]
    Uuid(String),
    /// Where a number, an interval or a tag should be.
    #[error("malformed GTID: {0:?} is neither an interval nor a tag")]
    Item(String),
    /// Starts with a letter or underscore, and is no tag.
    #[error("malformed GTID: {0:?} is not a tag")]
    Tag(String),
    /// Below 1 or above 2^63 - 2.
    #[error("malformed GTID: number {0:?} is out of range")]
    Range(String),
    /// One GTID was wanted.
    #[error("{0:?} is not one GTID")]
    NotOne(String),
}

/// Longest excerpt in an error, in characters.
const EXCERPT: usize = 64;

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).collect()
}

/// What the server skips: `isspace` of the C locale (Rust's ASCII white space lacks the vertical tab).
fn is_space(c: char) -> bool {
    c == '\u{b}' || c.is_ascii_whitespace()
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn uuid(text: &str) -> Result<Uuid, ParseError> {
    // Length first: the uuid crate takes URNs too, the server does not.
    match text.len() {
        32 | 36 | 38 => Uuid::try_parse(text).map_err(|_| ParseError::Uuid(excerpt(text))),
        _ => Err(ParseError::Uuid(excerpt(text))),
    }
}

/// A tag in any case; empty text is no tag.
pub(super) fn tag(text: &str) -> Result<Tag, ParseError> {
    let good = text.len() <= TAG_LENGTH_MAX
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    if good { Ok(Tag(text.to_ascii_lowercase())) } else { Err(ParseError::Tag(excerpt(text))) }
}

fn number(text: &str, least: i64) -> Result<i64, ParseError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Item(excerpt(text)));
    }
    match text.parse() {
        Ok(number) if (least..=NUMBER_MAX).contains(&number) => Ok(number),
        _ => Err(ParseError::Range(excerpt(text))),
    }
}

/// Nothing for an interval that ends before it starts.
fn interval(text: &str) -> Result<Option<Interval>, ParseError> {
    match text.split_once('-') {
        None => number(text, 1).map(|n| Interval::new(n, n)),
        Some((first, last)) => {
            let first = number(trim(first), 1)?;
            let last = number(trim(last), 0)?;
            Ok(Interval::new(first, last))
        }
    }
}

fn piece(text: &str, into: &mut BTreeMap<Tsid, Vec<Interval>>) -> Result<(), ParseError> {
    let mut items = text.split(':').map(trim);
    let uuid = uuid(items.next().unwrap_or_default())?;
    let mut tsid = Tsid::untagged(uuid);
    for item in items {
        match item.chars().next() {
            Some(c) if c.is_ascii_digit() => {
                if let Some(interval) = interval(item)? {
                    into.entry(tsid.clone()).or_default().push(interval);
                }
            }
            Some(c) if c == '_' || c.is_ascii_alphabetic() => tsid.tag = tag(item)?,
            _ => return Err(ParseError::Item(excerpt(item))),
        }
    }
    Ok(())
}

impl FromStr for GtidSet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut found = BTreeMap::new();
        for text in text.split(',').map(trim).filter(|text| !text.is_empty()) {
            piece(text, &mut found)?;
        }
        Ok(found.into_iter().map(|(tsid, intervals)| (tsid, IntervalSet::from_unsorted(intervals))).collect())
    }
}

impl FromStr for Gtid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let set = GtidSet::from_str(text)?;
        let mut gtids = set.iter();
        match (gtids.next(), gtids.next()) {
            (Some(gtid), None) => Ok(gtid),
            _ => Err(ParseError::NotOne(excerpt(text))),
        }
    }
}

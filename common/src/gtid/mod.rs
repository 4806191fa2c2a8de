//! GTID sets: the algebra that every decision about histories rests on (invariants 1, 4, 5, 6 and 7).
//!
//! A [`GtidSet`] is canonical: equal sets are equal values and print equally. Text is MySQL's own, tags of MySQL 8.3
//! and later included: `uuid:1-3:5:tag:4-5,uuid:...`. [`GtidSet`] prints what the server prints for
//! `@@gtid_executed`, but on one line: the server puts a newline after each comma, which parses all the same.
//!
//! Parsing takes what the server takes (spaces, newlines, empty pieces, any order, overlaps, UUIDs without dashes or in
//! braces) and never panics, whatever the input.

mod interval;
mod parse;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;

use uuid::Uuid;

pub use self::interval::{Interval, IntervalSet, NUMBER_MAX};
pub use self::parse::ParseError;
pub use self::set::GtidSet;

/// Longest tag that MySQL takes.
pub const TAG_LENGTH_MAX: usize = 32;

/// Tag of a GTID: lower case `[a-z_][a-z0-9_]{0,31}`, or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// No tag, as in every GTID before MySQL 8.3.
    pub const NONE: Self = Self(String::new());

    /// A tag in any case, or none for empty text.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        parse::tag(text)
    }

    /// Whether there is no tag.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag in lower case, empty when there is none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// UUID and tag: what numbers count in. MySQL's name for it is TSID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsid {
    /// UUID of the server that committed first, or of a group.
    pub uuid: Uuid,
    /// Tag, mostly none.
    pub tag: Tag,
}

impl Tsid {
    /// A UUID without a tag.
    pub fn untagged(uuid: Uuid) -> Self {
        Self { uuid, tag: Tag::NONE }
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uuid)?;
        if self.tag.is_none() { Ok(()) } else { write!(f, ":{}", self.tag.as_str()) }
    }
}

/// Identity of one transaction: `uuid:number` or `uuid:tag:number`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    tsid: Tsid,
    number: i64,
}

impl Gtid {
    /// Nothing when the number is outside of `1..=`[`NUMBER_MAX`].
    pub fn new(tsid: Tsid, number: i64) -> Option<Self> {
        (1..=NUMBER_MAX).contains(&number).then_some(Self { tsid, number })
    }

    /// UUID and tag.
    pub fn tsid(&self) -> &Tsid {
        &self.tsid
    }

    /// Number within the UUID and tag, from 1.
    pub fn number(&self) -> i64 {
        self.number
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tsid, self.number)
    }
}

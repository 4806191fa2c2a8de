//! Instances and transactions in small: numbers and bits, and what they are called outside.

use std::collections::BTreeSet;

use common::gtid::{Gtid, GtidSet, Tsid};
use uuid::Uuid;

use super::super::Name;

/// Transactions as bits, in the order in which they were made.
pub(super) type Set = u64;
/// Instances as bits.
pub(super) type Bits = u8;
/// Epochs in small.
pub(super) type Epoch = u16;

/// A transaction that was written somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Made {
    /// The server UUID that it was written under.
    pub(super) uuid: u16,
    /// Its number there: together they are its GTID.
    pub(super) number: u8,
    /// Who has acknowledged it to the mysqld that waits for it.
    pub(super) acked: Bits,
}

pub(super) fn one(server: u8) -> Bits {
    1 << server
}

pub(super) fn has(bits: Bits, server: u8) -> bool {
    bits & one(server) != 0
}

pub(super) fn each(bits: Bits) -> impl Iterator<Item = u8> {
    (0..Bits::BITS as u8).filter(move |server| has(bits, *server))
}

/// The earliest of a set.
pub(super) fn lowest(set: Set) -> Set {
    set & set.wrapping_neg()
}

pub(super) fn name(server: u8) -> Name {
    format!("c-{server}")
}

pub(super) fn number(name: &str) -> u8 {
    name.rsplit_once('-').unwrap().1.parse().unwrap()
}

pub(super) fn names(bits: Bits) -> BTreeSet<Name> {
    each(bits).map(name).collect()
}

pub(super) fn bits<'a>(names: impl IntoIterator<Item = &'a Name>) -> Bits {
    names.into_iter().fold(0, |out, name| out | one(number(name)))
}

/// Name of an instance's data; 0 is none.
pub(super) fn data_name(data: u16) -> Option<String> {
    (data != 0).then(|| format!("data-{data}"))
}

pub(super) fn data_number(name: Option<&str>) -> u16 {
    name.map_or(0, |name| name.rsplit_once('-').unwrap().1.parse().unwrap())
}

pub(super) fn uuid(id: u16) -> Uuid {
    Uuid::from_u128(u128::from(id) + 1)
}

fn gtid(made: Made) -> Gtid {
    Gtid::new(Tsid::untagged(uuid(made.uuid)), i64::from(made.number)).unwrap()
}

pub(super) fn gtids(made: &[Made], set: Set) -> GtidSet {
    let mut out = GtidSet::default();
    for (bit, transaction) in made.iter().enumerate() {
        if set & (1 << bit) != 0 {
            out.insert(&gtid(*transaction));
        }
    }
    out
}

pub(super) fn small(made: &[Made], set: &GtidSet) -> Set {
    made.iter()
        .enumerate()
        .filter(|(_, transaction)| set.contains(&gtid(**transaction)))
        .fold(0, |out, (bit, _)| out | 1 << bit)
}

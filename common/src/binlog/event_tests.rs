//! Files made by hand, torn and damaged.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use proptest::prelude::*;

use super::*;
use crate::binlog::{Piece, Query};

/// An event at a position, as a server writes it.
fn event(position: u64, kind: u8, body: &[u8], checksums: bool) -> Vec<u8> {
    let crc = if checksums || kind == kind::FORMAT { 4 } else { 0 };
    let size = 19 + body.len() as u32 + crc;
    let mut event = vec![1, 2, 3, 4, kind, 1, 0, 0, 0];
    event.extend(size.to_le_bytes());
    event.extend((position as u32 + size).to_le_bytes());
    event.extend([0, 0]);
    event.extend(body);
    if crc > 0 {
        let sum = crc32fast::hash(&event);
        event.extend(sum.to_le_bytes());
    }
    event
}

fn file(checksums: bool, events: &[(u8, &[u8])]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let format = [&[4, 0][..], &[b'9'; 50], &[0; 4], &[19], &[0; 40], &[u8::from(checksums)]].concat();
    for (kind, body) in std::iter::once(&(kind::FORMAT, &format[..])).chain(events) {
        let next = event(file.len() as u64, *kind, body, checksums);
        file.extend(next);
    }
    file
}

fn read(file: &[u8]) -> (Vec<Event>, u64, Ending) {
    let mut events = Events::new(file, file.len() as u64);
    let mut all = Vec::new();
    loop {
        match events.event().unwrap() {
            Next::Event(event) => all.push(event),
            Next::End(position, ending) => return (all, position, ending),
        }
    }
}

#[test]
fn whole_torn_and_damaged_files() {
    for checksums in [true, false] {
        let whole = file(checksums, &[(kind::XID, &[0; 8]), (kind::STOP, &[])]);
        let (events, end, ending) = read(&whole);
        assert_eq!((events.len(), end, ending), (3, whole.len() as u64, Ending::Whole));
        let last = events.last().unwrap().position;
        for length in last + 1..whole.len() as u64 {
            let (events, end, ending) = read(&whole[..length as usize]);
            assert_eq!((events.len(), end, ending), (2, last, Ending::Torn), "{length}");
        }
        let mut zeros = whole.clone();
        zeros.extend(vec![0; 70_000]);
        assert_eq!(read(&zeros).2, Ending::Torn);
        zeros.push(1);
        assert!(matches!(read(&zeros).2, Ending::Damaged(_)));
    }
}

#[test]
fn a_flipped_bit_is_seen() {
    let mut damaged = file(true, &[(kind::XID, &[0; 8]), (kind::STOP, &[])]);
    let at = damaged.len() - 30;
    damaged[at] ^= 4;
    let (events, _, ending) = read(&damaged);
    assert_eq!(events.len(), 1);
    assert!(matches!(ending, Ending::Damaged(_)));
}

#[test]
fn the_flag_of_an_open_file_is_not_in_its_checksum() {
    let mut open = file(true, &[(kind::STOP, &[])]);
    open[IN_USE_AT as usize] |= IN_USE;
    assert_eq!(read(&open).2, Ending::Whole);
}

#[test]
fn encrypted_files_are_told() {
    assert_eq!(read(&[0xfd, b'b', b'i', b'n', 1, 2, 3]), (vec![], 0, Ending::Encrypted));
    assert!(matches!(read(b"nothing").2, Ending::Damaged(_)));
    assert_eq!(read(b"\xfebi").2, Ending::Torn);
}

#[test]
fn payloads_are_opened() {
    let mut begin = vec![0; 13];
    begin.extend(b"\0BEGIN");
    let inside = [(kind::QUERY, &begin[..]), (kind::TABLE_MAP, &[]), (30, &[1, 2]), (kind::XID, &[0; 8])];
    let inside: Vec<u8> = inside.into_iter().flat_map(|(kind, body)| event(0, kind, body, false)).collect();
    for (compression, data) in [(0, zstd::encode_all(&inside[..], 3).unwrap()), (255, inside.clone())] {
        let mut body = if compression == 0 { vec![2, 1, 0] } else { vec![2, 3, 252, 255, 0] };
        body.extend([3, 3, 252, 1, 2, 0]);
        body.extend(data);
        let (events, _, ending) = read(&file(true, &[(kind::PAYLOAD, &body)]));
        assert_eq!(ending, Ending::Whole);
        let pieces = vec![Piece::Query(Query::Begin), Piece::Change, Piece::Xid];
        assert_eq!(events[1].content, Content::Pieces(pieces));
        let cut = body.len() - 3;
        let (_, _, ending) = read(&file(true, &[(kind::PAYLOAD, &body[..cut]), (kind::STOP, &[])]));
        assert!(matches!(ending, Ending::Damaged(_)));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..50_u8) {
        read(&bytes);
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend(&bytes);
        read(&with_magic);
        read(&file(false, &[(kind, &bytes), (kind::STOP, &[])]));
    }
}

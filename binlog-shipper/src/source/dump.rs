//! The dump itself: which transactions are asked for, and the events that come.

use std::time::Duration;

use common::binlog::{HEADER, Header, closed, kind};
use common::gtid::{GtidSet, Tag};
use common::mysql::wire::{Packets, refused};
use crc32fast::Hasher;
use tokio::io::AsyncRead;
use tokio::time::timeout;
use uuid::Uuid;

use super::Until;
use super::error::{Error, Result};

/// `COM_BINLOG_DUMP_GTID`.
const DUMP_GTID: u8 = 0x1e;
/// `BINLOG_DUMP_NON_BLOCK`: ends where the binlog does.
const NON_BLOCK: u16 = 1;
/// `BINLOG_THROUGH_GTID`.
const THROUGH_GTID: u16 = 4;
/// `LOG_EVENT_ARTIFICIAL_F`: made for the stream, in no file.
const ARTIFICIAL: u16 = 0x20;
/// Length of a checksum.
const CRC: usize = 4;
/// Part of a body that is in memory at once.
const CHUNK: usize = 64 << 10;

/// Flags, server id, name and position of a file (none), the set.
pub fn request(asker: Uuid, held: &GtidSet, until: Until) -> Vec<u8> {
    let flags = THROUGH_GTID | if until == Until::Now { NON_BLOCK } else { 0 };
    // Not below those of instances, which are small; the server tells askers apart by their UUID.
    let [a, b, c, ..] = *asker.as_bytes();
    let server_id = u32::from_be_bytes([0xff, a, b, c]);
    let mut request = vec![DUMP_GTID];
    request.extend(flags.to_le_bytes());
    request.extend(server_id.to_le_bytes());
    request.extend(0_u32.to_le_bytes());
    request.extend(4_u64.to_le_bytes());
    let set = encode(held);
    request.extend(u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
    request.extend(set);
    request
}

/// A set as in `PREVIOUS_GTIDS_LOG_EVENT`.
fn encode(set: &GtidSet) -> Vec<u8> {
    let tagged = set.by_tsid().any(|(tsid, _)| !tsid.tag.is_none());
    let count = set.by_tsid().count() as u64;
    let mut out = if tagged { 1 << 56 | count << 8 | 1 } else { count }.to_le_bytes().to_vec();
    for (tsid, numbers) in set.by_tsid() {
        out.extend(tsid.uuid.as_bytes());
        if tagged {
            out.extend(tag(&tsid.tag));
        }
        out.extend((numbers.iter().count() as u64).to_le_bytes());
        for interval in numbers {
            out.extend(interval.first().to_le_bytes());
            out.extend((interval.last() + 1).to_le_bytes());
        }
    }
    out
}

/// Length, as an integer of the serialisation library of one byte (a tag has 32 letters at most), and the letters.
fn tag(tag: &Tag) -> Vec<u8> {
    let text = tag.as_str().as_bytes();
    [&[u8::try_from(text.len() << 1).unwrap_or(u8::MAX)], text].concat()
}

/// What stands in front of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The header as it came.
    pub raw: [u8; HEADER],
    /// Type.
    pub kind: u8,
    /// Length of the whole event.
    pub size: u64,
    /// Low half of where it ends in the file.
    pub end_low: u64,
    /// It is in the file: it was not made for the stream.
    pub is_in_file: bool,
}

impl Head {
    fn parse(raw: [u8; HEADER]) -> Option<Self> {
        let Header { kind, size, end_low, is_zero: _ } = Header::parse(&raw)?;
        let [.., low, high] = raw;
        let flags = u16::from_le_bytes([low, high]);
        let heartbeat = matches!(kind, kind::HEARTBEAT | kind::HEARTBEAT_V2);
        let is_in_file = flags & ARTIFICIAL == 0 && end_low != 0 && !heartbeat;
        Some(Self { raw, kind, size, end_low, is_in_file }).filter(|head| head.size >= HEADER as u64)
    }
}

/// Events of a stream, one after the other: a head, then its body.
#[derive(Debug)]
pub struct Events<S> {
    packets: Packets<S>,
    silence: Duration,
    checksums: bool,
}

impl<S: AsyncRead + Unpin> Events<S> {
    pub(super) fn new(packets: Packets<S>, silence: Duration) -> Self {
        Self { packets, silence, checksums: true }
    }

    /// The next event; `None` where the binlog ends, when that was asked for.
    ///
    /// # Errors
    /// Those of the connection, and the server's. The stream is of no use afterwards.
    pub async fn next(&mut self) -> Result<Option<Head>> {
        let read = async {
            let length = self.packets.next().await?;
            let mut status = [0];
            self.packets.fill(&mut status).await?;
            let [status] = status;
            if status == 0 {
                let mut raw = [0; HEADER];
                self.packets.fill(&mut raw).await?;
                return Ok((status, length, raw.to_vec()));
            }
            Ok((status, length, self.packets.rest().await?))
        };
        let read = timeout(self.silence, read).await;
        let read = read.map_err(|_| Error::Silence { what: "wait for an event", after: self.silence })?;
        let (status, length, payload) = read.map_err(Error::io("read an event"))?;
        match status {
            0 => {
                let head = <[u8; HEADER]>::try_from(payload).ok().and_then(Head::parse);
                Ok(Some(head.ok_or(Error::Protocol("the header of an event"))?))
            }
            // EOF.
            0xfe if length < 9 => Ok(None),
            _ => {
                refused(&[&[status], payload.as_slice()].concat())?;
                Err(Error::Protocol("what came instead of an event"))
            }
        }
    }

    /// Reads the body of the event whose head came last, verifies its checksum, and hands everything behind the header to
    /// `take`, checksum included. A large body comes in several pieces.
    ///
    /// # Errors
    /// Those of the connection, of `take`, and a checksum that does not fit. What was taken is of no use then.
    pub async fn body(&mut self, file: &str, head: &Head, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut hasher = Hasher::new();
        hasher.update(&closed(head.raw, head.kind));
        let crc = if self.checksums || head.kind == kind::FORMAT { CRC as u64 } else { 0 };
        let length = (head.size - HEADER as u64).checked_sub(crc).ok_or(Error::Protocol("the length of an event"))?;
        let most = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
        let (mut left, mut buffer, mut last) = (length, vec![0; most], 0);
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let piece = buffer.get_mut(..count).unwrap_or_default();
            self.fill(piece).await?;
            hasher.update(piece);
            take(piece)?;
            last = piece.last().copied().unwrap_or_default();
            left -= count as u64;
        }
        if crc > 0 {
            let mut stored = [0; CRC];
            self.fill(&mut stored).await?;
            if u32::from_le_bytes(stored) != hasher.finalize() {
                return Err(Error::Checksum { kind: head.kind, end: head.end_low, file: file.to_owned() });
            }
            take(&stored)?;
        }
        if head.kind == kind::FORMAT {
            // The last byte of a format description says whether the events after it have checksums.
            self.checksums = last == 1;
        }
        let whole = self.packets.is_read().await.map_err(Error::io("read an event"))?;
        if whole { Ok(()) } else { Err(Error::Protocol("what comes behind an event")) }
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let filled = timeout(self.silence, self.packets.fill(buffer)).await;
        let filled = filled.map_err(|_| Error::Silence { what: "read an event", after: self.silence })?;
        filled.map_err(Error::io("read an event"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sets_are_encoded_as_the_server_encodes_them() {
        let uuid = "07070707-0707-0707-0707-070707070707";
        let set = |text: &str| encode(&text.parse().unwrap());
        let mut plain = 1_u64.to_le_bytes().to_vec();
        plain.extend([7; 16]);
        plain.extend(2_u64.to_le_bytes());
        for number in [1_u64, 4, 7, 8] {
            plain.extend(number.to_le_bytes());
        }
        assert_eq!(set(&format!("{uuid}:1-3:7")), plain);
        let mut tagged = (1_u64 << 56 | 1 << 8 | 1).to_le_bytes().to_vec();
        tagged.extend([7; 16]);
        tagged.extend([2 << 1, b'x', b'y']);
        tagged.extend(1_u64.to_le_bytes());
        for number in [5_u64, 6] {
            tagged.extend(number.to_le_bytes());
        }
        assert_eq!(set(&format!("{uuid}:xy:5")), tagged);
        assert_eq!(encode(&GtidSet::default()), [0; 8]);
    }
}

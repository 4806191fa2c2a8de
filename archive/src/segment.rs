//! A segment: some bytes of a binlog, compressed, with what they hold written in front.
//!
//! ```text
//! object = skippable zstd frame, zstd frame of the bytes as they are in the file
//! skippable frame = magic 0x184D2A50, length, JSON of `Segment`, newline, SHA-256 of the JSON in 64 hexadecimal digits
//! ```
//!
//! `zstd -d` passes over a skippable frame, so `zstd -dc <segments of a file, in order> | mysqlbinlog -` reads what is there.
//! The JSON comes first, so that a request for the first few KiB says what a segment holds. The bytes begin with the magic and
//! the format description (offset 0), or with the first event of a transaction; they end with the last of one. Every
//! event's checksum was verified before; the SHA-256 covers the way through the bucket.

use std::io::{self, Read};

use common::gtid::GtidSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::SegmentKey;

/// Version of the format; readers refuse what they do not know.
pub const VERSION: u32 = 1;
/// Bytes that surely hold the first part of nearly every segment.
pub const HEAD: usize = 16 << 10;
/// First bytes of a skippable frame.
const MAGIC: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// Magic and length.
const FRAME: usize = 8;
/// Newline and digest behind the JSON.
const SEAL: usize = 1 + 64;
/// Longest JSON that is taken: sets of GTIDs can be long.
const JSON_MAX: usize = 64 << 20;
/// Binlogs of rows compress well at once; more costs CPU of a daemon that has many streams.
const LEVEL: i32 = 3;

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// [`VERSION`].
    pub version: u32,
    /// Which bytes.
    #[serde(flatten)]
    pub key: SegmentKey,
    /// What its server had executed before, of what the archive had then: a restore that lacks any of it has a gap here, and what
    /// an earlier epoch's segments hold beside it lost an election.
    pub basis: GtidSet,
    /// Its transactions, whole ones.
    pub gtid: GtidSet,
    /// How many there are.
    pub transactions: u64,
    /// Earliest commit time of them, microseconds since 1970 (`original_commit_timestamp`). 0: there is none.
    pub first_commit: u64,
    /// Latest one.
    pub last_commit: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
}

/// The earlier of two commit times, of which 0 is none.
pub fn earlier(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one.max(other) } else { one.min(other) }
}

/// Why an object is no segment that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The front is not of this format.
    #[error("it does not begin as a segment does")]
    NoSegment,
    /// The front says something that cannot be understood.
    #[error("understand what is said of it: {0}")]
    Json(#[from] serde_json::Error),
    /// Of a later version of Pelorus.
    #[error("it is of version {0}, which this release does not know")]
    Version(u32),
    /// It says that it is another one.
    #[error("it says that it holds {0}")]
    Another(Box<SegmentKey>),
    /// It cannot be decompressed, or the reader failed.
    #[error("decompress it: {0}")]
    Read(#[from] io::Error),
    /// Not the bytes that were put.
    #[error("its content was altered: {0}")]
    Altered(String),
}

/// SHA-256 of all that can be read, hexadecimal, and how much it was.
///
/// # Errors
/// Those of reading.
pub fn digest(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Hashing::new(&mut reader);
    io::copy(&mut hasher, &mut io::sink())?;
    Ok(hasher.finish())
}

/// The object: everything that is put under the segment's key. The same segment gives the same bytes.
///
/// # Errors
/// Those of the compressor.
pub fn encode<R: Read>(segment: &Segment, bytes: R) -> Result<impl Read + use<R>, Error> {
    let json = serde_json::to_vec(segment)?;
    let end = seal(&json);
    let length = u32::try_from(json.len() + end.len()).map_err(|_| Error::NoSegment)?;
    let front = [&MAGIC[..], &length.to_le_bytes(), &json, end.as_bytes()].concat();
    let mut encoder = zstd::stream::read::Encoder::new(bytes, LEVEL)?;
    encoder.set_pledged_src_size(Some(segment.key.length()))?;
    encoder.include_contentsize(true)?;
    Ok(io::Cursor::new(front).chain(encoder))
}

/// What stands behind the JSON.
fn seal(json: &[u8]) -> String {
    format!("\n{}", hex::encode(Sha256::digest(json)))
}

/// What the front of an object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// It is known.
    Segment(Box<Segment>),
    /// So many bytes of the object are needed to know it.
    Needs(usize),
}

/// The part of the JSON that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads the front of an object, which may be cut anywhere.
///
/// # Errors
/// What is no segment of a known version, or another than the key says.
pub fn front(object: &[u8], key: &SegmentKey) -> Result<Front, Error> {
    let Some((frame, rest)) = object.split_at_checked(FRAME) else { return Ok(Front::Needs(FRAME)) };
    let (magic, length) = frame.split_at(MAGIC.len());
    let length = <[u8; 4]>::try_from(length).map_or(0, u32::from_le_bytes) as usize;
    if magic != MAGIC || !(SEAL..JSON_MAX).contains(&length) {
        return Err(Error::NoSegment);
    }
    let Some((json, end)) = rest.get(..length).and_then(|sealed| sealed.split_at_checked(length - SEAL)) else {
        return Ok(Front::Needs(FRAME + length));
    };
    if end != seal(json).as_bytes() {
        return Err(Error::Altered("what is said of it does not fit its own SHA-256".to_owned()));
    }
    match serde_json::from_slice::<Versioned>(json)?.version {
        VERSION => {}
        other => return Err(Error::Version(other)),
    }
    let segment: Segment = serde_json::from_slice(json)?;
    if segment.key != *key {
        return Err(Error::Another(Box::new(segment.key)));
    }
    Ok(Front::Segment(Box::new(segment)))
}

/// The bytes of a whole object, verified, and what it says of them.
///
/// # Errors
/// Anything but the segment that was put under this key.
pub fn decode(object: &[u8], key: &SegmentKey) -> Result<(Segment, Vec<u8>), Error> {
    let Front::Segment(segment) = front(object, key)? else { return Err(Error::NoSegment) };
    let altered = |what: &str| Error::Altered(what.to_owned());
    let wanted = usize::try_from(key.length()).map_err(|_| altered("it is too long"))?;
    // The decoder passes over the skippable frame. One byte more than there may be shows what is too long.
    let mut bytes = Vec::new();
    let mut hashing = Hashing::new(zstd::stream::read::Decoder::new(object)?.take(key.length() + 1));
    hashing.read_to_end(&mut bytes)?;
    let (sha256, _) = hashing.finish();
    if bytes.len() != wanted {
        return Err(altered(&format!("{} bytes instead of {wanted}", bytes.len())));
    }
    if sha256 != segment.sha256 {
        return Err(altered("its SHA-256 is another"));
    }
    Ok((*segment, bytes))
}

/// Sums what passes through.
struct Hashing<R> {
    reader: R,
    hasher: Sha256,
    count: u64,
}

impl<R> Hashing<R> {
    fn new(reader: R) -> Self {
        Self { reader, hasher: Sha256::new(), count: 0 }
    }

    fn finish(self) -> (String, u64) {
        (hex::encode(self.hasher.finalize()), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::layout::BinlogFile;

    const SERVER: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

    fn segment(bytes: &[u8]) -> Segment {
        let file = BinlogFile { epoch: 7, server: SERVER.parse().unwrap(), name: "binlog.000012".parse().unwrap() };
        Segment {
            version: VERSION,
            key: SegmentKey::new(file, 157, 157 + bytes.len() as u64).unwrap(),
            basis: GtidSet::default(),
            gtid: format!("{SERVER}:1-9").parse().unwrap(),
            transactions: 9,
            first_commit: 1_700_000_000_000_001,
            last_commit: 1_700_000_000_000_002,
            sha256: digest(bytes).unwrap().0,
        }
    }

    fn object(segment: &Segment, bytes: &[u8]) -> Vec<u8> {
        let mut object = Vec::new();
        encode(segment, bytes).unwrap().read_to_end(&mut object).unwrap();
        object
    }

    #[test]
    fn no_commit_time_is_later_than_any() {
        for (one, other, expected) in [(0, 0, 0), (0, 5, 5), (5, 0, 5), (5, 7, 5), (7, 5, 5)] {
            assert_eq!(earlier(one, other), expected);
        }
    }

    #[test]
    fn the_front_is_readable_json_of_documented_names() {
        let segment = segment(b"abc");
        let object = object(&segment, b"abc");
        let json: serde_json::Value =
            serde_json::Deserializer::from_slice(&object[FRAME..]).into_iter().next().unwrap().unwrap();
        for name in ["version", "epoch", "serverUuid", "file", "first", "last", "gtid", "firstCommit", "sha256"] {
            assert!(json.get(name).is_some(), "{name} is not in {json}");
        }
        for cut in 0..object.len() {
            match front(&object[..cut], &segment.key).unwrap() {
                Front::Segment(read) => assert_eq!(*read, segment),
                Front::Needs(more) => assert!(more > cut && more <= object.len()),
            }
        }
    }

    #[test]
    fn what_is_of_another_place_or_version_is_refused() {
        let segment = segment(b"abc");
        let object = object(&segment, b"abc");
        let elsewhere = SegmentKey { first: 156, last: 159, ..segment.key.clone() };
        assert!(matches!(decode(&object, &elsewhere), Err(Error::Another(key)) if *key == segment.key));
        let later = Segment { version: 2, ..segment.clone() };
        let mut encoded = Vec::new();
        encode(&later, &b"abc"[..]).unwrap().read_to_end(&mut encoded).unwrap();
        assert!(matches!(decode(&encoded, &segment.key), Err(Error::Version(2))));
        assert!(matches!(decode(b"\xfebin and more", &segment.key), Err(Error::NoSegment)));
    }

    proptest! {
        #[test]
        fn what_was_put_comes_back(bytes in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let segment = segment(&bytes);
            let object = object(&segment, &bytes);
            prop_assert_eq!(decode(&object, &segment.key).unwrap(), (segment.clone(), bytes.clone()));
        }

        /// Whatever a bucket does to an object is noticed: a flipped bit, an end that is missing.
        #[test]
        fn alterations_are_noticed(
            bytes in proptest::collection::vec(any::<u8>(), 1..500), at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let segment = segment(&bytes);
            let object = object(&segment, &bytes);
            let mut flipped = object.clone();
            flipped[at.index(object.len())] ^= 1 << bit;
            // zstd's own frame header may hold bits that change nothing.
            if let Ok(read) = decode(&flipped, &segment.key) {
                prop_assert_eq!(read, (segment.clone(), bytes.clone()));
            }
            prop_assert!(decode(&object[..at.index(object.len())], &segment.key).is_err());
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, &segment(b"abc").key);
            let _ = decode(&[&MAGIC[..], &bytes].concat(), &segment(b"abc").key);
        }
    }
}

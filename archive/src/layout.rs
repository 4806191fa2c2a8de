//! Keys of the bucket.
//!
//! ```text
//! <prefix><namespace>/<cluster>/<cluster uid>/
//!   binlogs/<epoch>/<server uuid>/<file>/<first>-<last>.zst    raw bytes [first, last) of a binlog, see `segment`
//!   binlogs/<epoch>/<server uuid>/<file>/<offset>.json         what the segments before that offset hold
//!   binlogs/<epoch>/<server uuid>/<file>/complete.json         the same of a file that was closed, and all of it is here
//!   dumps/<id>/manifest.json                                   put last: a dump without one does not exist
//!   dumps/<id>/...                                             what the manifest names
//! ```
//!
//! The cluster's uid keeps a new cluster of the same name from mixing with the old one. Epochs and offsets are padded with
//! zeros, so that a listing is in order; file names are the server's own and are ordered by their number.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use common::instance::Epoch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Digits of an epoch: more than one a second for three hundred years.
const EPOCH_DIGITS: usize = 10;
/// Digits of an offset: a binlog is 1 GiB, unless its last transaction is larger.
const OFFSET_DIGITS: usize = 13;
/// One more than those digits can say.
const OFFSET_END: u64 = 10_u64.pow(13);
/// What a closed file's summary is called.
const COMPLETE: &str = "complete.json";
/// Ending of a segment.
const SEGMENT: &str = ".zst";
/// Ending of a summary.
const SUMMARY: &str = ".json";

/// A text that is no key of the archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct NotAKey {
    /// What it should have been.
    pub what: &'static str,
    /// The text.
    pub text: String,
}

impl NotAKey {
    fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into() }
    }
}

/// Where the archive of one cluster lies in its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(String);

impl Root {
    /// `prefix` is the location's, with or without a slash at its end.
    pub fn new(prefix: &str, namespace: &str, cluster: &str, uid: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        Self(format!("{prefix}{slash}{namespace}/{cluster}/{uid}/"))
    }

    /// Prefix of the archives of all clusters of a name; below it each has a folder, named by its uid.
    pub fn of_name(prefix: &str, namespace: &str, cluster: &str) -> String {
        let Self(root) = Self::new(prefix, namespace, cluster, "");
        root.trim_end_matches('/').to_owned() + "/"
    }

    /// Prefix of all that is in it.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// Prefix of all binlogs.
    pub fn binlogs(&self) -> String {
        format!("{}binlogs/", self.0)
    }

    /// Prefix of all dumps.
    pub fn dumps(&self) -> String {
        format!("{}dumps/", self.0)
    }

    /// Key of a part of a dump.
    pub fn dump(&self, id: &str, part: &str) -> String {
        format!("{}{id}/{part}", self.dumps())
    }

    /// Key of a file of a copy of transactions that an instance threw away.
    pub fn rewound(&self, instance: &str, copy: &str, file: &str) -> String {
        format!("{}rewound/{instance}/{copy}/{file}", self.0)
    }

    /// Prefix of all that is of one file.
    pub fn file(&self, file: &BinlogFile) -> String {
        let BinlogFile { epoch, server, name } = file;
        format!("{}{epoch:0EPOCH_DIGITS$}/{server}/{name}/", self.binlogs())
    }

    /// Key of a segment.
    pub fn segment(&self, key: &SegmentKey) -> String {
        let SegmentKey { file, first, last } = key;
        format!("{}{first:0OFFSET_DIGITS$}-{last:0OFFSET_DIGITS$}{SEGMENT}", self.file(file))
    }

    /// Key of the summary of what lies before an offset.
    pub fn summary(&self, file: &BinlogFile, offset: u64) -> String {
        format!("{}{offset:0OFFSET_DIGITS$}{SUMMARY}", self.file(file))
    }

    /// Key of the summary of a closed file.
    pub fn complete(&self, file: &BinlogFile) -> String {
        format!("{}{COMPLETE}", self.file(file))
    }

    /// What a key of the binlogs names.
    ///
    /// # Errors
    /// A key that is none of this archive's binlogs.
    pub fn parse(&self, key: &str) -> Result<Object, NotAKey> {
        let parse = || {
            let rest = key.strip_prefix(&self.binlogs())?;
            let mut parts = rest.split('/');
            let epoch = parts.next().filter(|text| text.len() == EPOCH_DIGITS)?.parse().ok()?;
            let server = Uuid::parse_str(parts.next()?).ok()?;
            let name = parts.next()?.parse().ok()?;
            let file = BinlogFile { epoch, server, name };
            let name = parts.next()?;
            let number = |text: &str| text.parse().ok().filter(|_| text.len() == OFFSET_DIGITS);
            let object = match name.strip_suffix(SUMMARY) {
                _ if name == COMPLETE => Object::Complete(file),
                Some(offset) => Object::Summary(file, number(offset)?),
                None => {
                    let (first, last) = name.strip_suffix(SEGMENT)?.split_once('-')?;
                    Object::Segment(SegmentKey::new(file, number(first)?, number(last)?)?)
                }
            };
            parts.next().is_none().then_some(object)
        };
        // Only what would be written under this very key: no second spelling of anything.
        parse()
            .filter(|object| match object {
                Object::Segment(segment) => self.segment(segment) == key,
                Object::Summary(file, offset) => self.summary(file, *offset) == key,
                Object::Complete(file) => self.complete(file) == key,
            })
            .ok_or_else(|| NotAKey::new("key of a binlog", key))
    }
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Bytes of a binlog.
    Segment(SegmentKey),
    /// The summary of what lies before an offset.
    Summary(BinlogFile, u64),
    /// The summary of a closed one.
    Complete(BinlogFile),
}

/// A binlog file: whose, and in which epoch it was read. In another epoch the same file of the same server may hold
/// transactions that this one does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BinlogFile {
    /// Epoch of the primary that was read.
    pub epoch: Epoch,
    /// Its `server_uuid`.
    #[serde(rename = "serverUuid")]
    pub server: Uuid,
    /// As the server calls it.
    #[serde(rename = "file")]
    pub name: FileName,
}

impl fmt::Display for BinlogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} in epoch {}", self.name, self.server, self.epoch)
    }
}

/// Name of a binlog: a base name and a number of at least six digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileName {
    text: String,
    number: u64,
}

impl FileName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its number: the server counts.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl FromStr for FileName {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let parse = || {
            let (base, number) = text.rsplit_once('.')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let is_name = !base.is_empty() && base.len() <= 200 && base.chars().all(plain) && !base.starts_with('.');
            let is_number = (6..=19).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_name && is_number).then(|| number.parse().ok()).flatten()
        };
        parse()
            .map(|number| Self { text: text.to_owned(), number })
            .ok_or_else(|| NotAKey::new("name of a binlog", text))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for FileName {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.number, &self.text).cmp(&(other.number, &other.text))
    }
}

impl PartialOrd for FileName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for FileName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A part of a binlog file: the bytes from `first` to before `last`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentKey {
    /// Of which file.
    #[serde(flatten)]
    pub file: BinlogFile,
    /// Offset of its first byte.
    pub first: u64,
    /// Offset behind its last byte.
    pub last: u64,
}

impl SegmentKey {
    /// Nothing when there is no byte in it.
    pub fn new(file: BinlogFile, first: u64, last: u64) -> Option<Self> {
        (first < last && last < OFFSET_END).then_some(Self { file, first, last })
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.last - self.first
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {} to {} of {}", self.first, self.last, self.file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const SERVER: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

    fn file(epoch: u64, name: &str) -> BinlogFile {
        BinlogFile { epoch, server: SERVER.parse().unwrap(), name: name.parse().unwrap() }
    }

    #[test]
    fn keys_are_those_of_the_documentation() {
        for prefix in ["prod/", "/prod", "prod"] {
            let root = Root::new(prefix, "team-a", "shop", "uid");
            let segment = SegmentKey::new(file(7, "binlog.000012"), 157, 9211).unwrap();
            let folder = format!("prod/team-a/shop/uid/binlogs/0000000007/{SERVER}/binlog.000012/");
            assert_eq!(root.segment(&segment), format!("{folder}0000000000157-0000000009211.zst"));
            assert_eq!(root.complete(&segment.file), format!("{folder}complete.json"));
        }
        assert!(Root::new("", "n", "c", "u").binlogs().starts_with("n/c/u/"));
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let root = Root::new("p", "n", "c", "u");
        let segment = SegmentKey::new(file(7, "binlog.000012"), 0, 5).unwrap();
        let key = root.segment(&segment);
        assert_eq!(root.parse(&key), Ok(Object::Segment(segment.clone())));
        assert_eq!(root.parse(&root.summary(&segment.file, 99)), Ok(Object::Summary(segment.file.clone(), 99)));
        assert_eq!(root.parse(&root.complete(&segment.file)), Ok(Object::Complete(segment.file)));
        for wrong in [
            key.replace(".zst", ""),
            key.replace("0000000000005.zst", "0000000000000.zst"),
            key.replace("0000000000005", "5"),
            key.replace("0000000007", "7"),
            key.replace(SERVER, &SERVER.to_uppercase()),
            key.replace("binlog.000012", "binlog"),
            format!("{key}/x"),
            key.replacen('p', "q", 1),
        ] {
            assert!(root.parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_ordered_by_number() {
        let name = |text: &str| text.parse::<FileName>().unwrap();
        assert!(name("binlog.999999") < name("binlog.1000000"));
        assert!(file(2, "binlog.000001") > file(1, "binlog.000009"));
        for wrong in ["binlog", "binlog.12", ".000001", "a/b.000001", "../x.000001", "binlog.00000x", "b\u{e9}.000001"]
        {
            assert!(wrong.parse::<FileName>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn segments_are_listed_in_the_order_of_their_bytes(a in 0_u64..1 << 40, b in 0_u64..1 << 40, length in 1_u64..1 << 30) {
            let root = Root::new("p", "n", "c", "u");
            let key = |first| root.segment(&SegmentKey::new(file(1, "binlog.000001"), first, first + length).unwrap());
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_taken(text in ".*") {
            let root = Root::new("p", "n", "c", "u");
            let _ = root.parse(&text);
            let _ = root.parse(&format!("{}{text}", root.binlogs()));
            let _ = text.parse::<FileName>();
        }
    }
}

//! What the archive holds, read from the bucket alone.
//!
//! A file that was closed has a summary, `complete.json`. One that is open has one for every few hundred segments, and of those
//! after it the fronts are read. Segments of one file may overlap, where two shippers cut them at different boundaries: their
//! transactions are the same.

use std::collections::{BTreeMap, BTreeSet};

use common::gtid::GtidSet;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::layout::{BinlogFile, Object, Root, SegmentKey};
use super::retain;
use super::segment::{self, Front, HEAD, Segment, VERSION, earlier};
use super::store::{self, Put, Store};

/// Objects that are read at the same time.
const AT_ONCE: usize = 16;

/// What a file holds, or what lies before an offset of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Version of the format.
    pub version: u32,
    /// Which file.
    #[serde(flatten)]
    pub file: BinlogFile,
    /// Offset behind the last byte.
    pub length: u64,
    /// Its transactions that are in the archive.
    pub gtid: GtidSet,
    /// How many.
    pub transactions: u64,
    /// Earliest commit time of them, microseconds since 1970; 0 without any.
    pub first_commit: u64,
    /// Latest one.
    pub last_commit: u64,
    /// Its segments, in the order of their bytes.
    pub segments: Vec<Part>,
}

/// Whether a file goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The summary is of what lies before its length.
    SoFar,
    /// The file was closed.
    Complete,
}

/// One segment in a summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Offset of its first byte.
    pub first: u64,
    /// Offset behind its last byte.
    pub last: u64,
    /// What came before: [`Segment::basis`].
    pub basis: GtidSet,
    /// Its transactions.
    pub gtid: GtidSet,
    /// Earliest commit time of them, microseconds since 1970; 0 without any.
    pub first_commit: u64,
    /// Latest one.
    pub last_commit: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// Why the archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An object that is not what it should be.
    #[error("{key} is not to be trusted: {source}")]
    Segment {
        /// Its key.
        key: String,
        /// Why.
        source: segment::Error,
    },
    /// A summary that cannot be understood.
    #[error("{key} cannot be understood: {reason}")]
    Summary {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// An object that is in a listing and not there.
    #[error("{0} is listed and is not there")]
    Gone(String),
    /// Two different contents under one name.
    #[error("{0} is there already and holds something else")]
    Conflict(String),
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub file: BinlogFile,
    /// It was closed, and a summary says so.
    pub complete: bool,
    /// Its segments, in the order of their bytes.
    pub segments: Vec<Part>,
}

impl Held {
    /// Its transactions.
    pub fn gtid(&self) -> GtidSet {
        union(&self.segments)
    }
}

/// Transactions of all files.
pub fn shipped(held: &[Held]) -> GtidSet {
    held.iter().fold(GtidSet::default(), |mut all, file| {
        all.extend_with(&file.gtid());
        all
    })
}

/// Transactions of segments.
fn union(parts: &[Part]) -> GtidSet {
    parts.iter().fold(GtidSet::default(), |mut all, part| {
        all.extend_with(&part.gtid);
        all
    })
}

/// What a stream has to know of the archive, to put nothing twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Transactions that it has, or had before they were needed no more.
    pub gtid: GtidSet,
    /// Segments of files that are not complete.
    pub open: BTreeMap<BinlogFile, Vec<Part>>,
}

impl Known {
    /// Of all that the archive holds.
    pub fn of(held: &[Held]) -> Self {
        let open = held.iter().filter(|file| !file.complete);
        Self {
            gtid: shipped(held).union(&retain::before(held)),
            open: open.map(|file| (file.file.clone(), file.segments.clone())).collect(),
        }
    }

    /// Whether the archive has the front of a file (format description and list of earlier transactions). A server that leaves
    /// transactions of a file out sends another front: without the time at which it was started.
    pub fn has_front(&self, file: &BinlogFile) -> bool {
        self.open.get(file).is_some_and(|parts| parts.iter().any(|part| part.first == 0))
    }
}

/// All files of a cluster's archive, in order.
///
/// # Errors
/// The bucket's, and what is in it that should not.
pub async fn read(store: &Store, root: &Root) -> Result<Vec<Held>, Error> {
    let listed = store.list(&root.binlogs()).await?;
    let mut files: BTreeMap<BinlogFile, Listed> = BTreeMap::new();
    for object in listed {
        match root.parse(&object.key) {
            Ok(Object::Complete(file)) => files.entry(file).or_default().complete = true,
            // In the order of keys, the last is the longest.
            Ok(Object::Summary(file, offset)) => files.entry(file).or_default().summary = Some(offset),
            Ok(Object::Segment(key)) => files.entry(key.file.clone()).or_default().segments.push(key),
            // Somebody else's object is nobody's reason to stop: it is told, and left.
            Err(error) => tracing::warn!(%error, "an object in the archive is left alone"),
        }
    }
    let files = stream::iter(files).map(|(file, listed)| async move {
        let Listed { complete, summary, segments } = listed;
        let key = if complete { Some(root.complete(&file)) } else { summary.map(|offset| root.summary(&file, offset)) };
        let mut parts = match key {
            Some(key) => read_summary(store, &key, &file).await?.segments,
            None => Vec::new(),
        };
        if !complete {
            let told: BTreeSet<(u64, u64)> = parts.iter().map(|part| (part.first, part.last)).collect();
            let rest = segments.into_iter().filter(|key| !told.contains(&(key.first, key.last))).collect();
            parts.extend(fronts(store, root, rest).await?.iter().map(Part::of));
            parts.sort_by_key(|part| (part.first, part.last));
        }
        Ok(Held { file, complete, segments: parts })
    });
    files.buffered(AT_ONCE).try_collect().await
}

/// Objects of one file.
#[derive(Default)]
struct Listed {
    complete: bool,
    summary: Option<u64>,
    segments: Vec<SegmentKey>,
}

/// What all segments of the list say of themselves, in order.
async fn fronts(store: &Store, root: &Root, keys: Vec<SegmentKey>) -> Result<Vec<Segment>, Error> {
    let read = |key: SegmentKey| async move { front(store, root, &key).await };
    stream::iter(keys).map(read).buffered(AT_ONCE).try_collect().await
}

/// What a segment says of itself.
///
/// # Errors
/// The bucket's, and what is no segment.
pub async fn front(store: &Store, root: &Root, key: &SegmentKey) -> Result<Segment, Error> {
    let name = root.segment(key);
    let mut needed = HEAD;
    loop {
        let object = store.get_front(&name, needed).await?.ok_or_else(|| Error::Gone(name.clone()))?;
        let front = segment::front(&object, key);
        match front.map_err(|source| Error::Segment { key: name.clone(), source })? {
            Front::Segment(segment) => return Ok(*segment),
            Front::Needs(more) if more > object.len() && object.len() >= needed => needed = more,
            Front::Needs(_) => return Err(Error::Segment { key: name, source: segment::Error::NoSegment }),
        }
    }
}

async fn read_summary(store: &Store, key: &str, file: &BinlogFile) -> Result<Summary, Error> {
    let object = store.get(key).await?.ok_or_else(|| Error::Gone(key.to_owned()))?;
    let wrong = |reason: String| Error::Summary { key: key.to_owned(), reason };
    let summary: Summary = serde_json::from_slice(&object).map_err(|error| wrong(error.to_string()))?;
    if summary.version != VERSION {
        return Err(wrong(format!("it is of version {}, which this release does not know", summary.version)));
    }
    if summary.file != *file {
        return Err(wrong(format!("it says that it is of {}", summary.file)));
    }
    Ok(summary)
}

/// Puts a segment. One that is there already has to be the same.
///
/// # Errors
/// The bucket's; [`Error::Conflict`].
pub async fn put_segment(
    store: &Store,
    root: &Root,
    segment: &Segment,
    bytes: impl std::io::Read + Send + 'static,
) -> Result<Put, Error> {
    let key = root.segment(&segment.key);
    let object = segment::encode(segment, bytes).map_err(|source| Error::Segment { key: key.clone(), source })?;
    let put = store.put_new_from(&key, object).await?;
    if put == Put::Exists {
        // Of what came before another shipper may know less, or more: both are true.
        let there = front(store, root, &segment.key).await?;
        if (&there.gtid, &there.sha256) != (&segment.gtid, &segment.sha256) {
            return Err(Error::Conflict(key));
        }
    }
    Ok(put)
}

/// Sums up what the archive holds of a file. Who comes second finds it said.
///
/// # Errors
/// The bucket's.
pub async fn put_summary(
    store: &Store,
    root: &Root,
    file: &BinlogFile,
    parts: &[Part],
    extent: Extent,
) -> Result<Summary, Error> {
    let summary = Summary::of(file.clone(), parts);
    let key = match extent {
        Extent::SoFar => root.summary(file, summary.length),
        Extent::Complete => root.complete(file),
    };
    let wrong = |error: serde_json::Error| Error::Summary { key: key.clone(), reason: error.to_string() };
    let json = serde_json::to_vec(&summary).map_err(wrong)?;
    store.put_new(&key, json).await?;
    Ok(summary)
}

impl Part {
    /// What a summary says of a segment.
    pub fn of(segment: &Segment) -> Self {
        let Segment { version: _, key, basis, gtid, transactions: _, first_commit, last_commit, sha256 } = segment;
        Self {
            first: key.first,
            last: key.last,
            basis: basis.clone(),
            gtid: gtid.clone(),
            first_commit: *first_commit,
            last_commit: *last_commit,
            sha256: sha256.clone(),
        }
    }
}

impl Summary {
    fn of(file: BinlogFile, parts: &[Part]) -> Self {
        let mut segments = parts.to_vec();
        segments.sort_by_key(|part| (part.first, part.last));
        let gtid = union(&segments);
        Self {
            version: VERSION,
            file,
            length: segments.iter().map(|part| part.last).max().unwrap_or(0),
            transactions: gtid.count(),
            first_commit: segments.iter().map(|part| part.first_commit).fold(0, earlier),
            last_commit: segments.iter().map(|part| part.last_commit).max().unwrap_or(0),
            gtid,
            segments,
        }
    }
}

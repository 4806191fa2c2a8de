//! Fetches what a plan replays and writes it as relay logs, one for each binlog file.
//!
//! Every segment is verified (its SHA-256, its transactions), and what was written is compared with what was planned: it is all
//! of that or an error, never something near.

use std::io::{self, Write};

use common::gtid::GtidSet;
use futures::{StreamExt, stream};

use super::catalogue::Held;
use super::layout::{BinlogFile, Root, SegmentKey};
use super::plan::{Plan, Step};
use super::replay;
use super::segment::{self, Segment};
use super::store::{self, Store};

/// Segments that are on their way at the same time; each has some 8 MiB.
const AHEAD: usize = 4;

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An object that is listed is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// An object that is not what was put.
    #[error("{key} is not to be trusted: {source}")]
    Untrusted {
        /// Its key.
        key: String,
        /// Why.
        source: segment::Error,
    },
    /// A segment that cannot be replayed.
    #[error("{key}: {source}")]
    Replay {
        /// Its key.
        key: String,
        /// Why.
        source: replay::Error,
    },
    /// No segment has the front of a file.
    #[error("the front of {0} is missing")]
    NoFront(Box<BinlogFile>),
    /// A relay log cannot be written.
    #[error("write a relay log: {0}")]
    Write(#[from] io::Error),
    /// Not what was planned.
    #[error("{0} was planned and is not there")]
    Short(GtidSet),
}

/// Writes relay logs; `open` makes the next one (0, 1, ...). The transactions that are in them.
///
/// # Errors
/// Anything but all that was planned.
pub async fn relay_logs<W: Write>(
    store: &Store,
    root: &Root,
    held: &[Held],
    plan: &Plan,
    mut open: impl FnMut(usize) -> io::Result<W>,
) -> Result<GtidSet, Error> {
    let mut written = GtidSet::default();
    let mut planned = GtidSet::default();
    let mut out: Option<(BinlogFile, W)> = None;
    let (mut count, mut is_over) = (0, false);
    // Owned: a future that borrows from each step could not be sent to another thread.
    let fetched = stream::iter(plan.steps.clone()).map(|step| async move {
        let got = get(store, root, &step.key).await;
        (step, got)
    });
    let mut fetched = std::pin::pin!(fetched.buffered(AHEAD));
    while let Some((step, got)) = fetched.next().await {
        let Step { key, take, until } = step;
        let (segment, bytes) = got?;
        if out.as_ref().is_none_or(|(file, _)| *file != key.file) {
            if let Some((_, mut done)) = out.take() {
                done.flush()?;
            }
            let mut next = open(count)?;
            count += 1;
            let first = first(held, &key.file)?;
            let other = if first == key { None } else { Some(get(store, root, &first).await?.1) };
            let wrong = |source| Error::Replay { key: root.segment(&first), source };
            next.write_all(replay::front(other.as_ref().unwrap_or(&bytes)).map_err(wrong)?)?;
            out = Some((key.file.clone(), next));
        }
        let Some((_, out)) = &mut out else { continue };
        let taken = replay::copy(&bytes, &segment.gtid, &take, until, out);
        let taken = taken.map_err(|source| Error::Replay { key: root.segment(&key), source })?;
        written.extend_with(&taken.gtid);
        planned.extend_with(if until.is_some() { &taken.gtid } else { &take });
        is_over |= taken.is_over;
    }
    if let Some((_, mut done)) = out {
        done.flush()?;
    }
    let short = planned.subtract(&written);
    // A plan with a time ends in the segment where that time is.
    let ends = plan.steps.last().is_none_or(|step| step.until.is_none()) || is_over;
    if short.is_empty() && ends { Ok(written) } else { Err(Error::Short(short)) }
}

/// The segment that has the front of a file.
fn first(held: &[Held], file: &BinlogFile) -> Result<SegmentKey, Error> {
    let parts = held.iter().filter(|held| held.file == *file).flat_map(|held| &held.segments);
    let mut firsts = parts.filter(|part| part.first == 0);
    let part = firsts.next().ok_or_else(|| Error::NoFront(Box::new(file.clone())))?;
    Ok(SegmentKey { file: file.clone(), first: part.first, last: part.last })
}

/// A segment, verified.
///
/// # Errors
/// The bucket's; an object that is missing or was altered, by its key.
pub async fn get(store: &Store, root: &Root, key: &SegmentKey) -> Result<(Segment, Vec<u8>), Error> {
    let name = root.segment(key);
    let object = store.get(&name).await?.ok_or_else(|| Error::Missing(name.clone()))?;
    let key = key.clone();
    let decoded = tokio::task::spawn_blocking(move || segment::decode(&object, &key)).await;
    let decoded = decoded.unwrap_or_else(|error| Err(io::Error::other(error).into()));
    decoded.map_err(|source| Error::Untrusted { key: name, source })
}

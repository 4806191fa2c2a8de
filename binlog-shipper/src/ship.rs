//! One stream into the archive: receives on one side and puts on the other, so that an upload never holds up the stream.
//!
//! ```text
//! events -> checksum, boundaries (cut) -> spool, queue -> segment -> bucket -> shipped
//!                     ^ waits while more than `spool_max` waits on the other side
//! ```
//!
//! Nothing here is kept over a restart: the next stream asks for what the archive does not have.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::catalogue::{self, Extent, Known, Part, Summary};
use archive::segment::{self, VERSION};
use archive::{BinlogFile, FileName, Root, Segment, Store};
use common::binlog::{HEADER, MAGIC, closed, kind};
use common::gtid::GtidSet;
use common::instance::Epoch;
use rand::RngExt;
use tokio::io::AsyncRead;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::cut::{Cutter, Meaning};
use crate::queue::{Cut, Next, Queue};
use crate::source::{self, Events, Head, Source, Until};
use crate::spool::{Spool, Spooled};

/// Pauses between tries of a put that failed: doubled from the first to the last, with jitter.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Bytes of a file's name in an event that is not in a file.
const NAME_MAX: u64 = 4096;
/// Segments of an open file between two summaries: reading an archive takes so many requests at most for a file.
const SUMMARY_EVERY: usize = 256;

/// What is streamed, and where to.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The server.
    pub source: Source,
    /// Its `server_uuid`.
    pub server: Uuid,
    /// The epoch in which it is the primary.
    pub epoch: Epoch,
    /// What it had executed at a moment in that epoch, before the stream begins.
    pub executed: GtidSet,
    /// Where the archive of its cluster lies.
    pub root: Root,
    /// In which bucket.
    pub store: Store,
    /// Folder for bytes on their way; of this stream alone.
    pub spool: PathBuf,
    /// Longest time that a transaction waits to be put.
    pub flush_every: Duration,
    /// Bytes that may wait on disk before the stream does.
    pub spool_max: u64,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// On the side of the server.
    #[error("stream from {server}: {source}")]
    Source {
        /// Host and port.
        server: String,
        /// Cause.
        source: source::Error,
    },
    /// On the side of the bucket, in a way that another try does not mend.
    #[error(transparent)]
    Archive(#[from] catalogue::Error),
    /// On our disk.
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
}

/// How far a stream is; kept current while it runs.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// What the archive holds.
    pub shipped: GtidSet,
    /// Segments that were put.
    pub segments: u64,
    /// When the oldest transaction that is not in the archive was received.
    pub oldest: Option<Instant>,
    /// Why the last try to put something failed; cleared by one that succeeds.
    pub problem: Option<String>,
}

/// What both sides share.
struct Shared {
    state: Mutex<State>,
    /// Something was received.
    received: Notify,
    /// Something was put.
    put: Notify,
}

#[derive(Default)]
struct State {
    queue: Queue,
    files: Vec<(FileName, Spooled)>,
    /// Segments that the archive has of files that are not complete.
    parts: BTreeMap<BinlogFile, Vec<Part>>,
    /// The stream has ended.
    ended: bool,
    progress: Progress,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was done, or not.
#[derive(Debug)]
pub enum Step<'a> {
    /// A segment is in the archive.
    Shipped(&'a Segment),
    /// All of a file is.
    Completed(&'a Summary),
    /// A try to put something failed, and is made again.
    Failing,
}

/// Streams until something fails; with [`Until::Now`] until all that there is lies in the archive. `watch` is told of each step.
///
/// # Errors
/// Why it ended.
pub async fn run(
    stream: &Stream,
    known: &Known,
    until: Until,
    watch: impl Fn(&Step<'_>, &Progress),
) -> Result<(), Error> {
    let shared = Shared { state: Mutex::default(), received: Notify::new(), put: Notify::new() };
    shared.with(|state| {
        state.queue = Queue::new(known.gtid.intersect(&stream.executed));
        state.parts = known.open.clone();
        state.progress.shipped = known.gtid.clone();
    });
    let receive = async {
        let received = receive(stream, known, until, &shared).await;
        shared.with(|state| state.ended = true);
        shared.received.notify_one();
        received
    };
    let ship = ship(stream, &shared, watch);
    let (mut receive, mut ship) = (Box::pin(receive), Box::pin(ship));
    tokio::select! {
        // What was received before an end is put all the same.
        received = &mut receive => {
            ship.await?;
            received
        }
        shipped = &mut ship => shipped,
    }
}

async fn receive(stream: &Stream, known: &Known, until: Until, shared: &Shared) -> Result<(), Error> {
    let spool = Spool::new(&stream.spool)?;
    let wrong = |source| Error::Source { server: format!("{}:{}", stream.source.host, stream.source.port), source };
    let mut events = stream.source.events(&known.gtid, until).await.map_err(wrong)?;
    let mut file: Option<Receiving> = None;
    loop {
        while shared.with(|state| state.queue.bytes()) > stream.spool_max {
            shared.put.notified().await;
        }
        let Some(head) = events.next().await.map_err(wrong)? else { return Ok(()) };
        match &mut file {
            Some(file) if head.is_in_file => file.take(&mut events, &head, shared).await.map_err(wrong)?,
            Some(_) | None => {
                let name = between(&mut events, &head).await.map_err(wrong)?;
                if let Some(name) = name.filter(|name| file.as_ref().is_none_or(|file| file.name != *name)) {
                    let spooled = spool.open(name.as_str())?;
                    spooled.write(0, &MAGIC)?;
                    let opened = BinlogFile { epoch: stream.epoch, server: stream.server, name: name.clone() };
                    let has_front = known.has_front(&opened);
                    let is_before = |other: &BinlogFile| {
                        (other.epoch, other.server) == (opened.epoch, opened.server) && other.name < opened.name
                    };
                    let ended: Vec<BinlogFile> = match file {
                        None => known.open.keys().filter(|other| is_before(other)).cloned().collect(),
                        Some(_) => Vec::new(),
                    };
                    shared.with(|state| {
                        for file in ended {
                            state.queue.ended(file);
                        }
                        state.queue.open(opened, has_front);
                        state.files.push((name.clone(), spooled.clone()));
                    });
                    shared.received.notify_one();
                    file = Some(Receiving { name, spooled, cutter: Cutter::default() });
                }
            }
        }
    }
}

/// An event that is in no file. A rotation names the file of the events that follow.
async fn between<S: AsyncRead + Unpin>(events: &mut Events<S>, head: &Head) -> source::Result<Option<FileName>> {
    let mut body = Vec::new();
    events
        .body("the stream", head, |piece| {
            if head.size <= NAME_MAX {
                body.extend_from_slice(piece);
            }
            Ok(())
        })
        .await?;
    if head.kind != kind::ROTATE {
        return Ok(None);
    }
    // Position, name, checksum.
    let name = body.get(8..body.len().saturating_sub(4)).and_then(|name| std::str::from_utf8(name).ok());
    let name = name.and_then(|name| name.parse().ok()).ok_or(source::Error::Protocol("the name of a binlog"))?;
    Ok(Some(name))
}

/// A file that is being received.
struct Receiving {
    name: FileName,
    spooled: Spooled,
    cutter: Cutter,
}

impl Receiving {
    async fn take<S: AsyncRead + Unpin>(
        &mut self,
        events: &mut Events<S>,
        head: &Head,
        shared: &Shared,
    ) -> source::Result<()> {
        let Self { name, spooled, cutter } = self;
        let strange = |misfit: crate::cut::Misfit| source::Error::Strange {
            file: name.as_str().to_owned(),
            what: misfit.to_string(),
        };
        let start = cutter.begins(head.size, head.end_low).map_err(strange)?;
        let is_looked_into = Cutter::looks_into(head.kind, head.size);
        let spool = |offset, bytes: &[u8]| {
            let written = spooled.write(offset, bytes);
            written.map_err(|source| source::Error::Io { what: "write to the spool", source })
        };
        spool(start, &closed(head.raw, head.kind))?;
        let (mut at, mut body) = (start + HEADER as u64, Vec::new());
        events
            .body(name.as_str(), head, |piece| {
                spool(at, piece)?;
                at += piece.len() as u64;
                if is_looked_into {
                    body.extend_from_slice(piece);
                }
                Ok(())
            })
            .await?;
        // Without its checksum.
        body.truncate(body.len().saturating_sub(4));
        let meaning = cutter.take(start, head.size, head.kind, &body).map_err(strange)?;
        let end = start + head.size;
        let is_due = meaning != Meaning::Part;
        shared.with(|state| match meaning {
            Meaning::Part if matches!(head.kind, kind::GTID | kind::GTID_TAGGED) => state.queue.begins(start),
            Meaning::Part => {}
            Meaning::Front(_) => state.queue.front(end),
            Meaning::Whole(begin) => state.queue.whole(end, &begin, Instant::now()),
            Meaning::Closed => state.queue.closed(end),
        });
        // A part of a transaction makes nothing due.
        if is_due {
            shared.received.notify_one();
        }
        Ok(())
    }
}

async fn ship(stream: &Stream, shared: &Shared, watch: impl Fn(&Step<'_>, &Progress)) -> Result<(), Error> {
    loop {
        let (next, ended) = shared.with(|state| {
            // What was received before the end is due at once.
            let flush_every = if state.ended { Duration::ZERO } else { stream.flush_every };
            (state.queue.next(Instant::now(), flush_every), state.ended)
        });
        match next {
            Next::Put(cut) => {
                let segment = until_done(shared, &watch, || put(stream, shared, &cut)).await?;
                let sum_up = shared.with(|state| {
                    state.queue.shipped();
                    let parts = state.parts.entry(cut.key.file.clone()).or_default();
                    parts.push(Part::of(&segment));
                    let sum_up = parts.len().is_multiple_of(SUMMARY_EVERY).then(|| parts.clone());
                    let progress = &mut state.progress;
                    progress.shipped.extend_with(&cut.gtid);
                    progress.segments += 1;
                    sum_up
                });
                shared.put.notify_one();
                if let Some(parts) = sum_up {
                    let sum_up =
                        || catalogue::put_summary(&stream.store, &stream.root, &cut.key.file, &parts, Extent::SoFar);
                    until_done(shared, &watch, sum_up).await?;
                }
                tell(shared, &watch, &Step::Shipped(&segment));
            }
            Next::Complete(file) => {
                let parts = shared.with(|state| state.parts.get(&file).cloned()).unwrap_or_default();
                let complete = until_done(shared, &watch, || {
                    catalogue::put_summary(&stream.store, &stream.root, &file, &parts, Extent::Complete)
                })
                .await?;
                shared.with(|state| {
                    state.queue.completed();
                    state.files.retain(|(name, _)| *name != file.name);
                    state.parts.remove(&file);
                });
                tell(shared, &watch, &Step::Completed(&complete));
            }
            Next::Wait(_) if ended => return Ok(()),
            Next::Wait(due) => {
                let due = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due.into()).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    () = due => {}
                    () = shared.received.notified() => {}
                }
            }
        }
    }
}

fn tell(shared: &Shared, watch: &impl Fn(&Step<'_>, &Progress), step: &Step<'_>) {
    let progress = shared.with(|state| {
        state.progress.oldest = state.queue.oldest();
        state.progress.clone()
    });
    watch(step, &progress);
}

/// Tries again for as long as the bucket is what fails: there is nothing else to do with what waits.
async fn until_done<T, F>(
    shared: &Shared,
    watch: &impl Fn(&Step<'_>, &Progress),
    work: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, catalogue::Error>>,
{
    let mut pause = AGAIN;
    loop {
        let problem = match work().await {
            Ok(done) => {
                shared.with(|state| state.progress.problem = None);
                return Ok(done);
            }
            Err(error @ (catalogue::Error::Store(_) | catalogue::Error::Gone(_))) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        tracing::debug!(%problem, "the bucket does not take what waits");
        shared.with(|state| state.progress.problem = Some(problem));
        tell(shared, watch, &Step::Failing);
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

async fn put(stream: &Stream, shared: &Shared, cut: &Cut) -> Result<Segment, catalogue::Error> {
    let Cut { key, basis, gtid, transactions, first_commit, last_commit, since: _ } = cut;
    let spooled = shared.with(|state| {
        let found = state.files.iter().find(|(name, _)| *name == key.file.name);
        found.map(|(_, spooled)| spooled.clone())
    });
    let Some(spooled) = spooled else { return Err(catalogue::Error::Gone(key.to_string())) };
    let (first, last) = (key.first, key.last);
    let range = spooled.range(first, last);
    let sum = tokio::task::spawn_blocking(move || segment::digest(range)).await;
    let unread = |source| archive::store::Error::Read { key: key.to_string(), source };
    let (sha256, _) = sum.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(unread)?;
    let segment = Segment {
        version: VERSION,
        key: key.clone(),
        basis: basis.clone(),
        gtid: gtid.clone(),
        transactions: *transactions,
        first_commit: *first_commit,
        last_commit: *last_commit,
        sha256,
    };
    catalogue::put_segment(&stream.store, &stream.root, &segment, spooled.range(first, last)).await?;
    // Later bytes share no block with what goes.
    if let Err(error) = spooled.forget(last) {
        tracing::warn!(%error, "bytes that are in the archive stay in the spool");
    }
    Ok(segment)
}

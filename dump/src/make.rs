//! Makes a dump: a snapshot, definitions, and the rows of all tables over several connections, biggest pieces first.
//!
//! Memory: for each connection a part of an upload (16 MiB), a few MiB of compressed rows on their way to it, and the row at hand.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use archive::store::Put;
use archive::{Root, Store};
use bytes::{Buf, Bytes};
use common::mysql::wire::Connection;
use common::mysql::{Credentials, Endpoint};
use futures::future::try_join_all;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::chunk::{self, Range};
use crate::error::{Error, Result};
use crate::load::manifest as manifest_of;
use crate::manifest::{Blob, Column, Found, GIVEN_UP, Manifest, Piece, Statement, Table, VERSION};
use crate::rows;
use crate::schema::{self, Definitions, Selection};
use crate::snapshot::Snapshot;

/// The quickest that zstd compresses well with: on few cores its CPU is what the server lacks.
const LEVEL: i32 = 1;
/// Compressed bytes that go on their way at once, and how many such may wait.
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 2;
/// Rows that become text before they are compressed.
const TEXT: usize = 256 << 10;

/// What to dump, from where to where.
#[derive(Debug)]
pub struct Order<'a> {
    /// The server.
    pub endpoint: &'a Endpoint,
    /// Who reads.
    pub credentials: &'a Credentials,
    /// Connections that carry rows.
    pub connections: usize,
    /// What of it.
    pub selection: Selection,
    /// The bucket.
    pub store: &'a Store,
    /// Where in it.
    pub root: &'a Root,
}

/// How far a dump is; read while it is made.
#[derive(Debug, Default)]
pub struct Progress {
    /// Rows read.
    pub rows: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Bytes that there are, by the server's estimate; 0 until that is known.
    pub estimate: AtomicU64,
}

/// A piece to be dumped.
#[derive(Debug)]
struct Task {
    table: usize,
    number: usize,
    range: Range,
    bytes: u64,
}

/// Makes a dump; its manifest, which is in the bucket then.
///
/// # Errors
/// Those of the server and the bucket. Objects of a dump that failed stay, and are no dump.
pub async fn make(order: &Order<'_>, id: &str, progress: &Progress) -> Result<Found> {
    let mut snapshot = Snapshot::take(order.endpoint, order.credentials, order.connections).await?;
    let found = schema::read(&mut snapshot.control, &order.selection).await?;
    snapshot.release().await?;
    let Snapshot { mut connections, gtid, server, version, taken_at, control } = snapshot;
    drop(control);
    progress.estimate.store(found.tables.iter().map(|table| table.bytes).sum(), Ordering::Relaxed);
    let first = connections.first_mut().ok_or_else(|| Error::Answer("no connection".to_owned()))?;
    let tasks = Mutex::new(plan(first, &found.tables).await?);
    let done = Mutex::new(BTreeMap::new());
    try_join_all(connections.into_iter().map(async |mut connection| {
        loop {
            // Biggest last: popped first.
            let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(task) = task else { return Ok::<_, Error>(()) };
            let table = found.tables.get(task.table).ok_or_else(|| Error::Broken("no such table".to_owned()))?;
            let piece = dump(order, id, &mut connection, table, &task, progress).await?;
            done.lock().unwrap_or_else(PoisonError::into_inner).insert((task.table, task.number), piece);
        }
    }))
    .await?;
    let Definitions { tables, statements, accounts } = found;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tables = tables.into_iter().enumerate().map(|(at, table)| {
        let rest = done.split_off(&(at + 1, 0));
        let pieces: Vec<Piece> = std::mem::replace(&mut done, rest).into_values().collect();
        let rows = pieces.iter().map(|piece| piece.rows).sum();
        Table { schema: table.schema, name: table.name, columns: table.columns, rows, pieces }
    });
    let manifest = Manifest {
        version: VERSION,
        id: id.to_owned(),
        server,
        server_version: version,
        gtid,
        whole: order.selection == Selection::default(),
        taken_at,
        schema: put_statements(order, id, "schema.jsonl.zst", &statements).await?,
        accounts: put_statements(order, id, "accounts.jsonl.zst", &accounts).await?,
        tables: tables.collect(),
        files: Vec::new(),
    };
    finish(order.store, order.root, manifest).await
}

/// Puts the manifest, and with it the dump is there.
///
/// # Errors
/// The bucket's; [`Error::GivenUp`] when somebody else has given it up.
pub async fn finish(store: &Store, root: &Root, manifest: Manifest) -> Result<Found> {
    let id = manifest.id.as_str();
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::Broken(error.to_string()))?;
    let blob = Blob::of(root.dump(id, "manifest.json"), &text);
    let put = store.put_new(&blob.key, text).await?;
    // A put that was tried again finds what it has put.
    let is_there = async || Ok::<_, Error>(manifest_of(store, root, id).await?.is_some_and(|it| it.blob == blob));
    if put == Put::Exists && !is_there().await? {
        return Err(Error::GivenUp(id.to_owned()));
    }
    Ok(Found { manifest, blob })
}

/// Gives up a dump that has no manifest, whoever makes it: it will have none. What it is, if it was finished in this moment.
///
/// # Errors
/// The bucket's.
pub async fn give_up(store: &Store, root: &Root, id: &str) -> Result<Option<Found>> {
    match store.put_new(&root.dump(id, "manifest.json"), GIVEN_UP).await? {
        Put::Stored => Ok(None),
        Put::Exists => manifest_of(store, root, id).await,
    }
}

/// A name for a dump that begins now: in the order of time.
pub fn new_id() -> String {
    let random = Uuid::new_v4().simple().to_string();
    id(common::clock::now(), random.get(..8).unwrap_or_default())
}

/// The name of a dump that begins at a moment, with what it is known by.
pub fn id(began: Timestamp, mark: &str) -> String {
    format!("{}-{mark}", began.strftime("%Y%m%dT%H%M%S%3fZ"))
}

/// All pieces, the biggest last.
async fn plan(connection: &mut Connection, tables: &[schema::Table]) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let ranges = match &table.key {
            Some(key) if table.bytes > chunk::BYTES => {
                let key = common::sql::Identifier::new(key.as_str())?.quoted();
                let ends = ends(connection, &format!("SELECT MIN({key}), MAX({key}) FROM {}", table.quoted()?)).await?;
                ends.map_or_else(|| vec![Range::default()], |(first, last)| chunk::ranges(table.bytes, first, last))
            }
            Some(_) | None => vec![Range::default()],
        };
        let bytes = table.bytes / ranges.len() as u64;
        let task = |(number, range)| Task { table: at, number, range, bytes };
        tasks.extend(ranges.into_iter().enumerate().map(task));
    }
    tasks.sort_by_key(|task| task.bytes);
    Ok(tasks)
}

async fn ends(connection: &mut Connection, question: &str) -> Result<Option<(i128, i128)>> {
    connection.query(question).await?;
    let mut ends = None;
    while let Some(mut row) = connection.row().await? {
        let number = |value: Option<Option<&[u8]>>| std::str::from_utf8(value??).ok()?.parse::<i128>().ok();
        let (first, last) = (number(row.value()), number(row.value()));
        ends = first.zip(last);
    }
    Ok(ends)
}

/// Dumps one piece.
async fn dump(
    order: &Order<'_>,
    id: &str,
    connection: &mut Connection,
    table: &schema::Table,
    task: &Task,
    progress: &Progress,
) -> Result<Piece> {
    let name = table.quoted()?;
    let columns = table.columns.iter().map(selected).collect::<Result<Vec<_>>>()?;
    let condition = match &table.key {
        Some(key) => task.range.condition(&common::sql::Identifier::new(key.as_str())?.quoted()),
        None => String::new(),
    };
    let question = format!("SELECT {} FROM {name}{condition}", columns.join(","));
    let key = order.root.dump(id, &format!("data/{:05}-{}/{:05}.tsv.zst", task.table, readable(table), task.number));
    let (to_bucket, from_rows) = mpsc::channel(BLOCKS);
    let putting = order.store.put_new_from(&key, Blocks { from: from_rows, at_hand: Bytes::new() });
    let reading = async {
        let wrong = |source| Error::Rows { table: format!("{}.{}", table.schema, table.name), source };
        connection.execute("SAVEPOINT piece").await.map_err(wrong)?;
        let mut out = Encoder::new(to_bucket)?;
        connection.query(&question).await.map_err(wrong)?;
        let mut text = Vec::with_capacity(2 * TEXT);
        let mut piece = Piece::default();
        let mut told = (0, 0);
        while let Some(row) = connection.row().await.map_err(wrong)? {
            if !rows::append(row, columns.len(), &mut text) {
                return Err(Error::Answer(format!("a row of {name} with another number of values")));
            }
            piece.rows += 1;
            if text.len() >= TEXT {
                piece.bytes += text.len() as u64;
                out.write(&mut text).await?;
                progress.rows.fetch_add(piece.rows - told.0, Ordering::Relaxed);
                progress.bytes.fetch_add(piece.bytes - told.1, Ordering::Relaxed);
                told = (piece.rows, piece.bytes);
            }
        }
        piece.bytes += text.len() as u64;
        out.write(&mut text).await?;
        progress.rows.fetch_add(piece.rows - told.0, Ordering::Relaxed);
        progress.bytes.fetch_add(piece.bytes - told.1, Ordering::Relaxed);
        let (stored, sha256) = out.finish().await?;
        piece.blob = Blob { key: key.clone(), stored, sha256 };
        // Lets go of the table, so that nobody who changes it waits for the rest of the dump.
        connection.execute("ROLLBACK TO SAVEPOINT piece").await.map_err(wrong)?;
        Ok(piece)
    };
    // A piece that breaks drops its end of the channel; what was put of it is in no manifest.
    let (put, piece) = tokio::join!(putting, reading);
    let piece = piece?;
    put?;
    Ok(piece)
}

/// A column as it is asked for: a FLOAT's text has six digits, a DOUBLE's all.
pub(crate) fn selected(column: &Column) -> Result<String> {
    let name = common::sql::Identifier::new(column.name.as_str())?.quoted();
    Ok(if column.kind == "float" { format!("CAST({name} AS DOUBLE)") } else { name })
}

/// A table's name as a part of a key: letters, digits, and underscores for everything else.
fn readable(table: &schema::Table) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    format!("{}.{}", table.schema, table.name).chars().map(plain).take(100).collect()
}

async fn put_statements(order: &Order<'_>, id: &str, part: &str, statements: &[Statement]) -> Result<Blob> {
    let mut text = Vec::new();
    for statement in statements {
        serde_json::to_writer(&mut text, statement).map_err(|error| Error::Broken(error.to_string()))?;
        text.push(b'\n');
    }
    let body = zstd::bulk::compress(&text, LEVEL).map_err(Error::io("compress definitions"))?;
    let key = order.root.dump(id, part);
    let blob = Blob::of(key, &body);
    order.store.put_new(&blob.key, body).await?;
    Ok(blob)
}

/// Compresses, counts, and passes blocks on.
struct Encoder {
    zstd: zstd::stream::write::Encoder<'static, Vec<u8>>,
    to: mpsc::Sender<Bytes>,
    stored: u64,
    sha256: Sha256,
}

impl Encoder {
    fn new(to: mpsc::Sender<Bytes>) -> Result<Self> {
        let zstd = zstd::stream::write::Encoder::new(Vec::with_capacity(2 * BLOCK), LEVEL);
        Ok(Self { zstd: zstd.map_err(Error::io("compress rows"))?, to, stored: 0, sha256: Sha256::new() })
    }

    async fn write(&mut self, text: &mut Vec<u8>) -> Result<()> {
        self.zstd.write_all(text).map_err(Error::io("compress rows"))?;
        text.clear();
        if self.zstd.get_ref().len() >= BLOCK {
            let block = std::mem::replace(self.zstd.get_mut(), Vec::with_capacity(2 * BLOCK));
            self.pass(block).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, block: Vec<u8>) -> Result<()> {
        self.stored += block.len() as u64;
        self.sha256.update(&block);
        let gone = |_| Error::Broken("the upload has ended before the rows".to_owned());
        self.to.send(Bytes::from(block)).await.map_err(gone)
    }

    async fn finish(mut self) -> Result<(u64, String)> {
        let zstd = std::mem::replace(
            &mut self.zstd,
            zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(Error::io("compress rows"))?,
        );
        let rest = zstd.finish().map_err(Error::io("compress rows"))?;
        self.pass(rest).await?;
        Ok((self.stored, hex::encode(self.sha256.finalize())))
    }
}

/// The other end, for an upload that reads.
struct Blocks {
    from: mpsc::Receiver<Bytes>,
    at_hand: Bytes,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at_hand.is_empty() {
            match self.from.blocking_recv() {
                Some(block) => self.at_hand = block,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.at_hand.len());
        self.at_hand.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

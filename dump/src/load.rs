//! Loads a dump into a server that has nothing else.
//!
//! ```text
//! schemas, tables -> rows, over several connections -> indexes, foreign keys -> routines, views, triggers, events -> accounts
//! ```
//!
//! Every object's SHA-256 is compared, and the number of rows that the server took with what the manifest says.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use archive::{Root, Store};
use bytes::Bytes;
use common::mysql::wire::Connection;
use common::mysql::{Credentials, Endpoint, Session};
use common::sql::{Identifier, quote_str};
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::manifest::{Blob, Column, Found, GIVEN_UP, Kind, Manifest, PHYSICAL, Piece, Statement, Table, VERSION};
use crate::schema::qualified;

/// Longest statement but for those that build indexes.
const STATEMENT: Duration = Duration::from_secs(120);
/// Longest build of an index.
const BUILD: Duration = Duration::from_secs(7 * 86400);
/// Bytes of an object that are fetched at once, and parts that are on their way while the server takes those before.
const PART: u64 = 1 << 20;
const AHEAD: usize = 2;
/// Of every session that loads: nothing goes into the binlog, and the dump's word is taken for what belongs together.
const SESSION: &str = "SET SESSION sql_log_bin=0, foreign_key_checks=0, unique_checks=0, time_zone='+00:00', \
    wait_timeout=31536000, net_read_timeout=3600, sql_mode='NO_AUTO_VALUE_ON_ZERO'";

/// What to load, from where to where.
#[derive(Debug)]
pub struct Order<'a> {
    /// The server.
    pub endpoint: &'a Endpoint,
    /// Who writes: needs everything.
    pub credentials: &'a Credentials,
    /// Connections that carry rows.
    pub connections: usize,
    /// The bucket.
    pub store: &'a Store,
    /// Bytes of the dump's objects that were loaded.
    pub done: &'a AtomicU64,
}

/// The manifest of a dump; `None`: there is no such dump.
///
/// # Errors
/// The bucket's; one that is not understood.
pub async fn manifest(store: &Store, root: &Root, id: &str) -> Result<Option<Found>> {
    let key = root.dump(id, "manifest.json");
    let Some(text) = store.get(&key).await?.filter(|text| text != GIVEN_UP) else { return Ok(None) };
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| Error::untrusted(&key, format!("is not understood: {error}")))?;
    if ![VERSION, PHYSICAL].contains(&manifest.version) {
        let known = format!("is of version {}, not {VERSION} or {PHYSICAL}", manifest.version);
        return Err(Error::untrusted(&key, known));
    }
    Ok(Some(Found { manifest, blob: Blob::of(key, &text) }))
}

/// Loads everything.
///
/// # Errors
/// Those of the server and the bucket; what is not what was dumped.
pub async fn load(order: &Order<'_>, manifest: &Manifest) -> Result<()> {
    let mut control = session(order).await?;
    control.exec("SET GLOBAL local_infile=ON", STATEMENT).await?;
    let statements = statements(order, &manifest.schema).await?;
    let of = |kinds: &[Kind]| -> Vec<&Statement> {
        statements.iter().filter(|statement| kinds.contains(&statement.kind)).collect()
    };
    for statement in of(&[Kind::Schema, Kind::Table]) {
        execute(&mut control, statement).await?;
    }
    rows(order, manifest).await?;
    builds(order, of(&[Kind::Index])).await?;
    builds(order, of(&[Kind::ForeignKey])).await?;
    any_order(&mut control, of(&[Kind::Routine, Kind::View])).await?;
    for statement in of(&[Kind::Trigger, Kind::Event]) {
        execute(&mut control, statement).await?;
    }
    for statement in self::statements(order, &manifest.accounts).await? {
        execute(&mut control, &statement).await?;
    }
    control.exec("SET GLOBAL local_infile=OFF", STATEMENT).await?;
    Ok(())
}

async fn session(order: &Order<'_>) -> Result<Session> {
    let mut session = Session::connect(order.endpoint, order.credentials, STATEMENT).await?;
    session.exec(SESSION, STATEMENT).await?;
    Ok(session)
}

/// An object, whole, verified and unpacked.
async fn unpacked(order: &Order<'_>, blob: &Blob) -> Result<Vec<u8>> {
    let object = verified(order.store, blob).await?;
    zstd::stream::decode_all(object.as_ref()).map_err(Error::io(format!("unpack {}", blob.key)))
}

/// An object, whole, if it is what was put.
pub(crate) async fn verified(store: &Store, blob: &Blob) -> Result<Bytes> {
    let object = store.get(&blob.key).await?.ok_or_else(|| Error::untrusted(&blob.key, "is missing"))?;
    if hex::encode(Sha256::digest(&object)) != blob.sha256 {
        return Err(Error::untrusted(&blob.key, "is not what was put: its SHA-256 differs"));
    }
    Ok(object)
}

async fn statements(order: &Order<'_>, blob: &Blob) -> Result<Vec<Statement>> {
    let text = unpacked(order, blob).await?;
    let odd = |error: serde_json::Error| Error::untrusted(&blob.key, format!("is not understood: {error}"));
    serde_json::Deserializer::from_slice(&text).into_iter().map(|statement| statement.map_err(odd)).collect()
}

/// Executes one with what it needs around it.
async fn execute(session: &mut Session, statement: &Statement) -> Result<()> {
    let Statement { kind, schema, sql_mode, time_zone, collation, text, .. } = statement;
    if let Some(schema) = schema {
        session.exec(&format!("USE {}", Identifier::new(schema.as_str())?.quoted()), STATEMENT).await?;
    }
    let mode = sql_mode.as_deref().unwrap_or("NO_AUTO_VALUE_ON_ZERO");
    let zone = time_zone.as_deref().unwrap_or("+00:00");
    let mut set = format!("SET SESSION sql_mode={}, time_zone={}", quote_str(mode, false), quote_str(zone, false));
    if let Some(collation) = collation {
        set.push_str(", collation_connection=");
        set.push_str(&quote_str(collation, false));
    }
    session.exec(&set, STATEMENT).await?;
    let within = if matches!(kind, Kind::Index | Kind::ForeignKey) { BUILD } else { STATEMENT };
    session.exec(text, within).await?;
    // Quotes above are made for a mode in which backslashes escape.
    Ok(session.exec("SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO'", STATEMENT).await?)
}

/// Those that depend on each other: again and again, as long as one more succeeds.
async fn any_order(session: &mut Session, mut left: Vec<&Statement>) -> Result<()> {
    while !left.is_empty() {
        let (before, mut again, mut last) = (left.len(), Vec::new(), None);
        for statement in left {
            match execute(session, statement).await {
                Ok(()) => {}
                Err(Error::Session(error)) if error.code().is_some() => {
                    again.push(statement);
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if again.len() == before {
            return Err(last.map_or_else(|| Error::Broken("nothing is left".to_owned()), Error::Session));
        }
        left = again;
    }
    Ok(())
}

/// Statements side by side, those of one table one after the other.
async fn builds(order: &Order<'_>, statements: Vec<&Statement>) -> Result<()> {
    let mut tables: BTreeMap<(Option<&str>, &str), Vec<&Statement>> = BTreeMap::new();
    for statement in statements {
        tables.entry((statement.schema.as_deref(), &statement.name)).or_default().push(statement);
    }
    let queue = Mutex::new(tables.into_values().collect::<Vec<_>>());
    try_join_all((0..order.connections).map(async |_| {
        let mut session = session(order).await?;
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(statements) = next else { return Ok::<_, Error>(()) };
            for statement in statements {
                execute(&mut session, statement).await?;
            }
        }
    }))
    .await?;
    Ok(())
}

async fn rows(order: &Order<'_>, manifest: &Manifest) -> Result<()> {
    let mut pieces: Vec<(&Table, &Piece)> =
        manifest.tables.iter().flat_map(|table| table.pieces.iter().map(move |piece| (table, piece))).collect();
    pieces.retain(|(_, piece)| piece.rows > 0);
    pieces.sort_by_key(|(_, piece)| piece.bytes);
    let queue = Mutex::new(pieces);
    try_join_all((0..order.connections).map(async |_| {
        let mut connection = Connection::connect(order.endpoint, order.credentials).await?;
        connection.execute("SET NAMES binary").await?;
        connection.execute(SESSION).await?;
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((table, piece)) = next else { return Ok::<_, Error>(()) };
            load_piece(order, &mut connection, table, piece).await?;
            order.done.fetch_add(piece.blob.stored, Ordering::Relaxed);
        }
    }))
    .await?;
    Ok(())
}

async fn load_piece(order: &Order<'_>, connection: &mut Connection, table: &Table, piece: &Piece) -> Result<()> {
    let blob = &piece.blob;
    let wrong = || Error::io(format!("unpack {}", blob.key));
    let parts = (0..blob.stored).step_by(usize::try_from(PART).unwrap_or(usize::MAX));
    let parts = stream::iter(parts).map(|from| order.store.get_part(&blob.key, from, PART));
    let mut parts = std::pin::pin!(parts.buffered(AHEAD));
    let mut sha256 = Sha256::new();
    let mut unpacked = zstd::stream::write::Decoder::new(Vec::new()).map_err(wrong())?;
    let next = async || {
        while let Some(part) = parts.next().await {
            let part = part?.ok_or_else(|| Error::untrusted(&blob.key, "is missing"))?;
            sha256.update(&part);
            unpacked.write_all(&part).map_err(wrong())?;
            let text = std::mem::take(unpacked.get_mut());
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
        }
        unpacked.flush().map_err(wrong())?;
        let rest = std::mem::take(unpacked.get_mut());
        Ok::<_, Error>((!rest.is_empty()).then(|| Bytes::from(rest)))
    };
    let loaded = connection.load(&statement(table)?, next).await?;
    if hex::encode(sha256.finalize()) != blob.sha256 {
        return Err(Error::untrusted(&blob.key, "is not what was put: its SHA-256 differs"));
    }
    if loaded == piece.rows {
        return Ok(());
    }
    Err(Error::Count { table: format!("{}.{}", table.schema, table.name), loaded, dumped: piece.rows })
}

/// Bytes as they are, into the columns as they were; JSON wants to be told that it is text.
fn statement(table: &Table) -> Result<String> {
    let (mut targets, mut sets) = (Vec::new(), Vec::new());
    for (number, Column { name, kind }) in table.columns.iter().enumerate() {
        let quoted = Identifier::new(name.as_str())?.quoted();
        if kind == "json" {
            targets.push(format!("@v{number}"));
            sets.push(format!("{quoted}=CONVERT(@v{number} USING utf8mb4)"));
        } else {
            targets.push(quoted);
        }
    }
    let set = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(",")) };
    let name = qualified(&table.schema, &table.name)?;
    Ok(format!("LOAD DATA LOCAL INFILE 'piece' INTO TABLE {name} CHARACTER SET binary ({}){set}", targets.join(",")))
}

//! The writers: one connection each, a row after the other, never the same row twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use common::mysql::{Error, Session};

use super::{Entry, Options, Outcome, Tally};
use crate::sessions::Target;

/// Makes the ledger's table.
pub const TABLE: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS ledger",
    "CREATE TABLE IF NOT EXISTS ledger.entries (writer INT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, \
     uuid CHAR(36) CHARACTER SET ascii NOT NULL, payload LONGBLOB, PRIMARY KEY (writer, seq))",
];

/// So many logins in a row without an answer, and a writer grants them twice the time: a machine that is slow is not a
/// wire that is cut.
const UNANSWERED: u32 = 5;
/// The longest that it will ever wait.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// Numbers for so many writers. Two ledgers on one cluster do not meet: each starts at a number of its own.
pub(super) fn numbers() -> u32 {
    rand::random::<u32>() & 0x7fff_ff00
}

/// The statement for one row.
pub(super) fn insert(writer: u32, seq: u64, uuid: &str, payload: usize) -> String {
    format!("INSERT INTO ledger.entries VALUES ({writer},{seq},'{uuid}',REPEAT('x',{payload}))")
}

/// A session, and which server it is on: a connection through a Service may end anywhere.
pub(super) async fn login(target: &Target, within: Duration) -> Result<(Session, u32), Error> {
    let begun = Instant::now();
    let mut session = Session::connect(&target.endpoint, &target.credentials, within).await?;
    let left = within.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
    let server: Option<(u32,)> = session.first("SELECT @@server_id", left).await?;
    Ok((session, server.map_or(0, |(server,)| server)))
}

/// All writers of a ledger.
pub struct Crew {
    pub target: Target,
    pub options: Options,
    pub started: Instant,
    pub stop: Arc<AtomicBool>,
    pub tally: Arc<Tally>,
}

/// How long one writer waits for a login.
struct Patience {
    base: Duration,
    now: Duration,
    unanswered: u32,
}

impl Patience {
    fn note<T>(&mut self, login: &Result<T, Error>) {
        match login {
            Err(error) if error.is_timeout() => {
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED {
                    self.unanswered = 0;
                    self.now = (self.now * 2).min(PATIENCE_MAX).max(self.base);
                }
            }
            // Whatever the answer was, there was one.
            Ok(_) | Err(_) => {
                self.unanswered = 0;
                self.now = self.base;
            }
        }
    }
}

impl Crew {
    /// Writes until it is told to stop.
    pub async fn write(self) -> Result<Vec<Entry>> {
        let base = numbers();
        let writers = (0..self.options.writers).map(|index| self.one(base, index));
        Ok(futures::future::join_all(writers).await.concat())
    }

    async fn one(&self, base: u32, index: u32) -> Vec<Entry> {
        let (writer, later) = (base + index, self.options.spread * index);
        let first = self.options.login + later;
        let mut patience = Patience { base: first, now: first, unanswered: 0 };
        let mut entries = Vec::new();
        let mut session: Option<(Session, u32)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((open, server)) = session.as_mut() else {
                session = self.login(&mut patience).await;
                continue;
            };
            let (seq, server) = (entries.len() as u64, *server);
            let uuid = uuid::Uuid::new_v4().to_string();
            let sql = insert(writer, seq, &uuid, self.options.payload);
            let sent = self.started.elapsed();
            let result = open.exec(&sql, self.options.answer + later).await;
            let answered = self.started.elapsed();
            if result.is_ok() {
                self.tally.acknowledge(server, answered);
            }
            // A server that refuses writes is not the primary any more: the next connection finds the new one.
            if result.is_err() || open.is_closed() {
                session = None;
            }
            entries.push(Entry { writer, seq, uuid, server, sent, answered, outcome: Outcome::of(result) });
            let rest = if session.is_none() { self.options.rest.min(self.options.again) } else { self.options.rest };
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
        entries
    }

    async fn login(&self, patience: &mut Patience) -> Option<(Session, u32)> {
        let session = login(&self.target, patience.now).await;
        patience.note(&session);
        if session.is_err() {
            tokio::time::sleep(self.options.again).await;
        }
        session.ok()
    }
}

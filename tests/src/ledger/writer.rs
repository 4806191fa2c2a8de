//! The writers: one connection each, a row after the other, never the same row twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use common::mysql::{Error, Session};

use super::{Entry, Options, Outcome};
use crate::sessions::Target;

/// Makes the ledger's table.
pub const TABLE: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS ledger",
    "CREATE TABLE IF NOT EXISTS ledger.entries (writer INT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, \
     uuid CHAR(36) CHARACTER SET ascii NOT NULL, payload LONGBLOB, PRIMARY KEY (writer, seq))",
];

/// Longest wait for a login.
const LOGIN: Duration = Duration::from_secs(5);
/// Rest after a login that failed.
const AGAIN: Duration = Duration::from_millis(10);

/// All writers of a ledger.
pub struct Crew {
    pub target: Target,
    pub options: Options,
    pub started: Instant,
    pub stop: Arc<AtomicBool>,
    pub acknowledged: Arc<AtomicU64>,
}

impl Crew {
    /// Writes until it is told to stop.
    pub async fn write(self) -> Result<Vec<Entry>> {
        // Two ledgers on one cluster do not meet: each starts at a number of its own.
        let base: u32 = rand::random::<u32>() & 0x7fff_ff00;
        let writers = (0..self.options.writers).map(|writer| self.one(base + writer));
        Ok(futures::future::join_all(writers).await.concat())
    }

    async fn one(&self, writer: u32) -> Vec<Entry> {
        let payload = format!("REPEAT('x',{})", self.options.payload);
        let mut entries = Vec::new();
        let mut session: Option<Session> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(open) = session.as_mut() else {
                session = self.login().await;
                continue;
            };
            let seq = entries.len() as u64;
            let uuid = uuid::Uuid::new_v4().to_string();
            let sql = format!("INSERT INTO ledger.entries VALUES ({writer},{seq},'{uuid}',{payload})");
            let sent = self.started.elapsed();
            let result = open.exec(&sql, self.options.answer).await;
            let answered = self.started.elapsed();
            if result.is_ok() {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // A server that refuses writes is not the primary any more: the next connection finds the new one.
            if result.is_err() || open.is_closed() {
                session = None;
            }
            entries.push(Entry { writer, seq, uuid, sent, answered, outcome: Outcome::of(result) });
            if !self.options.rest.is_zero() {
                tokio::time::sleep(self.options.rest).await;
            }
        }
        entries
    }

    async fn login(&self) -> Option<Session> {
        let session: Result<_, Error> = Session::connect(&self.target.endpoint, &self.target.credentials, LOGIN).await;
        if session.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        session.ok()
    }
}

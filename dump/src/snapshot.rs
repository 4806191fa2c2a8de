//! One moment of a server over many connections, and the exact GTID set of it.
//!
//! ```text
//! LOCK INSTANCE FOR BACKUP            nobody changes a definition
//!   FLUSH TABLES WITH READ LOCK       nobody commits, for milliseconds
//!     START TRANSACTION WITH CONSISTENT SNAPSHOT on each connection, at once
//!     @@gtid_executed
//!   UNLOCK TABLES
//!   (definitions are read)
//! UNLOCK INSTANCE
//! ```
//!
//! The read lock is waited for two seconds at most, so no writer waits longer than that for a statement that runs long; then it is
//! tried again. A table that is altered later, while it is being dumped, makes the server refuse to read it (1412): the dump fails
//! with its name.

use std::time::Duration;

use common::gtid::{GtidSet, ParseError};
use common::mysql::wire::Connection;
use common::mysql::{Credentials, Endpoint, Session};
use futures::future::try_join_all;
use tokio::time::sleep;

use crate::error::{Error, Result};

/// Longest wait for a login, and for a question.
const ASK: Duration = Duration::from_secs(10);
/// Longest wait for the locks, in seconds: writers wait so long at most.
const LOCK: u64 = 2;
/// Pauses between attempts.
const AGAIN: Duration = Duration::from_secs(3);
/// Attempts.
const ATTEMPTS: u32 = 20;
/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT: u16 = 1205;

/// A moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Where questions about definitions go; holds the backup lock.
    pub control: Session,
    /// Each in a transaction of that moment.
    pub connections: Vec<Connection>,
    /// What the moment holds.
    pub gtid: GtidSet,
    /// `server_uuid`.
    pub server: String,
    /// Version of the server.
    pub version: String,
    /// When, microseconds since 1970.
    pub taken_at: u64,
}

impl Snapshot {
    /// Takes one over so many connections.
    ///
    /// # Errors
    /// Those of the server; a read lock that cannot be had for long.
    pub async fn take(endpoint: &Endpoint, credentials: &Credentials, count: usize) -> Result<Self> {
        let mut control = Session::connect(endpoint, credentials, ASK).await?;
        control.exec(&format!("SET SESSION lock_wait_timeout={LOCK}, wait_timeout=31536000"), ASK).await?;
        control.exec("SET SESSION information_schema_stats_expiry=0, time_zone='+00:00'", ASK).await?;
        control.exec("LOCK INSTANCE FOR BACKUP", ASK).await?;
        let connect = (0..count.max(1)).map(async |_| {
            let mut connection = Connection::connect(endpoint, credentials).await?;
            connection.execute("SET NAMES binary").await?;
            let settings = "SET SESSION sql_mode='', time_zone='+00:00', wait_timeout=31536000, net_write_timeout=3600, \
                max_execution_time=0, transaction_isolation='REPEATABLE-READ'";
            connection.execute(settings).await?;
            Ok::<_, Error>(connection)
        });
        let mut connections = try_join_all(connect).await?;
        for attempt in 1.. {
            match control.exec("FLUSH TABLES WITH READ LOCK", ASK).await {
                Ok(()) => break,
                Err(error) if error.code() == Some(LOCK_WAIT) && attempt < ATTEMPTS => sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
        try_join_all(
            connections.iter_mut().map(async |connection| {
                connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
            }),
        )
        .await?;
        let question =
            "SELECT @@GLOBAL.gtid_executed, @@server_uuid, @@version, CAST(UNIX_TIMESTAMP(NOW(6))*1000000 AS UNSIGNED)";
        let said: Option<(String, String, String, u64)> = control.first(question, ASK).await?;
        control.exec("UNLOCK TABLES", ASK).await?;
        let (gtid, server, version, taken_at) = said.ok_or_else(|| Error::Answer("nothing".to_owned()))?;
        let gtid = gtid.parse().map_err(|_: ParseError| Error::Answer(gtid.clone()))?;
        Ok(Self { control, connections, gtid, server, version, taken_at })
    }

    /// Definitions may be changed again.
    ///
    /// # Errors
    /// The server's.
    pub async fn release(&mut self) -> Result<()> {
        Ok(self.control.exec("UNLOCK INSTANCE", ASK).await?)
    }
}

//! A stream of binlog events, as a replica gets them: raw bytes, in order, checksums verified, from any GTID set on.
//!
//! ```text
//! connect (TLS) -> SET checksum, heartbeat, uuid -> COM_BINLOG_DUMP_GTID -> head of an event -> its body -> head -> ...
//! ```
//!
//! Nothing is acknowledged: the shipper is no recorded acker, and what it has says nothing about what was committed.

mod dump;
mod error;

use std::sync::Arc;
use std::time::Duration;

use common::gtid::GtidSet;
use common::mysql::wire::{self, Stream};
use common::mysql::{Credentials, Password};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::time::timeout;
use uuid::Uuid;

pub use self::dump::{Events, Head};
pub use self::error::{Error, Result};

/// Longest wait for a connection, its login included.
const CONNECT: Duration = Duration::from_secs(5);
/// The server sends a heartbeat when it has nothing else for so long.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A connection on which nothing came for so long is dead.
const SILENCE: Duration = Duration::from_secs(10);

/// Which server, and who asks.
#[derive(Clone, Debug)]
pub struct Source {
    /// Address or host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whom to believe.
    pub tls: Arc<ClientConfig>,
    /// Name that the server's certificate must be valid for.
    pub server_name: ServerName<'static>,
    /// Account with REPLICATION SLAVE.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// Who asks. The server ends an older stream of the same asker, so each process is another.
    pub asker: Uuid,
}

/// Whether a stream ends where the binlog does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It goes on with what will be written.
    Forever,
    /// It ends with what there is.
    Now,
}

impl Source {
    /// Asks for all transactions that are not in `held`.
    ///
    /// # Errors
    /// Those of the connection and the server's. That what was asked for has been purged shows at the first event.
    pub async fn events(&self, held: &GtidSet, until: Until) -> Result<Events<BufReader<Box<dyn Stream>>>> {
        let ask = async {
            let credentials = Credentials::new(self.user.as_str(), self.password.clone());
            let address = (self.host.as_str(), self.port);
            let mut packets =
                wire::log_in(address, Arc::clone(&self.tls), self.server_name.clone(), &credentials).await?;
            let mut set = async |statement: String| wire::execute(&mut packets, &statement).await;
            // Checksums as they are in the files; both names, for servers before and after the renaming.
            set("SET @source_binlog_checksum = @@GLOBAL.binlog_checksum".to_owned()).await?;
            set("SET @master_binlog_checksum = @@GLOBAL.binlog_checksum".to_owned()).await?;
            let period = HEARTBEAT.as_nanos();
            set(format!("SET @source_heartbeat_period = {period}, @master_heartbeat_period = {period}")).await?;
            set(format!("SET @replica_uuid = '{0}', @slave_uuid = '{0}'", self.asker)).await?;
            packets.begin();
            packets.write(&dump::request(self.asker, held, until)).await.map_err(Error::io("ask for events"))?;
            Ok(Events::new(packets, SILENCE))
        };
        timeout(CONNECT, ask).await.map_err(|_| Error::Silence { what: "connect", after: CONNECT })?
    }
}

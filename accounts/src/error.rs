//! What goes wrong between a plan and a server.

use common::sql::SqlError;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, or nothing.
    #[error("reading accounts: {0}")]
    Read(#[from] common::mysql::Error),
    /// The grant tables hold what no server that Pelorus knows writes.
    #[error("reading the grant tables: {0}")]
    Held(String),
    /// `GRANT … ON schema.*` would take `%` and `_` as wildcards.
    #[error("partial_revokes is OFF on the server: names of schemas in grants would be patterns")]
    Patterns,
    /// A name that cannot go into SQL.
    #[error(transparent)]
    Name(#[from] SqlError),
}

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;

//! Why a dump cannot be made, or loaded.

use common::mysql::{self, wire};
use common::sql::SqlError;

/// Outcome.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement.
    #[error(transparent)]
    Session(#[from] mysql::Error),
    /// A connection that carries rows.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// Rows of a table.
    #[error("{table}: {source}")]
    Rows {
        /// Which table.
        table: String,
        /// Cause.
        source: wire::Error,
    },
    /// The bucket.
    #[error(transparent)]
    Store(#[from] archive::store::Error),
    /// Compression, and what is not there to be read.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A name that has no place in SQL.
    #[error(transparent)]
    Name(#[from] SqlError),
    /// Something in the server that a dump cannot hold.
    #[error("{0}")]
    Unsupported(String),
    /// An object of a dump that is not there, or not what was put.
    #[error("{key} {what}")]
    Untrusted {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// What was loaded is not what was dumped.
    #[error("{table} has {loaded} rows where the dump has {dumped}")]
    Count {
        /// Which table.
        table: String,
        /// Rows that the server took.
        loaded: u64,
        /// Rows of the dump.
        dumped: u64,
    },
    /// Somebody else has given this dump up, while it was made.
    #[error("the dump {0} was given up meanwhile")]
    GivenUp(String),
    /// What the server answered cannot be right.
    #[error("the server says {0:?}")]
    Answer(String),
    /// A task of ours broke.
    #[error("a task of the dump broke: {0}")]
    Broken(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn untrusted(key: &str, what: impl Into<String>) -> Self {
        Self::Untrusted { key: key.to_owned(), what: what.into() }
    }
}

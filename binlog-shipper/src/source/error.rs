//! Why a stream of events cannot be had, or ended.

use std::io;
use std::time::Duration;

use common::mysql::wire;

/// Outcome.
pub type Result<T> = std::result::Result<T, Error>;

/// `ER_SOURCE_FATAL_ERROR_READING_BINLOG`.
const FATAL: u16 = 1236;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the connection.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The login, or the server.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// What came is none of the protocol.
    #[error("{0} cannot be understood")]
    Protocol(&'static str),
    /// Nothing came for too long: not even a heartbeat.
    #[error("{what}: nothing came for {after:?}")]
    Silence {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// An event's checksum is wrong: the server's disk or the way here altered it.
    #[error("the event of type {kind} that ends at {end} of {file} has a checksum that does not fit")]
    Checksum {
        /// Its type.
        kind: u8,
        /// Where it says to end, low half.
        end: u64,
        /// In which file.
        file: String,
    },
    /// Something that must not be in a stream of events.
    #[error("{file}: {what}")]
    Strange {
        /// In which file.
        file: String,
        /// What.
        what: String,
    },
}

impl Error {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The server does not have transactions any more that were asked for: a gap.
    pub fn is_purged(&self) -> bool {
        matches!(self, Self::Wire(wire::Error::Server { code: FATAL, text }) if text.contains("purged"))
    }
}

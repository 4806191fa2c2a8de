//! What goes wrong on a connection of our own.

use std::io;
use std::time::Duration;

/// Outcome.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
    /// The server said no.
    #[error("the server refused: {code} {text}")]
    Server {
        /// MySQL's number.
        code: u16,
        /// MySQL's text.
        text: String,
    },
    /// The account uses another plugin.
    #[error("the account does not use {0}")]
    Plugin(&'static str),
    /// What came is none of the protocol.
    #[error("{0} cannot be understood")]
    Protocol(&'static str),
    /// No answer in time.
    #[error("{what}: nothing came for {after:?}")]
    Silence {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// What the server's certificate is checked against, or for.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
}

impl Error {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// MySQL's number, where the server has spoken.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            Self::Io { .. } | Self::Plugin(_) | Self::Protocol(_) | Self::Silence { .. } | Self::Tls(_) => None,
        }
    }
}

//! What can go wrong on a session, without a word of the statement that might be a secret.

use std::time::Duration;

use mysql_async::{DriverError, Error as Driver};

/// A failed call. `what` is `connect`, or the first words of the statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer in time. The connection is closed; the server may still be at it.
    #[error("{what}: no answer from {server} within {after:?}")]
    Timeout {
        /// What was asked.
        what: String,
        /// Who was asked.
        server: String,
        /// The deadline that was missed.
        after: Duration,
    },
    /// The server answered with an error. The session is usable after it, unless it was the login.
    #[error("{what}: {server} answered error {code} ({state}): {message}")]
    Server {
        /// What was asked.
        what: String,
        /// Who was asked.
        server: String,
        /// MySQL's error number.
        code: u16,
        /// SQLSTATE.
        state: String,
        /// MySQL's words; left out for errors that quote the statement.
        message: String,
    },
    /// The connection could not be made, or broke.
    #[error("{what}: connection to {server} failed: {reason}")]
    Connection {
        /// What was asked.
        what: String,
        /// Who was asked.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The connection was given up by an earlier failed call.
    #[error("{what}: the connection to {server} was closed after an earlier failure")]
    Closed {
        /// What was asked.
        what: String,
        /// Who was asked.
        server: String,
    },
    /// A row does not have the columns that were expected.
    #[error("{what}: a row from {server} does not have the expected columns")]
    Shape {
        /// What was asked.
        what: String,
        /// Who was asked.
        server: String,
    },
}

/// Errors whose message quotes the statement, where a password may stand: syntax, unknown escape, packet.
const QUOTING: [u16; 4] = [1064, 1149, 1582, 3554];

impl Error {
    pub(super) fn from_driver(what: String, server: String, error: Driver) -> Self {
        match error {
            Driver::Server(error) => {
                let message = if QUOTING.contains(&error.code) {
                    "(not shown: it quotes the statement)".to_owned()
                } else {
                    error.message
                };
                Self::Server { what, server, code: error.code, state: error.state, message }
            }
            // These show values of rows or raw packets.
            Driver::Driver(
                DriverError::FromRow { .. } | DriverError::FromValue { .. } | DriverError::UnexpectedPacket { .. },
            ) => Self::Shape { what, server },
            error => Self::Connection { what, server, reason: error.to_string() },
        }
    }

    /// MySQL's error number, when the server answered with one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            Self::Timeout { .. } | Self::Connection { .. } | Self::Closed { .. } | Self::Shape { .. } => None,
        }
    }

    /// Whether a deadline was missed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

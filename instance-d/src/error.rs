//! What can go wrong in an instance.

use std::path::PathBuf;
use std::time::Duration;

use common::gtid::GtidSet;
use common::instance::RefusalCode;

/// A failed step. Texts go into logs, states and refusals: no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file that does not hold what it should.
    #[error("read {}: {source}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// The environment or the configuration is not usable.
    #[error("configuration: {0}")]
    Configuration(String),
    /// mysqld could not be run.
    #[error("start {program}: {source}")]
    Spawn {
        /// Which program.
        program: String,
        /// Cause.
        source: std::io::Error,
    },
    /// mysqld ended while something was expected of it.
    #[error("mysqld ended ({status}) while {what}{tail}")]
    Exited {
        /// What was going on.
        what: &'static str,
        /// How it ended.
        status: String,
        /// Its last error lines.
        tail: String,
    },
    /// mysqld runs no more, or not yet.
    #[error("mysqld does not run")]
    NotRunning,
    /// A statement or a login.
    #[error(transparent)]
    Mysql(#[from] common::mysql::Error),
    /// A step did not finish in its time.
    #[error("{what} took longer than {after:?}")]
    Slow {
        /// Which step.
        what: &'static str,
        /// The bound.
        after: Duration,
    },
    /// What mysqld answered cannot be right.
    #[error("{0}")]
    Unexpected(String),
    /// Transactions that the source does not have (invariant 6).
    #[error("{} transactions are not in the history of {source_name}: {gtids}; they were never acknowledged or are errant, so this instance does not follow", gtids.count())]
    Errant {
        /// Pod name of the source.
        source_name: String,
        /// The foreign transactions.
        gtids: GtidSet,
    },
    /// What the source has could not be read, so nobody can say what it lacks.
    #[error("what {source_name} has is not known, so this former primary stays down: {source}")]
    Source {
        /// Pod name of the source.
        source_name: String,
        /// Cause.
        source: Box<common::mysql::Error>,
    },
    /// Foreign transactions that no cut provably undoes.
    #[error("{} transactions that {source_name} does not have cannot be cut off the binlog: {reason}; this data is not served any more", gtids.count())]
    NotRewindable {
        /// Pod name of the source.
        source_name: String,
        /// The foreign transactions, as far as they are known.
        gtids: GtidSet,
        /// Why not.
        reason: String,
    },
    /// What is in the bucket, or is not.
    #[error("{0}")]
    Archive(String),
    /// What is to be saved does not fit.
    #[error("{needed} bytes of transactions are to be saved before they are thrown away, and {free} bytes are free")]
    NoRoom {
        /// Bytes to be saved, and what has to stay free.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A newer order took over.
    #[error("a newer order took over")]
    Overtaken,
    /// An order that cannot be obeyed now.
    #[error("{1}")]
    Refused(RefusalCode, String),
}

impl Error {
    /// For the answer of an order.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Refused(code, _) => *code,
            Self::Slow { .. } | Self::Overtaken | Self::NotRunning => RefusalCode::Busy,
            Self::Mysql(error) if error.is_timeout() => RefusalCode::Busy,
            Self::File { .. }
            | Self::Json { .. }
            | Self::Configuration(_)
            | Self::Spawn { .. }
            | Self::Exited { .. }
            | Self::Mysql(_)
            | Self::Unexpected(_)
            | Self::Errant { .. }
            | Self::Source { .. }
            | Self::NotRewindable { .. }
            | Self::Archive(_)
            | Self::NoRoom { .. } => RefusalCode::Failed,
        }
    }

    /// Whether the data is not to be served: it holds what its source does not have.
    pub fn condemns(&self) -> bool {
        matches!(self, Self::Errant { .. } | Self::NotRewindable { .. })
    }

    /// Names the path of an IO error.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

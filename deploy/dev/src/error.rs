//! What can go wrong while the development cluster is built, started, broken on purpose or taken down.

use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant per kind of step; the text says what was attempted and on what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("start {program}: {source}")]
    Spawn {
        /// Name of the program.
        program: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// JSON of our own records or of a program's output could not be read or written.
    #[error("{action}: {source}")]
    Json {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: serde_json::Error,
    },
    /// A certificate could not be made.
    #[error("make certificate {name}: {source}")]
    Certificate {
        /// Which one.
        name: String,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// The Kubernetes API refused or did not answer.
    #[error("{action}: {source}")]
    Kube {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Something did not become true in time.
    #[error("{what} within {seconds} s{hint}")]
    Timeout {
        /// What was waited for, worded as a failure ("etcd did not answer").
        what: String,
        /// For how long.
        seconds: u64,
        /// Where to look next, empty or starting with "; ".
        hint: String,
    },
    /// The cluster, a node, a pod or a volume that was named does not exist here.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// For `map_err` after a file operation.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// For `map_err` after a JSON operation.
    pub(crate) fn json(action: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let action = action.into();
        move |source| Self::Json { action, source }
    }
}

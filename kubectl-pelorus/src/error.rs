//! Why a command ends, and the exit code that says so to a script.

use std::io;

use common::read;
use kube::config::{InferConfigError, KubeconfigError};

/// Outcome.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Which Kubernetes is meant.
    #[error("read the kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// Which Kubernetes is meant, where nobody said it.
    #[error("find a Kubernetes: {0}")]
    Infer(#[from] InferConfigError),
    /// The API server.
    #[error("{what}: {}", said(source))]
    Kubernetes {
        /// What was attempted.
        what: String,
        /// Cause.
        source: kube::Error,
    },
    /// An object that is needed.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// Something is missing on the command line, or cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be, or may not be.
    #[error("{0}")]
    Refused(String),
    /// It came to nothing.
    #[error("{0}")]
    Failed(String),
    /// It was waited for too long.
    #[error("{0}")]
    TimedOut(String),
    /// The person has lost patience.
    #[error("{0}")]
    Interrupted(String),
    /// SQL could not be read, or written.
    #[error("{tunnel}{source}")]
    Dump {
        /// What the way to the server says.
        tunnel: String,
        /// Cause.
        source: Box<dump::Error>,
    },
    /// Standard output.
    #[error("write the result: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// With what was attempted.
    pub fn kubernetes(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kubernetes { what, source }
    }

    /// Exit code; documented in the help and in `docs/cli.md`.
    pub fn code(&self) -> u8 {
        const FAILED: u8 = 1;
        const USAGE: u8 = 2;
        const NOT_FOUND: u8 = 3;
        const REFUSED: u8 = 4;
        match self {
            Self::Kubernetes { source: kube::Error::Api(status), .. } if status.is_not_found() => NOT_FOUND,
            Self::Kubernetes { source: kube::Error::Api(status), .. }
                if status.is_forbidden() || status.is_invalid() || status.is_already_exists() =>
            {
                REFUSED
            }
            Self::Read(read::Error::Missing(_)) | Self::NotFound(_) => NOT_FOUND,
            Self::Usage(_) | Self::Kubeconfig(_) | Self::Infer(_) => USAGE,
            Self::Refused(_) => REFUSED,
            Self::Kubernetes { .. }
            | Self::Read(read::Error::Kubernetes { .. })
            | Self::Failed(_)
            | Self::Dump { .. }
            | Self::Output(_) => FAILED,
            Self::TimedOut(_) => 5,
            // As a shell says of what SIGINT has ended.
            Self::Interrupted(_) => 130,
        }
    }
}

/// In the API server's own words, where it has spoken.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => read::words(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_docs() {
        let api = |reason: &str, code| Error::Kubernetes {
            what: "make MySQLDump x".to_owned(),
            source: kube::Error::Api(Box::new(Status::failure("words", reason).with_code(code))),
        };
        for (error, code) in [
            (Error::Failed(String::new()), 1),
            (Error::Usage(String::new()), 2),
            (Error::NotFound(String::new()), 3),
            (Error::Read(read::Error::Missing(String::new())), 3),
            (api("NotFound", 404), 3),
            (Error::Refused(String::new()), 4),
            (api("AlreadyExists", 409), 4),
            (api("Invalid", 422), 4),
            (api("Forbidden", 403), 4),
            (api("InternalError", 500), 1),
            (Error::TimedOut(String::new()), 5),
            (Error::Interrupted(String::new()), 130),
        ] {
            assert_eq!(error.code(), code, "{error:?}");
        }
        assert_eq!(api("Invalid", 422).to_string(), "make MySQLDump x: words");
    }
}

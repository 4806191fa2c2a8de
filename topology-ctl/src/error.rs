//! Why a reconciliation stopped.

use std::time::Duration;

/// A variant per step. Texts never hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object is not what the schema says; it waits for a change.
    #[error("read the MySQLCluster: {0}")]
    InvalidObject(String),
    /// The object has no namespace or uid.
    #[error("the MySQLCluster has no {0}")]
    Incomplete(&'static str),
    /// A call to the API server.
    #[error("{verb} {kind} {name}: {source}")]
    Kubernetes {
        /// What was attempted.
        verb: &'static str,
        /// On which kind.
        kind: String,
        /// On which object.
        name: String,
        /// Cause.
        source: Box<kube::Error>,
    },
    /// A call to the API server that took too long.
    #[error("{verb} {kind} {name}: no answer within {after:?}")]
    Timeout {
        /// What was attempted.
        verb: &'static str,
        /// On which kind.
        kind: String,
        /// On which object.
        name: String,
        /// The deadline.
        after: Duration,
    },
    /// Certificates.
    #[error("certificate of {name}: {source}")]
    Tls {
        /// Which Secret.
        name: String,
        /// Cause.
        source: common::tls::Error,
    },
    /// A Secret without a key that it must have.
    #[error("Secret {secret} has no usable {key}")]
    Secret {
        /// Which Secret.
        secret: String,
        /// Which key.
        key: &'static str,
    },
    /// An object could not be built.
    #[error("build the objects: {0}")]
    Build(#[from] serde_json::Error),
}

impl Error {
    /// The API server's refusal of what the spec made of an object, in its own words: trying again does not help.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Kubernetes { source, kind, name, .. } => match source.as_ref() {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
                    Some(format!("{kind} {name}: {}", status.message))
                }
                _ => None,
            },
            Self::InvalidObject(_)
            | Self::Incomplete(_)
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Secret { .. }
            | Self::Build(_) => None,
        }
    }

    /// Step that failed, for metrics.
    pub fn step(&self) -> &'static str {
        match self {
            Self::InvalidObject(_) | Self::Incomplete(_) => "read",
            Self::Kubernetes { verb, .. } | Self::Timeout { verb, .. } => verb,
            Self::Tls { .. } | Self::Secret { .. } => "certificates",
            Self::Build(_) => "build",
        }
    }
}

//! Reads of single objects of Kubernetes, each with a deadline.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// Deadline of one call to the API server.
const CALL: Duration = Duration::from_secs(10);

/// Why there is no object, or not what was looked for in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("read {kind} {name}: {reason}")]
    Kubernetes {
        /// What was read.
        kind: String,
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An object that was named is not there, or lacks something.
    #[error("{0}")]
    Missing(String),
}

/// The object of this name.
///
/// # Errors
/// There is none, or the API server does not say.
pub async fn object<K>(client: &Client, namespace: &str, name: &str) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let kind = K::kind(&());
    let failed = |reason: String| Error::Kubernetes { kind: kind.to_string(), name: name.to_owned(), reason };
    match timeout(CALL, api.get_opt(name)).await {
        Ok(Ok(Some(object))) => Ok(object),
        Ok(Ok(None)) => Err(Error::Missing(format!("there is no {kind} {name}"))),
        Ok(Err(error)) => Err(failed(words(&error))),
        Err(_) => Err(failed(format!("no answer within {CALL:?}"))),
    }
}

/// What an error of the client says: with its causes, where the API server was not reached.
pub fn words(error: &kube::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error).filter(|_| !matches!(error, kube::Error::Api(_)));
    while let Some(error) = cause {
        // Some repeat what is below them.
        let more = error.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// A text of a Secret; a newline at its end is not part of it.
///
/// # Errors
/// No such key, or no text.
pub fn text(secret: &Secret, key: &str) -> Result<String, Error> {
    let name = secret.name_any();
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.ok_or_else(|| Error::Missing(format!("Secret {name} has no key {key}")))?;
    let text =
        std::str::from_utf8(&bytes.0).map_err(|_| Error::Missing(format!("{key} of Secret {name} is no text")))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

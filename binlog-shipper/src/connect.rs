//! What a stream needs: the bucket of a location, the way to a primary, and what both have.

use std::sync::Arc;
use std::time::Duration;

use archive::catalogue;
use archive::store::Key;
use archive::{Location, Store};
use binlog_shipper::source::Source;
use common::crd::{MySQLBackupLocation, SecretRef};
use common::gtid::{GtidSet, ParseError};
use common::mysql::{self, Ca, Credentials, Endpoint, Password, Session, Tls};
use common::names::{self, account, object};
use common::tls;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use uuid::Uuid;

/// Deadline of one call to the API server.
const CALL: Duration = Duration::from_secs(10);
/// Deadline of a login, and of one question.
const ASK: Duration = Duration::from_secs(5);

/// Why there can be no stream yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("read {kind} {name}: {reason}")]
    Kubernetes {
        /// What was read.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An object that was named is not there, or lacks something.
    #[error("{0}")]
    Missing(String),
    /// The settings of the bucket.
    #[error(transparent)]
    Store(#[from] archive::store::Error),
    /// What is in the bucket.
    #[error(transparent)]
    Archive(#[from] catalogue::Error),
    /// The primary.
    #[error(transparent)]
    MySql(#[from] mysql::Error),
    /// TLS material of the cluster.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The primary said what cannot be understood.
    #[error("{0} says {1:?}")]
    Answer(String, String),
}

impl Error {
    /// For a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "KubernetesUnreachable",
            Self::Missing(_) => "LocationIncomplete",
            Self::Store(_) | Self::Archive(catalogue::Error::Store(_)) => "BucketUnreachable",
            Self::Archive(_) => "ArchiveUnreadable",
            Self::MySql(_) | Self::Tls(_) | Self::Answer(..) => "PrimaryUnreachable",
        }
    }
}

async fn get<K>(client: &Client, namespace: &str, kind: &'static str, name: &str) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let failed = |reason: String| Error::Kubernetes { kind, name: name.to_owned(), reason };
    match timeout(CALL, api.get_opt(name)).await {
        Ok(Ok(Some(object))) => Ok(object),
        Ok(Ok(None)) => Err(Error::Missing(format!("there is no {kind} {name}"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {CALL:?}"))),
    }
}

/// A text of a Secret.
fn text(secret: &Secret, name: &str, key: &str) -> Result<String, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.ok_or_else(|| Error::Missing(format!("Secret {name} has no key {key}")))?;
    let text =
        std::str::from_utf8(&bytes.0).map_err(|_| Error::Missing(format!("{key} of Secret {name} is no text")))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// The bucket of a location, and the prefix in it.
///
/// # Errors
/// A location that is not there, or lacks something.
pub async fn bucket(client: &Client, namespace: &str, location: &str) -> Result<(Store, String), Error> {
    let object: MySQLBackupLocation = get(client, namespace, "MySQLBackupLocation", location).await?;
    let s3 = object.spec.s3;
    let secret = async |reference: &SecretRef| get::<Secret>(client, namespace, "Secret", &reference.name).await;
    let Some(credentials) = &s3.credentials_secret_ref else {
        return Err(Error::Missing(format!("MySQLBackupLocation {location} has no spec.s3.credentialsSecretRef")));
    };
    let keys = secret(credentials).await?;
    let key = Key {
        id: text(&keys, &credentials.name, "accessKeyId")?,
        secret: Password::new(text(&keys, &credentials.name, "secretAccessKey")?),
        token: text(&keys, &credentials.name, "sessionToken").ok().map(Password::new),
    };
    let authority = match &s3.ca_secret_ref {
        Some(reference) => Some(text(&secret(reference).await?, &reference.name, "ca.crt")?),
        None => None,
    };
    let store = Store::new(&Location {
        bucket: s3.bucket,
        region: s3.region,
        endpoint: s3.endpoint,
        force_path_style: s3.force_path_style,
        key,
        authority,
    })?;
    Ok((store, s3.prefix))
}

/// A primary, as it was when it was asked.
#[derive(Debug)]
pub struct Primary {
    /// How to stream from it.
    pub source: Source,
    /// Its `server_uuid`.
    pub server: Uuid,
    /// What it has executed.
    pub executed: GtidSet,
    /// What of that is in no binlog of its any more.
    pub purged: GtidSet,
    /// For more questions.
    pub session: Session,
}

/// What a primary has executed by now.
///
/// # Errors
/// A server that does not answer.
pub async fn executed(session: &mut Session) -> Result<GtidSet, Error> {
    let answer: Option<(String,)> = session.first("SELECT @@GLOBAL.gtid_executed", ASK).await?;
    let (text,) = answer.unwrap_or_default();
    text.parse().map_err(|_: ParseError| Error::Answer("the primary".to_owned(), text))
}

/// Asks a primary.
///
/// # Errors
/// Secrets that are not there yet, a server that does not answer.
pub async fn primary(client: &Client, namespace: &str, cluster: &str, instance: &str) -> Result<Primary, Error> {
    let (accounts, certificates) = (object::accounts_secret(cluster), object::tls_secret(cluster));
    let passwords: Secret = get(client, namespace, "Secret", &accounts).await?;
    let password = Password::new(text(&passwords, &accounts, account::SHIPPER)?);
    let authority = text(&get(client, namespace, "Secret", &certificates).await?, &certificates, "ca.crt")?;
    let host = names::instance_host(namespace, cluster, instance);
    let endpoint = Endpoint::Tcp {
        host: host.clone(),
        port: names::PORT_MYSQL,
        tls: Tls { ca: Ca::Pem(authority.clone()), server_name: host.clone() },
    };
    let mut session = Session::connect(&endpoint, &Credentials::new(account::SHIPPER, password.clone()), ASK).await?;
    let question = "SELECT @@server_uuid, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged";
    let answer: Option<(String, String, String)> = session.first(question, ASK).await?;
    let (server, executed, purged) = answer.ok_or_else(|| Error::Answer(host.clone(), "nothing".to_owned()))?;
    let odd = |text: &str| Error::Answer(host.clone(), text.to_owned());
    let set = |text: &str| text.parse().map_err(|_: ParseError| odd(text));
    Ok(Primary {
        server: Uuid::parse_str(&server).map_err(|_| odd(&server))?,
        executed: set(&executed)?,
        purged: set(&purged)?,
        session,
        source: Source {
            server_name: tls::server_name(&host)?,
            host,
            port: names::PORT_MYSQL,
            tls: Arc::new(tls::trusting(&authority)?),
            user: account::SHIPPER.to_owned(),
            password,
            asker: Uuid::new_v4(),
        },
    })
}

//! What a stream needs: the bucket of a location, the way to a primary, and what both have.

use std::sync::Arc;
use std::time::Duration;

use archive::catalogue;
use archive::retain::Dump;
use archive::{Root, Store};
use binlog_shipper::source::Source;
use common::access::Access;
use common::gtid::{GtidSet, ParseError};
use common::location::Location;
use common::mysql::{self, Credentials, Session};
use common::names::{self, account};
use common::{read, tls};
use dump::manifest::Found;
use kube::Client;
use uuid::Uuid;

/// Deadline of a login, and of one question.
const ASK: Duration = Duration::from_secs(5);

/// Why there can be no stream yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was named in Kubernetes.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// The settings of the bucket.
    #[error(transparent)]
    Store(#[from] archive::store::Error),
    /// What is in the bucket.
    #[error(transparent)]
    Archive(#[from] catalogue::Error),
    /// A dump in it.
    #[error(transparent)]
    Dump(#[from] dump::Error),
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
            Self::Read(read::Error::Kubernetes { .. }) => "KubernetesUnreachable",
            Self::Read(read::Error::Missing(_)) => "LocationIncomplete",
            Self::Store(_) | Self::Archive(catalogue::Error::Store(_)) => "BucketUnreachable",
            Self::Archive(_) | Self::Dump(_) => "ArchiveUnreadable",
            Self::MySql(_) | Self::Tls(_) | Self::Answer(..) => "PrimaryUnreachable",
        }
    }
}

/// The bucket of a location, and the prefix in it.
///
/// # Errors
/// A location that is not there, or lacks something.
pub async fn bucket(client: &Client, namespace: &str, location: &str) -> Result<(Store, String), Error> {
    let location = Location::resolve(client, namespace, location).await?;
    Ok((Store::new(&location)?, location.prefix))
}

/// The dumps of an archive that a restore can begin with, in the order of time.
///
/// # Errors
/// The bucket's; a manifest that cannot be understood.
pub async fn dumps(store: &Store, root: &Root) -> Result<Vec<Dump>, Error> {
    let mut dumps = Vec::new();
    for id in store.folders(&root.dumps()).await? {
        if let Some(Found { manifest, .. }) = dump::load::manifest(store, root, &id).await?
            && manifest.whole
        {
            dumps.push(Dump { gtid: manifest.gtid, taken_at: manifest.taken_at });
        }
    }
    Ok(dumps)
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

/// A session on an instance, and how to stream from it.
///
/// # Errors
/// Secrets that are not there yet, a server that does not answer.
pub async fn instance(
    client: &Client,
    namespace: &str,
    cluster: &str,
    instance: &str,
) -> Result<(Session, Source), Error> {
    let access = Access::of(client, namespace, cluster, instance, account::SHIPPER).await?;
    let session = Session::connect(&access.endpoint(), &access.credentials, ASK).await?;
    let Access { host, authority, credentials: Credentials { user, password } } = access;
    let source = Source {
        server_name: tls::server_name(&host)?,
        host,
        port: names::PORT_MYSQL,
        tls: Arc::new(tls::trusting(&authority)?),
        user,
        password,
        asker: Uuid::new_v4(),
    };
    Ok((session, source))
}

/// Asks a primary.
///
/// # Errors
/// Secrets that are not there yet, a server that does not answer.
pub async fn primary(client: &Client, namespace: &str, cluster: &str, primary: &str) -> Result<Primary, Error> {
    let (mut session, source) = instance(client, namespace, cluster, primary).await?;
    let question = "SELECT @@server_uuid, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged";
    let answer: Option<(String, String, String)> = session.first(question, ASK).await?;
    let (server, executed, purged) = answer.ok_or_else(|| Error::Answer(source.host.clone(), "nothing".to_owned()))?;
    let odd = |text: &str| Error::Answer(source.host.clone(), text.to_owned());
    let set = |text: &str| text.parse().map_err(|_: ParseError| odd(text));
    Ok(Primary {
        server: Uuid::parse_str(&server).map_err(|_| odd(&server))?,
        executed: set(&executed)?,
        purged: set(&purged)?,
        session,
        source,
    })
}

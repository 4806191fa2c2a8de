//! Client of the instance API.
//!
//! Connects to an address and verifies the certificate for the instance's stable host name, so that no name has to be
//! resolved on the way (the control path needs no DNS). Every call has a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::instance::{
    AcksOrder, ArchiveOrder, CloneOrder, ConfigAnswer, ConfigRequest, CopyOrder, DemoteOrder, FenceOrder, FollowOrder,
    InitialiseOrder, InstanceState, PromoteOrder, Refusal, RestoreOrder,
};
use crate::tls;

/// Header of an order: the operation that it belongs to, for logs.
pub const OPERATION_HEADER: &str = "pelorus-operation";

/// Longest line of the state stream. A state is a few KiB; GTID sets with many gaps make it larger.
const LINE_MAX: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there: the pod's processes are gone.
    #[error("connect to {0}: connection refused")]
    ConnectionRefused(SocketAddr),
    /// The connection could not be made.
    #[error("connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// No answer in time.
    #[error("{what} at {address}: no answer within {after:?}")]
    Timeout {
        /// The call.
        what: String,
        /// Where.
        address: SocketAddr,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke, or spoke no HTTP.
    #[error("{0}: {1}")]
    Http(String, hyper::Error),
    /// The body is not what the API says.
    #[error("{0}: unexpected answer: {1}")]
    Decode(String, String),
    /// The instance refused the order.
    #[error("refused ({:?}): {}", .0.code, .0.message)]
    Refused(Refusal),
    /// The stream ended.
    #[error("the state stream ended")]
    StreamEnded,
    /// TLS material or name.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// A caller of one instance's API.
#[derive(Clone)]
pub struct InstanceClient {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    operation: Option<String>,
}

impl InstanceClient {
    /// `host` is the name that the instance's certificate must be valid for ([`crate::names::instance_host`]).
    ///
    /// # Errors
    /// A host that is no DNS name.
    pub fn new(address: SocketAddr, host: &str, tls: Arc<ClientConfig>) -> Result<Self, Error> {
        Ok(Self { address, name: tls::server_name(host)?, tls, operation: None })
    }

    /// The same for calls of one operation, which the instance names in its logs.
    #[must_use]
    pub fn within(mut self, operation: Option<String>) -> Self {
        self.operation = operation;
        self
    }

    /// The operation that calls belong to.
    pub fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let connect = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused(self.address),
            _ => Error::Connect(self.address, error),
        };
        let tcp = TcpStream::connect(self.address).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let stream =
            TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), tcp).await.map_err(connect)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::Http("handshake".into(), error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<hyper::body::Incoming>, Error> {
        let mut sender = self.connect().await?;
        let mut request = Request::builder();
        if let Some(operation) = &self.operation {
            request = request.header(OPERATION_HEADER, operation);
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", "instance")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Decode(path.to_owned(), error.to_string()))?;
        sender.send_request(request).await.map_err(|error| Error::Http(path.to_owned(), error))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T, Error> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let body =
                response.into_body().collect().await.map_err(|error| Error::Http(path.to_owned(), error))?.to_bytes();
            decode(path, status, &body)
        };
        tokio::time::timeout(timeout, exchange).await.map_err(|_| Error::Timeout {
            what: path.to_owned(),
            address: self.address,
            after: timeout,
        })?
    }

    async fn post<O: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        order: &O,
        timeout: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(order).map_err(|error| Error::Decode(path.to_owned(), error.to_string()))?;
        self.call(Method::POST, path, body.into(), timeout).await
    }

    /// The state as last observed.
    pub async fn state(&self, timeout: Duration) -> Result<InstanceState, Error> {
        self.call(Method::GET, "/v1/state", Bytes::new(), timeout).await
    }

    /// What mysqld says now, rather than at its last observation.
    pub async fn look(&self, timeout: Duration) -> Result<InstanceState, Error> {
        self.call(Method::GET, "/v1/state?now", Bytes::new(), timeout).await
    }

    /// The state now and whenever it changes, and each [`crate::instance::HEARTBEAT`]. The deadline is for the answer's
    /// head only: the reader judges silence by its own clock.
    pub async fn stream(
        &self,
        timeout: Duration,
    ) -> Result<impl Stream<Item = Result<InstanceState, Error>> + Send + use<>, Error> {
        let response = tokio::time::timeout(timeout, self.send(Method::GET, "/v1/stream", Bytes::new()))
            .await
            .map_err(|_| Error::Timeout { what: "/v1/stream".into(), address: self.address, after: timeout })??;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.into_body().collect().await.map_err(|error| Error::Http("/v1/stream".into(), error))?;
            return match decode::<InstanceState>("/v1/stream", status, &body.to_bytes()) {
                Ok(_) => Err(Error::StreamEnded),
                Err(error) => Err(error),
            };
        }
        Ok(lines(response.into_body()))
    }

    /// See [`InitialiseOrder`].
    pub async fn initialise(&self, order: &InitialiseOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/initialise", order, timeout).await
    }

    /// See [`RestoreOrder`].
    pub async fn restore(&self, order: &RestoreOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/restore", order, timeout).await
    }

    /// See [`CopyOrder`].
    pub async fn copy(&self, order: &CopyOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/copy", order, timeout).await
    }

    /// See [`ArchiveOrder`].
    pub async fn archive(&self, order: &ArchiveOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/archive", order, timeout).await
    }

    /// See [`CloneOrder`].
    pub async fn clone_from(&self, order: &CloneOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/clone", order, timeout).await
    }

    /// See [`FenceOrder`].
    pub async fn fence(&self, order: &FenceOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/fence", order, timeout).await
    }

    /// See [`FollowOrder`].
    pub async fn follow(&self, order: &FollowOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/follow", order, timeout).await
    }

    /// See [`PromoteOrder`].
    pub async fn promote(&self, order: &PromoteOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/promote", order, timeout).await
    }

    /// See [`AcksOrder`].
    pub async fn acks(&self, order: &AcksOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/acks", order, timeout).await
    }

    /// See [`DemoteOrder`].
    pub async fn demote(&self, order: &DemoteOrder, timeout: Duration) -> Result<InstanceState, Error> {
        self.post("/v1/demote", order, timeout).await
    }

    /// Verdict on each setting, without a change.
    pub async fn check_config(&self, request: &ConfigRequest, timeout: Duration) -> Result<ConfigAnswer, Error> {
        self.post("/v1/config/check", request, timeout).await
    }

    /// Sets the dynamic ones.
    pub async fn apply_config(&self, request: &ConfigRequest, timeout: Duration) -> Result<ConfigAnswer, Error> {
        self.post("/v1/config/apply", request, timeout).await
    }
}

fn decode<T: DeserializeOwned>(path: &str, status: StatusCode, body: &[u8]) -> Result<T, Error> {
    let unexpected = |error: &dyn std::fmt::Display| Error::Decode(path.to_owned(), format!("{status}: {error}"));
    if status.is_success() {
        serde_json::from_slice(body).map_err(|error| unexpected(&error))
    } else {
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Err(Error::Refused(refusal)),
            Err(error) => Err(unexpected(&error)),
        }
    }
}

fn lines(body: hyper::body::Incoming) -> impl Stream<Item = Result<InstanceState, Error>> + Send {
    let frames = BodyStream::new(body);
    futures::stream::unfold((frames, Vec::<u8>::new()), |(mut frames, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let state = serde_json::from_slice(&line)
                    .map_err(|error| Error::Decode("/v1/stream".into(), error.to_string()));
                return Some((state, (frames, buffer)));
            }
            if buffer.len() > LINE_MAX {
                let error = Error::Decode("/v1/stream".into(), format!("a line of more than {LINE_MAX} bytes"));
                return Some((Err(error), (frames, Vec::new())));
            }
            match frames.next().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Some((Err(Error::Http("/v1/stream".into(), error)), (frames, buffer))),
                None => return None,
            }
        }
    })
}

//! The instance API over mutual TLS, see [`common::instance`].
//!
//! Probes and metrics are open to anyone who speaks TLS; everything else asks for the certificate of a daemon, and each
//! daemon may give its own orders only.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use common::client::OPERATION_HEADER;
use common::instance::{
    AcksOrder, ArchiveOrder, CloneOrder, ConfigRequest, CopyOrder, DemoteOrder, FenceOrder, FollowOrder, HEARTBEAT,
    InitialiseOrder, PromoteOrder, Refusal, RefusalCode, RestoreOrder,
};
use common::names::daemon::{FAILOVER_D, TOPOLOGY_CTL};
use common::tls;
use futures::{Stream, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::isolation::{self, Listener};
use crate::observe;
use crate::orders::{self, RoleOrder};

/// Longest TLS handshake, and longest wait for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for an observation that is asked for.
const LOOK: Duration = Duration::from_millis(500);
/// Longest body of an order. GTID sets with very many gaps are large.
const BODY_MAX: usize = 32 << 20;
/// After a failed accept (out of file descriptors).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The TLS configuration in force; replaced when certificates change.
pub type CurrentTls = Arc<RwLock<Arc<ServerConfig>>>;

/// Which daemon the connection's certificate belongs to.
#[derive(Clone, Copy, Debug)]
struct Caller(Option<&'static str>);

type Shared = State<Arc<Instance>>;

/// All routes.
fn router(instance: Arc<Instance>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/state", get(state))
        .route("/v1/stream", get(stream))
        .route("/v1/initialise", post(initialise))
        .route("/v1/restore", post(restore))
        .route("/v1/copy", post(copy))
        .route("/v1/archive", post(archive))
        .route("/v1/clone", post(clone))
        .route("/v1/config/check", post(check_config))
        .route("/v1/config/apply", post(apply_config))
        .route(
            "/v1/fence",
            post(|state: Shared, request: Request| role_order::<FenceOrder>(state, request, RoleOrder::Fence)),
        )
        .route(
            "/v1/follow",
            post(|state: Shared, request: Request| role_order::<FollowOrder>(state, request, RoleOrder::Follow)),
        )
        .route(
            "/v1/promote",
            post(|state: Shared, request: Request| role_order::<PromoteOrder>(state, request, RoleOrder::Promote)),
        )
        .route(
            "/v1/acks",
            post(|state: Shared, request: Request| role_order::<AcksOrder>(state, request, RoleOrder::Acks)),
        )
        .route(
            "/v1/demote",
            post(|state: Shared, request: Request| role_order::<DemoteOrder>(state, request, RoleOrder::Demote)),
        )
        .with_state(instance)
}

async fn ready(State(instance): Shared) -> Response {
    if instance.is_ready() {
        "ready\n".into_response()
    } else {
        let phase = instance.look(|facts| facts.phase);
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {phase:?}\n")).into_response()
    }
}

async fn metrics(State(instance): Shared) -> Response {
    let text = instance.metrics.scrape(&instance.report());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn state(State(instance): Shared, request: Request) -> Response {
    match allow(&instance, &request, &[FAILOVER_D, TOPOLOGY_CTL]) {
        Ok(()) => {
            if request.uri().query() == Some("now") {
                observe::now(&instance, LOOK).await;
            }
            json(StatusCode::OK, &instance.report())
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn stream(State(instance): Shared, request: Request) -> Response {
    match allow(&instance, &request, &[FAILOVER_D, TOPOLOGY_CTL]) {
        Ok(()) => {
            let caller = request.extensions().get::<Caller>().and_then(|caller| caller.0);
            let listener = (caller == Some(FAILOVER_D)).then(|| Listener::new(Arc::clone(&instance)));
            let states = states(instance).inspect(move |_| {
                let _held_as_long_as_the_stream = &listener;
            });
            ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(states)).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

/// A line at once, on every change, and each heartbeat.
fn states(instance: Arc<Instance>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let changes = instance.watch();
    futures::stream::unfold((instance, changes, true), |(instance, mut changes, first)| async move {
        if !first {
            // Both outcomes make a line; the sender lives as long as the instance.
            let _ = tokio::time::timeout(HEARTBEAT, changes.changed()).await;
        }
        changes.mark_unchanged();
        let mut line = serde_json::to_vec(&instance.report()).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), (instance, changes, false)))
    })
}

async fn initialise(State(instance): Shared, request: Request) -> Response {
    match body::<InitialiseOrder>(&instance, request, TOPOLOGY_CTL).await {
        Ok(InitialiseOrder {}) => answered(orders::initialise(&instance).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn restore(State(instance): Shared, request: Request) -> Response {
    match body::<RestoreOrder>(&instance, request, TOPOLOGY_CTL).await {
        Ok(order) => answered(orders::restore(&instance, order).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn copy(State(instance): Shared, request: Request) -> Response {
    match body::<CopyOrder>(&instance, request, TOPOLOGY_CTL).await {
        Ok(order) => answered(orders::copy(&instance, order).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn archive(State(instance): Shared, request: Request) -> Response {
    match body::<ArchiveOrder>(&instance, request, TOPOLOGY_CTL).await {
        Ok(order) => answered(orders::archive(&instance, order).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn clone(State(instance): Shared, request: Request) -> Response {
    match body::<CloneOrder>(&instance, request, TOPOLOGY_CTL).await {
        Ok(order) => answered(orders::clone(&instance, order).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn check_config(State(instance): Shared, request: Request) -> Response {
    match body::<ConfigRequest>(&instance, request, TOPOLOGY_CTL).await {
        Ok(asked) => answered(orders::check_config(&instance, &asked).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn apply_config(State(instance): Shared, request: Request) -> Response {
    match body::<ConfigRequest>(&instance, request, TOPOLOGY_CTL).await {
        Ok(asked) => answered(orders::apply_config(&instance, &asked).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn role_order<O: DeserializeOwned>(
    State(instance): Shared,
    request: Request,
    order: impl FnOnce(O) -> RoleOrder,
) -> Response {
    let operation = request.headers().get(OPERATION_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match body::<O>(&instance, request, FAILOVER_D).await {
        Ok(asked) => {
            let span = operation.map_or_else(Span::none, |operation| tracing::info_span!("order", operation));
            answered(orders::obey(&instance, order(asked)).instrument(span).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

fn refusal(instance: &Instance, code: RefusalCode, message: String) -> Refusal {
    Refusal { code, message, promised: instance.look(|facts| facts.promise.epoch) }
}

fn allow(instance: &Instance, request: &Request, daemons: &[&str]) -> Result<(), Refusal> {
    let caller = request.extensions().get::<Caller>().and_then(|caller| caller.0);
    if caller.is_some_and(|caller| daemons.contains(&caller)) {
        return Ok(());
    }
    let caller = caller.unwrap_or("nobody");
    tracing::warn!(caller, path = request.uri().path(), "forbidden");
    let message = format!("{} is not for {caller}, only for {}", request.uri().path(), daemons.join(" and "));
    Err(refusal(instance, RefusalCode::Forbidden, message))
}

async fn body<T: DeserializeOwned>(instance: &Instance, request: Request, daemon: &str) -> Result<T, Refusal> {
    allow(instance, &request, &[daemon])?;
    let bad = |message: String| refusal(instance, RefusalCode::BadRequest, message);
    let bytes = tokio::time::timeout(PATIENCE, axum::body::to_bytes(request.into_body(), BODY_MAX))
        .await
        .map_err(|_| bad("the body did not arrive in time".to_owned()))?
        .map_err(|error| bad(format!("the body could not be read: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("the body was not understood: {error}")))
}

fn answered<T: Serialize>(answer: Result<T, Refusal>) -> Response {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        RefusalCode::Forbidden => StatusCode::FORBIDDEN,
        RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
        RefusalCode::EpochTooLow
        | RefusalCode::Conflict
        | RefusalCode::HoldsData
        | RefusalCode::NoData
        | RefusalCode::Busy
        | RefusalCode::Declined
        | RefusalCode::Failed => StatusCode::CONFLICT,
    };
    json(status, refusal)
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Binds the API's socket; where there is no IPv6, on IPv4 alone.
///
/// # Errors
/// The address is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bind = |error: io::Error| Error::Configuration(format!("listen on {address}: {error}"));
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(bind)
        }
        bound => bound.map_err(bind),
    }
}

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, tls: CurrentTls, instance: Arc<Instance>) {
    let router = router(Arc::clone(&instance));
    loop {
        match listener.accept().await {
            Ok((connection, peer)) => {
                let config = Arc::clone(&tls.read().unwrap_or_else(PoisonError::into_inner));
                let router = router.clone();
                // A peer that acknowledges nothing for so long is not heard any more.
                let limit = u32::try_from(isolation::limit(&instance).as_millis()).unwrap_or(u32::MAX);
                if let Err(error) = setsockopt(&connection, sockopt::TcpUserTimeout, &limit) {
                    tracing::warn!(%error, "a silent peer will be noticed late");
                }
                tokio::spawn(async move {
                    if let Err(error) = connection_from(connection, config, router).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection_from(connection: TcpStream, config: Arc<ServerConfig>, router: Router) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let stream = tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(connection))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let caller = Caller(tls::peer_daemon(stream.get_ref().1.peer_certificates()));
    let service = TowerToHyperService::new(router.layer(axum::Extension(caller)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

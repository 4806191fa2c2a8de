//! Probes and metrics of a controller on [`crate::names::PORT_DAEMON_HTTP`].
//!
//! ```text
//! GET /livez    200 while the runtime answers: a daemon that lost a task ends itself
//! GET /readyz   200 once the daemon has said so, else 503
//! GET /metrics  OpenMetrics text
//! ```

mod process;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::process::register_process_metrics;

/// Media type of what [`metrics`] answers.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the daemon is ready; clones share the answer. Not ready at first.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether the daemon does its job.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// What was said last.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken, mostly.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server broke.
    #[error("serving probes and metrics failed")]
    Serve(#[source] io::Error),
}

/// A registry that holds the metrics of the process and what this build is.
pub fn registry(daemon: &'static str) -> Registry {
    let mut registry = Registry::default();
    register_process_metrics(&mut registry);
    let labels = [("daemon", daemon), ("version", env!("CARGO_PKG_VERSION")), ("commit", crate::telemetry::COMMIT)];
    let build = prometheus_client::metrics::info::Info::new(labels);
    registry.register("pelorus_build", "What is running", build);
    registry
}

/// The answer to a scrape.
pub fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The three paths, for a server of any kind.
pub fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    let readyz = |State(readiness): State<Readiness>| async move {
        if readiness.get() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(|State(registry): State<Arc<Registry>>| async move { metrics(&registry) }))
        .with_state(registry)
}

/// Serves probes and metrics until `stop`. Port 0 is a free one.
pub async fn serve(
    port: u16,
    readiness: Readiness,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let listener = listen(port).await?;
    axum::serve(listener, router(readiness, registry))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(Error::Serve)
}

/// Listens on all addresses, of both families where there are two.
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(|source| Error::Listen { port, source })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_answer() {
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let port = {
            let listener = listen(0).await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let server = tokio::spawn(serve(port, readiness.clone(), Arc::new(registry("test-d")), stop.clone()));
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ask(port, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(ask(port, "/readyz").await.starts_with("HTTP/1.1 503"));
        readiness.set(true);
        assert!(ask(port, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(port, "/metrics").await;
        let value = |name: &str| -> f64 {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {metrics}")).rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_open_fds") > 2.0 && value("process_max_fds") > 2.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(metrics.contains("pelorus_build_info{daemon=\"test-d\"") && metrics.ends_with("# EOF\n"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}

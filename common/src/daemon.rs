//! What every controller's `main` needs: a client for watches, and a life under a Lease that ends by signal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::http::{self, Readiness};
use crate::lease::{self, Ended, Lease};

/// Longer than the API server keeps a silent watch open.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(330);

/// A client for watches and bounded calls: no retries behind our back.
///
/// # Errors
/// No API server is configured, or TLS cannot be set up.
pub async fn watching_client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await?;
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(WATCH_READ_TIMEOUT);
    config.write_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

/// An API of all namespaces, or of one.
pub fn everywhere<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

/// A controller of which one replica works and the others wait.
pub struct Controller {
    /// Port of probes and metrics.
    pub http_port: u16,
    /// What is served there.
    pub registry: Registry,
    /// The Lease that says who works.
    pub lease: lease::Config,
    /// 1 while this replica works.
    pub leader: Gauge,
}

impl Controller {
    /// Serves probes and metrics, and works while the Lease is held. `work` has to come to an end when its token is cancelled.
    /// Returns when the process was asked to stop.
    ///
    /// # Errors
    /// Whatever else ended it: a fresh process looks anew.
    pub async fn run<W: Future<Output = ()>>(self, work: impl FnOnce(CancellationToken) -> W) -> anyhow::Result<()> {
        let Self { http_port, registry, lease, leader } = self;
        let (stop, readiness) = (CancellationToken::new(), Readiness::default());
        let server = tokio::spawn(http::serve(http_port, readiness.clone(), Arc::new(registry), stop.clone()));
        let lease = Lease::new(lease::client().await?, lease);
        tokio::spawn(stop_on_signal(stop.clone()));
        // A standby is ready: it takes over when asked.
        readiness.set(true);
        // Work is whatever the daemon does: of any size.
        let term = lease.run(stop.clone(), async |term| {
            leader.set(1);
            work(term.token).await;
            leader.set(0);
        });
        let ended = Box::pin(term).await;
        stop.cancel();
        server.await.context("the server of probes and metrics panicked")??;
        match ended {
            Ended::Stopped => Ok(()),
            // What was known may be stale.
            Ended::Lost => anyhow::bail!("leadership was lost"),
            Ended::Finished => anyhow::bail!("the controller ended by itself"),
        }
    }
}

/// Cancels the token at SIGTERM and SIGINT.
async fn stop_on_signal(stop: CancellationToken) {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => info!("SIGTERM"),
        () = wait(SignalKind::interrupt()) => info!("SIGINT"),
    }
    stop.cancel();
}

/// What is configured, or the pod's name, or the daemon's.
pub fn identity(configured: Option<&str>, daemon: &str) -> String {
    let host = || std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    configured.map(str::to_owned).or_else(host).unwrap_or_else(|| daemon.to_owned())
}
